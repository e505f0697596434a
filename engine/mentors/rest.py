"""This file is mentors from a Supabase REST API: PostgREST's grammar out, and nothing taken on trust back.

    GET <url>/peer_mentors?select=id,assignments!inner(status)&status=eq.active&assignments.status=in.(active)
                          &id=gt.<last seen>&id=lte.<end>&order=id.asc&limit=<page size>

It promises:

- Only DatabaseUnavailable comes out, in a sentence of our own. An answer, an id or a key is never quoted.
- Whatever comes back, a page is in order and within its stretch, so that a walk neither jumps nor loops.
- Only an empty page is the last one: a server caps its answers (Supabase at 1,000 rows) and does not say so.

The grammar is that of PostgREST's manual, "Tables and Views", "Resource Embedding", "Reserved characters" and
"Pagination and Count".
"""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import trio

from engine.database import STATEMENT_TIMEOUT
from engine.errors import DatabaseUnavailable
from engine.httpx_connection import ExchangeFailed, HttpxConnection, WholeAnswer
from engine.mentors.protocol import IdRange, Page
from engine.mentors.span import spread_evenly
from engine.retry_after import parse_retry_after

T = TypeVar("T")

# Seconds for one page, connecting included: as for a page from Postgres itself.
PAGE_TIMEOUT = STATEMENT_TIMEOUT

# Seconds for one end of the ids, of two: without it, shards are of equal width of all ids there can be.
END_TIMEOUT = 1.0

# Bytes of an answer's body. A mentor with one assignment takes 80, each further assignment 20 or so: a page
# passes of which each has twenty. The fixed part is for small pages, and for the error pages of a gateway.
MAX_BODY_BYTES = 64 * 1024
MAX_BODY_BYTES_PER_MENTOR = 512

# Bytes of an answer's header. What stands before PostgREST at Supabase sends 1 to 2 KiB.
MAX_HEADER_BYTES = 16 * 1024

# What needs no quotes in a list of PostgREST's. Quotes never hurt, but a plain word reads better in its log.
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_]+")

# As Postgres writes a uuid.
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Content-Range of an answer with one row, or none, and the exact count of all.
_COUNTED = re.compile(r"(?:0-0/([1-9][0-9]{0,14})|\*/(0))")

# What PostgREST and the Postgres behind it say of themselves, by the code in the body of an error.
_BY_CODE = {
    "PGRST200": "it knows no foreign key from assignments to peer_mentors, which it needs to join them; let "
    "assignments.mentor_id reference peer_mentors.id, and have it reload its schema cache",
    "PGRST201": "it knows several foreign keys between assignments and peer_mentors; leave only the one of "
    "assignments.mentor_id",
    "22P02": "a column has another type; the ids have to be uuid, the status text",
    "42703": "a column is missing; peer_mentors needs id and status, assignments mentor_id and status",
    "57014": "Postgres cut the statement at its statement_timeout; index peer_mentors (status, id) and "
    "assignments (mentor_id, status), or lower SCHEDULER_PAGE_SIZE",
}
_KEY_REFUSED = (
    "it refuses the key; check SCHEDULER_SERVICE_ROLE_KEY, and that its role may read peer_mentors and "
    "assignments"
)
_BY_STATUS = {
    401: _KEY_REFUSED,
    403: _KEY_REFUSED,
    404: "it knows no peer_mentors there; check that SCHEDULER_MENTOR_SOURCE is the whole URL "
    "(https://<project>.supabase.co/rest/v1), and that the schema of peer_mentors is exposed",
    429: "it is asked too often; raise its rate limit, or let less be asked of it",
    503: "it is overloaded, or not up yet; look at its log",
}
_BY_ERROR_CLASS = {
    "connection_refused": "no connection to it can be made; check SCHEDULER_MENTOR_SOURCE, its certificate, "
    "and that the REST API is up",
    "connection_reset": "the connection was lost before its answer came; check the network, and its log",
    "connection_cut": "the connection was lost within its answer; check the network, and its log",
    "malformed_answer": "what it speaks is not plain HTTP/1.1; check SCHEDULER_MENTOR_SOURCE",
    "oversize_answer": "its answer is longer than a page can be; lower SCHEDULER_PAGE_SIZE",
}


