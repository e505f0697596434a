"""Whatever is sent to any route, by whoever: answered as documented, in the one shape, naming nobody.

tests/web has a test for each refusal that somebody thought of; tests/end_to_end/test_openapi.py sends what
the document allows. Here is the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
import quart
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.hostile.counting import counted, tries
from tests.hostile.requests import MENTOR, Application, Endless, Fields, Reply, check_request
from tests.web.conftest import KEY, SECRET, TOKEN
from web.json_body import BUFFER_BYTES

AUTHORIZED = (b"x-scheduler-secret", SECRET.encode())
BY_ROLE = (b"authorization", b"Bearer " + KEY.encode())
BY_OPERATOR = (b"authorization", b"Bearer " + TOKEN.encode())
JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")


def ask(*requests: tuple[str, bytes, Fields, Iterable[bytes]]) -> list[Reply]:
    """One after the other, of one application, in virtual time."""

    async def ask_all() -> list[Reply]:
        application = Application()
        return [await check_request(application, *request) for request in requests]

    return trio.run(ask_all, clock=MockClock(autojump_threshold=0))


# --- What can be sent ---

PATHS = [
    *(
        b"/run",
        b"/trigger-engine",
        b"/healthz",
        b"/readyz",
        b"/freshness",
        b"/metrics",
        b"/runs",
        b"/explain",
    ),
    b"/runs/01930000-0000-7000-8000-000000000000",
    *(b"/runs/" + MENTOR.encode(), b"/openapi.json", b"/"),
    *(b"/dashboard", b"/dashboard/overview", b"/dashboard/events", b"/login", b"/logout"),
    *(b"/static/dashboard.css", b"/static/..%2f..%2fengine/settings.py", b"/static/%2e%2e/app.py"),
]
TRICKS = [
    *(
        b"//run",
        b"/run/",
        b"/RUN",
        b"/%72un",
        b"/run%00",
        b"/run%2f",
        b"/x/../run",
        b"/x/%2e%2e/run",
        b"/./run",
    ),
    *(b"/run;x=y", b"/run%3fx", b"/run%0d%0aX:y"),
    *(b"http://evil.example/run", b"*", b"/run%", b"/run%zz"),
    *(b"/run%c0%af", b"/run%ff", b"/static/", b"/static/dashboard.css/", b"/runs//", b"/runs/%00"),
]
METHODS = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "HEAD",
    "PATCH",
    "TRACE",
    "CONNECT",
    "get",
    "RUN",
    "M-SEARCH",
]
latin = st.binary(max_size=40).map(
    lambda value: value.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
)
tokens = st.text("abcdefghijklmnopqrstuvwxyz-_", min_size=1, max_size=12).map(str.encode)

secrets = st.sampled_from(
    [SECRET, SECRET.upper(), SECRET[:-1], f"{SECRET} ", f"{SECRET},{SECRET}", KEY, TOKEN, ""]
)
authorizations = st.builds(
    lambda scheme, space, value: (scheme + space + value).encode("latin-1"),
    st.sampled_from(["Bearer", "bearer", "BEARER", "Basic", "Bearer:", ""]),
    st.sampled_from([" ", "  ", "\t", "", ","]),
    secrets | latin.map(lambda value: value.decode("latin-1")),
)
cookies = st.lists(
    st.builds(
        lambda name, value: name + b"=" + value,
        st.sampled_from([b"scheduler_session", b"scheduler_form", b"__Host-scheduler_form", b"x", b""]),
        latin | st.sampled_from([b"0" * 32, b'"' + b"0" * 32 + b'"', b"a.b.c", b"." * 50, TOKEN.encode()]),
    ),
    max_size=3,
).map(b"; ".join)
fields = st.one_of(
    st.just(AUTHORIZED),
    st.just(BY_ROLE),
    st.just(BY_OPERATOR),
    st.just(JSON),
    st.just(FORM),
    secrets.map(lambda secret: (b"x-scheduler-secret", secret.encode())),
    latin.map(lambda value: (b"x-scheduler-secret", value)),
    authorizations.map(lambda value: (b"authorization", value)),
    cookies.map(lambda value: (b"cookie", value)),
    latin.map(lambda value: (b"cookie", value)),
    latin.map(lambda value: (b"content-type", value)),
    latin.map(lambda value: (b"last-event-id", value)),
    st.sampled_from(
        [
            *(
                (b"content-length", value)
                for value in (b"0", b"5", b"999999999999", b"-1", b"x", b"5, 5", b"")
            ),
            *(
                (b"content-type", value)
                for value in (b"application/json; charset=utf-16", b"text/plain", b"a/b; q")
            ),
            *((b"last-event-id", value) for value in (b"1", b"-1", b"9" * 300, MENTOR.encode())),
            (b"transfer-encoding", b"chunked"),
            (b"expect", b"100-continue"),
            (b"upgrade", b"websocket"),
            (b"connection", b"upgrade"),
            (b"host", b"evil.example"),
            (b"host", b"\xff"),
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", b"evil.example"),
            (b"x-http-method-override", b"POST"),
            (b"x-original-url", b"/run"),
            (b"range", b"bytes=0-99999999999"),
            (b"if-none-match", b"*"),
            (b"if-modified-since", b"Mon, 99 Nov 2026 12:00:30 GMT"),
            (b"accept", b"*/*;q=NaN"),
            (b"accept-encoding", b"gzip"),
            (b"access-control-request-method", b"POST"),
            (b"origin", b"null"),
        ]
    ),
    st.tuples(tokens, latin),
)
visible = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
queries = st.one_of(
    st.just(b""),
    st.sampled_from(
        [
            *(
                b"?limit=1",
                b"?limit=0",
                b"?limit=501",
                b"?limit=%d9%a7",
                b"?limit=1&limit=2",
                b"?limit",
                b"?=",
                b"?&&",
            ),
            *(
                b"?before=",
                b"?before=" + MENTOR.encode(),
                b"?before=%00",
                b"?before={" + MENTOR.encode() + b"}",
            ),
            *(
                b"?x=" + 5_000 * b"y",
                b"?" + 500 * b"a&",
                b"?limit=1%0a",
                b"?limit=+1",
                b"?_method=POST",
                b"?%ff=%fe",
            ),
        ]
    ),
    # No byte that h11 would not let through to the application.
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30).map(
        lambda value: b"?" + value.encode()
    ),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(MENTOR),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["mentor_id", "mentor_ids", "scenario_types", "dry_run", "run_id", "source", "invoked_at", MENTOR]
)
likely = st.sampled_from(
    [
        *(
            MENTOR,
            [MENTOR],
            [MENTOR, MENTOR],
            [MENTOR] * 1_001,
            MENTOR.upper(),
            f"{{{MENTOR}}}",
            "urn:uuid:" + MENTOR,
        ),
        *(
            True,
            "true",
            1,
            0.0,
            -0.0,
            1e308,
            10**40,
            None,
            [],
            {},
            "",
            "x" * 65,
            "\x00",
            "\ud800",
            "é",
            "inactivity",
        ),
        *(
            ["inactivity"],
            ["expiry"] * 100,
            ["expiry"] * 101,
            ["Expiry"],
            ["a" * 63],
            [""],
            "2026-11-23T20:49:00Z",
        ),
        *(
            "2026-11-23T20:49:00+99:99",
            "0001-01-01T00:00:00+23:59",
            "2026-W48-1",
            "2026-11-23T24:00:00+00:00",
        ),
    ]
)
documents = st.dictionaries(keys, likely | json_values, max_size=4).map(
    lambda value: json.dumps(value).encode()
)
documents |= json_values.map(lambda value: json.dumps(value).encode())
raw_bodies = st.one_of(
    documents,
    documents,
    st.binary(max_size=60),
    st.sampled_from(
        [
            *(
                b"",
                b"[" * 15_000,
                b'{"source":' * 1_500,
                b"{} {}",
                b"\xef\xbb\xbf{}",
                b'{"dry_run": NaN}',
                b"\x00",
                b"{",
            ),
            *(
                b'{"dry_run": true, "dry_run": true}',
                b"9" * 5_000,
                b'{"dry_run": ' + b"9" * 5_000 + b"}",
                b"-",
                b'"',
            ),
            *(
                b'{"source": "\\ud800"}',
                b'{"\\ud800": 1}',
                "{}".encode("utf-16"),
                b" " * 16_384,
                b" " * 16_385,
            ),
        ]
    ),
    st.sampled_from(
        [
            *(
                b"form_token=x&token=y",
                b"token=" + TOKEN.encode(),
                b"&&&",
                b"=" * 100,
                b"%",
                b"a=%ff",
                b"token=%00",
            ),
            *(
                b"form_token=%ud800",
                b"&".join([b"a=b"] * 9),
                b"form_token=" + b"f" * 64,
                b"token=" + b"x" * 5_000,
            ),
            *(b"form_token=%C3%A9&token=%F0%9F%92%A3", b"form_token=x&form_token=y"),
        ]
    ),
)
bodies = raw_bodies.map(lambda body: [body]) | raw_bodies.map(
    lambda body: [body[i : i + 7] for i in range(0, 700, 7)]
)
bodies |= st.just(Endless())

requests = st.tuples(
    st.sampled_from(METHODS) | st.just("POST") | st.just("GET"),
    st.builds(
        bytes.__add__, st.sampled_from(PATHS) | st.sampled_from(TRICKS) | st.sampled_from(PATHS), queries
    ),
    st.lists(fields, max_size=4),
    bodies,
)


@tries(150)
@given(st.lists(requests, min_size=1, max_size=4))
def test_whatever_is_sent_to_any_route_is_answered_as_documented_and_names_nobody(
    sent: list[tuple[str, bytes, list[tuple[bytes, bytes]], list[bytes]]],
) -> None:
    ask(*map(as_is, sent))


@counted("requests")
def as_is(request: Any) -> Any:
    return request


def of(method: str, target: bytes, *fields: tuple[bytes, bytes]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda more, body: as_is((method, target, [*fields, *more], body)),
        st.lists(fields_that_change_nothing, max_size=1),
        bodies,
    )


fields_that_change_nothing = st.sampled_from(
    [(b"host", b"x"), (b"x-forwarded-proto", b"https"), (b"accept", b"*/*")]
)
by_those_who_may = st.one_of(
    of("POST", b"/run", AUTHORIZED, JSON),
    of("POST", b"/trigger-engine", BY_ROLE, JSON),
    of("POST", b"/explain", BY_OPERATOR, JSON),
    of("POST", b"/login", FORM),
    of("POST", b"/logout", FORM),
)


@tries(150)
@given(st.lists(by_those_who_may, min_size=1, max_size=4))
def test_whatever_body_those_who_may_send_is_taken_or_refused_in_a_sentence(sent: list[Any]) -> None:
    for reply in ask(*sent):
        assert reply.status in (200, 303, 400, 401, 403, 404, 408, 413, 415, 422, 429)


@tries(100)
@given(st.lists(st.binary(max_size=64), min_size=1, max_size=2), st.integers(0, 2))
@counted("requests")
def test_no_other_secret_opens_and_none_is_told_from_another(secrets: list[bytes], right: int) -> None:
    """Given once and right, or not at all; the refusal is the same to the byte."""
    given = [secret.replace(b"\r", b"").replace(b"\n", b"") for secret in secrets]
    given += [SECRET.encode()] * right
    wrong = [(b"x-scheduler-secret", secret) for secret in given]
    if given == [SECRET.encode()]:
        return
    [reply, missing] = ask(("POST", b"/run", wrong, []), ("POST", b"/run", [], []))
    assert (reply.status, reply.headers, reply.body) == (401, missing.headers, missing.body)
    assert reply.bytes_read == 0


@pytest.mark.parametrize("target", [b"/run", b"/trigger-engine", b"/explain", b"/login", b"/logout"])
@pytest.mark.parametrize("length", [None, b"5", b"99999999999999999999"])
def test_a_body_without_an_end_is_not_read_to_it(target: bytes, length: bytes | None) -> None:
    fields = [AUTHORIZED, BY_OPERATOR, JSON]
    if target == b"/trigger-engine":
        fields[1] = BY_ROLE
    if length is not None:
        fields.append((b"content-length", length))
    [reply] = ask(("POST", target, fields, Endless()))
    assert reply.status == 413


@pytest.mark.parametrize("target", [b"/run", b"/trigger-engine", b"/explain"])
def test_whoever_may_not_is_refused_before_the_end_of_a_body_without_one(target: bytes) -> None:
    [reply] = ask(("POST", target, [JSON], Endless()))
    assert reply.status == 401


@pytest.mark.parametrize("target", [b"/freshness", b"/readyz"])
def test_a_body_that_nobody_asks_for_is_not_kept_while_an_answer_is_awaited(target: bytes) -> None:
    """A stranger's, while Postgres takes its time: the framework goes on receiving."""
    kept: list[int] = []

    async def answer_slowly() -> None:
        while not kept or kept[-1] < 2_000_000:
            await trio.lowlevel.checkpoint()
            kept.append(1_000 * len(kept))
        kept.append(len(quart.request.body._data))

    async def ask_slowly() -> None:
        application = Application()
        application.scheduler.check_ready = answer_slowly  # type: ignore[method-assign]
        await check_request(application, "GET", target, [], Endless(), most_read=10_000_000)

    trio.run(ask_slowly, clock=MockClock(autojump_threshold=0))
    assert kept[-1] <= BUFFER_BYTES + 1_000
