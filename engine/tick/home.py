"""This file says why pg_cron is not in a database: it can be in one of each server, which a setting names."""

from __future__ import annotations


def why_no_pg_cron(database: str, cron_database: str | None) -> str:
    """Fault and mend in one line, with a colon between.

    `cron_database` is what cron.database_name says, None where pg_cron is not loaded or that can't be seen.
    """
    if cron_database is not None and cron_database != database:
        return (
            f"pg_cron can be in the database {cron_database} alone, and this is {database}: set "
            f"cron.database_name to {database}, restart the server, then run `create extension pg_cron`"
        )
    before = (
        ""
        if cron_database
        else " (on a server of your own, with shared_preload_libraries = 'pg_cron' before)"
    )
    return f"pg_cron is not in this database: run `create extension pg_cron`{before}"
