"""Whether what goes to Postgres on another machine can be read on the way; judged by the URLs alone."""

from __future__ import annotations

import pytest

from engine.doctor.encryption import check_encryption
from engine.doctor.finding import Outcome
from engine.doctor.installation import Installation
from engine.errors import DatabaseUnavailable
from engine.settings import load_settings

HERE = "postgresql://u:word@127.0.0.1/d"
ELSEWHERE = "postgresql://u:word@db.example/d"

pytestmark = pytest.mark.usefixtures("bare_environment")


async def examined(url: str | None, admin_url: str | None = None) -> Outcome:
    settings = load_settings(database_url=url, admin_database_url=admin_url)
    nobody = DatabaseUnavailable("not asked")
    outcome = await check_encryption(Installation(settings, nobody, nobody, lambda: 0.0))
    assert "word" not in f"{outcome.found} {outcome.mend}"
    return outcome


@pytest.mark.parametrize("query", ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=disable"])
async def test_a_server_that_may_be_spoken_to_in_the_clear_is_red_unless_it_is_this_machine(
    query: str,
) -> None:
    outcome = await examined(ELSEWHERE + query)
    assert not outcome.ok
    assert f"sslmode={query.partition('=')[2] or 'prefer'}, by which" in outcome.found
    assert "sslmode=verify-full" in str(outcome.mend)
    assert "DATABASE_URL" in str(outcome.mend)
    assert (await examined(HERE + query)).ok


@pytest.mark.parametrize(
    ("mode", "gives"),
    [
        ("require", "to whoever answers"),
        ("verify-ca", "whatever its name"),
        ("verify_full", "to the server of that name"),
        ("prefer&sslmode=verify-full", "to the server of that name"),
    ],
)
async def test_a_server_that_has_to_speak_tls_is_green_and_it_is_said_what_that_gives(
    mode: str, gives: str
) -> None:
    outcome = await examined(f"{ELSEWHERE}?sslmode={mode}")
    assert outcome.ok
    assert gives in outcome.found


async def test_what_the_environment_says_counts_where_the_url_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert (await examined(ELSEWHERE)).ok
    assert not (await examined(f"{ELSEWHERE}?sslmode=allow")).ok


async def test_the_administrators_way_is_looked_at_as_well() -> None:
    outcome = await examined(HERE, ELSEWHERE)
    assert not outcome.ok
    assert outcome.found.startswith("SCHEDULER_ADMIN_DATABASE_URL leads")
    assert not (await examined(None, ELSEWHERE)).ok


async def test_a_mode_that_is_none_is_not_shown() -> None:
    outcome = await examined(f"{ELSEWHERE}?sslmode=word")
    assert not outcome.ok
