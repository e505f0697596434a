"""Whatever a trigger engine answers, byte for byte and piece by piece: the `direct` transport and the parse.

tests/transports/test_conformance.py holds every transport to chosen answers over real sockets; here are the
answers that nobody chose.
"""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.trigger.transport import MAX_HEADER_BYTES
from tests.hostile.answers import (
    FIRST,
    SECOND,
    as_answer,
    check_answer,
    check_evaluation,
    check_split,
    never_ending,
)
from tests.hostile.counting import counted, tries

ENDINGS = st.sampled_from(["close", "reset", "hang"])

# --- Arbitrary, and almost right ---

statuses = st.sampled_from([b"200 OK", b"200", b"204 X", b"304 X", b"100 Go on", b"101 Up", b"103 Hints"])
statuses |= st.sampled_from([b"301 Moved", b"429 Slow", b"503 Busy", b"999 X", b"99 X", b"2000 X", b"-1 X"])
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2", b"http/1.1", b"HTTP/1.10"])
line_ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n"])
numbers = st.sampled_from(
    [b"0", b"5", b"05", b"+5", b"-5", b"5 ", b" 5", b"0x5", b"5,5", b"5, 6", b"1e3", b""]
)
numbers |= st.sampled_from([b"18446744073709551616", b"9" * 400, b"99999999999999999999", b"5\x0b", b"\xb25"])
numbers |= st.integers(0, 50).map(lambda number: b"%d" % number)
codings = st.sampled_from(
    [b"chunked", b"Chunked", b"identity", b"gzip, chunked", b"chunked, gzip", b"xchunked"]
)
codings |= st.sampled_from(
    [b"chunked;q=1", b"chunked\x0b", b"\x00chunked", b"", b"chunked,", b"chunked, chunked"]
)
fields = st.one_of(
    numbers.map(lambda number: b"Content-Length: " + number),
    codings.map(lambda coding: b"Transfer-Encoding: " + coding),
    codings.map(lambda coding: b"Content-Encoding: " + coding),
    numbers.map(lambda number: b"Retry-After: " + number),
    st.sampled_from([b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: x"]),
    st.sampled_from(
        [b"Content-Length : 5", b" Content-Length: 5", b"Content-Length\t: 5", b"Content_Length: 5"]
    ),
    st.sampled_from(
        [b"Location: http://evil.example/", b"Content-Type: text/html", b"X: y\r\n z", b"X", b":"]
    ),
    st.binary(max_size=30),
)
sizes = st.sampled_from(
    [b"0", b"5", b"00005", b"5;x=y", b"5 ", b"-1", b"g", b"0x5", b"", b"FFFFFFFFFFFFFFFFF"]
)
chunks = st.tuples(
    sizes, line_ends, st.sampled_from([b"right", b"left!", b"", b"longer than five"]), line_ends
)
bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"right", b'{"mentor_id": "x"}', b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"]),
    st.lists(chunks.map(b"".join), max_size=4).map(b"".join),
    st.lists(chunks.map(b"".join), max_size=3).map(lambda parts: b"".join(parts) + b"0\r\n\r\n"),
    st.lists(chunks.map(b"".join), max_size=3).map(lambda parts: b"".join(parts) + b"0\r\nX: y\r\n\r\nmore"),
)


@st.composite
def almost_answers(draw: st.DrawFn) -> bytes:
    end = draw(st.just(b"\r\n") | line_ends)
    head = draw(versions) + b" " + draw(statuses) + end
    for field in draw(st.lists(fields, max_size=4)):
        head += field + (end if draw(st.integers(0, 9)) else draw(line_ends))
    return head + end + draw(bodies)


conversations = st.lists(almost_answers(), min_size=1, max_size=3).map(b"".join)
cut_places = st.lists(st.integers(0, 400), max_size=6) | st.just(list(range(600)))


@tries(1_500)
@given(st.binary(max_size=300) | conversations, cut_places, ENDINGS, st.sampled_from([5, 12, 2_000]))
@counted("direct answers")
def test_whatever_is_said_is_one_answer_or_a_known_failure_and_never_the_next_ones(
    data: bytes, cuts: list[int], ending: str, max_body_bytes: int
) -> None:
    check_split(data, cuts, ending, max_body_bytes)


VALID = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\nright",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nright\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nright",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
]
SPLICES = [
    b"",
    b"\r\n",
    b"\n",
    b"\x00",
    b"Content-Length: 2\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n",
]


@tries(1_000)
@given(
    st.sampled_from(VALID),
    st.lists(
        st.tuples(st.integers(0, 120), st.integers(0, 6), st.sampled_from(SPLICES) | st.binary(max_size=4)),
        min_size=1,
        max_size=3,
    ),
    cut_places,
    ENDINGS,
)
@counted("direct answers")
def test_a_valid_answer_with_a_few_bytes_changed_is_no_other_answer(
    valid: bytes, changes: list[tuple[int, int, bytes]], cuts: list[int], ending: str
) -> None:
    for place, length, splice in changes:
        valid = valid[:place] + splice + valid[place + length :]
    check_split(valid, cuts, ending)


