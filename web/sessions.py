"""This file is the operator's session: a signed cookie, by quart-auth, and on the server only which are over.

Its key is derived from the operator token, so a new token ends every session. Logging out ends one, also for
whoever kept its cookie, but in this process alone and until it ends: a restart forgets who logged out, and a
kept cookie opens again for what is left of its twelve hours. quart-auth (0.12) awaits nothing of asyncio's,
so it serves Quart-Trio as it is.
"""

from __future__ import annotations

import hmac
import secrets
import warnings

from pydantic import SecretStr
from quart import Quart, Response
from quart_auth import AuthUser, QuartAuth
from quart_trio import QuartTrio

from engine import Settings, is_loopback

# Seconds after which to log in again: a working day.
SESSION_LASTS = 12 * 3600

SESSION_COOKIE = "scheduler_session"

# Sessions that are remembered to have ended, the latest: 0.1 MB. Only whoever has the token can end one, and
# nobody logs out a thousand times in twelve hours.
ENDED_AT_MOST = 1_000


class _Sessions(QuartAuth):
    """Each has an id of its own. Those that have ended are refused."""

    # Their ids, in the order in which they ended.
    _ended: dict[str, None]

    def init_app(self, app: Quart) -> None:
        super().init_app(app)
        self._ended = {}

    def load_cookie(self) -> str | None:
        session_id = super().load_cookie()
        return None if session_id in self._ended else session_id

    def logout_user(self) -> None:
        session_id = self.load_user().auth_id
        if session_id is not None:
            self._ended[session_id] = None
            if len(self._ended) > ENDED_AT_MOST:
                del self._ended[next(iter(self._ended))]
        super().logout_user()

    async def after_request(self, response: Response) -> Response:
        # Behind a proxy that ends TLS every request is plain http, about which it would warn.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Secure cookies will be ignored")
            return await super().after_request(response)


def are_cookies_secure(settings: Settings) -> bool:
    """Off only where nothing but this machine can reach the listener, and there is no TLS."""
    return not is_loopback(settings.bind.rpartition(":")[0].strip("[]"))


def derive_key(token: SecretStr, purpose: str) -> bytes:
    """A key for one purpose, from which neither the token nor another key can be told."""
    return hmac.digest(token.get_secret_value().encode(), f"scenario-scheduler {purpose}".encode(), "sha256")


def use_sessions(app: QuartTrio, token: SecretStr, settings: Settings) -> None:
    """From here on `current_user` is the operator, or nobody.

    SameSite is Lax: a link to the dashboard opens it, and no page of another site can POST with the cookie.
    """
    app.secret_key = derive_key(token, "session")
    _Sessions(
        app,
        cookie_name=SESSION_COOKIE,
        cookie_secure=are_cookies_secure(settings),
        cookie_http_only=True,
        cookie_samesite="Lax",
        duration=SESSION_LASTS,
        salt="session",
    )


def new_session() -> AuthUser:
    """The operator, who is the only user, in a session that is told from any other by its id."""
    return AuthUser(secrets.token_hex(16))
