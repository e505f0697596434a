"""GET /dashboard/events: what a stream says and when, and that it outlives neither browser nor service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import trio
from quart.typing import TestClientProtocol as Client
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine import DatabaseUnavailable, RunRecord, ShardRecord
from tests.web import states
from tests.web.conftest import TOKEN, FakeScheduler, make_settings
from tests.web.test_run import assert_refused
from web.app import create_app
from web.events import COME_BACK_AFTER, KEEP_ALIVE, PERIOD, STREAMS_AT_ONCE
from web.watch import SHARDS_TIMEOUT

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def scheduler() -> FakeScheduler:
    scheduler = FakeScheduler()
    states.good(scheduler)
    return scheduler


class Stream:
    """What a browser would make of it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def next_line(self) -> str:
        """The next event, without what surrounds it."""
        return (await self._connection.receive()).decode().removesuffix("\n\n")

    async def next_sight(self) -> dict[str, Any]:
        line = await self.next_line()
        return json.loads(line.removeprefix("data: "))

    async def hang_up(self) -> None:
        await self._connection.disconnect()
        await wait_all_tasks_blocked()
        await self._connection._client_send.aclose()  # which the test client waits for

    async def rest(self) -> list[str]:
        lines = []
        while True:
            try:
                lines.append(await self.next_line())
            except trio.EndOfChannel:
                return [line for line in lines if line]


@asynccontextmanager
async def open_stream(client: Client) -> AsyncIterator[Stream]:
    async with client.request("/dashboard/events", headers=OPERATOR) as connection:
        await connection.send_complete()
        stream = Stream(connection)
        assert await stream.next_line() == f"retry: {COME_BACK_AFTER}"
        assert (connection.status_code, connection.headers["Content-Type"]) == (200, "text/event-stream")
        assert connection.headers["Cache-Control"] == "no-store"
        yield stream
        await stream.hang_up()


async def test_a_stream_begins_with_how_it_stands(client: Client, scheduler: FakeScheduler) -> None:
    async with open_stream(client) as stream:
        sight = await stream.next_sight()
    assert sight["state"] == "idle"
    assert sight["latest"] == f"{scheduler.records[0].run_id} completed"


