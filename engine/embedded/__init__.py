"""This folder is an embedded Postgres, for `demo`, the tests and the benchmarks."""

from engine.embedded.binaries import PostgresBinaries, find_binaries
from engine.embedded.server import FOLDER_PREFIX, EmbeddedPostgres, open_embedded_postgres

__all__ = [
    "FOLDER_PREFIX",
    "EmbeddedPostgres",
    "PostgresBinaries",
    "find_binaries",
    "open_embedded_postgres",
]
