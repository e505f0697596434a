"""The command line, as typed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import trio

from engine import open_database
from engine.database import Database
from tests.end_to_end.conftest import ENVIRONMENT, SECRET, arguments_of, command
from tests.end_to_end.conftest import query as query_once
from tests.postgres.conftest import query

# Commands that log in as the administrator where one is named.
FOR_ADMINISTRATORS = [
    ["migrate"],
    ["seed", "--mentors", "1"],
    ["service-url"],
    ["cron", "install"],
    ["cron", "status"],
    ["cron", "remove"],
]

VIEW = "create view scheduler.mentors as select id, user_id, status, created_at from public.peer_mentors"

NOBODY = "postgresql://nobody@127.0.0.1:1/nowhere"


def execute(url: str, *statements: str) -> None:
    async def run() -> None:
        for statement in statements:
            await query_once(url, statement)

    trio.run(run)


def test_demo_once_walks_over_http_and_leaves() -> None:
    done = command("demo", "--mentors", "40", "--once", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["completed"]
    assert 20 <= summary["total_evaluated"] <= 40
    assert summary["total_errors"] == 0
    assert summary["total_dispatched"] > 0
    assert "Ticking http://127.0.0.1:" in done.stderr


def test_demo_shows_the_summary_as_a_table_and_serves_until_interrupted() -> None:
    with subprocess.Popen(
        arguments_of("demo", "--mentors", "20"),
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        shown = ""
        for line in demo.stdout:
            shown += line
            if "Ctrl-C" in line:
                break
        [(dashboard, key)] = re.findall(r"  (http://\S+/dashboard)\n  ([0-9a-f]{64})\n", shown)
        page = httpx.get(
            dashboard, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=10
        ).text
        [(token, url)] = re.findall(
            r"curl -H 'Authorization: Bearer ([0-9a-f]{64})' (http://\S+/runs)", shown
        )
        headers = {"Authorization": f"Bearer {token}"}
        ledger = httpx.get(url, headers=headers, trust_env=False, timeout=10).json()
        demo.send_signal(signal.SIGINT)
        shown += demo.stdout.read()
        errors = demo.stderr.read()
    assert demo.returncode == 0, errors
    assert "notifications dispatched" in shown
    assert re.search(r"curl -X POST -H 'X-Scheduler-Secret: [0-9a-f]{64}' http://127", shown)
    assert [run["verdict"] for run in ledger["runs"]] == ["completed"]
    assert re.search(r"Everybody was reached .+? ago", page)
    assert errors == ""


def test_secret_makes_256_random_bits_in_hex() -> None:
    first, second = command("secret").stdout, command("secret").stdout
    assert re.fullmatch(r"[0-9a-f]{64}\n", first)
    assert first != second


def test_migrate_seed_and_run_from_the_shell(empty_database_url: str) -> None:
    database = {"DATABASE_URL": empty_database_url}
    refused = command("migrate", **database)
    assert refused.returncode == 1
    assert "--with-example-tables" in refused.stderr

    assert "applied" in command("migrate", "--with-example-tables", **database).stdout
    assert "nothing to do" in command("migrate", **database).stdout
    assert command("seed", "--mentors", "100", **database).stdout == "inserted 100 mentors\n"
    assert command("seed", "--mentors", "100", **database).stdout == "inserted 0 mentors\n"

    rehearsed = command("run", "--dry-run", "--json", **database)
    summary = json.loads(rehearsed.stdout)
    assert rehearsed.returncode == 0
    assert summary["total_dispatched"] > 0
    ran = json.loads(command("run", "--json", **database).stdout)
    assert ran["total_dispatched"] == summary["total_dispatched"]
    one_type = command("run", "--scenario", "expiry", "--scenario", "milestone", **database)
    assert one_type.returncode == 0
    assert "completed" in one_type.stdout


def test_the_service_is_given_a_url_of_its_own_and_needs_no_other(empty_database_url: str) -> None:
    administrator = {"SCHEDULER_ADMIN_DATABASE_URL": empty_database_url}
    without_roles = command("service-url", **administrator)
    if without_roles.returncode:  # another database of this server has none either
        assert without_roles.stderr == (
            "There is no role scheduler_service yet; run `scenario-scheduler migrate`.\n"
        )
    command("migrate", "--with-example-tables", **administrator)
    command("seed", "--mentors", "50", **administrator)
    first, second = (command("service-url", **administrator).stdout.strip() for _ in range(2))
    assert first != second
    assert second.startswith("postgresql://scheduler_service:")
    assert command("run", DATABASE_URL=second).returncode == 0
    assert command("runs", DATABASE_URL=second).returncode == 0
    outdated = command("run", DATABASE_URL=first)
    assert outdated.returncode == 1
    assert "the login was refused" in outdated.stderr
    refused = command("seed", "--mentors", "1", DATABASE_URL=second)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def test_migrate_says_what_it_granted_and_grants_it_again_when_a_view_was_replaced(database_url: str) -> None:
    assert command("migrate", DATABASE_URL=database_url).stdout.startswith("nothing to do")
    with_policy = (
        "drop view scheduler.mentors",
        VIEW,
        "alter table public.assignments enable row level security",
    )
    execute(database_url, *with_policy)
    assert command("migrate", DATABASE_URL=database_url).stdout.splitlines() == [
        "scheduler.mentors belongs to scheduler_owner",
        "scheduler_service reads scheduler.mentors",
        "scheduler_owner sees every row of public.assignments, by a policy",
    ]
    assert command("migrate", DATABASE_URL=database_url).stdout.startswith("nothing to do")


def test_a_partial_run_exits_with_1(database_url: str) -> None:
    command("seed", "--mentors", "100", DATABASE_URL=database_url)
    budget = {
        "SCHEDULER_SOFT_THRESHOLD": "0.000001",
        "SCHEDULER_HARD_DEADLINE": "5",
        "SCHEDULER_PLATFORM_LIMIT": "7",
    }
    done = command("run", "--json", DATABASE_URL=database_url, **budget)
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["stop_reason"], summary["remaining_known"]) == ("soft_threshold", True)
    assert summary["total_unprocessed"] > 0


def test_seed_without_the_example_tables_says_how_to_make_them(empty_database_url: str) -> None:
    done = command("seed", "--mentors", "1", DATABASE_URL=empty_database_url)
    assert done.returncode == 1
    assert "migrate --with-example-tables" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["serve"], ["run"], ["runs"], *FOR_ADMINISTRATORS])
def test_a_command_without_its_settings_says_which_and_exits_with_3(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 3
    either = "Neither SCHEDULER_ADMIN_DATABASE_URL nor DATABASE_URL is set"
    assert (either if arguments in FOR_ADMINISTRATORS else "DATABASE_URL is not set") in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_says_all_its_faults_at_once() -> None:
    done = command("serve", SCHEDULER_SECRET="short", SCHEDULER_BIND="nowhere", SCHEDULER_PAGESIZE="1")
    assert done.returncode == 3
    assert len(done.stderr.strip().splitlines()) == 4
    assert "short" not in done.stderr.replace("shorter", "")


def test_serve_on_a_taken_port_says_so(database_url: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = command("serve", SCHEDULER_SECRET=SECRET, DATABASE_URL=database_url, SCHEDULER_BIND=bind)
    assert done.returncode == 3
    assert bind in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["run"], ["runs"], *FOR_ADMINISTRATORS])
def test_a_command_without_a_database_that_answers_says_so_and_exits_with_1(arguments: list[str]) -> None:
    done = command(*arguments, DATABASE_URL=NOBODY, SCHEDULER_SECRET=SECRET)
    assert done.returncode == 1
    assert "Postgres can't be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_in_which_nobody_could_be_evaluated_says_why_and_exits_with_1(database_url: str) -> None:
    command("seed", "--mentors", "20", DATABASE_URL=database_url)
    done = command("run", DATABASE_URL=database_url, SCHEDULER_TRIGGER_ENGINE="http://127.0.0.1:1/")
    assert done.returncode == 1
    assert "connection_refused" in done.stdout


@pytest.mark.parametrize("name", ["birthday", "Not A Type"])
def test_an_unknown_scenario_exits_with_2(name: str, database_url: str) -> None:
    done = command("run", "--scenario", name, DATABASE_URL=database_url)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("password", ["hunter2#9", "hunter2/9", "hunter2\uff039"])
@pytest.mark.parametrize("arguments", [["run"], ["serve"], ["migrate"]])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(arguments: list[str], password: str) -> None:
    url = f"postgresql://app:{password}@127.0.0.1/x"
    done = command(*arguments, DATABASE_URL=url, SCHEDULER_SECRET=SECRET)
    assert done.returncode == 3
    assert "percent-encode" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["Starting", "Ticking"])
def test_demo_stopped_early_says_so_and_leaves_nothing(
    after: str, number: signal.Signals, tmp_path: Path
) -> None:
    with subprocess.Popen(
        arguments_of("demo", "--mentors", "3000"),
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that has the tests run in its background hands them an ignored SIGINT, and so do they.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        for line in demo.stdout:
            if line.startswith(after):
                break
        demo.send_signal(number)
        demo.stdout.read()
        errors = demo.stderr.read()
    assert demo.returncode == 1
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1 or after == "Ticking"
    assert not list(tmp_path.glob("embedded-postgres-*"))


def test_demo_is_not_held_up_by_settings_and_variables_of_another_database() -> None:
    foreign = {
        "DATABASE_URL": "mysql://x",
        "SCHEDULER_SECRET": "short",
        "SCHEDULER_BIND": "nowhere",
        "SCHEDULER_OPERATOR_TOKEN": "short",
        "PGSSLMODE": "require",
        "PGTARGETSESSIONATTRS": "standby",
    }
    done = command("demo", "--mentors", "5", "--once", **foreign)
    assert done.returncode == 0, done.stderr


# --- The ledger ---

LATEST, PARTIAL, LEFT = (UUID(int=0x0193 << 112 | number) for number in (3, 2, 1))
MENTOR = UUID("5eed0000-0000-4000-8000-00000000000a")


@pytest.fixture
def ledger_url(database_url: str) -> str:
    """Of a database with three runs: completed, partial, and left running without a heartbeat."""

    async def fill_ledger() -> None:
        async with open_database(database_url) as database:
            await add_run(database, LEFT, 900, "running", None, "total_evaluated = 7")
            await add_run(
                database,
                PARTIAL,
                600,
                "partial",
                "soft_threshold",
                "total_evaluated = 1490, total_errors = 8, total_unprocessed = 2, total_dispatched = 61, "
                "total_suppressed = 12, duration_ms = 25012, evaluated_types = '{expiry,welcome}', "
                f"started_after = '{MENTOR}', low_water_mark = '{MENTOR}', errors = '{{\"timeout\": 8}}', "
                "dispatched = '{\"expiry\": 61}', suppressed = '{\"welcome\": 12}'",
            )
            await add_run(
                database, LATEST, 300, "completed", "finished", "total_evaluated = 500, duration_ms = 1200"
            )

    trio.run(fill_ledger)
    return database_url


async def add_run(
    database: Database, id: UUID, age: float, verdict: str, stop_reason: str | None, changes: str
) -> None:
    """A run that began so many seconds ago and was last heard of 20 seconds later."""
    await query(
        database,
        "insert into scheduler.runs (id, verdict, stop_reason, evaluated_types, started_at, heartbeat_at, "
        "finished_at, hard_deadline_at, remaining_known) "
        "select $1, $2, $3, '{expiry}', began, heard, case when $2 <> 'running' then heard end, heard, "
        "$2 = 'completed' from (select now() - make_interval(secs => $4), "
        "now() - make_interval(secs => $4 - 20)) at(began, heard)",
        *(id, verdict, stop_reason, age),
    )
    await query(database, f"update scheduler.runs set {changes} where id = $1", id)


def objects(lines: str) -> Sequence[dict[str, object]]:
    return [json.loads(line) for line in lines.splitlines()]


def test_runs_shows_a_row_for_each_run_newest_first(ledger_url: str) -> None:
    done = command("runs", DATABASE_URL=ledger_url, COLUMNS="160")
    assert (done.returncode, done.stderr) == (0, "")
    table = done.stdout.partition("Capacity:")[0]
    heading, _, *rows = [line.split() for line in table.splitlines() if line.strip()]
    assert heading == ["started", "verdict", "took", "evaluated", "errors", "dispatched", "suppressed", "run"]
    assert [" ".join(row[2:]) for row in rows] == [
        f"completed 1.20 s 500 of 500 0 0 0 {LATEST}",
        f"partial: soft_threshold 25.01 s 1,490 of 1,500 8 61 12 {PARTIAL}",
        f"abandoned 20.00 s 7 of 7 0 0 0 {LEFT}",
    ]


def test_runs_says_how_many_fit_in_one_budget_and_what_to_change_when_it_is_full(ledger_url: str) -> None:
    shown = " ".join(command("runs", DATABASE_URL=ledger_url, COLUMNS="80").stdout.split())
    assert shown.endswith(
        "Capacity: At 240 mentors per second about 6,000 fit in one budget; 500 are needed, 8% of it."
    )
    full = command("runs", DATABASE_URL=ledger_url, SCHEDULER_SOFT_THRESHOLD="2", COLUMNS="80").stdout
    shown = " ".join(full.split())
    assert "500 are needed, 105% of it. Tick each scenario by itself" in shown


def test_runs_shows_when_they_started_on_the_clock_of_who_asks(ledger_url: str) -> None:
    here, there = (
        re.findall(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}", table)
        for table in (
            command("runs", DATABASE_URL=ledger_url, COLUMNS="160", TZ=zone).stdout
            for zone in ("UTC", "XST-10")
        )
    )
    assert len(here) == 3
    for instant, same_instant in zip(here, there, strict=True):
        assert datetime.fromisoformat(same_instant) - datetime.fromisoformat(instant) == timedelta(hours=10)


def test_runs_in_eighty_columns_says_all_but_the_ids(ledger_url: str) -> None:
    shown = command("runs", DATABASE_URL=ledger_url, COLUMNS="80").stdout
    assert max(len(line) for line in shown.splitlines()) <= 80
    for word in ("abandoned", "soft_threshold", "1,490 of", "1,500", "25.01 s", "61", "12"):
        assert word in shown
    heading = shown.split("─")[0].split()
    assert heading == ["started", "verdict", "took", "evaluated", "errors", "dispatched", "suppressed"]
    assert "…" not in shown
    assert str(LATEST)[:8] not in shown


def test_runs_as_json_is_an_object_a_line_with_instants_in_utc(ledger_url: str) -> None:
    done = command("runs", "--json", DATABASE_URL=ledger_url)
    assert done.stderr == ""
    shown = objects(done.stdout)
    assert [(run["run_id"], run["verdict"]) for run in shown] == [
        (str(LATEST), "completed"),
        (str(PARTIAL), "partial"),
        (str(LEFT), "abandoned"),
    ]
    assert all(str(run["started_at"]).endswith("+00:00") for run in shown)


@pytest.mark.parametrize("limit", [1, 2, 10_000])
def test_runs_shows_at_most_as_many_as_asked_for(limit: int, ledger_url: str) -> None:
    shown = objects(command("runs", "--json", "--limit", str(limit), DATABASE_URL=ledger_url).stdout)
    assert [run["run_id"] for run in shown] == [str(LATEST), str(PARTIAL), str(LEFT)][:limit]


def test_runs_with_an_id_shows_what_the_counts_of_that_run_consist_of(ledger_url: str) -> None:
    done = command("runs", str(PARTIAL), DATABASE_URL=ledger_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"run {PARTIAL}" in done.stdout
    shown = re.sub(r"[│ ]+", " ", done.stdout)
    for row in (
        "began where an earlier run had left off",
        "scenarios expiry, welcome",
        "active mentors 1,500",
        "errors 8 \n timeout 8",
        "unprocessed at least 2",
        "notifications dispatched 61 \n expiry 61",
        "suppressed by a cooldown 12 \n welcome 12",
        "took 25.01 s",
        "verdict partial: soft_threshold",
    ):
        assert row in shown
    [alone] = objects(command("runs", str(PARTIAL), "--json", DATABASE_URL=ledger_url).stdout)
    assert alone["errors"] == {"timeout": 8}


@pytest.mark.parametrize("arguments", [[], ["--json"], [str(PARTIAL)], [str(PARTIAL), "--json"]])
def test_runs_shows_no_mentors_id(arguments: list[str], ledger_url: str) -> None:
    done = command("runs", *arguments, DATABASE_URL=ledger_url, COLUMNS="200")
    assert done.returncode == 0
    assert str(MENTOR) not in done.stdout
    assert MENTOR.hex not in done.stdout


def test_runs_shows_the_shards_of_a_run_and_who_did_them(ledger_url: str) -> None:
    async def shard_it() -> None:
        async with open_database(ledger_url) as database:
            await query(database, "update scheduler.runs set is_sharded = true where id = $1", PARTIAL)
            await query(
                database,
                "insert into scheduler.shards (run_id, shard_index, after_id, state, worker, claim, "
                "deliveries, claimed_at, heartbeat_at, finished_at, is_completed, total_evaluated) values "
                "($1, 0, $2, 'finished', 'host-a:7', $2, 1, now() - interval '2 s', now(), now(), true, 9), "
                "($1, 1, $2, 'finished', 'host-b:8', $2, 3, now() - interval '4 s', now(), now(), true, 27), "
                "($1, 2, $2, 'withdrawn', null, null, 0, null, null, null, false, 0)",
                *(PARTIAL, MENTOR),
            )

    trio.run(shard_it)
    many = command("runs", DATABASE_URL=ledger_url, COLUMNS="80").stdout
    assert "3 shards, 2 workers," in many
    one = command("runs", str(PARTIAL), DATABASE_URL=ledger_url, COLUMNS="120")
    assert (one.returncode, one.stderr) == (0, "")
    assert str(MENTOR) not in one.stdout
    shown = re.sub(r"[│\u00a0 ]+", " ", one.stdout)
    for row in (
        "carried out as 3 shards, 2 workers, 1 delivered again",
        "2 of 3 shards done by 2 workers, 1 not begun; 1 delivered again.",
        "host-a:7 1 done, 9 mentors",
        "host-b:8 1 done, 27 mentors",
        "Shard 1: done, 4 s. By host-b:8, taken 3 times. 27 evaluated; 75% of the run.",
        "Shard 2: no worker began it in time.",
    ):
        assert row in shown
    [alone] = objects(command("runs", str(PARTIAL), "--json", DATABASE_URL=ledger_url).stdout)
    assert (alone["total_shards"], len(alone["shards"])) == (3, 3)


def test_runs_of_an_empty_ledger_says_what_to_do(database_url: str) -> None:
    done = command("runs", DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert "`scenario-scheduler run`" in done.stdout


def test_runs_of_an_empty_ledger_as_json_is_nothing_and_the_sentence_is_elsewhere(database_url: str) -> None:
    done = command("runs", "--json", DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "`scenario-scheduler run`" in done.stderr


def test_runs_with_an_id_that_the_ledger_does_not_have_exits_with_1(ledger_url: str) -> None:
    done = command("runs", str(MENTOR), DATABASE_URL=ledger_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "`scenario-scheduler runs --json`" in done.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["--limit", "0"], ["--limit", "many"]])
def test_runs_asked_for_nonsense_exits_with_2(arguments: list[str]) -> None:
    assert command("runs", *arguments, DATABASE_URL=NOBODY).returncode == 2


@pytest.mark.parametrize("arguments", [[], ["--json"], [str(LATEST)]])
def test_runs_of_a_database_that_is_not_migrated_says_the_mend_and_exits_with_1(
    arguments: list[str], empty_database_url: str
) -> None:
    done = command("runs", *arguments, DATABASE_URL=empty_database_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "`scenario-scheduler migrate`" in done.stderr


def test_a_run_from_the_shell_is_in_the_ledger_and_a_dry_run_is_not(database_url: str) -> None:
    command("seed", "--mentors", "100", DATABASE_URL=database_url)
    command("run", "--dry-run", DATABASE_URL=database_url)
    summary = json.loads(command("run", "--json", DATABASE_URL=database_url).stdout)
    [shown] = objects(command("runs", "--json", DATABASE_URL=database_url).stdout)
    both = summary.keys() & shown.keys()
    assert both > {"run_id", "total_evaluated", "total_dispatched", "stop_reason", "duration_ms"}
    assert {field: shown[field] for field in both} == {field: summary[field] for field in both}


@pytest.mark.parametrize("arguments", [["--mentors", "-1"], ["--mentors", "many"], ["--nonsense"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert command("demo", *arguments).returncode == 2


def test_the_program_has_help() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert "Exit codes:" in done.stdout
