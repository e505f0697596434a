"""Every public complaint that this project set out against has its test here, by the number of its issue."""

from __future__ import annotations

import ast
import re
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


Test = ast.FunctionDef | ast.AsyncFunctionDef


def read_tests(source: str) -> list[Test]:
    return [
        node for node in ast.parse(source).body if isinstance(node, Test) and node.name.startswith("test_")
    ]


TESTS = [
    test
    for path in sorted(Path(__file__).parent.glob("in_*/test_*.py"))
    for test in read_tests(path.read_text("utf-8"))
]


def has_its_without(test: Test) -> bool:
    """It takes the mechanism away, by a parameter that is true and false, or between two assertions."""
    return _is_asked_both_ways(test) or _is_asked_before_and_after(test)


def _is_asked_both_ways(test: Test) -> bool:
    for decorator in test.decorator_list:
        match decorator:
            case ast.Call(
                args=[ast.Constant(value=name), ast.List(elts=[ast.Constant(), ast.Constant()] as values)]
            ):
                both = {value.value for value in values if isinstance(value, ast.Constant)} == {True, False}
                read = [node for node in ast.walk(test) if isinstance(node, ast.Name) and node.id == name]
                # To take it away, and to say what is then true.
                if both and len(read) >= 2:
                    return True
    return False


def _is_asked_before_and_after(test: Test) -> bool:
    kinds = "".join(
        "a" if isinstance(node, ast.Assert) else "p" if _patches(node) else "" for node in test.body
    )
    return re.search("ap+a", kinds) is not None


def _patches(node: ast.stmt) -> bool:
    """`monkeypatch.setattr(…)`, or a call that is given monkeypatch."""
    return isinstance(node, ast.Expr) and any(
        isinstance(each, ast.Name) and each.id == "monkeypatch" for each in ast.walk(node)
    )


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_each_of_them_is_asked_without_the_mechanism_too(test: Test) -> None:
    assert has_its_without(test)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def test_x(monkeypatch):\n assert a()\n monkeypatch.setattr(b, 'c', d)\n assert not a()", True),
        ("def test_x(monkeypatch):\n assert a()\n take_away(monkeypatch)\n assert not a()", True),
        ("def test_x(monkeypatch):\n 'Without: nothing.'\n assert a()\n assert not b()", False),
        ("def test_x(monkeypatch):\n assert a()\n monkeypatch.setattr(b, 'c', d)", False),
        ("@parametrize('on', [True, False])\ndef test_x(on):\n if not on:\n  b()\n assert a() is on", True),
        ("@parametrize('on', [True, False])\ndef test_x(on):\n assert a()", False),
        ("@parametrize('on', [True, True])\ndef test_x(on):\n if not on:\n  b()\n assert a() is on", False),
    ],
)
def test_a_test_without_its_without_is_found(source: str, found: bool) -> None:
    [test] = read_tests(source)
    assert has_its_without(test) is found


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_a_public_complaint_is_named_by_the_test_against_it(complaint: str) -> None:
    docstrings = [ast.get_docstring(test) or "" for test in TESTS]
    for issue in COMPLAINTS[complaint]:
        assert any(issue in docstring for docstring in docstrings), issue
