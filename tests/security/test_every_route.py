"""Of every route there is: the fields of its answers, and that no trick leads round who may call it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from quart.typing import TestClientProtocol as Client
from structlog.testing import capture_logs
from trio.testing import MockClock
from werkzeug.datastructures import Headers

import web.auth
from engine import DatabaseUnavailable
from tests.hostile.requests import MENTOR, Application, check_request
from tests.web import states
from tests.web.conftest import KEY, SECRET, TOKEN, FakeScheduler, make_settings
from web.app import create_app

OF_ALL = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
OF_PAGES = {"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"}

# Not streams: those are read by tests/web/test_events.py.
PATHS = {
    "/runs/<run_id>": "/runs/01930000-0000-7000-8000-000000000000",
    "/static/<name>": "/static/dashboard.js",
}


def routes() -> Iterator[tuple[str, str]]:
    app = create_app(FakeScheduler(), make_settings())
    for rule in app.url_map.iter_rules():
        if rule.rule != "/dashboard/events":
            for method in sorted({*(rule.methods or ()), "PUT"}):
                yield method, PATHS.get(rule.rule, rule.rule)


@pytest.fixture
def scheduler() -> FakeScheduler:
    scheduler = FakeScheduler()
    states.good(scheduler)
    return scheduler


@pytest.fixture
def client(scheduler: FakeScheduler) -> Client:
    return create_app(scheduler, make_settings()).test_client()


def as_whom(who: str) -> Headers:
    bearer = {"a stranger": "", "the operator": TOKEN, "the trigger engine's caller": KEY}[who]
    fields = [("X-Scheduler-Secret", SECRET), ("Content-Type", "application/json")] if bearer else []
    return Headers([*fields, ("Authorization", f"Bearer {bearer}")] if bearer else fields)


@pytest.mark.parametrize("who", ["a stranger", "the operator", "the trigger engine's caller"])
@pytest.mark.parametrize(("method", "path"), list(routes()))
async def test_every_answer_says_that_it_is_for_nobody_else_and_in_no_frame(
    method: str, path: str, who: str, client: Client
) -> None:
    response = await client.open(path, method=method, headers=as_whom(who))
    is_page = response.content_type.startswith(("text/html", "text/css", "text/javascript"))
    for name, value in (OF_ALL | (OF_PAGES if is_page else {})).items():
        assert response.headers.getlist(name) == [value], name
    [policy] = response.headers.getlist("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not {"Server", "X-Powered-By", "Access-Control-Allow-Origin"} & set(response.headers.keys())


# --- Ways round ---

RUN_BY = b"/run?x-scheduler-secret=" + SECRET.encode()
TO_RUN = (b"//run", b"/run/", b"/RUN", b"/%72un", b"/./run", b"/run%2f", b"/run;x", b"/run%00", RUN_BY)
TO_READ = (
    *(b"//runs", b"/%72uns", b"/runs/", b"/static/../runs", b"/static/%2e%2e/runs", b"//dashboard"),
    *(b"http://127.0.0.1/runs", b"http://x@127.0.0.1/dashboard/overview", b"/runs?token=" + TOKEN.encode()),
)
THE_SECRET = (b"x-scheduler-secret", SECRET.encode())
THE_TOKEN = (b"authorization", b"Bearer " + TOKEN.encode())
TRICKS = [
    ("GET", b"/run", [THE_SECRET, (b"x-http-method-override", b"POST")]),
    ("POST", b"/run?_method=GET", []),
    ("POST", b"/run", [(b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"127.0.0.1")]),
    ("POST", b"/healthz/../run", []),
    ("POST", b"/healthz", [THE_SECRET, (b"x-original-url", b"/run"), (b"x-rewrite-url", b"/run")]),
    *[("POST", path, []) for path in TO_RUN],
    *[("GET", path, [(b"host", b"127.0.0.1")]) for path in TO_READ],
    *[(method, b"/runs", []) for method in ("TRACE", "OPTIONS", "CONNECT", "PROPFIND", "HEAD")],
    ("POST", b"/run", [THE_SECRET, THE_SECRET]),
    ("POST", b"/run", [THE_SECRET, (b"x-scheduler-secret", b"")]),
    ("POST", b"/run", [(b"x_scheduler_secret", SECRET.encode())]),
    ("POST", b"/run", [(b"authorization", b"Bearer " + SECRET.encode())]),
    ("POST", b"/run", [(b"cookie", b"X-Scheduler-Secret=" + SECRET.encode())]),
    ("GET", b"/runs", [THE_TOKEN, THE_TOKEN]),
    ("GET", b"/runs", [THE_SECRET, (b"authorization", b"Bearer " + KEY.encode())]),
]


@pytest.mark.parametrize(("method", "target", "fields"), TRICKS)
def test_no_trick_with_method_path_or_fields_leads_round_a_credential(
    method: str, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    async def ask() -> None:
        application = Application()
        reply = await check_request(application, method, target, fields)
        assert reply.status in (303, 400, 401, 404, 405), reply
        assert reply.headers.get("location", ["/login"])[0] in ("/login", "/dashboard")
        assert application.scheduler.requests == []
        assert application.scheduler.listings == []

    trio.run(ask, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1@evil.example"])
async def test_no_answer_names_the_host_that_the_request_names(host: str, client: Client) -> None:
    for path in ("/dashboard", "/login", "/openapi.json", "/nowhere"):
        response = await client.get(path, headers={"Host": host, "X-Forwarded-Host": "evil.example"})
        assert "evil" not in await response.get_data(as_text=True) + str(response.headers)


@pytest.mark.parametrize("path", ["/runs//x", "/static//dashboard.js", "/dashboard//overview"])
async def test_a_doubled_slash_is_another_path_and_not_redirected_to_the_host_of_the_request(
    path: str, client: Client
) -> None:
    """Found by the fuzzer. pg_net follows redirects, and takes the secret along to wherever one leads."""
    headers = {"Host": "evil.example", "Authorization": f"Bearer {TOKEN}"}
    response = await client.open(path, method="GET", headers=headers)
    assert (response.status_code, response.content_type) == (404, "application/json")
    assert "Location" not in response.headers


# --- The log ---


@pytest.mark.parametrize("operator", [True, False])
async def test_an_id_in_a_path_does_not_get_into_the_log(
    operator: bool, client: Client, scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for a mentor where a run can be asked for, with Postgres away or a wrong token."""
    monkeypatch.setattr(web.auth, "_refusals", web.auth._Refusals())
    scheduler.error = DatabaseUnavailable("Postgres is away.")
    headers = {"Authorization": f"Bearer {TOKEN if operator else 'wrong'}"}
    with capture_logs() as logs:
        response = await client.get(f"/runs/{MENTOR}", headers=headers)
    assert response.status_code == (503 if operator else 401)
    [line] = logs
    assert line["path"] == "/runs/<run_id>"
    assert MENTOR not in str(logs)
