"""What a role may do, found out by trying: as its own login would, in a transaction that is undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from engine.database import Database, Transaction
from engine.errors import StatementFailed
from engine.statements import Statement

REFUSED = "42501"

_RELATIONS = """
select c.relname::text as name, c.relkind::text as kind,
       (select array_agg(a.attname::text order by a.attnum)
          from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
  from pg_class c
 where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p', 'f', 'v', 'm', 'S')
"""
_FUNCTIONS = """
select p.proname::text as name,
       (select array_agg(format('null::%s', t::regtype) order by position)
          from unnest(p.proargtypes) with ordinality a(t, position)) as arguments
  from pg_proc p
 where p.pronamespace = $1::text::regnamespace
"""


@dataclass(frozen=True)
class Thing:
    """A table, view, sequence or function. `uses` is what can be done with it: how, by name."""

    name: str
    uses: dict[str, str] = field(default_factory=dict)


async def find_things(on: Transaction | Database, schema: str) -> list[Thing]:
    """Everything in the schema, from the catalog."""
    things = []
    for row in await on.fetch(Statement("relations", _RELATIONS), schema):
        name = f'{schema}."{row["name"]}"'
        if row["kind"] == "S":
            uses = {
                "read": f"select last_value from {name}",
                "next": f"select nextval('{name}')",
                "set": f"select setval('{name}', 1)",
            }
        else:
            uses = {"insert": f"insert into {name} default values", "delete": f"delete from {name}"}
            if row["kind"] == "r":
                uses["truncate"] = f"truncate {name}"
                uses["trigger"] = (
                    f"create trigger mine before update on {name} for each row "
                    "execute function suppress_redundant_updates_trigger()"
                )
            for column in row["columns"]:
                uses[f"select {column}"] = f'select "{column}" from {name}'
                uses[f"update {column}"] = f'update {name} set "{column}" = default'
        things.append(Thing(row["name"], uses))
    for row in await on.fetch(Statement("functions", _FUNCTIONS), schema):
        call = f'select {schema}."{row["name"]}"({", ".join(row["arguments"] or ())})'
        # Explained it does not run, and so is not refused for what it does.
        things.append(Thing(row["name"], {"call": call, "plan": f"explain {call}"}))
    return things


@asynccontextmanager
async def logged_in_as(
    database: Database, role: str, *, before: Sequence[str] = ()
) -> AsyncIterator[Transaction]:
    """A transaction in which the session is the role's, after what the administrator did `before`; undone."""
    async with database.open_transaction() as transaction:
        for sql in before:
            await execute(transaction, sql)
        await execute(transaction, f"set local session authorization {role}")
        yield transaction
        await execute(transaction, "rollback")


async def execute(transaction: Transaction, sql: str) -> None:
    await transaction.execute(Statement("test", sql))


async def sqlstate_of(transaction: Transaction, sql: str) -> str | None:
    """What Postgres says to the statement, None for nothing. What it did is undone."""
    await execute(transaction, "savepoint attempt")
    try:
        await execute(transaction, sql)
    except StatementFailed as error:
        return error.sqlstate
    else:
        return None
    finally:
        await execute(transaction, "rollback to savepoint attempt")


async def uses_not_refused(transaction: Transaction, things: Sequence[Thing]) -> dict[str, set[str]]:
    """By name, what the role was let do; that a statement then fails for another reason does not count."""
    permitted: dict[str, set[str]] = {}
    for thing in things:
        for use, sql in thing.uses.items():
            if await sqlstate_of(transaction, sql) != REFUSED:
                permitted.setdefault(thing.name, set()).add(use)
    return permitted
