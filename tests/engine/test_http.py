"""The wire contract of the trigger engine over HTTP, over a fake transport."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.errors import InvocationFailed
from engine.retry_after import parse_retry_after
from engine.trigger.http import HttpTriggerEngine
from engine.trigger.protocol import Evaluation, RunContext
from engine.trigger.transport import Answer
from tests.fakes import FOREVER, RUN_ID, ids

ONE = str(UUID(int=1))
TWO = str(UUID(int=2))
THREE = str(UUID(int=3))
NINE = str(UUID(int=9))


@dataclass
class Post:
    headers: Mapping[str, str]
    body: Any
    max_body_bytes: int


class FakeTransport:
    """A Transport that answers what `answer(body)` says, after `latency` seconds."""

    def __init__(self, answer: Callable[[Any], Answer], *, latency: float = 0.0) -> None:
        self.answer = answer
        self.latency = latency
        self.posts: list[Post] = []
        self.drops = 0
        self.open_connections = 0

    @asynccontextmanager
    async def open_connection(self, headers: Mapping[str, str]) -> AsyncIterator[FakeConnection]:
        self.open_connections += 1
        try:
            yield FakeConnection(self, headers)
        finally:
            self.open_connections -= 1


class FakeConnection:
    def __init__(self, transport: FakeTransport, headers: Mapping[str, str]) -> None:
        self.transport = transport
        self.headers = headers

    async def post(self, headers: Mapping[str, str], body: bytes, max_body_bytes: int) -> Answer:
        parsed = json.loads(body)
        self.transport.posts.append(Post({**self.headers, **headers}, parsed, max_body_bytes))
        await trio.sleep(self.transport.latency)
        return self.transport.answer(parsed)

    async def drop(self) -> None:
        self.transport.drops += 1


def always(answer: Any, status: int = 200, retry_after: str | None = None) -> FakeTransport:
    """A fake that answers this: bytes as they are, anything else as JSON."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return FakeTransport(lambda body_asked: Answer(status, body, retry_after))


async def evaluate(
    transport: FakeTransport,
    mentor_ids: Sequence[UUID],
    context: RunContext | None = None,
    service_role_key: str | None = "key",
) -> Evaluation:
    engine = HttpTriggerEngine(transport, service_role_key)
    async with engine.open_session(context or RunContext(RUN_ID)) as session:
        return await session.evaluate(mentor_ids)


async def fail(transport: FakeTransport, mentor_ids: Sequence[UUID]) -> InvocationFailed:
    with pytest.raises(InvocationFailed) as raised:
        await evaluate(transport, mentor_ids)
    return raised.value


def result(mentor_id: str, dispatched: Sequence[str] = (), suppressed: Sequence[str] = ()) -> dict[str, Any]:
    return {"mentor_id": mentor_id, "dispatched": list(dispatched), "suppressed": list(suppressed)}


# What is asked


async def test_one_mentor_is_asked_about_by_its_id() -> None:
    transport = always(result(ONE))
    await evaluate(transport, ids(1))
    assert transport.posts == [
        Post(
            {
                "Authorization": "Bearer key",
                "Content-Type": "application/json",
                "Accept": "application/json",
                "X-Run-Id": str(RUN_ID),
                "Idempotency-Key": f"{RUN_ID}:{ONE}:{ONE}:1",
            },
            {"mentor_id": ONE, "scenario_types": None, "dry_run": False, "run_id": str(RUN_ID)},
            65 * 1024,
        )
    ]


async def test_several_mentors_are_asked_about_by_their_ids() -> None:
    transport = always({"results": [result(ONE), result(TWO), result(THREE)]})
    await evaluate(transport, ids(3), RunContext(RUN_ID, ("expiry", "inactivity"), dry_run=True))
    (post,) = transport.posts
    assert post.headers["Idempotency-Key"] == f"{RUN_ID}:{ONE}:{THREE}:3"
    assert post.body == {
        "mentor_ids": [ONE, TWO, THREE],
        "scenario_types": ["expiry", "inactivity"],
        "dry_run": True,
        "run_id": str(RUN_ID),
    }
    assert post.max_body_bytes == 67 * 1024


