"""This file is the commands `cron install`, `cron status` and `cron remove`: pg_cron's side of the tick."""

from __future__ import annotations

import json
import sys

import click
import trio
from rich.console import Console
from rich.text import Text

from engine import (
    ConfigurationError,
    InvalidTick,
    Settings,
    TickError,
    TickStatus,
    describe_first_ticks,
    diagnose,
    enabled_scenario_types,
    install_tick,
    leads_to_this_machine,
    load_settings,
    plan_jobs,
    read_tick_status,
    remove_tick,
    service_url,
)
from web.administrator import open_as_administrator
from web.terminal import invocations_table, jobs_table

WRONG = 1


@click.group()
def cron() -> None:
    """Have pg_cron call the service.

    As the database's administrator: SCHEDULER_ADMIN_DATABASE_URL, or DATABASE_URL where that is not set.

    \b
    Examples:
      scenario-scheduler cron install
      scenario-scheduler cron status
    """


@cron.command()
@click.option(
    "--schedule",
    metavar="CRON",
    default="*/5 * * * *",
    show_default=True,
    help="When: the five fields of cron, in the time zone of cron.timezone, by default GMT.",
)
@click.option(
    "--url",
    metavar="URL",
    help="Where the database's server reaches POST /run; https, or http to itself. On the same machine, by "
    "default the port of SCHEDULER_BIND.",
)
@click.option(
    "--per-scenario",
    is_flag=True,
    help="A job for each enabled scenario, a minute apart: for more mentors than fit one budget.",
)
@click.option(
    "--with-plpython3u",
    is_flag=True,
    help="Post with Python inside Postgres, for a server of your own without pg_net; the tick's transaction "
    "then lasts as long as the run.",
)
def install(schedule: str, url: str | None, per_scenario: bool, with_plpython3u: bool) -> None:
    """Make the job, or change it; safe to repeat.

    It hands SCHEDULER_SECRET to the database: to Vault, or where there is none to a table that nobody but its
    owner can read. Run it again whenever the secret changes.

    \b
    Examples:
      scenario-scheduler cron install
      scenario-scheduler cron install --schedule '*/10 * * * *' --url https://scheduler.example/run
    """
    settings = load_settings("administrator_url", "secret")
    assert settings.secret is not None  # noqa: S101 - it was required
    secret = settings.secret.get_secret_value()
    target = _url_on_this_machine(settings) if url is None else _checked(url)

    async def install_it() -> list[str]:
        async with open_as_administrator(settings) as database:
            types = await enabled_scenario_types(database) if per_scenario else None
            if types == []:
                raise TickError("No scenario is enabled, so there is none to make a job for; enable one.")
            try:
                jobs = plan_jobs(schedule, types)
            except TickError as error:  # what was typed, not what is there
                raise InvalidTick(str(error)) from error
            return await install_tick(
                database,
                url=target,
                secret=secret,
                platform_limit=settings.platform_limit,
                jobs=jobs,
                with_plpython3u=with_plpython3u,
            )

    for line in trio.run(install_it):
        click.echo(line)
    click.echo("See how it does with `scenario-scheduler cron status`.")


def _url_on_this_machine(settings: Settings) -> str:
    """Where a database on this machine reaches the service on this machine; another one needs to be told."""
    assert settings.administrator_url is not None  # noqa: S101 - it was required
    if not leads_to_this_machine(settings.administrator_url):
        raise ConfigurationError(
            ["The database is on another machine; say with --url where its server reaches POST /run."]
        )
    port = settings.bind.rpartition(":")[2]
    if int(port) == 0:
        raise ConfigurationError(
            ["SCHEDULER_BIND leaves the port open, so that it can't be called; name one there, or say --url."]
        )
    return f"http://127.0.0.1:{port}/run"


def _checked(url: str) -> str:
    """Raises InvalidTick: a URL is typed, as a schedule is."""
    if not url:  # of a variable that is not set, when somebody meant to say where
        raise InvalidTick(
            "--url is empty; say where the database's server reaches POST /run, or leave it out."
        )
    try:
        return service_url(url)
    except ConfigurationError as error:
        raise InvalidTick(str(error)) from error


@cron.command()
@click.option(
    "--json", "as_json", is_flag=True, help="All of it as one JSON object, alone on standard output."
)
def status(as_json: bool) -> None:
    """How the tick does, and in one line what is wrong with it.

    Exit code 1 if something is. Joins the jobs, how each went the last few times, what was posted, and what
    the service answered. pg_cron's own `succeeded` is not success: it only says that the post was handed on.

    \b
    Examples:
      scenario-scheduler cron status --json | jq .wrong
    """
    settings = load_settings("administrator_url")

    async def read_it() -> TickStatus:
        async with open_as_administrator(settings) as database:
            return await read_tick_status(database)

    found = trio.run(read_it)
    wrong = diagnose(found)
    to_come = None if wrong else describe_first_ticks(found)
    if as_json:
        said = {"ok": wrong is None, "wrong": wrong, "to_come": to_come}
        click.echo(json.dumps(said | found.as_json()))
    else:
        console = Console()
        if found.jobs:
            console.print(jobs_table(found))
        if found.invocations:
            console.print(invocations_table(found))
        console.print(_conclusion(wrong, to_come), soft_wrap=True)
    sys.exit(WRONG if wrong else 0)


def _conclusion(wrong: str | None, to_come: str | None) -> Text:
    """As text, not as markup: a server's words are in it."""
    if wrong is not None:
        return Text.assemble(("wrong:", "red"), " ", wrong)
    return Text("all is well", "green") + Text(f"; {to_come}" if to_come else "")


@cron.command()
def remove() -> None:
    """Take the job away, and the URL and the secret with it.

    Safe to repeat. What was posted stays known.

    \b
    Examples:
      scenario-scheduler cron remove
    """
    settings = load_settings("administrator_url")

    async def remove_it() -> list[str]:
        async with open_as_administrator(settings) as database:
            return await remove_tick(database)

    for line in trio.run(remove_it) or ["nothing to do: nothing was installed"]:
        click.echo(line)
