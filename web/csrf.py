"""This file is what tells our own forms from those of other sites: a nonce in a cookie, signed in the form.

Another site can have a browser send the cookie, but can neither read it nor sign it; and a cookie that it
planted, by way of a neighbouring host, is of no use to it without the signature.
"""

from __future__ import annotations

import hmac
import re
import secrets

from quart import Response, request

NONCE_COOKIE = "scheduler_form"

# The name of the hidden field.
FIELD = "form_token"


class FormTokens:
    """Signs forms with `key`, each for its own purpose. `secure`: the cookie goes over TLS only."""

    def __init__(self, key: bytes, *, secure: bool) -> None:
        self._key = key
        self._secure = secure

    def issue(self, purpose: str) -> tuple[str, str]:
        """The browser's nonce, a new one if it has none, and the token for the form."""
        nonce = _nonce_of_request() or secrets.token_hex(16)
        return nonce, self._sign(nonce, purpose)

    def remember(self, response: Response, nonce: str) -> None:
        """Have the browser send it back, to this service alone.

        SameSite is Lax and not Strict: whoever follows a link from another site would come without it, be
        given another, and the forms of pages that are open already would be good no more.
        """
        response.set_cookie(NONCE_COOKIE, nonce, httponly=True, samesite="Lax", secure=self._secure)

    def is_ours(self, given: str, purpose: str) -> bool:
        """Whether the form at hand came from a page of ours, shown in the browser that sends it."""
        # Without a nonce there is nothing that was ever signed, since `issue` makes one.
        expected = self._sign(_nonce_of_request() or "", purpose)
        return hmac.compare_digest(given.encode(), expected.encode())

    def _sign(self, nonce: str, purpose: str) -> str:
        return hmac.new(self._key, f"{purpose} {nonce}".encode(), "sha256").hexdigest()


def _nonce_of_request() -> str | None:
    nonce = request.cookies.get(NONCE_COOKIE, "")
    return nonce if re.fullmatch(r"[0-9a-f]{32}", nonce) else None
