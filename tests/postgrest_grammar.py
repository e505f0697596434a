"""This file is the part of PostgREST's URL grammar that a reader of mentors may use, parsed as it parses it.

Built from its manual ("Tables and Views", "Resource Embedding", "URL Grammar", "Errors"). Where PostgREST
ignores what it can't make sense of (a limit that is no number, a second `select`, what follows a list), this
refuses it, and so it does what it has not learned: aliases, casts, spreads, JSON paths, `and`, `or`, text
search, limits of an embedded table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import parse_qsl

COMPARISONS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

# What a target may consist of (RFC 3986): anything else has to be percent-encoded.
_TARGET = re.compile(r"(?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")

_NAME = r"[\w$]+(?:-[\w$]+)*"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=[,)])', re.DOTALL)


class Refusal(Exception):
    """An answer that is an error, as PostgREST words it."""

    def __init__(
        self, status: int, code: str, message: str, details: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.json = {"code": code, "details": details, "hint": hint, "message": message}


@dataclass(frozen=True)
class Filter:
    """`column operator value`; the value is a tuple for `in`."""

    column: str
    operator: str
    value: str | tuple[str, ...]
    negated: bool


@dataclass
class Embedded:
    """Rows of another relation; `inner`: a row without any of them is left out."""

    relation: str
    columns: list[str]
    inner: bool
    filters: list[Filter] = field(default_factory=list)


@dataclass(frozen=True)
class OrderTerm:
    column: str
    descending: bool
    nulls_first: bool


@dataclass
class ReadQuery:
    columns: list[str]
    embedded: dict[str, Embedded]
    filters: list[Filter] = field(default_factory=list)
    order: list[OrderTerm] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0


class _Reader:
    """Takes a parameter apart from left to right."""

    def __init__(self, what: str, text: str) -> None:
        self._what = what
        self._text = text
        self._at = 0

    def take(self, pattern: str | re.Pattern[str]) -> re.Match[str] | None:
        match = re.compile(pattern).match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def expect(self, pattern: str, expecting: str) -> re.Match[str]:
        return self.take(pattern) or self.fail(f"expecting {expecting}")

    def end(self) -> None:
        if self._at != len(self._text):
            self.fail("expecting end of input")

    def fail(self, details: str) -> NoReturn:
        where = f"(line 1, column {self._at + 1})"
        raise Refusal(400, "PGRST100", f'"failed to parse {self._what} ({self._text})" {where}', details)


def parse_target(target: str) -> tuple[str, ReadQuery]:
    """Path and query of a GET or HEAD. Raises Refusal."""
    if not _TARGET.fullmatch(target):
        raise Refusal(400, "PGRST100", "the target is no URL")
    path, _, query_string = target.partition("?")
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise Refusal(400, "PGRST100", "the query is no query") from None
    once = [name for name, _ in pairs if name in ("select", "order", "limit", "offset")]
    if len(set(once)) != len(once):
        raise Refusal(400, "PGRST100", "a parameter is given twice")
    given = dict(pairs)
    query = _parse_select(given.get("select", "*"))
    for name, text in pairs:
        match name:
            case "select":
                pass
            case "order":
                query.order = _parse_order(text)
            case "limit":
                query.limit = _parse_number(name, text)
            case "offset":
                query.offset = _parse_number(name, text)
            case _:
                _add_filter(query, name, text)
    return path, query


def _parse_number(name: str, text: str) -> int:
    reader = _Reader(name, text)
    number = reader.expect(r"[0-9]{1,15}", "a number")[0]
    reader.end()
    return int(number)


def _parse_select(text: str) -> ReadQuery:
    reader = _Reader("select parameter", text)
    query = ReadQuery([], {})
    while True:
        name = reader.expect(rf"{_NAME}|\*", "field name (* or [a..z0..9_$])")[0]
        embed = reader.take(r"((?:![\w$]+)?)\(")
        if embed is None:
            query.columns.append(name)
        elif embed[1] not in ("", "!inner", "!left"):
            reader.fail('expecting "!inner", "!left" or "("; hints are unknown here')
        else:
            query.embedded[name] = Embedded(name, _parse_columns(reader), embed[1] == "!inner")
        if not reader.take(","):
            reader.end()
            return query


def _parse_columns(reader: _Reader) -> list[str]:
    columns = [reader.expect(rf"{_NAME}|\*", "field name (* or [a..z0..9_$])")[0]]
    while reader.take(","):
        columns.append(reader.expect(rf"{_NAME}|\*", "field name (* or [a..z0..9_$])")[0])
    reader.expect(r"\)", '"," or ")"')
    return columns


def _parse_order(text: str) -> list[OrderTerm]:
    reader = _Reader("order", text)
    terms = []
    while True:
        column = reader.expect(_NAME, "field name (* or [a..z0..9_$])")[0]
        direction = reader.take(r"\.(asc|desc)(?![\w$])")
        nulls = reader.take(r"\.nulls(first|last)(?![\w$])")
        descending = direction is not None and direction[1] == "desc"
        terms.append(OrderTerm(column, descending, nulls[1] == "first" if nulls else descending))
        if not reader.take(","):
            reader.end()
            return terms


def _add_filter(query: ReadQuery, name: str, text: str) -> None:
    reader = _Reader("tree path", name)
    path = [reader.expect(_NAME, "field name (* or [a..z0..9_$])")[0]]
    while reader.take(r"\."):
        path.append(reader.expect(_NAME, "field name (* or [a..z0..9_$])")[0])
    reader.end()
    *parents, column = path
    if column in ("and", "or", "limit", "offset", "order", "columns", "on_conflict") or len(parents) > 1:
        reader.fail("unknown here")
    parsed = _parse_filter(column, text)
    if not parents:
        query.filters.append(parsed)
    elif parents[0] in query.embedded:
        query.embedded[parents[0]].filters.append(parsed)
    else:
        raise Refusal(
            400,
            "PGRST108",
            f"'{parents[0]}' is not an embedded resource in this request",
            hint=f"Verify that '{parents[0]}' is included in the 'select' query parameter.",
        )


def _parse_filter(column: str, text: str) -> Filter:
    reader = _Reader("filter", text)
    negated = reader.take(r"not\.") is not None
    operator = reader.expect(r"([a-z]+)\.", "operator (eq, gt, ...)")[1]
    value: str | tuple[str, ...]
    if operator == "in":
        value = _parse_list(reader)
    elif operator == "is":
        value = reader.expect(r"(?i:null|unknown|true|false)$", "null or trilean value")[0].lower()
    elif operator in COMPARISONS:
        value = reader.expect(r"(?s:.*)", "a value")[0]
    else:
        reader.fail(f"unknown single value operator {operator}")
    reader.end()
    return Filter(column, operator, value, negated)


def _parse_list(reader: _Reader) -> tuple[str, ...]:
    reader.expect(r"[ \t]*\([ \t]*", '"("')
    values = []
    while True:
        quoted = reader.take(_QUOTED)
        values.append(
            re.sub(r"(?s)\\(.)", r"\1", quoted[1]) if quoted else reader.expect(r"[^,)]*", "a value")[0]
        )
        if not reader.take(","):
            reader.expect(r"[ \t]*\)[ \t]*", '"," or ")"')
            return tuple(values)
