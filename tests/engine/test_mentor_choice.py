"""Which source of mentors the settings choose, and what is loaded for it."""

from __future__ import annotations

import subprocess
import sys

from engine.mentors.choice import open_mentors
from engine.mentors.postgres import PostgresMentors
from engine.mentors.rest import RestMentors
from engine.settings import load_settings
from tests.model_database import ModelDatabase


async def test_mentors_come_from_postgres_unless_a_rest_api_is_set() -> None:
    async with open_mentors(load_settings(), ModelDatabase([])) as mentors:
        assert isinstance(mentors, PostgresMentors)
    rest = load_settings(mentor_source="http://127.0.0.1:1/rest/v1", service_role_key="key")
    async with open_mentors(rest, ModelDatabase([])) as mentors:
        assert isinstance(mentors, RestMentors)


def test_httpx_is_not_loaded_for_mentors_from_postgres() -> None:
    program = (
        "import sys, trio, engine; from engine.mentors.choice import open_mentors\n"
        "async def main():\n"
        "    async with open_mentors(engine.load_settings(), None): assert 'httpx' not in sys.modules\n"
        "trio.run(main)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
