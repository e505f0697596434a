"""Every public complaint that this project set out against has its test here, by the number of its issue."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

COMPLAINTS = {
    "partial walks called finished": ["listmonk #1155", "listmonk #2591"],
    "cursors advanced at fetch": ["listmonk #3022", "sidekiq #6405"],
    "restarts from zero that send again": ["listmonk #2313"],
    "crons that silently stop": ["inngest #4387", "good_job #1484", "pg_cron #240"],
    "the same cron run by two leaders": ["oban #1488"],
    "locks that expire in mid-run": ["mautic #1737"],
    "windows that let two through at their edge": ["stiphle #6", "pg-boss #8"],
    "time-outs reported as success": ["pg_net #74"],
    "breakers on a cumulative ratio that never trip": ["Breakers on a cumulative ratio"],
    "nobody told that nothing ran": ["graphile/worker #177", "bugsink #419"],
    "no way to see why one user did not get a message": ["who did not receive it, and why"],
}


def docstrings_of_tests() -> list[str]:
    nodes = [
        node
        for path in Path(__file__).parent.glob("in_*/test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    return [ast.get_docstring(node) or "" for node in nodes]


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_a_public_complaint_is_named_by_the_test_against_it(complaint: str) -> None:
    docstrings = docstrings_of_tests()
    for issue in COMPLAINTS[complaint]:
        assert any(issue in docstring for docstring in docstrings), issue
