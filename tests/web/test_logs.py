"""How the service logs: a JSON object a line, and no data of anybody's in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from engine import StatementFailed
from web.tracebacks import format_traceback

PERSONAL = "4cf4a5b0-alice@example.org"


def logged(*statements: str) -> list[dict[str, object]]:
    """What a process that logs as the service does writes while it does this."""
    program = "\n".join(["import logging, structlog", "from web.logs import configure_logging", *statements])
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert process.stdout == ""
    return [json.loads(line) for line in process.stderr.splitlines()]


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """With a traceback, as it is when it has been caught."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_a_line_is_a_json_object_with_its_time_its_level_and_what_is_bound() -> None:
    [line] = logged(
        "configure_logging()",
        "structlog.contextvars.bind_contextvars(run_id='0193')",
        "structlog.get_logger('engine.run').info('run_started', dry_run=False)",
        "structlog.get_logger('engine.run').debug('not said')",
    )
    timestamp = line.pop("timestamp")
    assert str(timestamp).endswith("Z")
    assert line == {
        "event": "run_started",
        "dry_run": False,
        "run_id": "0193",
        "level": "info",
        "logger": "engine.run",
    }


@pytest.mark.parametrize(
    "say",
    [
        "structlog.get_logger().exception('run_failed')",
        "structlog.get_logger().error('request_failed', exc_info=error)",
        "logging.getLogger('a.library').exception('it broke')",
    ],
)
def test_an_exception_is_logged_with_where_and_what_kind_and_not_with_its_message(say: str) -> None:
    [line] = logged(
        "configure_logging()",
        f"def choke(): return {{}}['{PERSONAL}'.lower()]",
        "try:",
        "    choke()",
        "except KeyError as error:",
        f"    {say}",
    )
    assert str(line["exception"]).splitlines()[-1] == "KeyError"
    assert 'File "<string>", line 4, in choke' in str(line["exception"])
    assert PERSONAL not in str(line)


def test_what_ends_the_process_is_a_line_like_any_other() -> None:
    [line] = logged("configure_logging()", f"raise ValueError('{PERSONAL}')")
    assert (line["event"], line["level"]) == ("crashed", "critical")
    assert str(line["exception"]).splitlines()[-1] == "ValueError"
    assert PERSONAL not in str(line)


@pytest.mark.skipif(os.name != "posix", reason="there is no pseudo-terminal here")
def test_a_person_at_a_terminal_gets_no_json_and_no_message_either() -> None:
    person, terminal = os.openpty()
    program = f"from web.logs import configure_logging; configure_logging(); raise ValueError('{PERSONAL}')"
    subprocess.run([sys.executable, "-c", program], stderr=terminal, timeout=60, check=False)
    os.close(terminal)
    shown = os.read(person, 65_536).decode()
    os.close(person)
    assert "crashed" in shown
    assert shown.rstrip().endswith("ValueError")
    assert "{" not in shown
    assert PERSONAL not in shown


def test_a_traceback_tells_our_own_errors_and_of_others_the_kind() -> None:
    error = raised(StatementFailed("evaluate", "42883"), raised(KeyError(PERSONAL)))
    text = format_traceback(error)
    assert "\nKeyError\n\nThe above exception was the direct cause" in text
    assert text.endswith(
        "\nengine.errors.StatementFailed: Postgres refused the statement evaluate (SQLSTATE 42883)."
    )
    assert PERSONAL not in text


def test_a_traceback_shows_every_member_of_a_group_and_what_led_to_it() -> None:
    inner = raised(ZeroDivisionError(PERSONAL), raised(LookupError(PERSONAL)))
    group = raised(
        ExceptionGroup(PERSONAL, [inner, raised(ExceptionGroup(PERSONAL, [OSError(2, PERSONAL)]))])
    )
    text = format_traceback(group)
    kinds = [line.strip("| ") for line in text.splitlines() if line.endswith(("Error", "Group"))]
    assert kinds == [
        "ExceptionGroup",
        "LookupError",
        "ZeroDivisionError",
        "ExceptionGroup",
        "FileNotFoundError",
    ]
    assert PERSONAL not in text


def test_a_traceback_of_errors_that_led_to_one_another_ends() -> None:
    one, other = KeyError(1), ValueError(2)
    one.__context__, other.__context__ = other, one
    assert format_traceback(one).count("KeyError") == 1
