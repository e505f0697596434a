"""This file is the operator's session: a signed cookie, by quart-auth, and nothing on the server.

Its key is derived from the operator token, so a new token ends every session. quart-auth (0.12) awaits
nothing of asyncio's, so it serves Quart-Trio as it is.
"""

from __future__ import annotations

import hmac
import warnings

from pydantic import SecretStr
from quart import Response
from quart_auth import AuthUser, QuartAuth
from quart_trio import QuartTrio

from engine import Settings, is_loopback

# Who is in a session. There is one operator.
OPERATOR = "operator"

# Seconds after which to log in again: a working day.
SESSION_LASTS = 12 * 3600

SESSION_COOKIE = "scheduler_session"


class _Sessions(QuartAuth):
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


def operator_user() -> AuthUser:
    return AuthUser(OPERATOR)