@asynccontextmanager
async def open_rest_mentors(
    url: str,
    service_role_key: str,
    eligible_assignment_statuses: Sequence[str],
    *,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[RestMentors]:
    """Connects to nothing until the first call. `ssl_context` None: the system's authorities.

    **Cancellation:** no connection is left.
    """
    mentors = RestMentors(
        url, service_role_key, eligible_assignment_statuses, ssl_context or ssl.create_default_context()
    )
    try:
        yield mentors
    finally:
        await mentors.aclose()


class RestMentors:
    """Implements MentorSource. Made by `open_rest_mentors`; the settings have checked URL and key."""

    def __init__(
        self,
        url: str,
        service_role_key: str,
        eligible_assignment_statuses: Sequence[str],
        ssl_context: ssl.SSLContext,
    ) -> None:
        self._url = url.rstrip("/") + "/peer_mentors"
        self._statuses = frozenset(eligible_assignment_statuses)
        self._who = "&".join(
            [
                "select=id,assignments!inner(status)",
                "status=eq.active",
                f"assignments.status=in.({_listed(eligible_assignment_statuses)})",
            ]
        )
        self._headers = {
            "Host": httpx.URL(url).netloc.decode("ascii"),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            # Supabase's gateway asks for the one, PostgREST for the other.
            "apikey": service_role_key,
            "Authorization": f"Bearer {service_role_key}",
        }
        self._ssl_context = ssl_context
        # Each request has one to itself, so there are as many as there were requests at once: a run's page or
        # its count, and the same of a dry run beside it.
        self._idle: list[HttpxConnection] = []

    async def fetch_page(self, stretch: IdRange, page_size: int) -> Page:
        def read(answer: WholeAnswer) -> Page:
            mentor_ids = self._read_ids(answer, stretch, page_size)
            return Page(mentor_ids, is_last=not mentor_ids)

        return await self._ask(stretch, page_size, read, answer_within=PAGE_TIMEOUT)

    async def count(self, stretch: IdRange) -> int:
        def read(answer: WholeAnswer) -> int:
            rows = self._read_ids(answer, stretch, 1)
            counted = _COUNTED.fullmatch(answer.single_header("content-range") or "")
            if counted is None or (counted[2] is None) != bool(rows):
                raise _unreadable(
                    "it gives no exact count, or one that contradicts its answer; check that "
                    "SCHEDULER_MENTOR_SOURCE is the URL of a PostgREST"
                )
            return int(counted[1] or counted[2])

        # One row along with the count, because an answer without a body does not say what is wrong. For the
        # caller to bound, as a run's budget does: counting a million takes longer than any page.
        return await self._ask(stretch, 1, read, answer_within=math.inf, headers={"Prefer": "count=exact"})

    async def sample(self, size: int) -> Sequence[UUID]:
        """PostgREST has no way to ask for every hundredth row, but for the first one and the last.

        Supabase's ids are random unless somebody chose them, so that ranges of equal width hold equally many.
        """
        ends = [mentor_id for order in ("id.asc", "id.desc") for mentor_id in await self._first(order)]
        return spread_evenly(min(ends), max(ends), size) if ends else ()

    async def _first(self, order: str) -> Sequence[UUID]:
        """One id at most."""

        def read(answer: WholeAnswer) -> Sequence[UUID]:
            return self._read_ids(answer, IdRange(), 1)

        return await self._ask(IdRange(), 1, read, answer_within=END_TIMEOUT, order=order)

    async def aclose(self) -> None:
        """Close every connection. No call may be under way.

        **Cancellation:** closes all the same.
        """
        while self._idle:
            await self._idle.pop().drop()

    async def _ask(
        self,
        stretch: IdRange,
        limit: int,
        read: Callable[[WholeAnswer], T],
        *,
        answer_within: float,
        headers: Mapping[str, str] | None = None,
        order: str = "id.asc",
    ) -> T:
        """What `read` makes of the answer.

        **Cancellation:** the connection is closed.
        """
        url = httpx.URL(f"{self._url}?{self._who}{_within(stretch)}&order={order}&limit={limit}")
        max_body_bytes = MAX_BODY_BYTES + MAX_BODY_BYTES_PER_MENTOR * limit
        connection = self._idle.pop() if self._idle else self._new_connection()
        is_right = False
        try:
            with trio.move_on_after(answer_within):
                all_headers = {**self._headers, **(headers or {})}
                answer = await connection.exchange("GET", url, all_headers, b"", max_body_bytes)
                if answer.status not in (200, 206):
                    raise _failure_of_status(answer)
                result = read(answer)
                is_right = True
                return result
        except ExchangeFailed as error:
            raise _unreadable(_BY_ERROR_CLASS[error.error_class]) from None
        finally:
            # An answer about something else may be one to another question. The next one comes over a
            # connection on which nothing else was asked.
            if not is_right:
                await connection.drop()
            self._idle.append(connection)
        raise _unreadable(
            f"it did not answer within {answer_within:g} s; check the network and its load, or lower "
            "SCHEDULER_PAGE_SIZE"
        )

    def _new_connection(self) -> HttpxConnection:
        return HttpxConnection(self._ssl_context, max_header_bytes=MAX_HEADER_BYTES)

    def _read_ids(self, answer: WholeAnswer, stretch: IdRange, limit: int) -> Sequence[UUID]:
        rows = _parse(answer.body)
        if not isinstance(rows, list) or not all(self._is_mentor(row) for row in rows):
            raise _unreadable(
                "its answer is not a list of mentors with their assignments; check that "
                "SCHEDULER_MENTOR_SOURCE is the URL of a PostgREST, and that the ids are uuid"
            )
        mentor_ids = [UUID(row["id"]) for row in rows]
        if len(mentor_ids) > limit or any(second <= first for first, second in pairwise(mentor_ids)):
            raise _ignored("its answer is not in the order of ids, or longer than was asked")
        if mentor_ids and not _is_within(stretch, mentor_ids[0], mentor_ids[-1]):
            raise _ignored("its answer is not of the ids that were asked for")
        return mentor_ids

    def _is_mentor(self, row: Any) -> bool:
        """Whether it is one of those asked for, as far as the row tells: with eligible assignments only."""
        if not isinstance(row, dict):
            return False
        mentor_id, assignments = row.get("id"), row.get("assignments")
        if isinstance(assignments, dict):
            # Where mentor_id is unique among the assignments, PostgREST embeds the one instead of a list.
            assignments = [assignments]
        return (
            isinstance(mentor_id, str)
            and _UUID.fullmatch(mentor_id) is not None
            and isinstance(assignments, list)
            and len(assignments) > 0
            and all(self._is_eligible(assignment) for assignment in assignments)
        )

    def _is_eligible(self, assignment: Any) -> bool:
        status = assignment.get("status") if isinstance(assignment, dict) else None
        return isinstance(status, str) and status in self._statuses


def _listed(values: Sequence[str]) -> str:
    """The inside of an `in.(…)`, percent-encoded."""
    return ",".join(
        value
        if _PLAIN_VALUE.fullmatch(value)
        else quote('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"', safe="")
        for value in values
    )


def _within(stretch: IdRange) -> str:
    after = "" if stretch.after is None else f"&id=gt.{stretch.after}"
    until = "" if stretch.until is None else f"&id=lte.{stretch.until}"
    return after + until


def _is_within(stretch: IdRange, first: UUID, last: UUID) -> bool:
    return (stretch.after is None or first > stretch.after) and (
        stretch.until is None or last <= stretch.until
    )


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # bad UTF-8 is a ValueError, too
        raise _unreadable(
            "its answer is not JSON; check that SCHEDULER_MENTOR_SOURCE is the URL of a PostgREST"
        ) from None


def _failure_of_status(answer: WholeAnswer) -> DatabaseUnavailable:
    status = answer.status
    if said := _BY_CODE.get(_code_of(answer.body)):
        return _unreadable(f"{said} (HTTP {status})")
    if 300 <= status < 400:
        return _unreadable(
            f"it redirects (HTTP {status}), and the key goes nowhere else; set SCHEDULER_MENTOR_SOURCE to "
            "where it leads, if that is right"
        )
    retry_after = None
    if status in (429, 503):
        retry_after = parse_retry_after(answer.single_header("retry-after"), datetime.now(UTC))
    fallback = (
        "it failed; look at its log"
        if status >= 500
        else "it refuses the question; check that SCHEDULER_MENTOR_SOURCE is the URL of a PostgREST"
    )
    return _unreadable(f"{_BY_STATUS.get(status, fallback)} (HTTP {status})", retry_after)


def _code_of(body: bytes) -> str:
    """The code of an error, to be looked up and never shown; "" where there is none."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return code if isinstance(code, str) else ""


def _ignored(what: str) -> DatabaseUnavailable:
    return _unreadable(f"{what}; check that nothing before the PostgREST drops or rewrites the query")


def _unreadable(what: str, retry_after: float | None = None) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The REST API at SCHEDULER_MENTOR_SOURCE can't be read: {what}.", retry_after=retry_after
    )
