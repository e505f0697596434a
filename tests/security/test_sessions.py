"""A session cannot be chosen by somebody else. What else holds of sessions is in tests/web/test_login.py."""

from __future__ import annotations

from tests.web.conftest import FakeScheduler, make_settings
from tests.web.test_login import cookies_of, post_login
from web.app import create_app
from web.sessions import SESSION_COOKIE


async def session_of(app: object, cookie: str | None = None) -> str:
    """Log in with a browser that bears this cookie already; the cookie that it has afterwards."""
    client = app.test_client()  # type: ignore[attr-defined]
    if cookie is not None:
        client.set_cookie("localhost", SESSION_COOKIE, cookie)
    line = cookies_of(await post_login(client))[SESSION_COOKIE]
    return line.partition(";")[0].partition("=")[2]


async def test_logging_in_begins_a_session_of_its_own_whatever_cookie_was_planted() -> None:
    app = create_app(FakeScheduler(), make_settings())
    planted = "chosen-by-somebody-else"
    first = await session_of(app, planted)
    assert first not in (planted, await session_of(app))
    stranger = app.test_client(use_cookies=False)
    for cookie, status in ((planted, 401), (first, 200)):
        response = await stranger.get("/runs", headers={"Cookie": f"{SESSION_COOKIE}={cookie}"})
        assert response.status_code == status