# --- Answers that lie about their length ---


@tries(200)
@given(said=st.integers(0, 30), sent=st.binary(max_size=30), ending=ENDINGS)
@counted("direct answers")
def test_an_answer_that_lies_about_its_length_is_cut_or_poisons_its_connection(
    said: int, sent: bytes, ending: str
) -> None:
    outcome = check_answer([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % said, sent], ending)
    if len(sent) >= said:
        assert outcome.answer is not None
        assert outcome.answer.body == sent[:said]
    else:
        assert outcome.error_class == (None if ending == "hang" else "connection_cut")


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 99999999999999999999999",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Encoding: gzip\r\nContent-Length: 5",
        b"Content-Encoding: deflate\r\nContent-Length: 5",
    ],
)
def test_two_ways_to_see_the_end_of_a_body_are_no_answer(fields: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n5\r\nright\r\n0\r\n\r\n"
    assert check_answer([data], "close").error_class in ("malformed_answer", "oversize_answer")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_compression_bomb_is_never_inflated(compress: object) -> None:
    bomb = compress(bytes(10_000_000))  # type: ignore[operator]
    name = b"gzip" if compress is gzip.compress else b"deflate"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (name, len(bomb))
    assert check_answer([head, bomb], "close", max_body_bytes=1 << 20).error_class == "malformed_answer"


# --- Answers without an end ---


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"", b"HTTP/1.1 100 Go on\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"),
        (b"", b"\r\n"),
        (b"HTTP/1.1 200 ", b"OK"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\n", b"y"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", b" folded\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y"),
    ],
    ids=lambda value: repr(value[-24:]),
)
@pytest.mark.parametrize("max_body_bytes", [10, 2_000, 64 * 1024])
def test_what_never_ends_is_given_up_within_its_bound(
    beginning: bytes, endless: bytes, max_body_bytes: int
) -> None:
    outcome = never_ending(beginning, endless, max_body_bytes)
    assert outcome.error_class in ("oversize_answer", "malformed_answer")


@tries(150)
@given(almost_answers(), st.binary(min_size=1, max_size=20) | almost_answers())
@counted("direct answers")
def test_whatever_never_ends_is_given_up_within_its_bound(beginning: bytes, endless: bytes) -> None:
    never_ending(beginning, endless)


@pytest.mark.parametrize("size", [MAX_HEADER_BYTES - 100, MAX_HEADER_BYTES, 10 * MAX_HEADER_BYTES])
def test_a_huge_header_is_bounded_however_it_is_cut(size: int) -> None:
    data = b"HTTP/1.1 200 OK\r\nX: " + size * b"y" + b"\r\nContent-Length: 5\r\n\r\nright"
    check_split(data, list(range(0, len(data), 1_000)), "close")


# --- What the body says ---

NAMES = ["mentor_id", "dispatched", "suppressed", "error", "results", ""]
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
leaves |= st.sampled_from([str(FIRST), str(SECOND), str(UUID(int=3)), "inactivity", "expiry", 10**400])
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
RIGHT_BODY = json.dumps({"mentor_id": str(FIRST), "dispatched": ["inactivity"], "suppressed": []}).encode()
odd_bodies = st.sampled_from(
    [
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"mentor_id": NaN}',
        b'{"mentor_id": Infinity, "dispatched": -Infinity}',
        RIGHT_BODY.replace(b'"suppressed"', b'"dispatched"'),
        RIGHT_BODY.replace(b"inactivity", b"\xff\xfe"),
        RIGHT_BODY.replace(b"inactivity", b"\\ud800"),
        b"\xef\xbb\xbf" + RIGHT_BODY,
        RIGHT_BODY.decode().encode("utf-16"),
        b"1" * 5_000,
        b"-" * 5_000,
        b'{"dispatched": ' + b"9" * 5_000 + b"}",
        b'"' + b"\\u0000" * 1_000 + b'"',
        RIGHT_BODY + b" " + RIGHT_BODY,
        b"",
    ]
)


@tries(700)
@given(
    values.map(lambda value: json.dumps(value).encode()) | odd_bodies | st.binary(max_size=100),
    st.sampled_from([200, 200, 200, 400, 401, 429, 500, 503, 302, 999]),
    st.sampled_from([[FIRST], [FIRST, UUID(int=3)]]),
    cut_places,
    ENDINGS,
)
@example(RIGHT_BODY, 200, [FIRST], [], "hang")
@counted("direct answers")
def test_whatever_a_body_says_counts_those_who_were_asked_about_or_fails(
    body: bytes, status: int, mentor_ids: list[UUID], cuts: list[int], ending: str
) -> None:
    data = as_answer(body, status)
    bounds = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    check_evaluation([data[begin:end] for begin, end in pairwise(bounds)], ending, mentor_ids)
