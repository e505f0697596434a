"""Secrets are compared in one function, in constant time: held by reading the source, not by measuring."""

from __future__ import annotations

import ast
import hmac
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import engine.comparison
from web.auth import Credential

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("engine", "web") for path in sorted((ROOT / folder).rglob("*.py"))]

# What a secret, or something made of one, is called here.
OF_A_SECRET = re.compile(
    r"secret|token|password|digest|signature|get_secret_value|_key\b|\bgiven\b|form_token"
)

# Compared with `==` or `in` all the same, because what is compared is no secret. Reviewed one by one.
REVIEWED = {
    "web/runs.py: 'before' in given",
}


def comparisons() -> Iterator[tuple[str, str]]:
    """Every `==`, `!=`, `in` and `not in` of the source, with its file."""
    for path in SOURCES:
        for source in comparisons_in(path.read_text("utf-8")):
            yield str(path.relative_to(ROOT)), source


def comparisons_in(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Compare)
            and any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops)
            and not all(map(tells_if_it_is_none, (node.left, *node.comparators)))
        ):
            yield ast.unparse(node)


def tells_if_it_is_none(node: ast.expr) -> bool:
    """`… is None`: whether a secret is set is none."""
    return (
        isinstance(node, ast.Compare)
        and all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
        and all(isinstance(each, ast.Constant) and each.value is None for each in node.comparators)
    )


def test_one_function_compares_in_constant_time_and_no_other() -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute | ast.Name | ast.alias)
        and "compare_digest"
        in (getattr(node, "attr", ""), getattr(node, "id", ""), getattr(node, "name", ""))
    ]
    assert users == ["engine/comparison.py"]


def test_no_secret_is_compared_in_any_other_way() -> None:
    suspicious = {f"{file}: {source}" for file, source in comparisons() if OF_A_SECRET.search(source)}
    assert suspicious == REVIEWED


@pytest.mark.parametrize(
    "source",
    ["given == secret.get_secret_value()", "form_token != expected", "token in tokens", "a == digest"],
)
def test_a_comparison_that_should_not_be_is_found(source: str) -> None:
    assert OF_A_SECRET.search(source)
    assert list(comparisons_in(source)) == [source]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("(token is None) != (secret is None)", 0),
        ("(token is None) != secret", 1),
        ("(token is given) == (secret is None)", 1),
        ("(token == secret) != (secret is None)", 2),
    ],
)
def test_whether_two_of_them_are_set_may_be_compared_and_nothing_else_of_them(
    source: str, found: int
) -> None:
    assert len(list(comparisons_in(source))) == found


@pytest.mark.parametrize("given", ["", "right", "righ", "Right", "right" * 1_000, "r", "\udcff", "wrong"])
def test_every_comparison_is_of_two_digests_of_equal_length_and_of_all_of_them(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    compare_digest = hmac.compare_digest
    monkeypatch.setattr(engine.comparison.hmac, "compare_digest", compare)
    credential = Credential(SecretStr("right"), None, SecretStr("next"))
    assert credential.opens(given) is (given == "right")
    assert compared == [(32, 32), (32, 32)]  # the second one also when the first has matched
