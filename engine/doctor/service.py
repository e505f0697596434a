"""This file looks at the service, what it talks to and who talks to it.

Nothing here can begin a run or send a notification. What is posted, and why that is safe, stands with each.
"""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING
from uuid import UUID

import trio

from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import SERVICE, Installation, Login, required
from engine.errors import DatabaseUnavailable, InvocationFailed, StatementFailed
from engine.mentors.choice import open_mentors
from engine.mentors.protocol import IdRange
from engine.run_id import new_run_id
from engine.settings import is_loopback
from engine.statements import load_statement
from engine.trigger.choice import choose_transport
from engine.trigger.http import HttpTriggerEngine
from engine.trigger.protocol import RunContext

if TYPE_CHECKING:
    from engine.httpx_connection import WholeAnswer

# The nil mentor (RFC 9562, 5.9): no table has it.
NOBODY = UUID(int=0)

# Seconds by which this machine's clock may be off Postgres's. Nothing is computed across the two: what is
# stored has Postgres's time, what is measured trio's. But a person lays the service's log beside the ledger,
# and run ids begin with this machine's time. Kept clocks differ by milliseconds; five seconds is one nobody
# keeps, and still less than between two ticks.
MOST_SKEW = 5.0

# Seconds for the service to say whether it is ready, and for the tick's URL to refuse a post: milliseconds of
# work, and the way there.
ANSWER_WITHIN = 5.0

# Bytes of an answer that nobody reads.
MOST_BYTES = 64 * 1024

# Characters of the service's own words that fit a line or two.
MOST_SAID = 200

# What the service says in `WWW-Authenticate` to a tick without its secret, and nobody else does.
CHALLENGE = 'SharedSecret realm="scenario-scheduler"'

_READ_CLOCK = load_statement("read_machine_clock")
_EVALUATE = load_statement("evaluate")


async def check_mentor_source(installation: Installation) -> Outcome:
    """Reads one page of one mentor, as a walk reads its first; whoever that is, is not kept."""
    settings = installation.settings
    login = installation.service
    if not (isinstance(login, Login) and login.name == SERVICE):
        login = required(installation.administrator)
    try:
        async with open_mentors(settings, login.database) as mentors:
            page = await mentors.fetch_page(IdRange(), 1)
    except DatabaseUnavailable as error:
        if not settings.mentors_over_rest:
            # A refused statement is made to be no more than a source that can't be read; here it counts why.
            refused = error.__context__
            raise refused if isinstance(refused, StatementFailed) else error from None
        found, _, mend = str(error).rstrip(".").partition("; ")
        return broken(found, mend)
    shown = "the REST API at SCHEDULER_MENTOR_SOURCE" if settings.mentors_over_rest else "Postgres"
    walked = "a walk finds mentors there" if page.mentor_ids else "nobody is to be walked there so far"
    return holds(f"{shown}; {walked}")


async def check_trigger_engine(installation: Installation) -> Outcome:
    """In the database: evaluates a chunk of nobody, as a dry run. At a URL: see `_over_http`."""
    if installation.settings.over_http:
        return await _over_http(installation)
    try:
        async with installation.open_as_service() as transaction:
            await transaction.fetch(_EVALUATE, [], None, True, None)
    except StatementFailed as error:
        if error.statement != _EVALUATE.name:
            raise
        return broken(
            f"the one in the database refuses to evaluate (SQLSTATE {error.sqlstate})",
            "run `scenario-scheduler migrate`; if it is a scenario's function, mend that or disable it",
        )
    return holds("in the database; it evaluates")


async def _over_http(installation: Installation) -> Outcome:
    """One post, over the transport that runs use, with their key.

    Where the engine honours `dry_run`: a dry run of the nil mentor, who is nobody. Elsewhere a body that
    names no mentor, which the wire contract has nothing to do for: any answer but a refusal of the key, no
    such place, or a failure will do.
    """
    settings = installation.settings
    transport = choose_transport(settings)
    key = settings.service_role_key.get_secret_value() if settings.service_role_key else None
    mend = "look whether it runs, and at SCHEDULER_TRIGGER_ENGINE and SCHEDULER_SERVICE_ROLE_KEY"
    with trio.move_on_after(settings.invocation_timeout):
        try:
            if settings.dry_run_supported:
                engine = HttpTriggerEngine(transport, key)
                context = RunContext(new_run_id(), dry_run=True)
                async with engine.open_session(context) as session:
                    await session.evaluate([NOBODY])
                return holds("at its URL; it evaluates, in a dry run of nobody")
            headers = {"Content-Type": "application/json"}
            if key is not None:
                headers["Authorization"] = f"Bearer {key}"
            async with transport.open_connection(headers) as connection:
                answer = await connection.post({}, b"{}", MOST_BYTES)
        except InvocationFailed as error:
            return broken(f"it does not evaluate: {error.error_class}", mend)
        if answer.status in (401, 403, 404) or answer.status >= 500 or 300 <= answer.status < 400:
            return broken(f"it answers {answer.status} to a post that names nobody", mend)
        return holds(f"at its URL; it answers ({answer.status})")
    return broken(f"it does not answer within {settings.invocation_timeout:g} s", mend)


