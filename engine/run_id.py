"""This file makes run ids: UUIDv7, so that they sort by the moment they were made."""

from __future__ import annotations

import secrets
import time
from uuid import UUID


def new_run_id() -> UUID:
    """48 bits of milliseconds since 1970, the version and variant, 74 random bits (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    return UUID(
        int=(milliseconds & (2**48 - 1)) << 80
        | 0x7 << 76
        | (random >> 62) << 64
        | 0b10 << 62
        | (random & (2**62 - 1))
    )