async def test_without_a_key_no_authorization_is_sent() -> None:
    transport = always(result(ONE))
    await evaluate(transport, ids(1), service_role_key=None)
    assert "Authorization" not in transport.posts[0].headers


async def test_a_session_is_one_connection_closed_with_it() -> None:
    transport = always(result(ONE))
    async with HttpTriggerEngine(transport, None).open_session(RunContext(RUN_ID)) as session:
        await session.evaluate(ids(1))
        await session.evaluate(ids(1))
        assert transport.open_connections == 1
    assert transport.open_connections == 0


# What is answered


@pytest.mark.parametrize(
    ("answer", "evaluation"),
    [
        (result(ONE), Evaluation()),
        (result(ONE, ["inactivity"]), Evaluation({"inactivity": 1})),
        (result(ONE, ["a", "b"], ["c"]), Evaluation({"a": 1, "b": 1}, {"c": 1})),
        ({**result(ONE), "took_ms": 3, "more": {"x": [None]}}, Evaluation()),
        ({"mentor_id": ONE, "error": "no such row"}, Evaluation(errors={"mentor_error": 1})),
    ],
)
async def test_an_answer_for_one_is_its_counts_or_its_error(
    answer: dict[str, Any], evaluation: Evaluation
) -> None:
    transport = always(answer)
    assert await evaluate(transport, ids(1)) == evaluation
    assert transport.drops == 0


async def test_an_id_in_upper_case_is_the_same_id() -> None:
    mentor_id = UUID("0192abcd-0000-7000-8000-00000000beef")
    assert await evaluate(always(result(str(mentor_id).upper())), [mentor_id]) == Evaluation()


@pytest.mark.parametrize(
    ("results", "evaluation"),
    [
        ([result(ONE), result(TWO), result(THREE)], Evaluation()),
        (
            [result(THREE, ["a", "b"]), result(ONE, ["a"], ["b"]), result(TWO)],
            Evaluation({"a": 2, "b": 1}, {"b": 1}),
        ),
        ([result(ONE, ["a"])], Evaluation({"a": 1}, errors={"mentor_missing": 2})),
        ([], Evaluation(errors={"mentor_missing": 3})),
        (
            [result(ONE, ["a"]), result(TWO), result(THREE), result(ONE, ["b"])],
            Evaluation(errors={"mentor_answered_twice": 1}),
        ),
        (
            [result(ONE), result(TWO), result(ONE), {"mentor_id": ONE, "error": "x"}],
            Evaluation(errors={"mentor_answered_twice": 1, "mentor_missing": 1}),
        ),
        (
            [{"mentor_id": ONE, "error": "x"}, result(TWO, ["a"]), {"mentor_id": THREE, "error": ""}],
            Evaluation({"a": 1}, errors={"mentor_error": 2}),
        ),
    ],
)
async def test_in_an_answer_for_many_each_mentor_counts_once(
    results: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    transport = always({"results": results})
    assert await evaluate(transport, ids(3)) == evaluation
    assert transport.drops == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"<html>",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + json.dumps(result(ONE)).encode(),
        json.dumps(result(ONE)).encode("utf-16"),
        json.dumps(result(ONE)).encode() + b"x",
        json.dumps({**result(ONE), "x": float("nan")}).encode(),
        json.dumps({**result(ONE), "x": float("-inf")}).encode(),
        json.dumps(result(ONE)).replace("}", ', "dispatched": ["a"]}').encode(),
        100_000 * b"[",
        b'{"a":' * 100_000,
        b"9" * 10_000,
        {},
        {"mentor_id": ONE},
        {"mentor_id": 1, "dispatched": [], "suppressed": []},
        {"mentor_id": ONE, "dispatched": []},
        {"mentor_id": ONE, "dispatched": None, "suppressed": []},
        {"mentor_id": ONE, "dispatched": {"a": 1}, "suppressed": []},
        {"mentor_id": ONE, "dispatched": "a", "suppressed": []},
        {"mentor_id": ONE, "dispatched": 1, "suppressed": 0},
        {"mentor_id": ONE, "error": None},
        {"mentor_id": ONE, "error": {"message": "x"}},
        result(ONE, ["a", "a"]),
        result(ONE, [], ["a", "a"]),
        result(ONE, ["Inactivity"]),
        result(ONE, ["1st"]),
        result(ONE, ["a\n"]),
        result(ONE, [""]),
        result(ONE, ["a" * 64]),
        result(ONE, ["día"]),
        {"mentor_id": ONE, "dispatched": [1], "suppressed": []},
        {"mentor_id": ONE, "dispatched": [["a"]], "suppressed": []},
        {"results": [result(ONE)]},
    ],
)
async def test_any_other_answer_for_one_is_a_wrong_shape(answer: Any) -> None:
    transport = always(answer)
    failure = await fail(transport, ids(1))
    assert (failure.error_class, failure.bisectable, failure.retryable) == ("wrong_shape", True, False)
    assert transport.drops == 1


