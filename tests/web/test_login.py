"""/login and /logout: how a session begins and ends, what it opens, and what it never does."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import trio
from quart.typing import TestClientProtocol as Client
from trio.testing import MockClock
from werkzeug.datastructures import Headers

from tests.web.conftest import KEY, SECRET, TOKEN, FakeScheduler, make_settings
from tests.web.test_explain import EXPLANATION
from tests.web.test_run import assert_refused
from web.app import create_app
from web.login_attempts import FORGOTTEN_AFTER, FREE_FAILURES, LONGEST_PAUSE, LoginAttempts
from web.sessions import SESSION_LASTS, derive_key

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def form_token(client: Client, path: str = "/login") -> str:
    page = await (await client.get(path)).get_data(as_text=True)
    match = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
    assert match is not None
    return match[1]


async def post_login(client: Client, token: str = TOKEN, **more: str) -> Any:
    fields = {"form_token": await form_token(client), "token": token} | more
    return await client.post("/login", form=fields)


async def log_in(client: Client) -> None:
    response = await post_login(client)
    assert (response.status_code, response.headers["Location"]) == (303, "/dashboard")


def cookies_of(response: Any) -> dict[str, str]:
    return {line.partition("=")[0]: line for line in response.headers.getlist("Set-Cookie")}


# --- A session begins ---


async def test_the_token_begins_a_session_that_opens_dashboard_and_ledger(client: Client) -> None:
    for path in ("/dashboard", "/dashboard/overview", "/runs"):
        assert (await client.get(path)).status_code in (303, 401)
    await log_in(client)
    for path in ("/dashboard", "/dashboard/overview", "/runs"):
        assert (await client.get(path)).status_code == 200
    assert (await client.get("/login")).headers["Location"] == "/dashboard"


async def test_a_session_opens_metrics_and_explain_as_well(client: Client, scheduler: FakeScheduler) -> None:
    scheduler.explanations[EXPLANATION.mentor_id] = EXPLANATION
    about = {"mentor_id": str(EXPLANATION.mentor_id)}
    assert (await client.get("/metrics")).status_code == 401
    assert (await client.post("/explain", json=about)).status_code == 401
    await log_in(client)
    assert (await client.get("/metrics")).status_code == 200
    answer = await client.post("/explain", json=about)
    assert (answer.status_code, await answer.get_json()) == (200, EXPLANATION.as_json())


async def test_a_pasted_token_may_have_space_around_it(client: Client) -> None:
    assert (await post_login(client, token=f" {TOKEN}\n")).status_code == 303


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN.upper(), SECRET, KEY, f"{TOKEN}\0"])
async def test_any_other_token_begins_none_and_is_told_nothing(token: str, client: Client) -> None:
    response = await post_login(client, token=token)
    assert response.status_code == 401
    assert "scheduler_session" not in cookies_of(response)
    page = await response.get_data(as_text=True)
    assert "That is not the operator token." in page
    assert 'aria-invalid="true"' in page
    assert (await client.get("/runs")).status_code == 401


async def test_where_a_login_leads_is_not_for_the_request_to_say(client: Client) -> None:
    fields = {"form_token": await form_token(client), "token": TOKEN, "next": "https://evil.example/"}
    response = await client.post("/login?next=//evil.example", form=fields)
    assert response.headers["Location"] == "/dashboard"


async def test_the_session_cookie_is_for_this_service_alone(client: Client) -> None:
    cookie = cookies_of(await post_login(client))["scheduler_session"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    assert TOKEN not in cookie


@pytest.mark.parametrize(
    ("bind", "is_secure"),
    [
        ("127.0.0.1:8000", False),
        ("localhost:8000", False),
        ("[::1]:8000", False),
        ("0.0.0.0:8000", True),
        ("[::]:8000", True),
        ("scheduler.internal:8000", True),
    ],
)
async def test_cookies_go_over_tls_only_unless_nobody_else_can_connect(
    bind: str, is_secure: bool, scheduler: FakeScheduler
) -> None:
    client = create_app(scheduler, make_settings(bind=bind)).test_client()
    page = await client.get("/login", scheme="https")
    [(name, nonce)] = cookies_of(page).items()
    assert ("Secure" in nonce) is is_secure
    # So that no neighbouring host can plant one: without Secure a browser would not take it.
    assert name == ("__Host-scheduler_form" if is_secure else "scheduler_form")
    assert "Path=/" in nonce
    assert "Domain" not in nonce
    token = re.search(r'value="([0-9a-f]{64})"', await page.get_data(as_text=True))
    assert token is not None
    response = await client.post("/login", form={"form_token": token[1], "token": TOKEN}, scheme="https")
    assert ("Secure" in cookies_of(response)["scheduler_session"]) is is_secure


async def test_behind_a_proxy_that_ends_tls_a_login_works_without_a_warning(scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings(bind="0.0.0.0:8000")).test_client(use_cookies=False)
    page = await client.get("/login")
    nonce = cookies_of(page)["__Host-scheduler_form"].partition(";")[0]
    token = re.search(r'value="([0-9a-f]{64})"', await page.get_data(as_text=True))
    assert token is not None
    response = await client.post(
        "/login", form={"form_token": token[1], "token": TOKEN}, headers={"Cookie": nonce}
    )
    assert response.status_code == 303


@pytest.mark.parametrize(
    ("bind", "scheme", "headers", "said"),
    [
        ("0.0.0.0:8000", "http", {}, "this page needs https"),
        ("0.0.0.0:8000", "http", {"X-Forwarded-Proto": "http"}, "this page needs https"),
        ("0.0.0.0:8000", "http", {"X-Forwarded-Proto": "https"}, "too old"),
        ("0.0.0.0:8000", "http", {"Cookie": f"__Host-scheduler_form={'0' * 32}"}, "too old"),
        ("0.0.0.0:8000", "https", {}, "too old"),
        ("127.0.0.1:8000", "http", {}, "too old"),
    ],
)
async def test_a_login_without_its_cookie_over_plain_http_says_that_https_is_needed(
    bind: str, scheme: str, headers: dict[str, str], said: str, scheduler: FakeScheduler
) -> None:
    client = create_app(scheduler, make_settings(bind=bind)).test_client(use_cookies=False)
    fields = {"form_token": await form_token(client), "token": TOKEN}
    response = await client.post("/login", form=fields, headers=headers, scheme=scheme)
    assert response.status_code == 403
    assert said in await response.get_data(as_text=True)


# --- A session ends ---


async def test_logging_out_ends_the_session(client: Client) -> None:
    await log_in(client)
    response = await client.post("/logout", form={"form_token": await form_token(client, "/dashboard")})
    assert (response.status_code, response.headers["Location"]) == (303, "/login")
    assert (await client.get("/runs")).status_code == 401


async def test_a_cookie_that_was_kept_opens_nothing_once_its_session_was_logged_out(
    scheduler: FakeScheduler,
) -> None:
    app = create_app(scheduler, make_settings())
    leaving, staying, keeper = app.test_client(), app.test_client(), app.test_client(use_cookies=False)
    cookie = cookies_of(await post_login(leaving))["scheduler_session"].partition(";")[0]
    await log_in(staying)
    assert (await keeper.get("/runs", headers={"Cookie": cookie})).status_code == 200
    await leaving.post("/logout", form={"form_token": await form_token(leaving, "/dashboard")})
    for path in ("/runs", "/dashboard/overview", "/dashboard/events", "/metrics"):
        response = await keeper.get(path, headers={"Cookie": cookie})
        await assert_refused(response, 401, "unauthorized")
    assert (await keeper.get("/dashboard", headers={"Cookie": cookie})).headers["Location"] == "/login"
    assert (await staying.get("/runs")).status_code == 200
    await log_in(leaving)
    assert (await leaving.get("/runs")).status_code == 200


async def test_no_more_ended_sessions_are_remembered_than_is_said(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.sessions.ENDED_AT_MOST", 2)
    app = create_app(scheduler, make_settings())
    client, keeper = app.test_client(), app.test_client(use_cookies=False)
    cookies = []
    for _ in range(3):
        cookies.append(cookies_of(await post_login(client))["scheduler_session"].partition(";")[0])
        await client.post("/logout", form={"form_token": await form_token(client, "/dashboard")})
    statuses = [(await keeper.get("/runs", headers={"Cookie": cookie})).status_code for cookie in cookies]
    assert statuses == [200, 401, 401]


async def test_a_new_operator_token_ends_every_session(scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings()).test_client(use_cookies=False)
    sessions = create_app(scheduler, make_settings()).test_client()
    cookie = cookies_of(await post_login(sessions))["scheduler_session"].partition(";")[0]
    assert (await client.get("/runs", headers={"Cookie": cookie})).status_code == 200
    after = create_app(scheduler, make_settings(operator_token="another-token-of-32-characters!!"))
    response = await after.test_client(use_cookies=False).get("/runs", headers={"Cookie": cookie})
    assert response.status_code == 401


async def test_a_session_is_over_after_half_a_day(
    client: Client, scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(client)
    signed_at = time.time()
    for age, status in ((SESSION_LASTS - 60, 200), (SESSION_LASTS + 60, 401)):
        monkeypatch.setattr("itsdangerous.timed.time.time", lambda now=signed_at + age: now)
        assert (await client.get("/runs")).status_code == status


async def test_a_session_that_somebody_else_signed_opens_nothing(scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings()).test_client(use_cookies=False)
    forged = create_app(scheduler, make_settings(operator_token="f" * 32)).test_client()
    cookie = cookies_of(await post_login(forged, token="f" * 32))["scheduler_session"].partition(";")[0]
    for value in (cookie, "scheduler_session=operator", "scheduler_session="):
        assert (await client.get("/runs", headers={"Cookie": value})).status_code == 401


async def test_a_wrong_bearer_is_not_made_up_for_by_a_session(client: Client) -> None:
    await log_in(client)
    for path in ("/runs", "/dashboard", "/dashboard/overview", "/dashboard/events"):
        response = await client.get(path, headers={"Authorization": "Bearer wrong"})
        await assert_refused(response, 401, "unauthorized")


async def test_a_password_that_a_proxy_passes_on_is_not_in_the_way_of_a_session(client: Client) -> None:
    passed_on = {"Authorization": "Basic b3BlcmF0b3I6cGFzc3dvcmQ="}
    await assert_refused(await client.get("/runs", headers=passed_on), 401, "unauthorized")
    await log_in(client)
    for path in ("/runs", "/dashboard", "/dashboard/overview", "/metrics"):
        assert (await client.get(path, headers=passed_on)).status_code == 200


@pytest.mark.parametrize(
    "given",
    [["bearer wrong"], ["Bearer"], ["Basic eA==", "Bearer wrong"], ["Basic eA==", f"Bearer {TOKEN}"]],
)
async def test_a_bearer_decides_however_it_is_written_and_beside_whatever(
    given: list[str], client: Client
) -> None:
    await log_in(client)
    response = await client.get("/runs", headers=Headers([("Authorization", value) for value in given]))
    await assert_refused(response, 401, "unauthorized")


async def test_a_session_is_neither_the_tick_nor_the_trigger_engine(
    client: Client, scheduler: FakeScheduler
) -> None:
    await log_in(client)
    for path in ("/run", "/trigger-engine"):
        await assert_refused(await client.post(path), 401, "unauthorized")
    assert scheduler.requests == []


def test_keys_for_different_purposes_are_different_and_none_is_the_token() -> None:
    token = make_settings().operator_token
    keys = {derive_key(token, purpose) for purpose in ("session", "forms")}
    assert len(keys) == 2
    assert all(len(key) == 32 and TOKEN.encode() not in key for key in keys)


# --- Forms of our own only ---


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize("given", ["none", "empty", "of another browser", "of the other form", "not ASCII"])
async def test_a_form_that_is_not_ours_does_nothing(
    path: str, given: str, client: Client, scheduler: FakeScheduler
) -> None:
    page_of, page_of_other = {"/login": ("/login", "/dashboard"), "/logout": ("/dashboard", "/login")}[path]

    async def tokens(of: Client) -> dict[str, str]:
        entrance = await form_token(of)
        await log_in(of)
        return {"/login": entrance, "/dashboard": await form_token(of, "/dashboard")}

    own = await tokens(client)
    foreign = await tokens(create_app(scheduler, make_settings()).test_client())
    fields = {
        "none": {},
        "empty": {"form_token": ""},
        "of another browser": {"form_token": foreign[page_of]},
        "of the other form": {"form_token": own[page_of_other]},
        "not ASCII": {"form_token": "é" * 64},
    }[given]
    response = await client.post(path, form={"token": TOKEN} | fields)
    if path == "/login":
        assert response.status_code == 403
    else:
        assert (response.status_code, response.headers["Location"]) == (303, "/dashboard")
    assert "scheduler_session" not in cookies_of(response)
    assert (await client.get("/runs")).status_code == 200


async def test_a_form_without_its_cookie_does_nothing(client: Client, scheduler: FakeScheduler) -> None:
    """As when another site posts it: the cookie is SameSite=Lax."""
    token = await form_token(client)
    without = create_app(scheduler, make_settings()).test_client(use_cookies=False)
    assert (await without.post("/login", form={"form_token": token, "token": TOKEN})).status_code == 403


async def test_a_logout_without_session_or_form_leads_to_the_entrance(client: Client) -> None:
    response = await client.post("/logout")
    assert (response.status_code, response.headers["Location"]) == (303, "/login")


async def test_a_visit_from_another_site_leaves_the_forms_of_open_pages(
    scheduler: FakeScheduler,
) -> None:
    app = create_app(scheduler, make_settings())
    tab = app.test_client()
    cookies = cookies_of(await tab.get("/login")) | cookies_of(await post_login(tab))
    token = await form_token(tab, "/dashboard")

    def header(of: dict[str, str]) -> dict[str, str]:
        return {"Cookie": "; ".join(line.partition(";")[0] for line in of.values())}

    # A browser that follows a link brings along what is Lax, and keeps what it is given.
    browser = app.test_client(use_cookies=False)
    brought = {name: line for name, line in cookies.items() if "SameSite=Lax" in line}
    cookies |= cookies_of(await browser.get("/dashboard", headers=header(brought)))
    response = await browser.post("/logout", form={"form_token": token}, headers=header(cookies))
    assert (response.status_code, response.headers["Location"]) == (303, "/login")
    assert (await browser.get("/runs", headers=header(cookies))).status_code == 401


async def test_a_nonce_that_a_neighbouring_host_could_plant_is_not_looked_at(
    scheduler: FakeScheduler,
) -> None:
    app = create_app(scheduler, make_settings(bind="0.0.0.0:8000"))
    stranger, browser = app.test_client(use_cookies=False), app.test_client(use_cookies=False)
    page = await stranger.get("/login")
    nonce = cookies_of(page)["__Host-scheduler_form"].partition(";")[0].partition("=")[2]
    token = re.search(r'value="([0-9a-f]{64})"', await page.get_data(as_text=True))
    assert token is not None
    response = await browser.post(
        "/login",
        form={"form_token": token[1], "token": TOKEN},
        headers={"Cookie": f"scheduler_form={nonce}"},
    )
    assert response.status_code == 403
    assert "scheduler_session" not in cookies_of(response)


async def test_a_planted_nonce_is_of_no_use_without_its_signature(scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings()).test_client(use_cookies=False)
    for nonce in ("0" * 32, ""):
        response = await client.post(
            "/login",
            form={"form_token": nonce, "token": TOKEN},
            headers={"Cookie": f"scheduler_form={nonce}"},
        )
        assert response.status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 403),
        (b"&&&", 403),
        (b"form_token", 403),
        (b"\xff\xfe", 403),
        (b"a=1&" * 9, 403),
        (b"x" * 5_000, 413),
    ],
)
async def test_a_body_that_is_no_form_does_nothing(body: bytes, status: int, client: Client) -> None:
    assert (await client.post("/login", data=body, headers=FORM)).status_code == status


async def test_a_field_that_is_given_twice_is_not_given(client: Client) -> None:
    token = await form_token(client)
    body = f"form_token={token}&token=x&token={TOKEN}".encode()
    assert (await client.post("/login", data=body, headers=FORM)).status_code == 401


# --- Not too often ---


async def test_after_five_failures_the_pause_doubles_up_to_half_a_minute(
    client: Client, autojump_clock: MockClock
) -> None:
    for _ in range(FREE_FAILURES):
        assert (await post_login(client, token="wrong")).status_code == 401
    for pause in (1, 2, 4, 8, 16, 30, 30):
        assert (await post_login(client, token="wrong")).status_code == 401
        refused = await post_login(client)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, str(pause))
        assert f"try again in {pause} s" in await refused.get_data(as_text=True)
        await trio.sleep(pause)
    token = await form_token(client)
    await log_in(client)
    for _ in range(2):  # forgiven
        response = await client.post("/login", form={"form_token": token, "token": "wrong"})
        assert response.status_code == 401


async def test_many_at_once_get_no_more_tries_than_one_after_the_other(
    client: Client, autojump_clock: MockClock
) -> None:
    token = await form_token(client)
    statuses: list[int] = []

    async def attempt() -> None:
        response = await client.post("/login", form={"form_token": token, "token": "wrong"})
        statuses.append(response.status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(attempt)
    assert sorted(statuses) == [401] * (FREE_FAILURES + 1) + [429] * (39 - FREE_FAILURES)


async def test_failures_are_forgotten_by_a_login_and_with_time(autojump_clock: MockClock) -> None:
    attempts = LoginAttempts()
    for _ in range(20):
        attempts.count_failure()
    assert attempts.pause_left() == LONGEST_PAUSE
    await trio.sleep(FORGOTTEN_AFTER)
    attempts.count_failure()
    assert attempts.pause_left() == 0
    for _ in range(20):
        attempts.count_failure()
    attempts.forget()
    assert attempts.pause_left() == 0


async def test_a_form_that_is_not_ours_is_not_a_try(client: Client, autojump_clock: MockClock) -> None:
    for _ in range(20):
        await client.post("/login", form={"token": "wrong"})
    await log_in(client)


async def test_no_stranger_can_lock_out_the_right_bearer(client: Client, autojump_clock: MockClock) -> None:
    for _ in range(50):
        assert (await client.get("/runs", headers={"Authorization": "Bearer wrong"})).status_code == 401
        await post_login(client, token="wrong")
    assert (await post_login(client)).status_code == 429
    assert (await client.get("/runs", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200
