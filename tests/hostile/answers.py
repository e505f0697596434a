"""This file is what must hold of whatever a trigger engine answers: for hypothesis and for the fuzzer.

Nothing here waits: what the server says lies ready, in the pieces it is read in, so that a conversation costs
50 µs and needs no clock. The server may also hang, close or reset where it likes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID

import h11
import trio

from engine.errors import InvocationFailed
from engine.remedies import remedy_of
from engine.trigger import direct
from engine.trigger.direct import MAX_CHUNKING_OVERHEAD, READ_BYTES, _Connection
from engine.trigger.endpoint import parse_endpoint
from engine.trigger.http import MAX_BODY_BYTES, MAX_BODY_BYTES_PER_MENTOR, _Session
from engine.trigger.protocol import Evaluation, RunContext
from engine.trigger.transport import MAX_HEADER_BYTES, Answer

T = TypeVar("T")

ENDPOINT = parse_endpoint("http://127.0.0.1:1/trigger-engine")
RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"

# What the transport's own contract allows, and of these what may be tried again.
TRANSPORT_CLASSES = {"connection_reset": True, "connection_cut": False, "malformed_answer": False}
TRANSPORT_CLASSES["oversize_answer"] = False

# Bytes, past which a server that never ends is not being given up.
FAR_TOO_MUCH = 10_000_000

FIRST, SECOND = UUID(int=1), UUID(int=2)


class Hangs(BaseException):
    """Stands in for trio.Cancelled: the server says nothing more, and the invocation's time is up."""


class Stream:
    """A connected stream: what the server says, in pieces; then it closes, resets or hangs."""

    def __init__(self, pieces: Iterable[bytes], ending: str = "close") -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._buffer = b""
        self._ending = ending
        self.is_closed = False
        self.delivered = 0
        self.answers_next: bytes | None = None
        self._asked = 0

    async def send_all(self, data: bytes) -> None:
        self._asked += 1
        if self._asked > 1 and self.answers_next is not None:
            # Whoever asks again on this connection has been sure that nothing else was coming.
            self._pieces = iter([self.answers_next])

    async def receive_some(self, max_bytes: int) -> bytes:
        assert not self.is_closed
        if not self._buffer:
            self._buffer = next((piece for piece in self._pieces if piece), b"")
        if not self._buffer:
            if self._ending == "hang":
                raise Hangs
            if self._ending == "reset":
                raise trio.BrokenResourceError
            return b""
        data, self._buffer = self._buffer[:max_bytes], self._buffer[max_bytes:]
        self.delivered += len(data)
        assert self.delivered < FAR_TOO_MUCH
        return data

    def is_readable(self) -> bool:
        """All that the server will ever say unasked has arrived by now."""
        if not self._buffer:
            self._buffer = next((piece for piece in self._pieces if piece), b"")
        return bool(self._buffer) or self._ending != "hang"

    def close(self) -> None:
        self.is_closed = True


class Connection(_Connection):
    """The transport's own, on these streams instead of sockets."""

    def __init__(self, streams: Iterable[Stream]) -> None:
        super().__init__(ENDPOINT, None, {})
        self._streams = iter(streams)
        self.opened: list[Stream] = []

    async def _connect(self) -> Any:
        self._socket = self._stream = stream = next(self._streams)  # type: ignore[assignment]
        self.opened.append(stream)
        return stream


async def _is_in_time() -> None:
    """Instead of the look at the deadline after a connect: without trio there is no clock to look at."""


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end. It may not wait for anything."""
    try:
        with patch.object(direct, "look_at_deadline", _is_in_time):
            work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        work.close()
    raise AssertionError("it waited")


@dataclass(frozen=True)
class Outcome:
    """What became of one POST: an answer, an error's class, or None when it was cut while waiting."""

    answer: Answer | None = None
    error_class: str | None = None
    is_reused: bool = False  # the next POST went over the same connection


def post(connection: Connection, max_body_bytes: int) -> Outcome:
    failure: InvocationFailed | None = None
    try:
        return Outcome(drive(connection.post({"Idempotency-Key": "1"}, b"{}", max_body_bytes)))
    except Hangs:
        return Outcome()
    except InvocationFailed as raised:
        failure = raised
    assert failure.retryable is TRANSPORT_CLASSES[failure.error_class]
    assert not failure.bisectable
    return Outcome(error_class=failure.error_class)


def check_answer(pieces: Sequence[bytes], ending: str, max_body_bytes: int = 2_000) -> Outcome:
    """Whatever a first POST is told: a whole answer or a known failure, and never the second's answer."""
    first = Stream(pieces, ending)
    first.answers_next = RIGHT
    connection = Connection([first, Stream([RIGHT])])
    outcome = post(connection, max_body_bytes)

    # A header, a trailer, the body in its smallest chunks, and the read that shows it: no more than that.
    assert first.delivered <= 2 * MAX_HEADER_BYTES + MAX_CHUNKING_OVERHEAD * max_body_bytes + READ_BYTES
    if outcome.answer is None:
        assert first.is_closed
    else:
        assert 200 <= outcome.answer.status <= 999
        assert len(outcome.answer.body) <= max_body_bytes
        assert outcome.answer.retry_after is None or isinstance(outcome.answer.retry_after, str)

    # Nothing of it is ever taken for the answer to the next question.
    second = post(connection, max_body_bytes)
    assert second == Outcome(Answer(200, b"right", None)), second
    assert len(connection.opened) <= 2
    is_reused = len(connection.opened) == 1
    connection.close()
    assert all(stream.is_closed for stream in connection.opened)
    return replace(outcome, is_reused=is_reused)