async def test_a_run_of_this_process_is_told_twice_a_second(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.live(scheduler)
    async with open_stream(client) as stream:
        first = await stream.next_sight()
        began = trio.current_time()
        assert (first["state"], first["done"], first["expected"]) == ("running", 5_412, 12_297)
        assert first["mentors"] == "5,412 of about 12,297 mentors"
        assert first["outcome"] == "31 dispatched, 702 suppressed, 22 errors"
        for step in (1, 2):
            scheduler.live_run = replace(scheduler.live_run, elapsed=4 + step, evaluated=5_390 + 100 * step)
            assert (await stream.next_sight())["done"] == 5_412 + 100 * step
            assert trio.current_time() == began + step * PERIOD


async def test_a_run_of_another_process_is_told_as_its_heartbeats_come(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.live(scheduler)
    scheduler.live_run = None
    async with open_stream(client) as stream:
        sight = await stream.next_sight()
        assert (sight["state"], sight["done"]) == ("running", 5_412)
        began = trio.current_time()
        scheduler.records[0] = replace(scheduler.records[0], total_evaluated=6_000)
        assert (await stream.next_sight())["done"] == 6_000
        assert trio.current_time() == began + 1.0


async def test_the_errors_of_a_run_of_another_process_are_counted_as_well(
    client: Client, scheduler: FakeScheduler
) -> None:
    running = states.record(60, states.NOW, verdict="running", mentors=100, errors={"timeout": 7})
    scheduler.records = [running, *scheduler.records]
    async with open_stream(client) as stream:
        sight = await stream.next_sight()
    assert (sight["state"], sight["done"]) == ("running", 100)
    assert sight["outcome"] == "0 dispatched, 0 suppressed, 7 errors"


async def test_a_run_is_expected_to_find_as_many_as_the_latest_one_and_not_as_the_first_that_was_seen(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with open_stream(client) as stream:
        await stream.next_sight()
        scheduler.records = [states.record(60, states.NOW, mentors=20_000), *scheduler.records]
        assert (await stream.next_sight())["state"] == "idle"
        states.live(scheduler)
        assert (await stream.next_sight())["expected"] == 20_000


async def test_the_end_of_a_run_is_told_at_the_next_look_and_never_as_a_step_back(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.live(scheduler)
    async with open_stream(client) as stream:
        await stream.next_sight()
        await wait_all_tasks_blocked()
        ended = replace(scheduler.records[0], verdict="completed", stop_reason="finished")
        scheduler.records[0], scheduler.live_run = ended, None
        sight = await stream.next_sight()
    assert (sight["state"], sight["latest"]) == ("idle", f"{ended.run_id} completed")


async def test_nothing_new_is_a_comment_every_ten_seconds(client: Client, autojump_clock: MockClock) -> None:
    async with open_stream(client) as stream:
        await stream.next_sight()
        began = trio.current_time()
        assert await stream.next_line() == ": nothing new"
        assert trio.current_time() == began + KEEP_ALIVE


async def test_a_database_that_goes_away_and_comes_back_is_told_and_the_stream_goes_on(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with open_stream(client) as stream:
        assert (await stream.next_sight())["state"] == "idle"
        scheduler.error = DatabaseUnavailable("gone")
        assert (await stream.next_sight())["state"] == "away"
        scheduler.error = None
        assert (await stream.next_sight())["state"] == "idle"


async def test_where_no_run_says_how_many_there_are_they_are_counted_once_a_run(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = 0

    async def count_mentors() -> int:
        nonlocal counts
        counts += 1
        await trio.sleep(0.2)
        return 9_000

    states.live(scheduler)
    scheduler.records = scheduler.records[:1]
    monkeypatch.setattr(scheduler, "count_mentors", count_mentors)
    async with open_stream(client) as stream:
        assert (await stream.next_sight())["expected"] == 9_000
        scheduler.live_run = replace(scheduler.live_run, evaluated=8_000)
        assert (await stream.next_sight())["mentors"] == "8,022 of about 9,000 mentors"
    assert counts == 1


async def test_a_count_that_hangs_leaves_the_bar_without_an_end(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    states.live(scheduler)
    scheduler.records = scheduler.records[:1]
    monkeypatch.setattr(scheduler, "count_mentors", trio.sleep_forever)
    async with open_stream(client) as stream:
        sight = await stream.next_sight()
    assert (sight["expected"], sight["mentors"]) == (0, "5,412 mentors so far")


# --- Shards ---


async def test_shards_are_told_once_a_second_in_what_has_become_of_each(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.sharded(scheduler)
    run_id = scheduler.records[0].run_id
    async with open_stream(client) as stream:
        first = (await stream.next_sight())["shards"]
        began = trio.current_time()
        assert [cell["kind"] for cell in first["cells"][13:18]] == [
            "running", "lost", "running", "running", "lost",
        ]  # fmt: skip
        assert [row["name"] for row in first["workers"]] == list(states.WORKERS)
        scheduler.shards[run_id] = states.shards_of(["finished"] * 32)
        sight = await stream.next_sight()
        assert trio.current_time() == began + 1.0
        assert sight["shards"]["summary"] == "32 of 32 shards done; 1 delivered again."
        assert sight["done"] == sum(each.total_active_mentors for each in scheduler.shards[run_id])
    assert scheduler.shard_listings == [run_id] * 2


async def test_the_shards_of_a_run_of_this_process_are_asked_for_where_it_has_a_fleet(
    scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.live(scheduler)
    scheduler.shards[scheduler.live_run.run_id] = [states.shard(0, "running", evaluated=6_000)]
    for fleet, done in ((None, 5_412), ("in-process", 6_000)):
        settings = make_settings(fleet=fleet)
        async with open_stream(create_app(scheduler, settings).test_client()) as stream:
            sight = await stream.next_sight()
        assert (sight["done"], sight["shards"] is None) == (done, fleet is None)


@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_a_run_of_this_process_is_told_with_the_shards_last_known_while_the_ledger_is_away(
    how: str, scheduler: FakeScheduler, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away, ask = trio.Event(), scheduler.list_shards

    async def list_shards(run_id: UUID) -> list[ShardRecord]:
        if not is_away.is_set():
            return await ask(run_id)
        if how == "hangs":
            await trio.sleep_forever()
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(scheduler, "list_shards", list_shards)
    states.live(scheduler)
    scheduler.shards[scheduler.live_run.run_id] = [states.shard(0, "running", evaluated=100)]
    client = create_app(scheduler, make_settings(fleet="in-process")).test_client()
    async with open_stream(client) as stream:
        before = await stream.next_sight()
        is_away.set()
        for evaluated in (7_000, 8_000, 9_000, 10_000):
            scheduler.live_run = replace(scheduler.live_run, evaluated=evaluated, errors=0)
            with trio.fail_after(PERIOD + 2 * SHARDS_TIMEOUT):
                sight = await stream.next_sight()
            assert (sight["done"], sight["shards"]) == (evaluated, before["shards"])


async def test_a_page_learns_that_shards_lie_still_by_what_its_charts_are_of(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.sharded(scheduler)
    run_id = scheduler.records[0].run_id
    async with open_stream(client) as stream:
        assert (await stream.next_sight())["latest"] == str(run_id)
        scheduler.shards[run_id] = [states.shard(0, "waiting"), states.shard(1, age=5.1)]
        scheduler.records[0] = replace(scheduler.records[0], duration_ms=9_000)
        assert (await stream.next_sight())["latest"] == f"{run_id} stalled"


# --- How it ends ---


async def test_draining_ends_every_stream_at_once(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with open_stream(client) as one, open_stream(client) as other:
        await one.next_sight()
        await other.next_sight()
        await wait_all_tasks_blocked()
        drained_at = trio.current_time()
        scheduler.drain()
        for stream in (one, other):
            [last] = await stream.rest()
            assert json.loads(last.removeprefix("data: "))["state"] == "draining"
        assert trio.current_time() == drained_at


async def test_a_stream_that_is_opened_while_draining_says_so_and_ends(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.drain()
    async with open_stream(client) as stream:
        [last] = await stream.rest()
    assert json.loads(last.removeprefix("data: "))["state"] == "draining"


async def test_a_stream_ends_by_itself_before_its_connection_would_be_cut(
    client: Client, autojump_clock: MockClock
) -> None:
    async with open_stream(client) as stream:
        began = trio.current_time()
        await stream.rest()
        assert trio.current_time() == began + make_settings().platform_limit


async def test_a_browser_that_hangs_up_leaves_no_task_and_its_place(
    client: Client, autojump_clock: MockClock
) -> None:
    await client.get("/login")  # whatever the first request of all starts
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(STREAMS_AT_ONCE + 1):
        async with open_stream(client) as stream:
            await stream.next_sight()
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_streams_are_bounded_and_whoever_comes_too_late_is_told(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        opened: list[Stream] = []

        async def hold() -> None:
            async with open_stream(client) as stream:
                opened.append(stream)
                await stream.rest()

        for _ in range(STREAMS_AT_ONCE):
            nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        assert len(opened) == STREAMS_AT_ONCE
        refused = await client.get("/dashboard/events", headers=OPERATOR)
        await assert_refused(refused, 503, "too_many_streams")
        scheduler.drain()
    async with open_stream(client):
        pass


async def call(app: QuartTrio, sent: list[Any]) -> None:
    """Ask as a server does, which takes its time to send each part."""

    async def send(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(event)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "asgi": {"spec_version": "2.3"},
        "method": "GET",
        "scheme": "http",
        "path": "/dashboard/events",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", OPERATOR["Authorization"].encode())],
        "extensions": {},
    }
    await app(scope, trio.sleep_forever, send)


async def test_however_many_come_at_once_no_more_are_let_in_than_there_are_places(
    scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    app = create_app(scheduler, make_settings())
    answers: list[list[Any]] = [[] for _ in range(STREAMS_AT_ONCE + 5)]
    async with trio.open_nursery() as nursery:
        for sent in answers:
            nursery.start_soon(call, app, sent)
    statuses = [sent[0]["status"] for sent in answers]
    assert sorted(statuses) == [200] * STREAMS_AT_ONCE + [503] * 5


async def test_a_browser_that_hangs_up_at_any_moment_gives_its_place_back(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before its stream has begun, which then never ends either."""
    monkeypatch.setattr("web.events.STREAMS_AT_ONCE", 1)
    app = create_app(scheduler, make_settings())
    steps = 0
    sent: list[Any] = []
    while len(sent) < 3:
        async with trio.open_nursery() as nursery:
            sent = []
            nursery.start_soon(call, app, sent)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        steps += 1
        assert steps < 200
        assert not sent or sent[0]["status"] == 200
    scheduler.drain()
    assert (await app.test_client().get("/dashboard/events", headers=OPERATOR)).status_code == 200


async def test_however_many_look_the_ledger_is_asked_once_a_second(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:

        async def hold() -> None:
            async with open_stream(client) as stream:
                await stream.rest()

        for _ in range(20):
            nursery.start_soon(hold)
        await trio.sleep(10.2)
        scheduler.drain()
    assert len(scheduler.listings) == 11


async def test_while_nobody_looks_the_ledger_is_not_asked(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    async with open_stream(client) as stream:
        await stream.next_sight()
    asked = len(scheduler.listings)
    await trio.sleep(60)
    assert len(scheduler.listings) == asked


async def test_a_run_of_this_process_is_told_while_the_ledger_hangs(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def list_runs(**how: object) -> list[RunRecord]:
        await trio.sleep_forever()
        raise AssertionError

    async with open_stream(client) as stream:
        await stream.next_sight()  # knows how many to expect
        monkeypatch.setattr(scheduler, "list_runs", list_runs)
        states.live(scheduler)
        for evaluated in (100, 200):
            scheduler.live_run = replace(scheduler.live_run, evaluated=evaluated, errors=0)
            with trio.fail_after(1):
                assert (await stream.next_sight())["done"] == evaluated


async def test_a_stream_can_be_read_and_nothing_else(client: Client) -> None:
    response = await client.post("/dashboard/events", headers=OPERATOR)
    await assert_refused(response, 405, "method_not_allowed")


async def test_no_stream_says_more_than_aggregates(client: Client, scheduler: FakeScheduler) -> None:
    app = create_app(scheduler, make_settings())
    states.live(scheduler)
    async with open_stream(app.test_client()) as stream:
        sight = await stream.next_sight()
    assert set(sight) == {"state", "latest", "done", "expected", "mentors", "pace", "outcome", "shards"}
    assert sight["latest"] == str(scheduler.live_run.run_id)
