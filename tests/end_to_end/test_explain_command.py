"""`explain` and `run --dry-run --set`, as typed."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from uuid import UUID

import httpx
import pytest
import trio

from tests.end_to_end.conftest import StartService, as_service, command, query, seed
from tests.postgres.conftest import PATIENCE

IDLE, PAUSED = UUID(int=1), UUID(int=2)
NOBODY = "00000000-0000-0000-0000-00000000000f"
TOKEN = "operator-token-of-32-characters!"

# Idle for 12 days, so that 10 days are over and 14 are not; five activities, which are one of [5, 20].
TWELVE_DAYS = (
    "insert into public.peer_mentors (id, user_id, status, created_at) "
    f"values ('{IDLE}', '{IDLE}', 'active', now() - interval '90 days'), "
    f"('{PAUSED}', '{PAUSED}', 'paused', null)",
    "insert into public.assignments (id, mentor_id, status, expires_at) "
    f"values (gen_random_uuid(), '{IDLE}', 'active', '2999-01-01')",
    "insert into public.activities (user_id, activity_date) "
    f"select '{IDLE}', (now() at time zone 'utc')::date - 12 from generate_series(1, 5)",
)


def prepare(url: str, *, idle_for_a_month: int = 3) -> str:
    """Mentors in a database; its URL for the service."""

    async def fill() -> str:
        for statement in TWELVE_DAYS:
            await query(url, statement)
        await seed(url, idle_for_a_month)
        return await as_service(url)

    return trio.run(fill)


def test_explain_says_first_whether_the_walk_reaches_the_mentor_and_then_a_paragraph_per_scenario(
    database_url: str,
) -> None:
    database = {"DATABASE_URL": prepare(database_url)}
    command("run", **database, TZ="UTC")
    trio.run(query, database_url, f"insert into scheduler.cooldowns values ('{IDLE}', 'expiry', now())")
    done = command("explain", str(IDLE), **database, TZ="UTC")
    assert (done.returncode, done.stderr) == (0, "")
    head, *paragraphs = done.stdout.split("\n\n")
    assert head.startswith("The walk reaches this mentor.\nThe last walk past its id was that of the run 01")
    assert [each.partition("\n")[0] for each in paragraphs] == [
        "expiry: not due",
        "inactivity: not due",
        "milestone: not due",
    ]
    assert "No active assignment" not in paragraphs[0]
    assert re.search(r"Cooldown of 7 days: until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.", paragraphs[0])
    assert "(14 days ago)" in paragraphs[1]
    assert "Cooldown of 7 days: not running.\n  Never sent." in paragraphs[1]


def test_explain_tells_what_was_sent_on_the_clock_of_who_asks(database_url: str) -> None:
    database = {"DATABASE_URL": prepare(database_url)}
    trio.run(query, database_url, f"delete from public.activities where user_id = '{IDLE}'")
    run_id = json.loads(command("run", "--json", **database).stdout)["run_id"]
    here, there = (command("explain", str(IDLE), **database, TZ=zone).stdout for zone in ("UTC", "XST-10"))
    assert "inactivity: due, but a cooldown suppresses it\n" in here
    assert f"by the run {run_id}: " in here
    instants, same_instants = (
        re.findall(r"(?:until|sent|begun) (\S+ \d\d:\d\d:\d\d)", each) for each in (here, there)
    )
    assert len(instants) == 3
    for instant, same_instant in zip(instants, same_instants, strict=True):
        assert datetime.fromisoformat(same_instant) - datetime.fromisoformat(instant) == timedelta(hours=10)


def test_explain_of_a_mentor_that_is_not_walked_says_why_and_the_mend(database_url: str) -> None:
    done = command("explain", str(PAUSED), DATABASE_URL=prepare(database_url))
    assert done.returncode == 0
    assert done.stdout.startswith(
        "The walk does not reach this mentor. Its status is paused, and only active mentors are walked: "
        "make it active. It has no assignment: give it one whose status is eligible (active).\n"
    )
    assert "inactivity: not due: only active mentors are\n" in done.stdout


def test_explain_as_json_is_what_the_operator_is_told_over_http(
    database_url: str, start_service: StartService
) -> None:
    url = prepare(database_url)
    shown = json.loads(command("explain", str(IDLE), "--json", DATABASE_URL=url).stdout)
    assert (shown["mentor_id"], shown["is_reached"]) == (str(IDLE), True)

    async def ask() -> tuple[httpx.Response, str]:
        service = await start_service(DATABASE_URL=database_url, SCHEDULER_OPERATOR_TOKEN=TOKEN)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answers = [
                await client.post(f"{service.url}/explain", headers=headers, json={"mentor_id": id})
                for id in (str(IDLE), NOBODY)
            ]
        assert (answers[1].status_code, answers[1].json()["error"]) == (404, "mentor_not_found")
        return answers[0], service.log()

    answer, log = trio.run(ask)
    assert answer.status_code == 200
    without_now = r'"older_than": "[^"]*"'
    assert json.loads(re.sub(without_now, "", json.dumps(answer.json())).replace(", , ", ", ")) == json.loads(
        re.sub(without_now, "", json.dumps(shown)).replace(", , ", ", ")
    )
    for id in (IDLE, UUID(NOBODY)):
        assert str(id) not in log


def test_explain_of_nobody_says_so_and_exits_with_1(database_url: str) -> None:
    done = command("explain", NOBODY, DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "scheduler.mentors" in done.stderr


def test_explain_of_what_is_no_id_exits_with_2() -> None:
    assert command("explain", "somebody").returncode == 2
    assert command("explain").returncode == 2


def test_explain_without_a_database_says_so_and_exits_with_3() -> None:
    done = command("explain", NOBODY)
    assert done.returncode == 3
    assert "DATABASE_URL is not set" in done.stderr


def test_explain_has_help() -> None:
    assert "MENTOR" in command("explain", "--help").stdout


# --- Another configuration ---


def test_a_dry_run_shows_what_another_configuration_would_send_beside_what_goes_out_now(
    database_url: str,
) -> None:
    url = prepare(database_url)
    tried = [
        "--set",
        "inactivity.days=10",
        "--set",
        "inactivity.cooldown=3d",
        "--set",
        "milestone.counts=[5,20]",
    ]
    done = command("run", "--dry-run", *tried, DATABASE_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("  ") for line in done.stdout.splitlines() if "now" in line]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["expiry", "0 now, 0 with this", "0 now, 0 with this"],
        ["inactivity", "3 now, 4 with this", "0 now, 0 with this"],
        ["milestone", "0 now, 1 with this", "0 now, 0 with this"],
    ]
    ran = json.loads(command("run", "--json", DATABASE_URL=url).stdout)
    assert ran["total_dispatched"] == 3


def test_a_dry_run_of_another_configuration_as_json_has_both_summaries_and_the_counts(
    database_url: str,
) -> None:
    url = prepare(database_url)
    command("run", DATABASE_URL=url)
    arguments = ["--dry-run", "--json", "--scenario", "inactivity", "--set", "inactivity.days=10"]
    done = command("run", *arguments, DATABASE_URL=url)
    shown = json.loads(done.stdout)
    assert list(shown) == ["overrides", "now", "tried", "scenarios"]
    assert shown["overrides"] == {"inactivity": {"params": {"days": 10}}}
    assert (shown["now"]["total_dispatched"], shown["tried"]["total_dispatched"]) == (0, 1)
    assert shown["scenarios"] == {
        "inactivity": {"dispatched": {"now": 0, "tried": 1}, "suppressed": {"now": 3, "tried": 3}}
    }


def test_a_partial_walk_is_said_to_give_lower_bounds_and_exits_with_1(database_url: str) -> None:
    budget = {
        "SCHEDULER_SOFT_THRESHOLD": "0.000001",
        "SCHEDULER_HARD_DEADLINE": "5",
        "SCHEDULER_PLATFORM_LIMIT": "7",
    }
    url = prepare(database_url)
    done = command("run", "--dry-run", "--set", "expiry.days=10", DATABASE_URL=url, **budget)
    assert done.returncode == 1
    assert "now: partial (soft_threshold), 4 mentors were not looked at" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("birthday.days=10", "it evaluates: expiry, inactivity, milestone."),
        ("inactivity.dayz=10", "it has: days, cooldown."),
        ("inactivity.days=soon", "takes a whole number, such as 14."),
        ("inactivity.days=-5", "takes no number below zero"),
        ("inactivity.days=99999999999", "SQLSTATE 22003"),
        ("inactivity.days=2147483647", "SQLSTATE 22008"),
        ("milestone.counts=[5,99999999999]", "SQLSTATE 22003"),
        ("inactivity.cooldown=12h", "a day or more"),
        ("inactivity.cooldown=soon", "a day or more"),
    ],
)
def test_a_configuration_that_can_not_be_tried_is_one_sentence_and_exits_with_2(
    assignment: str, sentence: str, database_url: str
) -> None:
    done = command("run", "--dry-run", "--set", assignment, DATABASE_URL=prepare(database_url))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


def test_an_override_that_is_given_twice_is_one_sentence_and_exits_with_2(database_url: str) -> None:
    arguments = ["--set", "inactivity.days=10", "--set", "inactivity.days=3"]
    done = command("run", "--dry-run", *arguments, DATABASE_URL=prepare(database_url))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["inactivity.days is given twice; a dry run tries one value of each."]


def test_an_override_of_a_scenario_that_the_run_leaves_out_is_refused(database_url: str) -> None:
    arguments = ["--dry-run", "--scenario", "expiry", "--set", "inactivity.days=10"]
    done = command("run", *arguments, DATABASE_URL=database_url)
    assert done.returncode == 2
    assert "it evaluates: expiry." in done.stderr


def test_another_configuration_without_a_dry_run_is_wrong_usage() -> None:
    done = command(
        "run", "--set", "inactivity.days=10", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere"
    )
    assert done.returncode == 2
    assert "--dry-run" in done.stderr


def test_another_configuration_for_a_trigger_engine_over_http_is_refused(database_url: str) -> None:
    done = command(
        *("run", "--dry-run", "--set", "inactivity.days=10"),
        DATABASE_URL=database_url,
        SCHEDULER_TRIGGER_ENGINE="http://127.0.0.1:1/",
        SCHEDULER_TRIGGER_ENGINE_DRY_RUN="true",
    )
    assert done.returncode == 2
    assert "over HTTP" in done.stderr
