"""This file is where a transport posts to: a URL, taken apart once."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`authority` is the Host field, `target` path and query, `host` what a certificate must name."""

    tls: bool
    host: str
    port: int
    authority: str
    target: str


def parse_endpoint(url: str) -> Endpoint:
    """Take apart an http or https URL that the settings have already checked."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    target = parts.path or "/"
    if parts.query:
        target += "?" + parts.query
    return Endpoint(tls, parts.hostname or "", parts.port or (443 if tls else 80), parts.netloc, target)
