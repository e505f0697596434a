"""This file is what must hold of whatever a stranger sends, or a caller gone wrong: of every route.

The application is called as Hypercorn calls it, with the bytes of the request line and the fields as they
came, so that no client library puts them right. What it may answer is in /openapi.json; for what is not
there, in a list here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import trio
from quart.wrappers import Request
from quart.wrappers import Response as QuartResponse
from structlog.testing import capture_logs

from engine import MentorNotFound
from engine.trigger.in_database import MentorResult
from tests.web import states
from tests.web.conftest import KEY, SECRET, TOKEN, FakeScheduler, make_settings
from tests.web.documented import FOR_BROWSERS, undocumented
from web.app import create_app

# Planted in requests, and nowhere to be seen in a refusal or in the log. A prefix tells a part of it as well.
MENTOR = "cafe0001-0000-4000-8000-00000000beef"
CANARIES = (SECRET[:16], KEY, TOKEN[:16], MENTOR, "cafe0001", "beefbeef")

# Bytes that may have come of a body before it is refused: the framework goes on receiving for a few of the
# loop's passes more than a route takes to refuse.
MOST_READ = 256 * 1024

# What pages for browsers may answer; the others are held against /openapi.json.
PAGE_STATUSES = {200, 303, 401, 403, 404, 405, 408, 413, 429, 503}

HEADERS_OF_ALL = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
HEADERS_OF_PAGES = {
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}

Fields = Sequence[tuple[bytes, bytes]]


class CarefulScheduler(FakeScheduler):
    """Answers as the real one would to what can reach it, and remembers nobody."""

    async def explain(self, mentor_id: UUID) -> Any:
        raise MentorNotFound("The view scheduler.mentors has no mentor of this id.")

    async def evaluate(self, mentor_ids: Sequence[UUID], **how: object) -> list[MentorResult]:
        await trio.lowlevel.checkpoint()
        return []


class Endless:
    """A body without an end."""

    def __iter__(self) -> Iterator[bytes]:
        return repeat(b"x" * 1_000)

    def __repr__(self) -> str:
        return "Endless()"


@dataclass
class Reply:
    """What came back, and how much of the body was asked for."""

    status: int = 0
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""
    bytes_read: int = 0
    parts: int = 0


class Application:
    """The application, and what its answers were that its document does not know."""

    def __init__(self) -> None:
        self.scheduler = CarefulScheduler()
        states.good(self.scheduler)
        self.app = create_app(self.scheduler, make_settings())
        self.undocumented: list[str] = []
        handle_request = self.app.handle_request

        async def handle_and_compare(request: Request) -> QuartResponse:
            response = await handle_request(request)
            self.undocumented += await undocumented(self.app, request, response)
            return response

        self.app.handle_request = handle_and_compare  # type: ignore[method-assign]

    async def ask(self, method: str, target: bytes, fields: Fields, body: Iterable[bytes] = ()) -> Reply:
        """One request. `body` may have no end. Whoever is sent a stream hangs up after its first events."""
        raw_path, _, query = target.partition(b"?")
        reply = Reply()
        parts: Iterator[bytes] = iter(body)
        gone = trio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path.decode("ascii", "replace")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in fields],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "extensions": {},
        }

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            part = next(parts, None)
            if part is None:
                if not receive_done:
                    receive_done.append(True)
                    return {"type": "http.request", "body": b"", "more_body": False}
                await gone.wait()
                return {"type": "http.disconnect"}
            reply.bytes_read += len(part)
            return {"type": "http.request", "body": part, "more_body": True}

        receive_done: list[bool] = []

        async def send(event: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if event["type"] == "http.response.start":
                reply.status = event["status"]
                for name, value in event["headers"]:
                    reply.headers.setdefault(bytes(name).decode("latin-1").lower(), []).append(
                        bytes(value).decode("latin-1")
                    )
            elif event["type"] == "http.response.body":
                reply.body += event["body"]
                reply.parts += 1
                if not event.get("more_body") or reply.parts > 2:
                    gone.set()

        await self.app(scope, receive, send)  # type: ignore[arg-type]
        return reply


async def check_request(
    application: Application,
    method: str,
    target: bytes,
    fields: Fields,
    body: Iterable[bytes] = (),
    *,
    most_read: int = MOST_READ,
) -> Reply:
    """Whatever is sent is answered as documented, and no secret and no id is in that, or in the log."""
    with capture_logs() as logs:
        reply = await application.ask(method, target, fields, body)
    said = f"{method} {target!r} {fields!r}: {reply}"
    assert application.undocumented == [], said
    assert 200 <= reply.status < 600, said
    assert reply.status != 500, (said, logs)
    assert reply.bytes_read <= most_read, said

    path = re.sub("//+", "/", unquote(target.partition(b"?")[0].decode("ascii", "replace")))
    is_page = any(path == each.split()[1] for each in FOR_BROWSERS) or path.startswith("/static/")
    for name, value in (HEADERS_OF_ALL | (HEADERS_OF_PAGES if _is_html(reply) else {})).items():
        assert reply.headers.get(name) == [value], (name, said)
    assert "server" not in reply.headers, said
    if _is_html(reply):
        assert is_page, said
        assert reply.status in PAGE_STATUSES, said
        [policy] = reply.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
    elif reply.status >= 400 and method != "HEAD":
        document = json.loads(reply.body)
        assert list(document)[:2] == ["error", "detail"], said
        assert document["detail"].endswith("."), said
    # Who names a mentor, and may, is answered about that one.
    body = b"" if reply.status == 200 and path == "/trigger-engine" else reply.body.lower()
    for canary in CANARIES:
        assert canary not in repr(logs), (canary, logs)
        assert canary.encode() not in body, (canary, said)
        assert canary not in repr(reply.headers), (canary, said)
    return reply


def _is_html(reply: Reply) -> bool:
    return reply.headers.get("content-type", [""])[0].startswith("text/html")
