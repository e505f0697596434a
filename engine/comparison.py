"""This file is how secrets are compared, and the only place where they are: as digests, in constant time.

Digests are of equal length, whatever is given, so that the time taken tells neither how much of a guess was
right nor how long the secret is.
"""

from __future__ import annotations

import hmac
from hashlib import sha256


def digest_of(secret: str) -> bytes:
    """What to keep of an expected secret, and to make of a given one."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def is_same(digest: bytes, expected: bytes) -> bool:
    """Whether two secrets are the same, by their digests."""
    return hmac.compare_digest(digest, expected)
