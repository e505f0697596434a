"""This file is the field Retry-After (RFC 9110, 10.2.3): seconds, or a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"-?[0-9]{1,9}")


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from `now`, never negative; None for no value or one that is neither seconds nor a date."""
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return max(0.0, float(value))
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # "-0000", which means UTC of unknown origin
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
