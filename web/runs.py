"""This file is GET /runs and /runs/<id>: the ledger as JSON, for the operator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field
from quart import Blueprint, request

from engine import RunRecord, Scheduler, ShardRecord
from web.answers import ErrorCode, Refused
from web.auth import Operator
from web.openapi import DATABASE_CODES, OPERATOR, describe

# Runs on a page: a screenful, and a day and a half of them at a tick every five minutes (400 kB).
DEFAULT_LIMIT, MAX_LIMIT = 50, 500


class RunsQuery(BaseModel):
    """As `_read_query` reads it; here for the document alone, which knows no null in a query."""

    before: Annotated[
        UUID,
        Field(
            description="The page after this run: `next` of the page before.",
            json_schema_extra=lambda schema: schema.pop("default"),
        ),
    ] = UUID(int=0)
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="How many at most.")] = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Runs, newest first. `next` is what to give as `before` for the page after it, null on the last one."""

    runs: list[RunRecord]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class RunAlone(RunRecord):
    """A run, and its shards in the order in which they go out.

    None where it was no fleet that ran it, and none after 31 days.
    """

    shards: Sequence[ShardRecord]


def runs_blueprint(scheduler: Scheduler, operator: Operator) -> Blueprint:
    blueprint = Blueprint("runs", __name__)
    blueprint.before_request(operator.refuse_others)

    @blueprint.get("/runs")
    @describe(RunsPage, *DATABASE_CODES, ErrorCode(422, "invalid_query"), by=OPERATOR, query=RunsQuery)
    async def get_runs() -> dict[str, Any]:
        """The ledger, newest run first."""
        before, limit = _read_query()
        # One more than asked for, to know whether there is a next page.
        records = await scheduler.list_runs(before=before, limit=limit + 1)
        page = records[:limit]
        is_last = len(records) <= limit
        return {
            "runs": [record.as_json() for record in page],
            "next": None if is_last else str(page[-1].run_id),
        }

    @blueprint.get("/runs/<run_id>")
    @describe(RunAlone, *DATABASE_CODES, ErrorCode(404, "not_found"), by=OPERATOR)
    async def get_run(run_id: str) -> dict[str, Any]:
        """One run of the ledger, with its shards."""
        known_id = _run_id(run_id)
        record = None if known_id is None else await scheduler.find_run(known_id)
        if record is None:
            raise Refused(404, "not_found", "The ledger has no run of this id; old ones are removed.")
        shards = await scheduler.list_shards(record.run_id) if record.total_shards else []
        return record.as_json() | {"shards": [shard.as_json() for shard in shards]}

    return blueprint


def _read_query() -> tuple[UUID | None, int]:
    """`before` and `limit`. Raises Refused unless each is there at most once, alone, and as documented."""
    given = request.args.to_dict(flat=False)
    if any(name not in ("before", "limit") or len(values) > 1 for name, values in given.items()):
        raise Refused(422, "invalid_query", "The query takes before and limit, each once, and nothing else.")
    before = None
    if "before" in given:
        before = _run_id(given["before"][0])
        if before is None:
            raise Refused(422, "invalid_query", "before: must be the id of a run, as `next` gives it.")
    limit = given.get("limit", [str(DEFAULT_LIMIT)])[0]
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise Refused(422, "invalid_query", f"limit: must be a number from 1 to {MAX_LIMIT}.")
    return before, int(limit)


def _run_id(text: str) -> UUID | None:
    """The id as we write ids, None for anything else. UUID() by itself takes braces and prefixes."""
    return UUID(text) if re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text) else None
