"""This file is who may call what: the tick's shared secret, the service role key, the operator.

Compared over digests of equal length, every one of them every time, so that the time taken tells nothing. An
expected secret that is unset matches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio
from pydantic import SecretStr
from quart import Response, request
from quart_auth import current_user

from engine import digest_of, is_same
from web.answers import refusal, route_at_hand

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two lines about refused credentials.
LOG_PAUSE = 10.0

SECRET_HEADER = "X-Scheduler-Secret"  # noqa: S105 - the name of a header


class Credential:
    """One or more secrets, any of which opens: two while one is being rotated."""

    def __init__(self, *secrets: SecretStr | None) -> None:
        self._digests = [digest_of(secret.get_secret_value()) for secret in secrets if secret is not None]

    @property
    def is_set(self) -> bool:
        return bool(self._digests)

    def opens(self, given: str) -> bool:
        digest = digest_of(given)
        return any([is_same(digest, expected) for expected in self._digests])

    def opens_with_header(self, values: Sequence[str]) -> bool:
        """Whether the header was given exactly once, and rightly."""
        return len(values) == 1 and self.opens(values[0])

    def opens_with_bearer(self, values: Sequence[str]) -> bool:
        """Whether `Authorization: Bearer …` (RFC 6750) was given exactly once, and rightly."""
        given = values[0] if len(values) == 1 else ""
        return self.opens(given.partition(" ")[2].strip(" ")) and _is_bearer(given)


class Operator:
    """Whoever holds the operator token: in a session that logging in began, or as a bearer.

    What only the operator may call asks it before anything else:
    `blueprint.before_request(operator.refuse_others)`.
    """

    def __init__(self, token: SecretStr | None) -> None:
        self.token = Credential(token)

    @property
    def is_set(self) -> bool:
        return self.token.is_set

    async def is_asking(self) -> bool:
        """Whether the request at hand is the operator's. A bearer that is wrong is not made up for.

        Another scheme is not ours to judge: a proxy that asks for a password of its own passes on `Basic …`.
        """
        if has_bearer():
            return self.token.opens_with_bearer(request.headers.getlist("Authorization"))
        return await self.has_session()

    async def has_session(self) -> bool:
        """Whether the request at hand bears the cookie that a login with this token has set."""
        return self.is_set and await current_user.is_authenticated

    async def refuse_others(self) -> Response | None:
        return None if await self.is_asking() else unauthorized("Bearer")


class _Refusals:
    """Counts refused credentials, and logs them a line at a time: anyone can cause them."""

    def __init__(self) -> None:
        self._unlogged = 0
        self._next_line_at = float("-inf")

    def count(self) -> None:
        self._unlogged += 1
        if trio.current_time() >= self._next_line_at:
            log.warning("unauthorized", path=route_at_hand(), refused=self._unlogged)
            self._unlogged = 0
            self._next_line_at = trio.current_time() + LOG_PAUSE


_refusals = _Refusals()


def count_refusal() -> None:
    """Have the log say that somebody was refused."""
    _refusals.count()


def unauthorized(scheme: str) -> Response:
    """401, the same for a credential that is missing, wrong or given twice."""
    count_refusal()
    return refusal(
        401,
        "unauthorized",
        "The credential is missing or wrong.",
        {"WWW-Authenticate": f'{scheme} realm="scenario-scheduler"'},
    )


def has_bearer() -> bool:
    """Whether the request at hand gives a bearer, right or wrong."""
    return any(_is_bearer(value) for value in request.headers.getlist("Authorization"))


def _is_bearer(authorization: str) -> bool:
    """Whether it is of that scheme, which is written in any case (RFC 9110, 11.1)."""
    return authorization.partition(" ")[0].lower() == "bearer"
