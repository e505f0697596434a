"""This file chooses where mentors come from, by the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.database import Database
from engine.mentors.postgres import PostgresMentors
from engine.mentors.protocol import MentorSource
from engine.settings import Settings


@asynccontextmanager
async def open_mentors(settings: Settings, database: Database) -> AsyncIterator[MentorSource]:
    """The database itself, unless the URL of a REST API is set. Connects to nothing yet.

    **Cancellation:** no connection is left.
    """
    if not settings.mentors_over_rest:
        yield PostgresMentors(database, settings.eligible_assignment_statuses)
        return
    # Imported when chosen: httpx is 20 MB of memory that nobody needs beside Postgres.
    from engine.mentors.rest import open_rest_mentors

    key = settings.service_role_key.get_secret_value() if settings.service_role_key else ""
    async with open_rest_mentors(
        settings.mentor_source, key, settings.eligible_assignment_statuses
    ) as mentors:
        yield mentors
