"""This file is what evaluates mentors, in whichever process: a database, a source of them, an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from engine.database import Database, open_database
from engine.errors import ConfigurationError
from engine.mentors.choice import open_mentors
from engine.mentors.protocol import MentorSource
from engine.settings import Settings
from engine.trigger.choice import choose_trigger_engine
from engine.trigger.in_database import InDatabaseTriggerEngine
from engine.trigger.protocol import TriggerEngine


@dataclass(frozen=True, slots=True)
class Parts:
    """`built_in` is the trigger engine in the database, whichever `trigger_engine` is."""

    database: Database
    mentors: MentorSource
    trigger_engine: TriggerEngine
    built_in: InDatabaseTriggerEngine


@asynccontextmanager
async def open_parts(settings: Settings, *, max_connections: int) -> AsyncIterator[Parts]:
    """Open them in order, to be closed in reverse. Connects to nothing yet. Raises ConfigurationError.

    **Cancellation:** no task and no connection is left.
    """
    if settings.database_url is None:
        raise ConfigurationError(["DATABASE_URL is not set; give it the URL of your Postgres."])
    async with (
        open_database(
            settings.database_url.get_secret_value(),
            max_connections=max_connections,
            pooler=settings.database_pooler,
        ) as database,
        open_mentors(settings, database) as mentors,
    ):
        built_in = InDatabaseTriggerEngine(database)
        yield Parts(database, mentors, choose_trigger_engine(settings, built_in), built_in)
