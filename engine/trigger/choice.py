"""This file chooses the trigger engine and its transport, by the settings."""

from __future__ import annotations

from engine.settings import Settings
from engine.trigger.http import HttpTriggerEngine
from engine.trigger.in_database import InDatabaseTriggerEngine
from engine.trigger.protocol import TriggerEngine
from engine.trigger.transport import Transport


def choose_trigger_engine(settings: Settings, built_in: InDatabaseTriggerEngine) -> TriggerEngine:
    """The one in the database, unless a URL is set. Raises ConfigurationError if its transport is missing."""
    if not settings.over_http:
        return built_in
    key = settings.service_role_key
    return HttpTriggerEngine(choose_transport(settings), key.get_secret_value() if key else None)


def choose_transport(settings: Settings) -> Transport:
    """What carries posts to a trigger engine at a URL. Raises ConfigurationError if it is missing."""
    # Imported when chosen: httpx alone is 20 MB of memory that nobody needs beside `direct`.
    if settings.transport == "httpx":
        from engine.trigger.via_httpx import HttpxTransport

        proxy = settings.proxy.get_secret_value() if settings.proxy else None
        return HttpxTransport(settings.trigger_engine, proxy=proxy)
    if settings.transport == "asks":
        from engine.trigger.via_asks import AsksTransport

        return AsksTransport(settings.trigger_engine)
    from engine.trigger.direct import DirectTransport

    return DirectTransport(settings.trigger_engine)
