"""This file looks at the tick: who posts, with which secret, who else could read it, what came back."""

from __future__ import annotations

from pydantic import SecretStr

from engine.comparison import digest_of, is_same
from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import Installation
from engine.errors import StatementFailed
from engine.statements import load_statement
from engine.tick.diagnosis import describe_first_ticks, diagnose_jobs, diagnose_posting, diagnose_ticks

# Hex digits of a secret: 128 bits, which nobody guesses.
SHORTEST_SECRET = 32

# Roles that are named when many can read what they should not: somebody who can see them all need not.
NAMED = 3

_CAN_POST = load_statement("can_post")
_READERS_OF_QUEUE = load_statement("readers_of_queue")
_READERS_OF_SECRET = load_statement("readers_of_secret")
_FIND_SECRET_IN_VAULT = load_statement("find_secret_in_vault")
_DIGEST = load_statement("digest_of_secret")

_INSUFFICIENT_PRIVILEGE = "42501"
_INSTALL = "run `scenario-scheduler cron install`"


async def check_pg_cron(installation: Installation) -> Outcome:
    status = await installation.tick_status()
    if fault := diagnose_jobs(status):
        return _as_outcome(fault)
    if not status.has_purge:
        return broken("nothing removes what pg_cron keeps of each tick", f"{_INSTALL} again")
    jobs = ", ".join(f"{job.name} ({job.schedule})" for job in status.jobs)
    return holds(f"version {status.pg_cron}; {jobs}")


async def check_pg_net(installation: Installation) -> Outcome:
    status = await installation.tick_status()
    if status.url is None:
        return broken("the tick is not installed, so nothing is posted", _INSTALL)
    if fault := diagnose_posting(status):
        return _as_outcome(fault)
    if status.pg_net is None:
        return holds("there is none; its replacement over plpython3u posts")
    async with installation.open_as_administrator() as transaction:
        [row] = await transaction.fetch(_CAN_POST)
    if not row["can_post"]:
        return broken("scheduler_owner may not post with it", f"{_INSTALL} again, as who owns the schema net")
    return holds(f"version {status.pg_net}")


async def check_queue(installation: Installation) -> Outcome:
    """pg_net opens its queue to everybody, and the secret waits in it until it is sent."""
    async with installation.open_as_administrator() as transaction:
        roles = [row["role"] for row in await transaction.fetch(_READERS_OF_QUEUE)]
    if roles:
        mend = "have the owner of the schema net `revoke select on net.http_request_queue from public`"
        others = f" and {len(roles) - NAMED} more" if len(roles) > NAMED else ""
        return broken(
            f"the secret that waits there can be read by {', '.join(roles[:NAMED])}{others}",
            f"{_INSTALL} again, which closes it; where it may not, {mend}",
        )
    if (await installation.tick_status()).pg_net is None:
        return holds("there is no queue, because there is no pg_net")
    return holds("nobody else can read the secret that waits there")


async def check_readers_of_secret(installation: Installation) -> Outcome:
    """The secret lies in a table where there is no Vault, and whoever changes the URL is sent it."""
    async with installation.open_as_administrator() as transaction:
        rows = await transaction.fetch(_READERS_OF_SECRET)
    if rows:
        what = rows[0]["what"]
        roles = [row["role"] for row in rows if row["what"] == what]
        others = f" and {len(roles) - NAMED} more" if len(roles) > NAMED else ""
        return broken(
            f"{what} is open to {', '.join(roles[:NAMED])}{others}",
            "revoke all on it from them, or from who they are members of (`public` is everybody); then "
            f"{_INSTALL} again, with another secret",
        )
    return holds("nobody but the owner has a right to the secret, or to where it is sent")


async def check_timeout(installation: Installation) -> Outcome:
    timeout_ms = (await installation.tick_status()).timeout_ms
    limit = installation.settings.platform_limit
    if timeout_ms is None:
        return broken("the tick is not installed", _INSTALL)
    if timeout_ms <= limit * 1000:
        return broken(
            f"the tick waits {timeout_ms / 1000:g} s, and a run may take {limit:g} s: "
            "how it ended would not be heard",
            f"{_INSTALL} again",
        )
    return holds(f"the tick waits {timeout_ms / 1000:g} s, and a run takes {limit:g} s at most")


async def check_vault(installation: Installation) -> Outcome:
    status = await installation.tick_status()
    if not status.vault:
        return holds(
            "there is none here; scheduler.fallback_secret keeps the secret, which its owner alone reads"
        )
    mend = f"{_INSTALL} again, as a role that may grant the use of the schema vault"
    try:
        async with installation.open_as_owner() as transaction:
            [row] = await transaction.fetch(_FIND_SECRET_IN_VAULT)
    except StatementFailed as error:
        if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
            raise
        return broken(
            "scheduler_owner may not read it, so that the secret lies in scheduler.fallback_secret", mend
        )
    if not row["is_there"] or status.has_fallback_secret:
        return broken("it is here, and the secret lies in scheduler.fallback_secret all the same", mend)
    return holds("it keeps the secret")


async def check_secret(installation: Installation) -> Outcome:
    """Only digests are compared: the secret does not leave the database."""
    settings = installation.settings
    async with installation.open_as_owner() as transaction:
        [row] = await transaction.fetch(_DIGEST)
    mend = f"{_INSTALL} again, with the SCHEDULER_SECRET of the service"
    if settings.secret is None:
        return broken(
            "SCHEDULER_SECRET is not set, so that nothing can be compared",
            "set it here as it is for the service; `scenario-scheduler secret` makes one",
        )
    if row["digest"] is None:
        return broken("the tick has none", mend)
    shortest = min(row["length"], len(settings.secret.get_secret_value()))
    if shortest < SHORTEST_SECRET:
        return broken(
            f"it has {shortest} digits, fewer than {SHORTEST_SECRET}",
            f"make another with `scenario-scheduler secret`, then {_INSTALL}",
        )
    if _is(settings.secret, row["digest"]):
        return holds(f"{row['length']} digits, the same on both sides")
    if settings.secret_next is not None and _is(settings.secret_next, row["digest"]):
        return holds(f"{row['length']} digits; the tick has SCHEDULER_SECRET_NEXT already")
    return broken("the tick has another than the service, which refuses it", mend)


async def check_last_tick(installation: Installation) -> Outcome:
    status = await installation.tick_status()
    if fault := diagnose_ticks(status):
        return _as_outcome(fault)
    to_come = describe_first_ticks(status)
    answered = next((each for each in status.invocations if each.answered_at is not None), None)
    if to_come is not None or answered is None:
        return holds(to_come or "on its way")
    return holds(f"answered with {answered.status_code}, {answered.age / 60:.0f} minutes ago")


def _is(secret: SecretStr, digest: str) -> bool:
    return is_same(digest_of(secret.get_secret_value()), bytes.fromhex(digest))


def _as_outcome(fault: str) -> Outcome:
    """A diagnosis says fault and mend in one line, with a colon between; a failed job has no mend in it."""
    if fault.startswith("pg_cron could not run"):
        return broken(fault, "mend what it says; the server's log says more")
    found, _, mend = fault.rpartition(": ")
    return broken(found, mend)
