"""The command line, as typed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ENVIRONMENT, SECRET, arguments_of, command

NOBODY = "postgresql://nobody@127.0.0.1:1/nowhere"


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
        demo.send_signal(signal.SIGINT)
        shown += demo.stdout.read()
        errors = demo.stderr.read()
    assert demo.returncode == 0, errors
    assert "notifications dispatched" in shown
    assert re.search(r"curl -X POST -H 'X-Scheduler-Secret: [0-9a-f]{64}' http://127", shown)
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


@pytest.mark.parametrize("arguments", [["serve"], ["run"], ["migrate"], ["seed", "--mentors", "1"]])
def test_a_command_without_its_settings_says_which_and_exits_with_3(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 3
    assert "DATABASE_URL is not set" in done.stderr
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


@pytest.mark.parametrize("arguments", [["run"], ["migrate"], ["seed", "--mentors", "1"]])
def test_a_command_without_a_database_that_answers_says_so_and_exits_with_1(arguments: list[str]) -> None:
    done = command(*arguments, DATABASE_URL=NOBODY)
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
        "PGSSLMODE": "require",
        "PGTARGETSESSIONATTRS": "standby",
    }
    done = command("demo", "--mentors", "5", "--once", **foreign)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--mentors", "-1"], ["--mentors", "many"], ["--nonsense"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert command("demo", *arguments).returncode == 2


@pytest.mark.parametrize("name", ["demo", "serve", "run", "migrate", "seed", "secret"])
def test_every_command_has_help(name: str) -> None:
    done = command(name, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert name in command("--help").stdout
