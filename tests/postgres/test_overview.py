"""What the dashboard reads: runs, freshness and the clock, of the same database."""

from __future__ import annotations

from datetime import timedelta

from engine.database import Database
from engine.fleet.protocol import ACK_WAIT
from engine.ledger import LEASE
from engine.live_run import live_run_elsewhere
from engine.overview import read_overview
from tests.postgres.conftest import value
from tests.postgres.test_run_record import add_run


async def test_an_overview_is_the_latest_runs_and_how_fresh_it_all_is(database: Database) -> None:
    for number in range(5):
        await add_run(database, number)
    overview = await read_overview(database, limit=3, lease=LEASE, ack_wait=ACK_WAIT, freshness_limit=900.0)
    assert [record.run_id.int & 0xFF for record in overview.runs] == [4, 3, 2]
    assert overview.freshness.limit == 900.0
    assert set(overview.freshness.ages) == {"expiry", "inactivity", "milestone"}


async def test_an_overview_bears_the_time_of_postgres(database: Database) -> None:
    before = await value(database, "select clock_timestamp()")
    overview = await read_overview(database, limit=3, lease=LEASE, ack_wait=ACK_WAIT, freshness_limit=900.0)
    after = await value(database, "select clock_timestamp()")
    assert before <= overview.at <= after
    assert overview.at.utcoffset() == timedelta(0)


async def test_a_run_of_another_process_is_seen_by_its_heartbeat_until_its_lease_is_over(
    database: Database,
) -> None:
    alive = await add_run(database, 1, "running", started=4.0)
    [record] = (
        await read_overview(database, limit=3, lease=LEASE, ack_wait=ACK_WAIT, freshness_limit=900.0)
    ).runs
    live = live_run_elsewhere(record)
    assert live is not None
    assert live.run_id == alive
    assert 4.0 <= live.elapsed < 9.0
    [record] = (
        await read_overview(database, limit=3, lease=0.0, ack_wait=ACK_WAIT, freshness_limit=900.0)
    ).runs
    assert live_run_elsewhere(record) is None
