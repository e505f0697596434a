"""This file is an embedded Postgres: a private server on this machine, gone with its data after its block.

It promises:

- Only this machine reaches it, over 127.0.0.1, with a password nobody else was told. It has no other socket.
- Processes and files are gone when the block is left, however it is left. On Linux the server also goes with
  a killed process, which then leaves its folder behind: nobody is there to remove it.
- It holds neither stdout nor stderr, so a pipeline of which this process is a part ends with this process.
- Root starts it as another user, because Postgres refuses root, and loosens no folder to do so.

It is made to be thrown away: data outlives a server that died, not a machine that did.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from engine.embedded.account import (
    Account,
    folder_open_to,
    give,
    last_lines,
    run_program,
    runnable,
    surroundings_of,
    unprivileged_account,
)
from engine.embedded.binaries import EXE, PostgresBinaries, checked, find_binaries
from engine.errors import EmbeddedPostgresError

# The temporary folder's name; the id of the process that owns it follows.
FOLDER_PREFIX = "embedded-postgres-"

# Seconds until the server answers. A cold start takes about one on a laptop; a busy CI machine has taken ten.
START_TIMEOUT = 60.0

# Seconds for each of the ways to stop, before the next harsher one. Stopping takes a tenth of a second; the
# server itself gives its sessions five when it is told to stop immediately.
STOP_TIMEOUT = 10.0

# Between finding a free port and the server's taking it, somebody else can: then another port is tried.
PORT_ATTEMPTS = 5

# `settings` win over these. Nothing survives the machine, so nothing waits for its disk. synchronous_commit
# stays on: with it off, a server stopped immediately would forget what it has committed.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # its path has a limit of about 100 characters, and TCP is enough
    "fsync": "off",
    "full_page_writes": "off",
    "timezone": "GMT",  # the one zone that is part of Postgres itself
}

_POSIX = os.name == "posix"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def open_embedded_postgres(
    binaries: PostgresBinaries | None = None,
    settings: Mapping[str, str] = {},
    *,
    parent: Path | None = None,
) -> Iterator[EmbeddedPostgres]:
    """A server that answers; stopped, and its data removed, on every way out of the block.

    `settings` are Postgres's own, by name. Its folder goes into `parent`, or where temporary files go.

    Blocks for about a second, so open it before trio runs, and from the main thread: Linux ends the server
    with the *thread* that started it. Raises EmbeddedPostgresError.
    """
    binaries = checked(binaries or find_binaries())
    account = unprivileged_account()
    with tempfile.TemporaryDirectory(
        prefix=f"{FOLDER_PREFIX}{os.getpid()}-",
        dir=parent or folder_open_to(account),
        ignore_cleanup_errors=not _POSIX,  # Windows keeps a file for a moment after its process
    ) as name:
        folder = Path(name)
        give(folder, account)
        binaries, version = runnable(binaries, folder, account)
        server = EmbeddedPostgres(binaries, version, folder, account, {**_SETTINGS, **settings})
        try:
            server._create_data()
            server._start_on_free_port()
            yield server
        finally:
            server.stop()


class EmbeddedPostgres:
    """One server: its data, its password, its port. They stay when it is stopped and started again."""

    def __init__(
        self,
        binaries: PostgresBinaries,
        version: int,
        folder: Path,
        account: Account | None,
        settings: Mapping[str, str],
    ) -> None:
        self.binaries = binaries
        self.version = version  # the major one
        self.folder = folder  # everything it keeps
        self.port = 0
        self._account = account
        self._settings = settings
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The URL of the database `postgres`, for its superuser `app`. It holds the password."""
        # Said, because clients take what is left unsaid from PG… variables that are meant for other servers.
        how = "sslmode=disable&target_session_attrs=any"
        return f"postgresql://app:{self._password}@127.0.0.1:{self.port}/postgres?{how}"

    def stop(self) -> None:
        """End every session, then the server. Does nothing when it is stopped already."""
        self._end(["INT", "QUIT"])

    def stop_immediately(self) -> None:
        """End it as a crash would. What was committed is there again after start_again()."""
        self._end(["QUIT"])

    def start_again(self) -> None:
        """Start the stopped server with its data, on its port; returns when it answers.

        Raises EmbeddedPostgresError; then it is stopped.
        """
        try:
            self._launch()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _create_data(self) -> None:
        password_file = self.folder / "password"
        password_file.touch(0o600)
        password_file.write_text(self._password)
        give(password_file, self._account)
        initdb = run_program(
            [
                self.binaries.folder / f"initdb{EXE}",
                f"--pgdata={self._data}",
                "--username=app",
                "--auth=scram-sha-256",
                f"--pwfile={password_file}",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ],
            self.folder,
            self._account,
        )
        password_file.unlink()
        if initdb.returncode != 0:
            raise EmbeddedPostgresError(
                "The data of the embedded Postgres can't be created; free space in the temporary folder, "
                f"or name another server with PG_BIN_DIR.\n{last_lines(initdb.stdout)}"
            )

    def _start_on_free_port(self) -> None:
        for _ in range(PORT_ATTEMPTS - 1):
            self.port = _free_port()
            try:
                return self.start_again()
            except _PortTaken:
                continue
        self.port = _free_port()
        self.start_again()

    def _launch(self) -> None:
        command = [str(self.binaries.folder / f"postgres{EXE}"), "-D", str(self._data)]
        for name, value in {**self._settings, "port": str(self.port)}.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("wb") as log, warnings.catch_warnings():
            # From Python 3.12 on, `preexec_fn` warns where there are threads. Ours takes no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = subprocess.Popen(  # noqa: S603  (our own words, no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we stop the server in our own time
                preexec_fn=_end_with_this_process(),
                **surroundings_of(self.folder, self._account),
            )

    def _wait_until_ready(self) -> None:
        assert self._process is not None  # noqa: S101  (for mypy: called after _launch)
        give_up_at = time.monotonic() + START_TIMEOUT
        while not self._is_ready(self._process.pid):
            died = self._process.poll() is not None
            if died or time.monotonic() > give_up_at:
                log = self._log.read_text(errors="replace")
                if died and "could not bind" in log:
                    raise _PortTaken(
                        f"Port {self.port} of the embedded Postgres is taken; stop what listens there."
                    )
                what = "died at its start" if died else f"did not answer within {START_TIMEOUT:g} s"
                raise EmbeddedPostgresError(
                    f"The embedded Postgres {what}; mend what its log says, or name another server with "
                    f"PG_BIN_DIR.\n{last_lines(log)}"
                )
            time.sleep(0.01)

    def _is_ready(self, pid: int) -> bool:
        # Lines 1 and 8 are the server's pid and state (Postgres's pidfile.h). A server that was stopped
        # immediately can have left its file behind, hence the pid.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _end(self, signals: list[Literal["INT", "QUIT"]]) -> None:
        process = self._process
        if process is None:
            return
        try:
            for name in signals:
                self._send(process, name)
                try:
                    process.wait(STOP_TIMEOUT)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:  # out of time, or a second Ctrl-C
            if process.poll() is None:
                process.kill()
                process.wait()
            self._process = None

    def _send(self, process: subprocess.Popen[bytes], name: str) -> None:
        if _POSIX:
            process.send_signal(signal.Signals[f"SIG{name}"])
        else:  # Windows has no such signals; Postgres brings its own
            pg_ctl = self.binaries.folder / f"pg_ctl{EXE}"
            run_program([pg_ctl, "kill", name, str(process.pid)], self.folder, self._account)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"


class _PortTaken(EmbeddedPostgresError):
    """Somebody else listens on the port."""


def _end_with_this_process() -> Callable[[], None] | None:
    """What asks the kernel, between fork and exec, to stop the server when this process is killed."""
    if sys.platform != "linux":
        return None
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start the embedded Postgres from the main thread: it ends with its thread")
    libc = ctypes.CDLL(None)  # before the fork: loading takes locks
    this_process = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != this_process:  # it was killed before we asked
            os._exit(1)

    return ask


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
