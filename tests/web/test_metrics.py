"""GET /metrics: who may, what is told, and that it is true at every moment of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from quart.typing import TestClientProtocol as Client
from trio.testing import MockClock

from engine import DatabaseUnavailable, Freshness, RunRequest, Scheduler, StatementFailed, Summary
from engine.errors import InvocationFailed, RunFailed, RunInProgress
from engine.ledger import LEASE
from engine.run_id import new_run_id
from engine.trigger.protocol import Evaluation
from tests.engine.test_scheduler import OVER_HTTP, open_model, run_to_its_end
from tests.exposition import Series, complaints, parse, types
from tests.fakes import FOREVER, FakeTriggerEngine, ids
from tests.model_database import ModelDatabase
from tests.web.conftest import KEY, SECRET, TOKEN, FakeScheduler, make_settings
from tests.web.test_run import assert_refused
from web.app import create_app
from web.metrics import DATABASE_PATIENCE

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}

METRICS = {
    "scheduler_runs_total": "counter",
    "scheduler_run_duration_seconds": "histogram",
    "scheduler_mentors_total": "counter",
    "scheduler_errors_total": "counter",
    "scheduler_notifications_total": "counter",
    "scheduler_invocations_in_flight": "gauge",
    "scheduler_invocation_duration_seconds": "histogram",
    "scheduler_channel_depth": "gauge",
    "scheduler_database_up": "gauge",
    "scheduler_freshness_limit_seconds": "gauge",
    "scheduler_freshness_seconds": "gauge",
    "scheduler_never_covered": "gauge",
    "scheduler_oldest_unvisited_seconds": "gauge",
    "scheduler_unauthorized_total": "counter",
}
OF_THE_DATABASE = {
    "scheduler_freshness_seconds",
    "scheduler_never_covered",
    "scheduler_oldest_unvisited_seconds",
}


async def scrape_text(client: Client) -> str:
    response = await client.get("/metrics", headers=OPERATOR)
    assert response.status_code == 200
    return await response.get_data(as_text=True)


async def scrape(client: Client) -> Series:
    return parse(await scrape_text(client))


def ours(text: str) -> dict[str, str]:
    return {name: kind for name, kind in types(text).items() if name.startswith("scheduler_")}


def by_label(series: Series, name: str) -> dict[str, float]:
    """The values of a metric by what is between its braces."""
    return {each.removeprefix(name): value for each, value in series.items() if each.startswith(f"{name}{{")}


def buckets(series: Series, name: str) -> dict[str, float]:
    """How many values lay in each bucket that is not empty, by its upper bound."""
    found, below = {}, 0.0
    for label, count in by_label(series, f"{name}_bucket").items():
        if count > below:
            found[label.removeprefix('{le="').removesuffix('"}')] = count - below
        below = count
    return found


def assert_accounted_for(series: Series, *summaries: Summary) -> None:
    """The counts are those of these runs, and of no others."""

    def total(name: str) -> int:
        return sum(getattr(summary, name) for summary in summaries)

    assert by_label(series, "scheduler_mentors_total") == {
        '{result="evaluated"}': total("total_evaluated"),
        '{result="error"}': total("total_errors"),
        '{result="unprocessed"}': total("total_unprocessed"),
    }
    assert sum(by_label(series, "scheduler_mentors_total").values()) == total("total_active_mentors")
    assert sum(by_label(series, "scheduler_errors_total").values()) == total("total_errors")
    notifications = Counter()
    for labels, count in by_label(series, "scheduler_notifications_total").items():
        notifications["dispatched" if "dispatched" in labels else "suppressed"] += count
    assert notifications["dispatched"] == total("total_dispatched")
    assert notifications["suppressed"] == total("total_suppressed")
    verdicts = Counter("completed" if summary.completed else "partial" for summary in summaries)
    for verdict in ("completed", "partial"):
        assert series[f'scheduler_runs_total{{verdict="{verdict}"}}'] == verdicts[verdict]
    assert series["scheduler_run_duration_seconds_count"] == len(summaries)
    assert series["scheduler_run_duration_seconds_sum"] == pytest.approx(total("duration_ms") / 1000)


def assert_at_rest(series: Series) -> None:
    assert series["scheduler_invocations_in_flight"] == series["scheduler_channel_depth"] == 0


@asynccontextmanager
async def open_world(
    database: ModelDatabase, trigger_engine: FakeTriggerEngine, **given: Any
) -> AsyncIterator[tuple[Scheduler, Client]]:
    """The application over a real scheduler, over fakes."""
    async with open_model(database, trigger_engine, **given) as scheduler:
        yield scheduler, create_app(scheduler, make_settings(**(OVER_HTTP | given))).test_client()


# --- Who may ---


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}], ids=["nothing", "nonsense"])
async def test_anyone_may_read_the_metrics_while_no_operator_token_is_set(
    headers: dict[str, str], scheduler: FakeScheduler
) -> None:
    client = create_app(scheduler, make_settings(operator_token=None)).test_client()
    response = await client.get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert ours(await response.get_data(as_text=True))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="missing"),
        pytest.param({"Authorization": f"Bearer {TOKEN}x"}, id="wrong"),
        pytest.param({"Authorization": f"Bearer {KEY}"}, id="the service role key"),
        pytest.param({"X-Scheduler-Secret": SECRET}, id="the shared secret"),
        pytest.param({"Authorization": f"Basic {TOKEN}"}, id="another scheme"),
    ],
)
async def test_nobody_but_the_operator_may_read_the_metrics_once_a_token_is_set(
    headers: dict[str, str], client: Client, scheduler: FakeScheduler
) -> None:
    response = await client.get("/metrics", headers=headers)
    await assert_refused(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="scenario-scheduler"'
    assert scheduler.freshness_measurements == 0
    assert (await client.get("/metrics", headers=OPERATOR)).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_the_metrics_can_only_be_read(method: str, client: Client) -> None:
    response = await client.open("/metrics", method=method, headers=OPERATOR)
    await assert_refused(response, 405, "method_not_allowed")


# --- The format ---


async def test_the_metrics_are_as_promtool_wants_them_and_no_others(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.freshness = Freshness(900.0, {"expiry": 1.0})
    text = await scrape_text(client)
    assert list(complaints(text)) == []
    assert ours(text) == METRICS


async def test_before_the_first_run_every_series_of_fixed_words_is_there_at_zero(client: Client) -> None:
    """A counter that appears with its first event has no increase that an alert could see."""
    series = await scrape(client)
    assert by_label(series, "scheduler_runs_total") == dict.fromkeys(
        ['{verdict="completed"}', '{verdict="partial"}', '{verdict="failed"}', '{verdict="abandoned"}'], 0
    )
    assert by_label(series, "scheduler_mentors_total") == dict.fromkeys(
        ['{result="evaluated"}', '{result="error"}', '{result="unprocessed"}'], 0
    )
    assert by_label(series, "scheduler_unauthorized_total") == dict.fromkeys(
        ['{path="run"}', '{path="trigger_engine"}', '{path="operator"}'], 0
    )
    assert series["scheduler_invocation_duration_seconds_count"] == 0
    assert_at_rest(series)


def test_the_metrics_that_the_readme_names_are_there() -> None:
    """An alert on a name that does not exist is silent for ever."""
    readme = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")
    section = readme.partition("`/metrics` counts")[2].partition("Logs go to")[0]
    named = set(re.findall(r"scheduler_[a-z_]+", section))
    assert len(named) > 10
    assert named <= set(METRICS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n", "alone"),
        ("# HELP a A.\n# TYPE a counter\na 1\n", "alone"),
        ("# TYPE a gauge\na 1\n", "pairs"),
        ("# HELP a \n# TYPE a gauge\na 1\n", "empty"),
        ("# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n", "base unit"),
        ("# HELP aB A.\n# TYPE aB gauge\naB 1\n", "snake"),
        ("# HELP a A.\n# TYPE a gauge\na 1\nb 2\n", "no TYPE"),
        ("# HELP a A.\n# TYPE a gauge\na 1\na 2\n", "twice"),
        ('# HELP a A.\n# TYPE a histogram\na_bucket{le="+Inf"} 1\na_count 2\na_sum 1\n', "add up"),
        ('# HELP a A.\n# TYPE a histogram\na_bucket{le="1"} 1\na_count 1\na_sum 1\n', "ascend"),
    ],
)
def test_what_promtool_would_complain_of_is_found(text: str, complaint: str) -> None:
    assert any(complaint in each for each in complaints(text)), list(complaints(text))


# --- What a run leaves ---


async def test_a_run_is_counted_exactly(autojump_clock: MockClock) -> None:
    busy = [InvocationFailed("http_503", retryable=True)]
    latencies = {UUID(int=9): FOREVER, UUID(int=10): 0.3}

    def act(chunk: Sequence[UUID]) -> Evaluation:
        number = chunk[0].int
        if number == 7:
            raise InvocationFailed("http_500", bisectable=True)
        if number == 8 and busy:
            raise busy.pop()
        if number == 11:
            return Evaluation(errors={"mentor_error": 1})
        return Evaluation(dispatched={"inactivity": 1}, suppressed={"expiry": 1} if number % 2 else {})

    engine = FakeTriggerEngine(latency=lambda chunk: latencies.get(chunk[0], 0.02), act=act)
    async with open_world(ModelDatabase(ids(250)), engine, invocation_timeout=3.0) as (scheduler, client):
        summary = await run_to_its_end(scheduler)
        series = await scrape(client)
    assert_accounted_for(series, summary)
    assert_at_rest(series)
    assert by_label(series, "scheduler_mentors_total") == {
        '{result="evaluated"}': 247,
        '{result="error"}': 3,
        '{result="unprocessed"}': 0,
    }
    assert by_label(series, "scheduler_errors_total") == {
        '{class="http_500"}': 1,
        '{class="timeout"}': 1,
        '{class="mentor_error"}': 1,
    }
    assert by_label(series, "scheduler_notifications_total") == {
        '{result="dispatched",scenario="inactivity"}': 247,
        '{result="suppressed",scenario="expiry"}': 122,
    }
    assert series['scheduler_runs_total{verdict="completed"}'] == 1
    # 250 mentors, and one of them asked about twice: one took 0.3 s, and one was cut at 3 s.
    assert buckets(series, "scheduler_invocation_duration_seconds") == {"0.025": 249, "0.5": 1, "5.0": 1}
    assert series["scheduler_invocation_duration_seconds_sum"] == pytest.approx(249 * 0.02 + 0.3 + 3.0)
    assert buckets(series, "scheduler_run_duration_seconds") == {"5.0": 1}


async def test_the_counts_of_runs_add_up(autojump_clock: MockClock) -> None:
    act = lambda chunk: Evaluation(dispatched={"inactivity": 1})  # noqa: E731
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0, act=act)
    budget = {"soft_threshold": 3.5, "hard_deadline": 9.0, "platform_limit": 12.0, "page_size": 10}
    async with open_world(ModelDatabase(ids(100)), engine, **budget) as (scheduler, client):
        summaries = [await run_to_its_end(scheduler) for _ in range(3)]
        engine.latency = lambda chunk: 0.1
        summaries.append(await run_to_its_end(scheduler))
        series = await scrape(client)
    assert [summary.partial for summary in summaries] == [True, True, True, False]
    assert_accounted_for(series, *summaries)


async def test_what_the_hard_deadline_cuts_is_unprocessed_and_no_longer_in_flight(
    autojump_clock: MockClock,
) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: FOREVER)
    async with open_world(ModelDatabase(ids(300)), engine, invocation_timeout=29.0) as (scheduler, client):
        started = await scheduler.start(RunRequest())
        await trio.sleep(1)
        hanging = await scrape(client)
        summary = await started.summary()
        after = await scrape(client)
    assert (hanging["scheduler_invocations_in_flight"], hanging["scheduler_channel_depth"]) == (10, 10)
    assert hanging["scheduler_invocation_duration_seconds_count"] == 0
    assert summary.total_unprocessed == 300
    assert_accounted_for(after, summary)
    assert_at_rest(after)
    assert buckets(after, "scheduler_invocation_duration_seconds") == {"+Inf": 10}
    assert buckets(after, "scheduler_run_duration_seconds") == {"28.0": 1}


async def test_a_drained_run_is_partial(autojump_clock: MockClock) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    async with open_world(ModelDatabase(ids(300)), engine) as (scheduler, client):
        started = await scheduler.start(RunRequest())
        await trio.sleep(1.5)
        scheduler.drain()
        summary = await started.summary()
        series = await scrape(client)
    assert (summary.total_evaluated, summary.total_unprocessed) == (20, 280)
    assert_accounted_for(series, summary)
    assert_at_rest(series)


async def test_a_run_that_a_bug_ended_is_failed_with_what_it_had_counted(autojump_clock: MockClock) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        if chunk[0].int == 51:
            raise ZeroDivisionError
        return Evaluation(dispatched={"inactivity": 1})

    engine = FakeTriggerEngine(latency=lambda chunk: 0.1, act=act)
    async with open_world(ModelDatabase(ids(100)), engine) as (scheduler, client):
        with pytest.raises(RunFailed):
            await run_to_its_end(scheduler)
        series = await scrape(client)
    assert by_label(series, "scheduler_runs_total") == {
        '{verdict="completed"}': 0,
        '{verdict="partial"}': 0,
        '{verdict="failed"}': 1,
        '{verdict="abandoned"}': 0,
    }
    mentors = by_label(series, "scheduler_mentors_total")
    assert 50 <= mentors['{result="evaluated"}'] < 60
    assert sum(mentors.values()) == 100
    assert sum(by_label(series, "scheduler_notifications_total").values()) == mentors['{result="evaluated"}']
    assert series["scheduler_run_duration_seconds_count"] == 1
    assert_at_rest(series)


@pytest.mark.parametrize("age", [LEASE - 1, LEASE + 1])
async def test_a_run_that_was_killed_is_counted_by_whoever_takes_its_lease_over(
    age: float, autojump_clock: MockClock
) -> None:
    database = ModelDatabase(ids(10))
    async with open_world(database, FakeTriggerEngine()) as (scheduler, client):
        database._begin_run(new_run_id(), None, 28.0, LEASE)
        await trio.sleep(age)
        is_over = age > LEASE
        if is_over:
            await run_to_its_end(scheduler)
        else:
            with pytest.raises(RunInProgress):
                await scheduler.start(RunRequest())
        series = await scrape(client)
    assert by_label(series, "scheduler_runs_total") == {
        '{verdict="completed"}': int(is_over),
        '{verdict="partial"}': 0,
        '{verdict="failed"}': 0,
        '{verdict="abandoned"}': int(is_over),
    }


async def test_a_dry_run_is_counted_as_invocations_alone(autojump_clock: MockClock) -> None:
    act = lambda chunk: Evaluation(dispatched={"inactivity": 1}, errors={})  # noqa: E731
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0, act=act)
    async with open_world(ModelDatabase(ids(50)), engine, trigger_engine_dry_run=True) as (scheduler, client):
        started = await scheduler.start(RunRequest(dry_run=True))
        await trio.sleep(0.5)
        during = await scrape(client)
        assert (await started.summary()).total_dispatched == 50
        after = await scrape(client)
    assert (during["scheduler_invocations_in_flight"], during["scheduler_channel_depth"]) == (10, 10)
    assert after["scheduler_invocation_duration_seconds_count"] == 50
    for series in (during, after):
        assert_accounted_for(series)


async def test_a_run_is_counted_when_it_answers_though_its_row_can_not_be_written(
    autojump_clock: MockClock,
) -> None:
    database = ModelDatabase(ids(99))
    async with open_world(database, FakeTriggerEngine(latency=lambda chunk: 0.1)) as (scheduler, client):
        database.away = lambda now: 0.5 < now < 300
        summary = await run_to_its_end(scheduler)
        answered = await scrape(client)
        assert database.runs[0].verdict == "running"
        await trio.sleep_until(400)
        written = await scrape(client)
    assert database.runs[0].verdict == "completed"
    for series in (answered, written):
        assert_accounted_for(series, summary)


# --- While a run is under way ---


async def test_mentors_are_counted_while_their_run_is_under_way(autojump_clock: MockClock) -> None:
    act = lambda chunk: Evaluation(dispatched={"inactivity": 1})  # noqa: E731
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0, act=act)
    seen = []
    async with open_world(ModelDatabase(ids(100)), engine) as (scheduler, client):
        started = await scheduler.start(RunRequest())
        for _ in range(10):
            await trio.sleep(0.99)
            seen.append((await scrape(client))['scheduler_mentors_total{result="evaluated"}'])
        await started.summary()
    assert seen == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]


EVENTS = st.sampled_from(["dispatch", "suppress", "nothing", "timeout", "http_500", "http_503", "mixed"])


@settings(max_examples=40, deadline=None)
@given(
    mentors=st.integers(0, 60),
    events=st.lists(EVENTS, min_size=1, max_size=12),
    latencies=st.lists(st.sampled_from([0.0, 0.1, 0.7, 2.0]), min_size=1, max_size=5),
    pauses=st.lists(st.sampled_from([0.0, 0.05, 0.3, 1.1, 4.0]), min_size=1, max_size=12),
    chunk=st.integers(1, 7),
    ending=st.sampled_from(["left alone", "drained", "database away"]),
)
def test_no_count_ever_goes_down_and_in_the_end_they_are_those_of_the_summaries(
    mentors: int, events: list[str], latencies: list[float], pauses: list[float], chunk: int, ending: str
) -> None:
    def act(mentor_ids: Sequence[UUID]) -> Evaluation:
        event, size = events[mentor_ids[0].int % len(events)], len(mentor_ids)
        if event in ("timeout", "http_500", "http_503"):
            raise InvocationFailed(event, bisectable=event == "http_500", retryable=event == "http_503")
        return {
            "dispatch": Evaluation(dispatched={"inactivity": size}),
            "suppress": Evaluation(suppressed={"expiry": size}),
            "nothing": Evaluation(),
            "mixed": Evaluation({"inactivity": 1}, {"milestone": 1}, {"mentor_error": size - 1}),
        }[event]

    async def scenario() -> None:
        database = ModelDatabase(ids(mentors), latency=0.01)
        engine = FakeTriggerEngine(latency=lambda each: latencies[each[0].int % len(latencies)], act=act)
        given = {
            "mentors_per_invocation": chunk,
            "page_size": 10,
            "soft_threshold": 3.0,
            "hard_deadline": 5.0,
            "platform_limit": 8.0,
            "max_concurrency": 3,
        }
        before: Series = {}
        summaries: list[Summary] = []
        async with open_world(database, engine, **given) as (scheduler, client):

            async def look() -> None:
                nonlocal before
                text = await scrape_text(client)
                series = parse(text)
                counting = [name for name, kind in types(text).items() if kind != "gauge"]
                for name in (each for each in before if each.startswith(tuple(counting))):
                    assert series[name] >= before[name], name
                assert 0 <= series["scheduler_invocations_in_flight"] <= 3
                assert 0 <= series["scheduler_channel_depth"] <= 3
                before = series

            for number in range(2):
                started = await scheduler.start(RunRequest())
                for pause in pauses:
                    await look()
                    await trio.sleep(pause)
                if number == 1 and ending == "drained":
                    scheduler.drain()
                if number == 1 and ending == "database away":
                    database.away = lambda now: True
                summaries.append(await started.summary())
                await look()
        assert_accounted_for(before, *summaries)
        assert_at_rest(before)

    trio.run(scenario, clock=MockClock(autojump_threshold=0))


# --- Names from outside ---


async def test_a_trigger_engine_that_makes_up_names_makes_no_more_than_a_hundred_series(
    autojump_clock: MockClock,
) -> None:
    def act(chunk: Sequence[UUID]) -> Evaluation:
        number = chunk[0].int
        if number % 2:
            raise InvocationFailed(f"sql_{number:05}")
        return Evaluation({f"scenario_{number}": 1}, {f"scenario_{number}": 1})

    engine = FakeTriggerEngine(latency=lambda chunk: 0.1, act=act)
    seen: list[Series] = []
    async with open_world(ModelDatabase(ids(500)), engine) as (scheduler, client):
        for _ in range(2):
            started = await scheduler.start(RunRequest())
            while not started.has_ended:
                await trio.sleep(0.55)
                seen.append(await scrape(client))
        assert_accounted_for(seen[-1], await started.summary(), await started.summary())
    for before, after in pairwise(seen):
        for name in ("scheduler_errors_total", "scheduler_notifications_total"):
            counted = by_label(after, name)
            assert all(counted[each] >= count for each, count in by_label(before, name).items())
    errors = by_label(seen[-1], "scheduler_errors_total")
    notifications = by_label(seen[-1], "scheduler_notifications_total")
    assert len(errors) == 101
    assert errors.pop('{class="_other"}') == 300
    assert set(errors.values()) == {2}
    assert len(notifications) == 202
    assert notifications.pop('{result="dispatched",scenario="_other"}') == 300
    assert notifications.pop('{result="suppressed",scenario="_other"}') == 300
    assert set(notifications.values()) == {2}


# --- Freshness ---


async def test_freshness_is_told_by_scenario_and_the_oldest_of_all(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.freshness = Freshness(900.0, {"expiry": 12.345, "inactivity": 1000.0, "milestone": 7.0})
    series = await scrape(client)
    assert by_label(series, "scheduler_freshness_seconds") == {
        '{scenario="expiry"}': 12.345,
        '{scenario="inactivity"}': 1000.0,
        '{scenario="milestone"}': 7.0,
    }
    assert set(by_label(series, "scheduler_never_covered").values()) == {0}
    assert series["scheduler_oldest_unvisited_seconds"] == 1000.0
    assert series["scheduler_freshness_limit_seconds"] == 900.0
    assert series["scheduler_database_up"] == 1


async def test_a_scenario_that_never_covered_everybody_has_no_age_and_so_has_the_oldest(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.freshness = Freshness(900.0, {"expiry": 5.0, "welcome": None})
    series = await scrape(client)
    assert by_label(series, "scheduler_freshness_seconds") == {'{scenario="expiry"}': 5.0}
    assert by_label(series, "scheduler_never_covered") == {
        '{scenario="expiry"}': 0,
        '{scenario="welcome"}': 1,
    }
    assert "scheduler_oldest_unvisited_seconds" not in series
    assert series["scheduler_database_up"] == 1


async def test_the_oldest_unvisited_grows_until_the_run_that_reaches_everybody(
    autojump_clock: MockClock,
) -> None:
    engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
    budget = {"soft_threshold": 3.5, "hard_deadline": 9.0, "platform_limit": 12.0, "page_size": 10}
    ages = []
    async with open_world(ModelDatabase(ids(100)), engine, **budget) as (scheduler, client):
        for number in range(3):
            await trio.sleep_until(100 * number)
            await run_to_its_end(scheduler)
            await trio.sleep_until(100 * number + 50)
            ages.append((await scrape(client)).get("scheduler_oldest_unvisited_seconds"))
    # Each reaches 60 of 100: the first two together everybody, the last two as well.
    assert ages == [None, 150.0, 150.0]


@pytest.mark.parametrize(
    "error", [DatabaseUnavailable("Postgres is away."), StatementFailed("covering_runs", "42P01")], ids=str
)
async def test_while_the_database_can_not_say_its_gauges_are_missing_and_nothing_else(
    error: Exception, client: Client, scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure_freshness() -> Freshness:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(scheduler, "measure_freshness", measure_freshness)
    text = await scrape_text(client)
    assert ours(text) == {name: kind for name, kind in METRICS.items() if name not in OF_THE_DATABASE}
    assert parse(text)["scheduler_database_up"] == 0


async def test_scrapes_wait_for_a_silent_database_no_longer_than_their_patience(
    autojump_clock: MockClock,
) -> None:
    """A connection to a silent server takes up to a second more to be given back."""
    database = ModelDatabase(ids(10))
    answered_at: list[float] = []
    async with open_world(database, FakeTriggerEngine()) as (scheduler, client):
        await run_to_its_end(scheduler)
        assert (await scrape(client))["scheduler_database_up"] == 1
        await trio.sleep(10)
        database.hangs = lambda statement, now: True
        began = trio.current_time()

        async def ask() -> None:
            series = await scrape(client)
            assert series["scheduler_database_up"] == 0
            assert series['scheduler_runs_total{verdict="completed"}'] == 1
            answered_at.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert max(answered_at) <= DATABASE_PATIENCE + 1.0
        database.hangs = lambda statement, now: False
        assert (await scrape(client))["scheduler_database_up"] == 1


async def test_the_database_is_asked_once_a_second_however_many_scrape(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(scrape, client)
        await trio.sleep(1)
    assert scheduler.freshness_measurements == 3


# --- Refused credentials ---


async def test_refused_credentials_are_counted_by_what_they_asked_for(client: Client) -> None:
    for path, times in (("/run", 3), ("/trigger-engine", 2)):
        for _ in range(times):
            assert (await client.post(path)).status_code == 401
    for path in ("/runs", "/runs/nonsense", "/metrics"):
        assert (await client.get(path)).status_code == 401
    assert (await client.post("/run", headers={"X-Scheduler-Secret": SECRET})).status_code == 200
    assert (await client.get("/nothing")).status_code == 404
    series = await scrape(client)
    assert by_label(series, "scheduler_unauthorized_total") == {
        '{path="run"}': 3,
        '{path="trigger_engine"}': 2,
        '{path="operator"}': 3,
    }


async def test_two_applications_of_one_process_count_apart(scheduler: FakeScheduler) -> None:
    one, other = (create_app(scheduler, make_settings()).test_client() for _ in range(2))
    assert (await one.post("/run")).status_code == 401
    assert (await scrape(one))['scheduler_unauthorized_total{path="run"}'] == 1
    assert (await scrape(other))['scheduler_unauthorized_total{path="run"}'] == 0


async def test_a_scrape_names_nobody(autojump_clock: MockClock) -> None:
    act: Callable[[Sequence[UUID]], Evaluation] = lambda chunk: Evaluation(errors={"mentor_error": 1})  # noqa: E731
    database = ModelDatabase(ids(50))
    async with open_world(database, FakeTriggerEngine(act=act)) as (scheduler, client):
        await run_to_its_end(scheduler)
        text = await scrape_text(client)
    for kept in (*map(str, database.mentor_ids), str(database.runs[0].id), SECRET, KEY, TOKEN):
        assert kept not in text
