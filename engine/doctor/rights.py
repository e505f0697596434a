"""This file looks at who may do what: by trying it, over logins that are as little as they should be."""

from __future__ import annotations

import json
from dataclasses import dataclass

from engine.database import Transaction
from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import Installation
from engine.statements import Statement, load_statement

_EXAMINE_ROLES = load_statement("examine_roles")
_LIST_SOURCES = load_statement("list_sources")
_HAND_OVER_SOURCES = load_statement("hand_over_sources")
_TRY_AS_SERVICE = load_statement("try_as_service")
_TRY_AS_CRON = load_statement("try_as_cron")
_TAKE_FOUND = load_statement("take_found")

_GRANT_AGAIN = "grant it again, as engine/sql/migrations/20261126000002_roles.sql does"
_REVOKE = "revoke it, from the role itself or from who it is a member of (`public` is everybody)"


@dataclass(frozen=True, slots=True)
class Tried:
    """What went otherwise than it must: `allowed` what must be refused, `refused` what must be allowed."""

    allowed: list[str]
    refused: list[str]


async def check_roles(installation: Installation) -> Outcome:
    async with installation.open_as_administrator() as transaction:
        faults = await transaction.fetch(_EXAMINE_ROLES)
    if faults:
        return broken(
            "; ".join(row["found"] for row in faults), "; ".join(dict.fromkeys(row["mend"] for row in faults))
        )
    return holds("owner, service and cron are no more than they should be")


async def check_service_rights(installation: Installation) -> Outcome:
    tried = await _tried_as_service(installation)
    if tried.refused:
        return broken(f"scheduler_service can't {', '.join(tried.refused)}", _GRANT_AGAIN)
    return holds("scheduler_service can keep the ledger")


async def check_service_limits(installation: Installation) -> Outcome:
    tried = await _tried_as_service(installation)
    if tried.allowed:
        return broken(f"scheduler_service can {', '.join(tried.allowed)}", _REVOKE)
    return holds("scheduler_service is refused your tables, the secret and the other roles")


async def check_cron_rights(installation: Installation) -> Outcome:
    async with installation.open_as_cron() as transaction:
        tried = await _try(transaction, _TRY_AS_CRON)
    if tried.refused:
        return broken(f"scheduler_cron can't {', '.join(tried.refused)}", _GRANT_AGAIN)
    if tried.allowed:
        return broken(f"scheduler_cron can {', '.join(tried.allowed)}", _REVOKE)
    return holds("scheduler_cron can tick, and nothing else")


async def _tried_as_service(installation: Installation) -> Tried:
    async def attempt() -> Tried:
        async with installation.open_as_service() as transaction:
            return await _try(transaction, _TRY_AS_SERVICE)

    return await installation.once("what the service may do", attempt)


async def _try(transaction: Transaction, attempts: Statement) -> Tried:
    sources = await transaction.fetch(_LIST_SOURCES)
    await transaction.fetch(_HAND_OVER_SOURCES, [row["oid"] for row in sources])
    await transaction.execute(attempts)
    [row] = await transaction.fetch(_TAKE_FOUND)
    return Tried(**json.loads(row["found"]))