def check_split(data: bytes, cuts: Sequence[int], ending: str, max_body_bytes: int = 2_000) -> None:
    """In whatever pieces it arrives, it means the same; but what is too large may be seen at any of them."""
    bounds = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[begin:end] for begin, end in pairwise(bounds)]
    at_once, in_pieces = (check_answer(each, ending, max_body_bytes) for each in ([data], pieces))
    if "oversize_answer" not in (at_once.error_class, in_pieces.error_class):
        assert (at_once.answer, at_once.error_class) == (in_pieces.answer, in_pieces.error_class)
    if at_once.is_reused or in_pieces.is_reused:
        # Nothing came beyond the answer: without its last byte it would not be whole. Line ends do not count.
        without_its_end = data.rstrip(b"\r\n")[:-1]
        assert check_answer([without_its_end], "hang", max_body_bytes).answer is None
    agree(data, ending, at_once)


def agree(data: bytes, ending: str, outcome: Outcome) -> None:
    """Of what another parser takes for an answer as well, ours says the same."""
    if outcome.answer is None or ending == "hang":
        return
    other = h11_answer(data)
    if other is not None:
        assert (outcome.answer.status, outcome.answer.body) == other, (outcome.answer, other)


def h11_answer(data: bytes) -> tuple[int, bytes] | None:
    """Status and body as h11 reads them, None if it refuses or sees no end."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    client.send(h11.EndOfMessage())
    with suppress(h11.ProtocolError):
        client.receive_data(data)
        client.receive_data(b"")
        status, body = 0, b""
        while True:
            event = client.next_event()
            match event:
                case h11.Response():
                    status = event.status_code
                case h11.Data():
                    body += bytes(event.data)
                case h11.EndOfMessage():
                    return status, body
                case h11.NEED_DATA | h11.PAUSED | h11.ConnectionClosed():
                    return None
    return None


# --- The answer's body: what it means for the mentors that were asked about ---

_ENGINE_CLASSES = re.compile(r"http_[2-9][0-9]{2}|redirect|wrong_shape|foreign_id")


def as_answer(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def check_evaluation(pieces: Sequence[bytes], ending: str, mentor_ids: Sequence[UUID]) -> None:
    """Whatever comes: an evaluation of exactly these mentors, or a failure of a known class."""
    right = {"mentor_id": str(SECOND), "dispatched": ["expiry"], "suppressed": []}
    first = Stream(pieces, ending)
    first.answers_next = as_answer(json.dumps(right).encode())
    connection = Connection([first, Stream([first.answers_next])])
    session = _Session(connection, RunContext(UUID(int=7)))
    limit = MAX_BODY_BYTES + MAX_BODY_BYTES_PER_MENTOR * len(mentor_ids)
    evaluation: Evaluation | None = None
    failure: InvocationFailed | None = None
    try:
        evaluation = drive(session.evaluate(mentor_ids))
    except InvocationFailed as raised:
        failure = raised
    except Hangs:
        pass
    if failure is not None:
        known = failure.error_class in TRANSPORT_CLASSES or _ENGINE_CLASSES.fullmatch(failure.error_class)
        assert known, failure.error_class
        assert remedy_of(failure.error_class)
        assert failure.retry_after is None or failure.retry_after >= 0.0
        # A status that is none of ours may come again; what was not understood may be an answer to another.
        assert first.is_closed or failure.error_class.startswith(("http_", "redirect"))
    if evaluation is not None:
        failed = sum(evaluation.errors.values())
        assert 0 <= failed <= len(mentor_ids)
        for counts in (evaluation.dispatched, evaluation.suppressed):
            assert all(0 < count <= len(mentor_ids) - failed for count in counts.values())
            assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) for name in counts)
    assert first.delivered <= 2 * MAX_HEADER_BYTES + MAX_CHUNKING_OVERHEAD * limit + READ_BYTES
    assert drive(session.evaluate([SECOND])) == Evaluation({"expiry": 1})
    connection.close()


def repeated(beginning: bytes, endless: bytes) -> Iterator[bytes]:
    """A server that never stops, to be read by whoever stops."""
    yield beginning
    while True:
        yield 64 * endless


def never_ending(beginning: bytes, endless: bytes, max_body_bytes: int = 2_000) -> Outcome:
    """As check_answer, of what has no end."""
    return check_answer_of(repeated(beginning, endless), max_body_bytes)


def check_answer_of(pieces: Iterator[bytes], max_body_bytes: int) -> Outcome:
    stream = Stream(pieces)
    connection = Connection([stream, Stream([RIGHT])])
    outcome = post(connection, max_body_bytes)
    assert stream.delivered <= 2 * MAX_HEADER_BYTES + MAX_CHUNKING_OVERHEAD * max_body_bytes + READ_BYTES
    assert post(connection, max_body_bytes) == Outcome(Answer(200, b"right", None))
    return outcome
