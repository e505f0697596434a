"""Installing the tick, and removing it: on the real pg_cron, but for what is refused before it comes to that.

Vault and pg_net are stand-ins: see vault_stand_in.sql and pg_net_stand_in.sql.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.database import Database, open_database
from engine.embedded import EmbeddedPostgres
from engine.errors import TickError
from engine.statements import Statement
from engine.tick.install import install_tick, remove_tick
from engine.tick.jobs import plan_jobs
from engine.tick.status import read_tick_status
from tests.attempts import find_things, logged_in_as, uses_not_refused
from tests.tick.ticking import fetch, run_file, run_script

SECRET = "0123456789abcdef" * 4
NEXT_SECRET = "fedcba9876543210" * 4
URL = "http://127.0.0.1:1/run"
SCHEDULE = "*/5 * * * *"

INVOKE = Statement("invoke", "select scheduler.invoke()")


async def install(database: Database, **changed: Any) -> list[str]:
    arguments: dict[str, Any] = {
        "url": URL,
        "secret": SECRET,
        "platform_limit": 30.0,
        "jobs": plan_jobs(SCHEDULE),
        "with_plpython3u": True,
    }
    return await install_tick(database, **arguments | changed)


async def secret_of_the_tick(database: Database) -> str | None:
    [(secret,)] = await fetch(database, "select scheduler.read_secret()")
    return secret if secret is None else str(secret)


async def fallbacks(database: Database) -> list[tuple[Any, ...]]:
    return await fetch(database, "select secret from scheduler.fallback_secret")


def log_of(postgres: EmbeddedPostgres) -> str:
    return (postgres.folder / "log").read_text()


async def test_installing_twice_leaves_what_installing_once_does(administrator: Database) -> None:
    for _ in range(2):
        await install(administrator)
    status = await read_tick_status(administrator)
    assert [(job.name, job.schedule, job.command) for job in status.jobs] == [
        ("scenario-scheduler", "*/5 * * * *", "select scheduler.invoke()")
    ]
    assert (status.url, status.timeout_ms, status.has_purge) == (URL, 45_000, True)
    assert len(await remove_tick(administrator)) == 5
    assert await remove_tick(administrator) == []
    assert await fetch(administrator, "select from cron.job") == []
    assert await secret_of_the_tick(administrator) is None


async def test_jobs_per_scenario_take_the_place_of_the_one_and_the_other_way_round(
    administrator: Database,
) -> None:
    one = [("scenario-scheduler", "*/5 * * * *", "select scheduler.invoke()")]
    each = [
        ("scenario-scheduler expiry", "*/5 * * * *", "select scheduler.invoke('{expiry}')"),
        ("scenario-scheduler inactivity", "1-59/5 * * * *", "select scheduler.invoke('{inactivity}')"),
    ]
    await run_script(administrator, "select cron.schedule('somebody else''s', '* * * * *', 'select 1')")
    for per_scenario, expected in ((None, one), (["expiry", "inactivity"], each), (None, one)):
        await install(administrator, jobs=plan_jobs(SCHEDULE, per_scenario))
        jobs = (await read_tick_status(administrator)).jobs
        assert [(job.name, job.command) for job in jobs] == [(name, command) for name, _, command in expected]
    await remove_tick(administrator)
    assert await fetch(administrator, "select jobname from cron.job") == [("somebody else's",)]


async def test_nobody_but_the_owner_sees_the_secret_and_installing_again_changes_it(
    administrator: Database, cron_postgres: EmbeddedPostgres
) -> None:
    said = await install(administrator)
    said += await install(administrator, secret=NEXT_SECRET, jobs=plan_jobs(SCHEDULE, ["expiry"]))
    assert await secret_of_the_tick(administrator) == NEXT_SECRET
    assert await fallbacks(administrator) == [(NEXT_SECRET,)]
    said += [str(await read_tick_status(administrator))]
    seen = [
        *said,
        *await fetch(administrator, "select j::text from cron.job j"),
        *await fetch(administrator, "select p::text from pg_proc p"),
        *await fetch(administrator, "select a::text from pg_stat_activity a"),
        *await fetch(administrator, "select s::text from scheduler.settings s"),
        log_of(cron_postgres),
    ]
    assert "insert into scheduler.fallback_secret" in str(seen)  # the log has the statement
    for secret in (SECRET, NEXT_SECRET):
        assert secret not in str(seen)


async def test_nobody_may_use_pg_cron_for_having_been_installed(administrator: Database) -> None:
    await install(administrator)
    things = await find_things(administrator, "cron")
    assert len(things) > 5
    for role in ("scheduler_cron", "scheduler_service", "stranger"):
        before = ["create role stranger login"]
        async with logged_in_as(administrator, role, before=before) as somebody:
            assert await uses_not_refused(somebody, things) == {}


# --- What is refused, and that it changes nothing ---


async def nothing_was_changed(database: Database) -> bool:
    jobs = await fetch(database, "select from cron.job")
    settings = await fetch(database, "select from scheduler.settings")
    lent = await fetch(database, "select 1 where has_schema_privilege('scheduler_cron', 'cron', 'usage')")
    return jobs == settings == lent == await fallbacks(database) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"with_plpython3u": False}, "Nothing here can post"),
        ({"jobs": plan_jobs("every minute")}, "pg_cron does not take the schedule 'every minute'"),
        ({"url": "http://example.org/run"}, "The URL must be https, because example.org is not this machine"),
        ({"url": "https://a@b/run"}, "without a user part"),
        ({"url": "HTTPS://b/run"}, "must be https"),
        ({"url": "https://b/run#"}, "must be without #"),
        ({"url": "https://b:0/run"}, "port of the URL must be a number from 1 to 65535, not 0."),
        ({"url": "https://b:65536/run"}, "port of the URL must be a number from 1 to 65535, not 65536."),
        ({"url": "https://b:/run"}, "port of the URL must be a number from 1 to 65535, not empty."),
        ({"url": "https://-b/run"}, "host of the URL must be of letters, digits"),
        ({"url": "http://[::ffff:127.0.0.1]/run"}, "must be https, because [::ffff:127.0.0.1] is not this"),
        ({"url": "http://[0:0:0:0:0:0:0:1]/run"}, "must be localhost, 127.0.0.1 or [::1]"),
        ({"platform_limit": 290.0}, "lower SCHEDULER_PLATFORM_LIMIT to 285 s or less"),
    ],
)
async def test_what_cant_be_is_refused_in_a_sentence_and_changes_nothing(
    administrator: Database, cron_postgres: EmbeddedPostgres, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TickError) as caught:
        await install(administrator, **changed)
    assert sentence in str(caught.value)
    assert await nothing_was_changed(administrator)
    assert SECRET not in log_of(cron_postgres)


async def test_without_pg_cron_it_says_how_to_have_it(database: Database) -> None:
    with pytest.raises(TickError, match=r"pg_cron is not in this database: run `create extension pg_cron`"):
        await install(database)


async def test_url_and_secret_are_forgotten_though_pg_cron_was_dropped(administrator: Database) -> None:
    await install(administrator)
    await run_script(administrator, "drop extension pg_cron")
    assert await remove_tick(administrator) == [
        "forgot the URL",
        "forgot the secret in scheduler.fallback_secret",
        "removed scheduler.post_and_wait; the extension plpython3u stays",
    ]
    assert (
        await fetch(administrator, "select from scheduler.settings") == await fallbacks(administrator) == []
    )
    assert await remove_tick(administrator) == []


async def test_a_secret_without_a_url_is_forgotten(administrator: Database) -> None:
    await install(administrator)
    await run_script(administrator, "delete from scheduler.settings")
    assert "forgot the secret in scheduler.fallback_secret" in await remove_tick(administrator)
    assert await fallbacks(administrator) == []


async def test_a_secret_that_may_not_be_removed_from_vault_is_said_to_stay_there(
    limited: Database, administrator: Database
) -> None:
    await run_file(administrator, "pg_net_stand_in")
    await run_file(administrator, "vault_stand_in")
    await install(administrator, with_plpython3u=False)
    said = await remove_tick(limited)
    assert "Vault may still have the secret, as scheduler_secret: this role may not remove it there" in said
    assert "forgot the URL" in said


PURGES = "select username::text from cron.job where jobname = 'scenario-scheduler purge'"


async def test_of_two_administrators_the_later_one_leaves_one_purge_job(
    limited: Database, administrator: Database
) -> None:
    await run_file(administrator, "pg_net_stand_in")
    await install(limited, with_plpython3u=False)
    said = await install(administrator, with_plpython3u=False)
    assert "removed the job scenario-scheduler purge of another administrator" in said
    assert await fetch(administrator, PURGES) == [("app",)]


async def test_an_administrator_who_may_not_remove_anothers_purge_job_is_told_and_installs(
    limited: Database, administrator: Database
) -> None:
    await run_file(administrator, "pg_net_stand_in")
    await install(administrator, with_plpython3u=False)
    await run_script(administrator, "alter role limited bypassrls")  # so that it sees it, as Supabase's does
    for attempt in (install(limited, with_plpython3u=False), remove_tick(limited)):
        stays = "the job scenario-scheduler purge of another administrator stays: this role may not remove it"
        assert stays in await attempt
    assert await fetch(administrator, PURGES) == [("app",)]


async def test_a_database_that_is_not_migrated_is_told_so(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        for attempt in (install, remove_tick, read_tick_status):
            with pytest.raises(
                TickError, match=r"not migrated to this version; run `scenario-scheduler migrate`"
            ):
                await attempt(database)


async def test_pg_net_goes_before_plpython3u(administrator: Database) -> None:
    await run_file(administrator, "pg_net_stand_in")
    with pytest.raises(TickError, match="pg_net is here, and is the better way"):
        await install(administrator)
    assert "pg_net: its queue is closed to everybody, because the secret waits there" in await install(
        administrator, with_plpython3u=False
    )
    status = await read_tick_status(administrator)
    assert (status.pg_net, status.plpython3u) == ("unknown", False)


async def test_who_may_create_in_public_has_nothing_run_by_installing(administrator: Database) -> None:
    await run_script(
        administrator,
        """
        create role mallory;
        grant create on schema public to mallory;
        create table public.sprung (by name);
        grant insert on public.sprung to public;
        set local role mallory;
        create function public.format(text, text[]) returns text language plpgsql as
          'begin insert into public.sprung values (current_user); return pg_catalog.format($1, $2::text); end'
        """,
    )
    await install(administrator, jobs=plan_jobs(SCHEDULE, ["expiry"]))
    await remove_tick(administrator)
    assert await fetch(administrator, "table public.sprung") == []
    assert await fetch(administrator, "select format('%L', array['a'])") == [("'{a}'",)]
    assert len(await fetch(administrator, "table public.sprung")) == 1  # the control: it is a trap


# --- Vault ---


async def test_the_secret_is_in_vault_where_there_is_one_and_leaves_it_when_the_tick_is_removed(
    administrator: Database, cron_postgres: EmbeddedPostgres
) -> None:
    await install(administrator)
    await run_file(administrator, "vault_stand_in")
    await run_script(administrator, "select vault.create_secret('another', 'another')")
    for secret in (SECRET, NEXT_SECRET, NEXT_SECRET):
        assert "the secret is in Vault, as scheduler_secret" in await install(administrator, secret=secret)
        assert await fallbacks(administrator) == []
        assert await secret_of_the_tick(administrator) == secret
        names = await fetch(administrator, "select name from vault.secrets order by name")
        assert names == [("another",), ("scheduler_secret",)]
    assert "removed the secret from Vault" in await remove_tick(administrator)
    assert await fetch(administrator, "select name from vault.secrets") == [("another",)]
    assert not {SECRET, NEXT_SECRET} & set(log_of(cron_postgres).split("'"))


# --- An administrator who is no superuser ---


@pytest.fixture
async def limited(cron_postgres: EmbeddedPostgres, administrator: Database) -> AsyncIterator[Database]:
    """As on a hosted Postgres: it owns the database, makes roles and may lend the use of pg_cron."""
    await run_script(
        administrator,
        """
        create role limited login createrole password 'a';
        grant scheduler_owner, scheduler_service, scheduler_cron to limited;
        grant usage on schema cron to limited with grant option;
        alter database postgres owner to limited;
        """,
    )
    netloc = f"limited:a@127.0.0.1:{cron_postgres.port}"
    async with open_database(urlsplit(cron_postgres.dsn)._replace(netloc=netloc).geturl()) as database:
        yield database


async def test_an_administrator_who_is_no_superuser_installs_looks_and_removes(
    limited: Database, administrator: Database
) -> None:
    with pytest.raises(TickError, match="The role may not do this; let SCHEDULER_ADMIN_DATABASE_URL name a"):
        await install(limited)
    assert await nothing_was_changed(administrator)
    await run_file(administrator, "pg_net_stand_in")
    said = await install(limited, with_plpython3u=False)
    # pg_net's own rights are enough to post, and are not its to take from everybody.
    assert any("everybody can read the secret while it waits there" in line for line in said)
    # It may not keep parameters out of a log that is made to have them.
    assert any(line.startswith("the server's log may hold the secret") for line in said)
    assert [job.name for job in (await read_tick_status(limited)).jobs] == ["scenario-scheduler"]
    assert len(await remove_tick(limited)) == 4
    assert await nothing_was_changed(administrator)


@pytest.mark.parametrize(
    ("lent", "is_in_vault"),
    [
        ("", False),
        (
            "grant usage on schema vault to limited; grant select, delete on vault.secrets to limited;"
            "grant select on vault.decrypted_secrets to limited",
            False,
        ),
        (
            "grant usage on schema vault to limited with grant option;"
            "grant all on vault.secrets to limited;"
            "grant select on vault.decrypted_secrets to limited with grant option;"
            "grant execute on function vault._crypto_aead_det_decrypt to limited",
            False,
        ),
        (
            "grant usage on schema vault to limited with grant option;"
            "grant all on vault.secrets to limited;"
            "grant select on vault.decrypted_secrets to limited with grant option;"
            "grant execute on function vault._crypto_aead_det_decrypt to limited with grant option",
            True,
        ),
    ],
    ids=["closed", "to be read", "to be lent, but for decrypting", "to be lent"],
)
async def test_a_vault_that_the_owner_cant_be_let_read_is_left_for_the_table(
    limited: Database, administrator: Database, lent: str, is_in_vault: bool
) -> None:
    await run_file(administrator, "pg_net_stand_in")
    await run_file(administrator, "vault_stand_in")
    if lent:
        await run_script(administrator, lent)
    said = await install(limited, with_plpython3u=False)
    assert ("the secret is in Vault, as scheduler_secret" in said) is is_in_vault
    refused = "Vault: not allowed to grant its use to scheduler_owner; ask who owns the schema vault"
    assert (refused in said) is not is_in_vault
    assert await fallbacks(administrator) == ([] if is_in_vault else [(SECRET,)])
    assert await fetch(administrator, "select name from vault.secrets") == (
        [("scheduler_secret",)] if is_in_vault else []
    )
    async with logged_in_as(administrator, "scheduler_cron") as cron:
        [tick] = await cron.fetch(INVOKE)
    assert tick["invoke"] == 1
    await remove_tick(limited)
    assert await fetch(administrator, "select from vault.secrets") == []
