"""This file is what tells our own forms from those of other sites: a nonce in a cookie, signed in the form.

Another site can have a browser send the cookie, but can neither read it nor sign it. A neighbouring host may
plant a cookie of its own, and have it signed for `login`: anyone may open that page. What it can then have a
browser send is an operator token, which it would have to know, or wrong ones, which cost a pause at the form.
A form to log out is signed only for who is logged in. Where the cookie is for https its name begins with
`__Host-`, and browsers let nobody but this host set it.
"""

from __future__ import annotations

import hmac
import re
import secrets

from quart import Response, request

from engine import digest_of, is_same

# Over plain http, and over https: browsers take the prefix with Secure alone.
NONCE_COOKIE, SECURE_NONCE_COOKIE = "scheduler_form", "__Host-scheduler_form"

# The name of the hidden field.
FIELD = "form_token"


class FormTokens:
    """Signs forms with `key`, each for its own purpose. `secure`: the cookie goes over TLS only."""

    def __init__(self, key: bytes, *, secure: bool) -> None:
        self._key = key
        self._secure = secure
        self._cookie = SECURE_NONCE_COOKIE if secure else NONCE_COOKIE

    def issue(self, purpose: str) -> tuple[str, str]:
        """The browser's nonce, a new one if it has none, and the token for the form."""
        nonce = self._nonce_of_request() or secrets.token_hex(16)
        return nonce, self._sign(nonce, purpose)

    def remember(self, response: Response, nonce: str) -> None:
        """Have the browser send it back, to this service alone.

        SameSite is Lax and not Strict: whoever follows a link from another site would come without it, be
        given another, and the forms of pages that are open already would be good no more.
        """
        response.set_cookie(self._cookie, nonce, path="/", httponly=True, samesite="Lax", secure=self._secure)

    def is_ours(self, given: str, purpose: str) -> bool:
        """Whether the form at hand came from a page of ours, shown in the browser that sends it."""
        # Without a nonce there is nothing that was ever signed, since `issue` makes one.
        expected = self._sign(self._nonce_of_request() or "", purpose)
        return is_same(digest_of(given), digest_of(expected))

    def is_cookie_kept_back(self) -> bool:
        """Whether the browser at hand has no cookie to send because it is for https, and this is not.

        What a proxy says of the scheme is believed: it decides about no more than what a person is told.
        """
        is_https = request.is_secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        return self._secure and not is_https and self._nonce_of_request() is None

    def _sign(self, nonce: str, purpose: str) -> str:
        return hmac.new(self._key, f"{purpose} {nonce}".encode(), "sha256").hexdigest()

    def _nonce_of_request(self) -> str | None:
        nonce = request.cookies.get(self._cookie, "")
        return nonce if re.fullmatch(r"[0-9a-f]{32}", nonce) else None