@pytest.mark.parametrize(
    "answer",
    [
        result(ONE),
        [result(ONE), result(TWO)],
        {"results": None},
        {"results": {ONE: result(ONE)}},
        {"results": [None]},
        {"results": [[]]},
        {"results": [result(ONE), {"mentor_id": TWO}]},
        {"results": [result(ONE), result(TWO, ["NO"])]},
        {"results": [result(ONE), result(ONE, ["NO"])]},
    ],
)
async def test_any_other_answer_for_many_is_a_wrong_shape(answer: Any) -> None:
    transport = always(answer)
    failure = await fail(transport, ids(2))
    assert (failure.error_class, failure.bisectable, failure.retryable) == ("wrong_shape", True, False)
    assert transport.drops == 1


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (result(NINE), 1),
        (result("somebody"), 1),
        ({"mentor_id": NINE, "error": "x"}, 1),
        ({"results": [result(NINE)]}, 2),
        ({"results": [result(ONE), result(TWO), result(NINE)]}, 2),
    ],
)
async def test_a_foreign_id_fails_the_chunk_and_drops_the_connection(answer: Any, size: int) -> None:
    transport = always(answer)
    failure = await fail(transport, ids(size))
    assert (failure.error_class, failure.bisectable, failure.retryable) == ("foreign_id", False, False)
    assert transport.drops == 1


@pytest.mark.parametrize(
    ("status", "error_class", "retryable", "bisectable"),
    [
        (201, "http_201", False, False),
        (204, "http_204", False, False),
        (301, "redirect", False, False),
        (307, "redirect", False, False),
        (400, "http_400", False, True),
        (401, "http_401", False, False),
        (403, "http_403", False, False),
        (404, "http_404", False, False),
        (413, "http_413", False, True),
        (422, "http_422", False, True),
        (429, "http_429", True, False),
        (500, "http_500", False, True),
        (501, "http_501", False, False),
        (502, "http_502", True, False),
        (503, "http_503", True, False),
        (504, "http_504", True, False),
        (999, "http_999", False, False),
    ],
)
async def test_a_status_says_whether_to_retry_or_to_bisect(
    status: int, error_class: str, retryable: bool, bisectable: bool
) -> None:
    transport = always(result(ONE), status)
    failure = await fail(transport, ids(1))
    assert failure.error_class == error_class
    assert (failure.retryable, failure.bisectable) == (retryable, bisectable)
    assert failure.retry_after is None
    assert transport.drops == 0  # the answer was understood


NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1.5", None),
        ("+5", None),
        ("\u0667", None),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 12:00:30 -0000", 30.0),
        ("Mon, 23 Nov 2026 13:00:30 +0100", 30.0),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
        ("Mon, 23 Nov 99999999999 12:00:30 GMT", None),
        ("Mon, 23 Nov 2026 12:00:30 +9999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_negative(
    value: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_can_do_harm(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0.0


async def test_retry_after_comes_with_a_failure_that_may_be_retried() -> None:
    failure = await fail(always(b"", 429, "7"), ids(1))
    assert (failure.retryable, failure.retry_after) == (True, 7.0)


async def test_a_failure_of_the_transport_is_handed_on_and_the_session_goes_on() -> None:
    failures = [InvocationFailed("connection_reset", retryable=True)]

    def answer(body: Any) -> Answer:
        if failures:
            raise failures.pop()
        return Answer(200, json.dumps(result(ONE, ["a"])).encode())

    async with HttpTriggerEngine(FakeTransport(answer), None).open_session(RunContext(RUN_ID)) as session:
        with pytest.raises(InvocationFailed, match="connection_reset"):
            await session.evaluate(ids(1))
        assert await session.evaluate(ids(1)) == Evaluation({"a": 1})


async def test_a_cancelled_call_leaves_a_session_that_goes_on(autojump_clock: MockClock) -> None:
    transport = FakeTransport(
        lambda body: Answer(200, json.dumps(result(body["mentor_id"])).encode()), latency=FOREVER
    )
    async with HttpTriggerEngine(transport, None).open_session(RunContext(RUN_ID)) as session:
        with trio.move_on_after(5) as scope:
            await session.evaluate(ids(1))
        assert scope.cancelled_caught
        transport.latency = 0.0
        assert await session.evaluate(ids(2)[1:]) == Evaluation()


# Whatever comes

scenario_types = st.sampled_from(["inactivity", "expiry", "a", "", "NO", "a\n"]) | st.text(max_size=3)
mentor_results = st.fixed_dictionaries(
    {"mentor_id": st.sampled_from([ONE, TWO, THREE, ONE.upper(), NINE, "", "x"]) | st.none()},
    optional={
        "dispatched": st.lists(scenario_types, max_size=3) | st.none(),
        "suppressed": st.lists(scenario_types, max_size=3) | st.integers(),
        "error": st.text(max_size=3) | st.none(),
    },
)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | mentor_results,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=5), values, max_size=4),
    max_leaves=10,
)
answers = st.binary(max_size=200) | (
    mentor_results
    | json_values
    | st.fixed_dictionaries({"results": st.lists(mentor_results, max_size=5) | json_values})
).map(lambda value: json.dumps(value).encode())


@given(
    body=answers,
    status=st.just(200) | st.integers(200, 999),
    retry_after=st.none() | st.text(max_size=20),
    size=st.integers(1, 3),
)
async def test_whatever_is_answered_is_an_evaluation_of_the_chunk_or_a_failure(
    body: bytes, status: int, retry_after: str | None, size: int
) -> None:
    transport = FakeTransport(lambda asked: Answer(status, body, retry_after))
    try:
        evaluation = await evaluate(transport, ids(size))
    except InvocationFailed:
        return
    assert status == 200
    errors = sum(evaluation.errors.values())
    assert 0 <= errors <= size
    for counts in (evaluation.dispatched, evaluation.suppressed):
        assert all(0 < count <= size - errors for count in counts.values())


@given(st.permutations(range(1, 8)), st.data())
async def test_every_mentor_of_an_answer_for_many_is_evaluated_or_an_error(
    order: list[int], data: st.DataObject
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(["ok", "error", "missing", "twice"]), min_size=7, max_size=7))
    results: list[dict[str, Any]] = []
    for number in order:
        mentor_id = str(UUID(int=number))
        match kinds[number - 1]:
            case "ok":
                results.append(result(mentor_id, ["a"]))
            case "error":
                results.append({"mentor_id": mentor_id, "error": "x"})
            case "twice":
                results += [result(mentor_id, ["a"]), result(mentor_id)]
    evaluation = await evaluate(always({"results": results}), ids(7))
    assert evaluation.dispatched.get("a", 0) == kinds.count("ok")
    assert sum(evaluation.errors.values()) == 7 - kinds.count("ok")


# When there is no file descriptor left


@pytest.mark.parametrize("retryable", [True, False])
async def test_without_a_file_descriptor_a_failure_is_called_so_and_retried_only_if_it_would_have_been(
    retryable: bool,
) -> None:
    def refuse(asked: Any) -> Answer:
        raise InvocationFailed("connection_cut", retryable=retryable) from OSError(errno.EMFILE, "too many")

    failure = await fail(FakeTransport(refuse), ids(1))
    assert (failure.error_class, failure.retryable) == ("out_of_files", retryable)
