"""This file reads plans as Postgres explains them: which relations, and whether by index or as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.database import Transaction
from engine.statements import load_statement

_LEADING_COLUMNS = load_statement("leading_columns")

_SORTS = ("Sort", "Incremental Sort")

Relation = tuple[str, str]  # schema and name


@dataclass(frozen=True, slots=True)
class Access:
    """One relation of a plan. `condition` of the index by which it is read; None: it is read whole."""

    relation: Relation
    condition: str | None
    by_equality: bool = False  # on the column by which that index is sorted first


@dataclass(frozen=True, slots=True)
class Plan:
    accesses: Sequence[Access]
    is_sorted_by_hand: bool
    functions: Sequence[str]  # which could not be looked into

    @property
    def read_whole(self) -> list[Relation]:
        return sorted({access.relation for access in self.accesses if access.condition is None})

    def looks_up(self, *values: object, by_equality: bool = True) -> bool:
        """Whether some index is entered with all of these."""
        return any(
            all(f"'{value}'" in access.condition for value in values)
            and (access.by_equality or not by_equality)
            for access in self.accesses
            if access.condition is not None
        )


async def read_plan(transaction: Transaction, explained: Any) -> Plan:
    """A plan as Postgres explains it in JSON, as text or parsed."""
    parsed = json.loads(explained) if isinstance(explained, str) else explained
    nodes = list(_nodes(parsed[0]["Plan"], ("", "")))
    indexes = {(schema, node["Index Name"]) for node, (schema, _) in nodes if "Index Name" in node and schema}
    rows = await transaction.fetch(
        _LEADING_COLUMNS, [schema for schema, _ in indexes], [name for _, name in indexes]
    )
    leading = {(row["schema"], row["name"]): row["leading"] for row in rows}
    return Plan(
        accesses=[access for node, relation in nodes for access in _accesses(node, relation, leading)],
        is_sorted_by_hand=any(node["Node Type"] in _SORTS for node, _ in nodes),
        functions=[node["Function Name"] for node, _ in nodes if "Function Name" in node],
    )


def _nodes(node: dict[str, Any], above: Relation) -> Iterator[tuple[dict[str, Any], Relation]]:
    """Every node, with schema and name of its relation: of a bitmap, the node above it has them."""
    relation = (node["Schema"], node["Relation Name"]) if "Relation Name" in node else above
    yield node, relation
    for child in node.get("Plans", []):
        yield from _nodes(child, relation)


def _accesses(
    node: dict[str, Any], relation: Relation, leading: Mapping[tuple[str, str], str | None]
) -> Iterator[Access]:
    if node["Node Type"] == "Seq Scan":
        yield Access(relation, None)
    elif "Index Name" in node:
        condition = node.get("Index Cond")
        first = leading.get((relation[0], node["Index Name"]))
        if condition is None or first is None:  # an expression, which is written in more than one way
            yield Access(relation, condition, by_equality=condition is not None)
        elif at := re.search(rf'(?<![\w"]){re.escape(first)}(?![\w"])(\)::[\w ]+)?( =)?', condition):
            yield Access(relation, condition, by_equality=at[2] is not None)
        else:
            # Postgres enters an index with a condition on a later column as well, and then reads all of it.
            yield Access(relation, None)
