"""`scenario-scheduler doctor`, as typed, and what it looks like."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from engine import Finding
from engine.doctor.examine import CHECKS
from tests.doctor.conftest import Healthy
from tests.end_to_end.conftest import command
from web.doctor import findings_table

SHOWN = [
    Finding("roles", True, "they are as they should be"),
    Finding(
        "row-level security", False, "public.peer_mentors is closed " + "to many " * 9, "add [a] policy …"
    ),
]


def shown(encoding: str) -> list[str]:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding), width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(findings_table(SHOWN, encoding))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_doctor_on_a_healthy_installation_exits_with_0(healthy: Healthy) -> None:
    done = command("doctor", COLUMNS="80", **healthy.settings)
    assert done.returncode == 0, done.stdout
    assert f"All {len(CHECKS)} checks hold." in done.stdout
    assert done.stdout.count("✓ ok") == len(CHECKS)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""


def test_doctor_as_json_is_one_object_alone_on_standard_output(healthy: Healthy) -> None:
    done = command("doctor", "--json", **healthy.settings)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["ok"]
    assert [each["check"] for each in found["checks"]] == list(CHECKS)
    assert all(each["ok"] and each["mend"] is None for each in found["checks"])


def test_doctor_exits_with_1_if_anything_is_broken_and_says_its_mend(healthy: Healthy) -> None:
    settings = healthy.settings | {"SCHEDULER_SECRET": "ab" * 32}
    done = command("doctor", COLUMNS="80", **settings)
    assert done.returncode == 1
    assert f"1 of {len(CHECKS)} checks failed." in done.stdout
    assert "✗ broken  secret" in done.stdout
    assert "→ mend: run" in done.stdout
    as_json = command("doctor", "--json", **settings)
    assert as_json.returncode == 1
    found = json.loads(as_json.stdout)
    assert not found["ok"]
    assert [each["check"] for each in found["checks"] if not each["ok"]] == ["secret"]


def test_doctor_without_any_database_url_exits_with_3() -> None:
    done = command("doctor")
    assert done.returncode == 3
    assert "Neither SCHEDULER_ADMIN_DATABASE_URL nor DATABASE_URL is set" in done.stderr


def test_doctor_without_a_database_that_answers_has_no_traceback() -> None:
    done = command("doctor", SCHEDULER_ADMIN_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere")
    assert done.returncode == 1
    assert "nobody listens there" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("encoding", "marks"), [("utf-8", ("✓ ok", "✗ broken", "→ mend:")), ("ascii", ("ok", "broken", "mend:"))]
)
def test_findings_are_read_without_colours_in_80_columns(encoding: str, marks: tuple[str, ...]) -> None:
    lines = shown(encoding)
    holds, broken, mend = marks
    assert lines[0].startswith(holds)
    assert lines[1].startswith(f"{broken}  row-level security  public.peer_mentors is closed")
    assert max(map(len, lines)) <= 80
    assert f"{mend} add [a] policy" in lines[-1]


def test_it_is_said_beforehand_whom_a_new_password_locks_out() -> None:
    said = " ".join(command("service-url", "--help").stdout.split())
    assert "a service that runs is locked out until it is restarted with the new URL" in said
    assert "Roles belong to the whole server" in said