async def check_service(installation: Installation) -> Outcome:
    """Asks the one that runs, which may have begun with settings other than these.

    Only where it is bound to loopback: elsewhere it is not said under which address it is to be asked.
    """
    bind = installation.settings.bind
    host, _, port = bind.rpartition(":")
    if not is_loopback(host.strip("[]")):
        return holds(f"not asked, because SCHEDULER_BIND={bind} is not this machine alone; watch its /readyz")
    if int(port) == 0:
        return broken("SCHEDULER_BIND leaves the port open, so that it can't be asked", "name a port there")
    url = f"http://{bind}/readyz"
    answer = await _get(url, bind)
    if isinstance(answer, str):
        return broken(
            f"{url} does not answer: {answer}",
            "start it with `scenario-scheduler serve`, or set SCHEDULER_BIND here as it is for the service",
        )
    said = _parse(answer.body)
    if answer.status == 200 and said.get("status") == "ready":
        return holds(f"{url} says that it is ready")
    if answer.status == 503 and said.get("error") == "not_ready":
        reason = str(said.get("detail")).partition("; ")[0].rstrip(".")
        return broken(
            f"the one that runs is not ready: {reason[:MOST_SAID]}",
            "restart it with the DATABASE_URL that `scenario-scheduler service-url` has printed last; "
            "its log says more",
        )
    return broken(
        f"{url} answers {answer.status}, as this service does not",
        "set SCHEDULER_BIND here as it is for the service, and end what else listens there",
    )


async def _get(url: str, host: str) -> WholeAnswer | str:
    """The answer, or a word for why there is none."""
    import httpx  # late: 20 MB that few checks need

    from engine.httpx_connection import ExchangeFailed, HttpxConnection

    connection = HttpxConnection(ssl.create_default_context(), max_header_bytes=MOST_BYTES)
    try:
        with trio.fail_after(ANSWER_WITHIN):
            return await connection.exchange("GET", httpx.URL(url), {"Host": host}, b"", MOST_BYTES)
    except ExchangeFailed as error:
        return error.error_class
    except trio.TooSlowError:
        return "timeout"
    finally:
        await connection.drop()


def _parse(body: bytes) -> dict[str, object]:
    """The object that a body is; an empty one for a body that is none."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


async def check_clock(installation: Installation) -> Outcome:
    async with installation.open_as_administrator() as transaction:
        before = installation.clock()
        [row] = await transaction.fetch(_READ_CLOCK)
        after = installation.clock()
    # The server looked somewhere in between.
    ahead = (before + after) / 2 - row["seconds"]
    if abs(ahead) - abs(after - before) / 2 > MOST_SKEW:
        side = "ahead of" if ahead > 0 else "behind"
        return broken(
            f"this machine's clock is {abs(ahead):.1f} s {side} Postgres's",
            "have both machines keep their time by NTP",
        )
    return holds(f"this machine's and Postgres's are {abs(ahead):.1f} s apart")


async def check_url(installation: Installation) -> Outcome:
    """Posts to the tick's URL without the secret, which begins no run: the service refuses it in its way."""
    url = (await installation.tick_status()).url
    if url is None:
        return broken(
            "the tick is not installed, so there is no URL", "run `scenario-scheduler cron install`"
        )
    shown = url.partition("?")[0]  # what follows may be a key to a gateway
    import httpx  # late: 20 MB that no other check needs

    mend = "look whether the service runs, and at the URL: `scenario-scheduler cron install --url` sets it"
    try:
        with trio.fail_after(ANSWER_WITHIN):
            async with (
                httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=ANSWER_WITHIN) as client,
                client.stream("POST", url) as answer,
            ):
                status, challenge = answer.status_code, answer.headers.get("WWW-Authenticate")
    except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
        return broken(f"{shown} does not answer from this machine: {type(error).__name__}", mend)
    if status == 401 and challenge == CHALLENGE:
        return holds(f"{shown} is the service, and refuses a post without the secret")
    return broken(f"{shown} answers {status} to a post without the secret, as this service does not", mend)
