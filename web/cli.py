"""This file is the command line, `scenario-scheduler`.

Exit codes: 0 done, 1 partial or failed, 2 usage, 3 configuration.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import click
import structlog
import trio
from rich.console import Console

from engine import (
    ACK_WAIT,
    LEASE,
    ConfigurationError,
    InvalidTick,
    MigrationError,
    RequestRefused,
    RunRecord,
    RunRequest,
    SchedulerError,
    Settings,
    ShardRecord,
    StatementFailed,
    advise,
    find_run,
    grant_rights,
    list_runs,
    list_shards,
    load_settings,
    measure_capacity,
    migrate,
    open_database,
    open_scheduler,
    seed_mentors,
    service_database_url,
    set_service_password,
)
from web.administrator import open_as_administrator
from web.cron import cron
from web.explain_command import explain
from web.logs import configure_logging
from web.signals import watch_signals
from web.terminal import (
    capacity_line,
    record_table,
    records_table,
    shards_table,
    show_progress,
    summary_table,
)
from web.trial import try_overrides
from web.worker import worker

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

PARTIAL_OR_FAILED = 1
EXIT_CODES = {RequestRefused: 2, InvalidTick: 2, ConfigurationError: 3}  # usage, usage, configuration

_UNDEFINED_TABLE = "42P01"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="scenario-scheduler")
def commands() -> None:
    """Looks at every active mentor on a schedule, inside a hard time budget, and notifies nobody twice.

    Settings come from the environment; the README has their table. Exit codes: 0 done, 1 partial or failed,
    2 usage, 3 configuration. Each command says more with --help.

    \b
    Examples:
      scenario-scheduler demo
      scenario-scheduler doctor
    """


@commands.command()
@click.option(
    "--mentors",
    metavar="N",
    type=click.IntRange(0, 1_000_000),
    default=500,
    show_default=True,
    help="How many to seed.",
)
@click.option("--once", is_flag=True, help="Leave after the summary, instead of serving until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON, alone on standard output.")
def demo(mentors: int, once: bool, as_json: bool) -> None:
    """See it work: one tick over HTTP, on a Postgres of its own.

    It migrates, seeds, serves, and ticks as pg_cron would; then it shows the summary and where the dashboard
    is, and serves on until Ctrl-C. It needs no settings, and leaves nothing behind.

    \b
    Examples:
      scenario-scheduler demo
      scenario-scheduler demo --mentors 5000 --once --json
    """
    from web.demo import run_demo

    configure_logging(logging.WARNING)
    sys.exit(_exit_code(run_demo(Console(stderr=as_json), mentors, once=once, as_json=as_json)))


@commands.command()
def serve() -> None:
    """Serve POST /run until SIGTERM, then drain.

    Needs DATABASE_URL and SCHEDULER_SECRET, and listens on SCHEDULER_BIND, by default 127.0.0.1:8000. Its log
    is on standard error, a JSON object a line. A second SIGTERM ends it at once.

    \b
    Examples:
      SCHEDULER_BIND=127.0.0.1:9000 scenario-scheduler serve
    """
    from web.serve import open_listener
    from web.serve import serve as serve_until_signalled

    configure_logging()
    settings = load_settings("database_url", "secret")
    if settings.admin_database_url is not None:
        log.warning("administrator_url_in_service", detail="Leave it to those who operate the service.")
    drained = trio.run(serve_until_signalled, settings, open_listener(settings.bind))
    sys.exit(0 if drained else PARTIAL_OR_FAILED)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON, alone on standard output.")
@click.option("--dry-run", is_flag=True, help="Walk and evaluate, and write nothing.")
@click.option(
    "--scenario",
    "scenario_types",
    metavar="TYPE",
    multiple=True,
    help="Only this scenario type; may be repeated.",
)
@click.option(
    "--set",
    "assignments",
    metavar="TYPE.PARAM=VALUE",
    multiple=True,
    help="With --dry-run: try another value, or TYPE.cooldown=3d, beside those in force; may be repeated.",
)
def run(as_json: bool, dry_run: bool, scenario_types: tuple[str, ...], assignments: tuple[str, ...]) -> None:
    """One run from the shell.

    Ctrl-C drains it, and the summary says what was left. Exit code 1 if it was partial, or if nobody could be
    evaluated. Needs DATABASE_URL, and no server.

    \b
    Examples:
      scenario-scheduler run --json
      scenario-scheduler run --dry-run --scenario inactivity
      scenario-scheduler run --dry-run --set inactivity.days=21
    """
    configure_logging(logging.ERROR)
    request = RunRequest(tuple(sorted(set(scenario_types))) or None, dry_run, source="command line")
    if assignments:
        if not dry_run:
            raise click.UsageError(
                "--set tries another configuration, which only a dry run does: add --dry-run."
            )
        sys.exit(0 if try_overrides(request, assignments, as_json=as_json) else PARTIAL_OR_FAILED)
    console = Console(stderr=as_json)
    summary, errors = trio.run(_run, load_settings("database_url"), request, console)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        console.print(summary_table(summary, errors))
    sys.exit(_exit_code(summary))


def _exit_code(summary: Mapping[str, Any]) -> int:
    """Partial, or nothing but errors: both are for somebody to look at."""
    failed = summary["total_errors"] > 0 and summary["total_evaluated"] == 0
    return PARTIAL_OR_FAILED if failed or not summary["completed"] else 0


async def _run(
    settings: Settings, request: RunRequest, console: Console
) -> tuple[dict[str, Any], Counter[str]]:
    async with open_scheduler(settings) as scheduler, trio.open_nursery() as nursery:
        await nursery.start(watch_signals, scheduler.drain, nursery.cancel_scope.cancel)
        started = await scheduler.start(request)
        async with show_progress(console, scheduler):
            summary = await started.summary()
        await scheduler.wait_until_idle()
        nursery.cancel_scope.cancel()
        return summary.as_json(), started.progress.tally.errors
    raise click.Abort  # a second Ctrl-C


@commands.command()
@click.argument("run_id", type=click.UUID, required=False)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="How many, newest first.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="A JSON object per run, a line each, on standard output."
)
def runs(run_id: UUID | None, limit: int, as_json: bool) -> None:
    """What the ledger says of the latest runs, or of one.

    All there is to say of the one with RUN_ID, if it is given; where a fleet carried it out, also what each
    worker did, and which shards were delivered again or are not done. Below the table of many, how many
    mentors fit in one budget at that rate, and what to change once that is near.

    Needs DATABASE_URL, and no server.

    \b
    Examples:
      scenario-scheduler runs --limit 5
      scenario-scheduler runs 019ab0c5-7b1e-7c3a-9a64-0d5b7f0f6a11
      scenario-scheduler runs --json | jq 'select(.verdict != "completed")'
    """
    settings = load_settings("database_url")
    records, shards = trio.run(_read_ledger, settings, run_id, limit)
    console = Console(stderr=as_json)
    if not records:
        console.print("The ledger is empty: begin a run with `scenario-scheduler run`.", highlight=False)
    elif as_json:
        alone = {} if run_id is None else {"shards": [shard.as_json() for shard in shards]}
        for record in records:
            click.echo(json.dumps(record.as_json() | alone))
    elif run_id is not None:
        console.print(record_table(records[0]))
        if shards:
            console.print(shards_table(shards, has_ended=records[0].verdict != "running"))
    else:
        console.print(records_table(records, console.width))
        if capacity := measure_capacity(records, settings.soft_threshold):
            console.print(f"\n{capacity_line(capacity, advise(capacity, settings))}", highlight=False)


async def _read_ledger(
    settings: Settings, run_id: UUID | None, limit: int
) -> tuple[list[RunRecord], list[ShardRecord]]:
    """The runs asked for, and of one alone its shards."""
    assert settings.database_url is not None  # noqa: S101 - it was required
    url = settings.database_url.get_secret_value()
    async with open_database(url, pooler=settings.database_pooler) as database:
        if run_id is None:
            return await list_runs(database, before=None, limit=limit, lease=LEASE), []
        record = await find_run(database, run_id, lease=LEASE)
        if record is None:
            raise SchedulerError("The ledger has no such run; `scenario-scheduler runs --json` has the ids.")
        return [record], await list_shards(database, run_id, ack_wait=ACK_WAIT)


@commands.command("migrate")
@click.option(
    "--with-example-tables", is_flag=True, help="Also make peer_mentors, assignments and activities."
)
def migrate_database(with_example_tables: bool) -> None:
    """Bring the schema `scheduler` and its roles up to date.

    Safe to repeat, and to run twice at once. Run it again when you have replaced a view, or turned row-level
    security on: it grants what is then needed.

    As the database's administrator: SCHEDULER_ADMIN_DATABASE_URL, or DATABASE_URL where that is not set.

    \b
    Examples:
      scenario-scheduler migrate
      scenario-scheduler migrate --with-example-tables
    """
    settings = load_settings("administrator_url")

    async def migrate_it() -> list[str]:
        async with open_as_administrator(settings) as database:
            applied = await migrate(database, with_example_tables=with_example_tables)
            return [f"applied {name}" for name in applied] + await grant_rights(database)

    for line in trio.run(migrate_it) or ["nothing to do: the database is up to date"]:
        click.echo(line)


@commands.command()
@click.option(
    "--mentors", metavar="N", type=click.IntRange(1, 10_000_000), required=True, help="How many to insert."
)
def seed(mentors: int) -> None:
    """Fill the example tables with mentors to try it on.

    Never in a database that people use: a run evaluates them like anybody else.

    As the database's administrator: SCHEDULER_ADMIN_DATABASE_URL, or DATABASE_URL where that is not set.

    \b
    Examples:
      scenario-scheduler seed --mentors 500
    """
    settings = load_settings("administrator_url")

    async def seed_it() -> int:
        async with open_as_administrator(settings) as database:
            try:
                return await seed_mentors(database, mentors)
            except StatementFailed as error:
                if error.sqlstate != _UNDEFINED_TABLE:
                    raise
                raise MigrationError(
                    "The example tables are missing; run `scenario-scheduler migrate --with-example-tables`."
                ) from error

    click.echo(f"inserted {trio.run(seed_it):,} mentors")


@commands.command("service-url")
def make_service_url() -> None:
    """Make the DATABASE_URL that the service logs in with.

    It gives the role scheduler_service a new password, and prints the URL alone. The password before it opens
    no longer: a service that runs is locked out until it is restarted with the new URL. Roles belong to the
    whole server, so the services of its other databases share the password.

    As the database's administrator: SCHEDULER_ADMIN_DATABASE_URL, or DATABASE_URL where that is not set.

    \b
    Examples:
      scenario-scheduler service-url > database-url.secret
    """
    settings = load_settings("administrator_url")
    assert settings.administrator_url is not None  # noqa: S101 - it was required
    password = secrets.token_hex(32)

    async def set_it() -> None:
        async with open_as_administrator(settings) as database:
            await set_service_password(database, password)

    trio.run(set_it)
    click.echo(service_database_url(settings.administrator_url.get_secret_value(), password))


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON, alone on standard output.")
def doctor(as_json: bool) -> None:
    """Does all that the service needs hold?

    One line per check, with its mend; exit code 0 only if all do. Run it where the service runs, with the
    service's settings, and with SCHEDULER_ADMIN_DATABASE_URL for what the service may not see. It begins no
    run and sends no notification.

    \b
    Examples:
      scenario-scheduler doctor
      scenario-scheduler doctor --json | jq '.checks[] | select(.ok | not)'
    """
    from web.doctor import run_doctor

    configure_logging(logging.ERROR)
    sys.exit(0 if run_doctor(as_json=as_json) else PARTIAL_OR_FAILED)


@commands.command()
def secret() -> None:
    """Make a secret: 256 random bits in hex.

    For SCHEDULER_SECRET, SCHEDULER_SECRET_NEXT or SCHEDULER_OPERATOR_TOKEN; each its own.

    \b
    Examples:
      scenario-scheduler secret
    """
    click.echo(secrets.token_hex(32))


commands.add_command(cron)
commands.add_command(explain)
commands.add_command(worker)


def main() -> None:
    """Run a command; what people can mend is said in a sentence, anything else is a traceback."""
    try:
        commands()
    except (SchedulerError, KeyboardInterrupt, BaseExceptionGroup) as error:
        leaves = list(_leaves(error))
        if not all(isinstance(leaf, SchedulerError | KeyboardInterrupt) for leaf in leaves):
            raise
        for leaf in leaves:
            click.echo(str(leaf) or "Interrupted.", err=True)
        codes = (code for kind, code in EXIT_CODES.items() if isinstance(leaves[0], kind))
        sys.exit(next(codes, PARTIAL_OR_FAILED))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """What nurseries wrapped on the way up."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
