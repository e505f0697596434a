"""GET /dashboard and its parts: who may, what a browser is told about them, and every state there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn
from uuid import UUID

import pytest
import trio
from quart.typing import TestClientProtocol as Client
from trio.testing import MockClock

from engine import NotReady
from tests.web import states
from tests.web.conftest import TOKEN, FakeScheduler, make_settings
from tests.web.test_run import assert_refused
from web.app import create_app
from web.dashboard import DATABASE_PATIENCE
from web.pages import CONTENT_SECURITY_POLICY
from web.watch import LOOK_LASTS

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}

PAGES = ["/dashboard", "/login", "/dashboard/overview", "/static/dashboard.css", "/static/dashboard.js"]


@pytest.fixture
def scheduler() -> FakeScheduler:
    scheduler = FakeScheduler()
    scheduler.at = states.NOW
    return scheduler


async def show(client: Client, path: str = "/dashboard", status: int = 200) -> str:
    response = await client.get(path, headers=OPERATOR)
    assert response.status_code == status
    assert response.content_type == "text/html; charset=utf-8"
    return (await response.get_data(as_text=True)).replace("\u00a0", " ")


# --- Who may ---


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic b3BlcmF0b3I6cGFzc3dvcmQ="}])
async def test_somebody_without_a_session_is_shown_the_way_to_log_in(
    headers: dict[str, str], client: Client
) -> None:
    response = await client.get("/dashboard", headers=headers)
    assert (response.status_code, response.headers["Location"]) == (303, "/login")


@pytest.mark.parametrize("path", ["/dashboard/overview", "/dashboard/events"])
async def test_what_a_page_asks_for_is_refused_rather_than_led_elsewhere(path: str, client: Client) -> None:
    await assert_refused(await client.get(path), 401, "unauthorized")


async def test_nothing_is_read_for_somebody_who_may_not(client: Client, scheduler: FakeScheduler) -> None:
    for path in ("/dashboard", "/dashboard/overview", "/dashboard/events"):
        await client.get(path)
    assert (scheduler.overviews, scheduler.listings) == (0, [])


@pytest.mark.parametrize("path", [*PAGES, "/dashboard/events", "/logout", "/static/icon.svg"])
async def test_without_an_operator_token_there_is_no_dashboard(path: str, scheduler: FakeScheduler) -> None:
    client = create_app(scheduler, make_settings(operator_token=None)).test_client()
    for method in ("GET", "POST"):
        response = await client.open(path, method=method, headers={"Authorization": "Bearer "})
        await assert_refused(response, 404, "not_found")


@pytest.mark.parametrize("path", [*PAGES, "/dashboard/events", "/logout"])
async def test_options_is_off(path: str, client: Client) -> None:
    await assert_refused(await client.options(path, headers=OPERATOR), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "name", ["", "..%2fapp.py", "../app.py", "%2e%2e/app.py", "app.py", "dashboard.css/"]
)
async def test_static_files_are_three_and_no_others(name: str, client: Client) -> None:
    await assert_refused(await client.get(f"/static/{name}"), 404, "not_found")


# --- What a browser is told ---


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_allows_nothing_but_our_own_files(path: str, client: Client) -> None:
    headers = (await client.get(path, headers=OPERATOR)).headers
    policy = headers["Content-Security-Policy"]
    assert policy == CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("state", states.STATES, ids=lambda state: state.__name__)
async def test_no_state_needs_an_inline_style_or_script_or_another_host(
    state: Callable[[FakeScheduler], None], client: Client, scheduler: FakeScheduler
) -> None:
    state(scheduler)
    response = await client.get("/dashboard", headers=OPERATOR)
    page = await response.get_data(as_text=True)
    assert not re.search(r"<style|<script(?! src)|\sstyle=|\son[a-z]+=|javascript:", page)
    targets = set(re.findall(r"(?:src|href|action)=\"([^\"]*)\"", page))
    assert {target for target in targets if not target.startswith("#shape-")} == {
        "/static/icon.svg", "/static/dashboard.css", "/static/dashboard.js", "/logout", "#overview",
    }  # fmt: skip
    assert "://" not in page


# --- Every state ---


async def test_good_says_when_everybody_was_reached(client: Client, scheduler: FakeScheduler) -> None:
    states.good(scheduler)
    page = await show(client)
    assert "Everybody was reached 40 s ago." in page
    assert "in 4 min" in page
    assert "about 32,000 fit in one budget" in page
    assert page.count('<g class="bar ') == 60
    assert 'id="live" class="card live" aria-labelledby="live-title" data-latest="' in page
    assert re.search(r'<section id="live"[^>]* hidden>', page)


async def test_the_facts_say_what_went_out_and_how_long_the_last_run_took(
    client: Client, scheduler: FakeScheduler
) -> None:
    counts = {"dispatched": {"expiry": 3}, "suppressed": {"expiry": 500, "milestone": 5}}
    scheduler.records = [states.record(1, states.NOW, seconds=7.5, **counts)]
    page = await show(client)
    assert "3 notifications</span>" in page
    assert "505 suppressed by a cooldown, in 1 run</span>" in page
    assert "took 7.5 s</span>" in page


async def test_the_table_has_the_counts_of_each_scenario_that_the_charts_show_to_a_mouse(
    client: Client, scheduler: FakeScheduler
) -> None:
    counts = {"dispatched": {"expiry": 3, "inactivity": 0}, "suppressed": {"expiry": 1_500, "milestone": 5}}
    scheduler.records = [states.record(1, states.NOW, **counts)]
    page = await show(client)
    expiry, milestone = re.findall(r'<g class="column" data-lines="([^"]*)"', page)
    assert expiry == "expiry: 3 dispatched, 1,500 suppressed"
    assert f"<td>{expiry}; {milestone}</td>" in page


async def test_coverage_is_of_the_latest_run_that_has_ended(client: Client, scheduler: FakeScheduler) -> None:
    how = {"verdict": "partial", "stop_reason": "soft_threshold", "mentors": 200, "unprocessed": 50}
    scheduler.records = [
        states.record(3, states.NOW, verdict="running", mentors=7),
        states.record(2, states.NOW - timedelta(minutes=5), **how),
        states.record(1, states.NOW - timedelta(minutes=10)),
    ]
    page = await show(client)
    assert '<dd>150 <span class="note">75%</span>' in page
    assert '<dd>50 <span class="note">25%</span>' in page
    assert "Nov 23 09:55 UTC</time>.</p>" in page


async def test_while_a_run_is_under_way_it_is_not_said_that_nobody_calls(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.live(scheduler)
    scheduler.at = states.NOW + timedelta(minutes=17)
    assert "Nobody has called" not in await show(client)
    scheduler.live_run = None
    scheduler.records[0] = states.record(60, states.NOW - timedelta(seconds=4))
    await trio.sleep(LOOK_LASTS)
    assert "Nobody has called for 17 min" in await show(client)


async def test_a_run_under_way_is_shown_from_the_first_page_on(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.live(scheduler)
    page = await show(client)
    assert not re.search(r'<section id="live"[^>]* hidden>', page)
    assert 'value="5412" max="12297"' in page
    assert "5,412 of about 12,297 mentors" in page
    assert "1,353 per second, ends in about 5.1 s" in page


async def test_the_shards_of_the_run_under_way_and_of_the_last_one_are_shown(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.sharded(scheduler)
    page = await show(client)
    assert not re.search(r'<div id="live-shards"[^>]* hidden>', page)
    assert "13 of 32 shards done, 3 under way, 2 lost, 14 waiting; 1 delivered again." in page
    assert "32 of 32 shards done by 3 workers; 1 delivered again." in page
    for place in ("live", "covered"):
        assert len(re.findall(rf'<svg class="[^"]*" id="{place}-shard-\d+"', page)) == 32
    assert '<li class="silent"><span class="name">worker-c.example:9</span>' in page
    assert "32 shards, 3 workers, 1 delivered again" in page
    assert "No worker takes shards." not in page


async def test_a_run_without_a_fleet_shows_no_shards_and_asks_for_none(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.live(scheduler)
    page = await show(client)
    assert re.search(r'<div id="live-shards"[^>]* hidden>', page)
    assert "covered-shard" not in page
    assert scheduler.shard_listings == []


async def test_shards_that_nobody_takes_are_the_first_line(client: Client, scheduler: FakeScheduler) -> None:
    states.sharded(scheduler)
    running = scheduler.records[0].run_id
    scheduler.records[0] = states.record(60, states.NOW, verdict="running", seconds=6.0, mentors=0, shards=32)
    scheduler.shards[running] = states.shards_of(["waiting"] * 32)
    page = await show(client)
    assert '<section class="headline warn"' in page
    assert "No worker takes shards." in page
    assert "<code>scenario-scheduler worker</code>" in page


async def test_a_dashboard_of_a_service_that_never_ran_says_how_to_begin(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.empty(scheduler)
    page = await show(client)
    assert "Nothing has run yet." in page
    assert "<code>scenario-scheduler run</code>" in page
    assert "<svg id=" not in page


async def test_partial_runs_are_marked_and_what_to_change_is_said(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.partial(scheduler)
    page = await show(client)
    assert "22% wait for the next run" in page
    assert page.count('<g class="bar partial"') == 60
    assert page.count('fill="url(#hatched)"') >= 60
    assert "41,000 are needed, 130% of it." in page
    assert "<code>SCHEDULER_MENTORS_PER_INVOCATION</code>" not in page  # in the database it is not the mend
    assert "cron install --per-scenario" in page


async def test_a_run_that_found_nobody_is_not_called_good(client: Client, scheduler: FakeScheduler) -> None:
    states.nobody(scheduler)
    page = await show(client)
    assert '<section class="headline warn"' in page
    assert "The last run found nobody to evaluate." in page
    assert "<code>scenario-scheduler doctor</code>" in page


async def test_a_failing_trigger_engine_is_said_with_its_error_and_what_to_do(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.failing(scheduler)
    page = await show(client)
    assert "93% were not evaluated for 22 min: the trigger engine fails (timeout)." in page
    assert "SCHEDULER_INVOCATION_TIMEOUT" in page


async def test_with_too_few_runs_no_rhythm_is_denied(client: Client, scheduler: FakeScheduler) -> None:
    scheduler.records = states.history(3)
    page = await show(client)
    assert "Too few runs to tell." in page
    assert "regular interval" not in page


async def test_runs_by_hand_are_said_to_have_no_rhythm(client: Client, scheduler: FakeScheduler) -> None:
    seconds = (1, 3, 30, 200, 209, 1000)
    scheduler.records = [
        states.record(9 - n, states.NOW - timedelta(seconds=s)) for n, s in enumerate(seconds)
    ]
    assert "The last runs came at no regular interval." in await show(client)
    scheduler.records = scheduler.records[:4]
    assert "The last runs came at no regular interval." in await show(
        create_app(scheduler, make_settings()).test_client()
    )


async def test_a_tick_that_does_not_come_is_said(client: Client, scheduler: FakeScheduler) -> None:
    states.stale(scheduler)
    page = await show(client)
    assert "Nobody has called for 17 min; expected every 5 min." in page
    assert "overdue by 12 min" in page
    assert "After 45 min without a run" in page


async def test_while_the_database_is_away_the_page_is_what_was_known(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.good(scheduler)
    await show(client)
    states.away(scheduler)
    await trio.sleep(30)
    page = await show(client, status=503)
    assert "The ledger can&#39;t be read, so no run can begin." in page
    assert "check DATABASE_URL" in page
    assert "What is shown below was known 30 s ago." in page
    assert page.count('<g class="bar ') == 60
    await show(client, "/dashboard/overview")


async def test_every_ago_goes_on_while_the_database_is_away(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.good(scheduler)
    assert "completed, 41 s ago" in await show(client)
    states.away(scheduler)
    await trio.sleep(1_020)
    page = await show(client, status=503)
    assert "What is shown below was known 17 min ago." in page
    assert "completed, 18 min ago" in page
    assert "overdue by 13 min" in page
    assert page.count('<span class="age">18 min, past the limit</span>') == 3


async def test_a_run_is_not_said_to_be_under_way_while_nobody_can_know(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.live(scheduler)
    await show(client)
    states.away(scheduler)
    await trio.sleep(30)
    assert "was under way, begun 34 s ago" in await show(client, status=503)


async def test_a_page_comes_also_where_the_database_was_never_there(
    client: Client, scheduler: FakeScheduler
) -> None:
    scheduler.error = NotReady("The database is not migrated; run `scenario-scheduler migrate`.", 5.0)
    page = await show(client, status=503)
    assert "<code>scenario-scheduler migrate</code>" in page
    assert "Nothing is known of earlier runs" in page


async def test_a_run_of_this_process_is_shown_also_while_the_database_is_away(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.live(scheduler)
    states.away(scheduler)
    assert "5,412 mentors so far" in await show(client, status=503)


async def test_a_service_that_drains_says_so(client: Client, scheduler: FakeScheduler) -> None:
    states.draining(scheduler)
    assert "This service is shutting down." in await show(client)


@pytest.mark.parametrize("state", states.STATES, ids=lambda state: state.__name__)
async def test_no_state_names_anybody(
    state: Callable[[FakeScheduler], None], client: Client, scheduler: FakeScheduler
) -> None:
    """The only ids on the page are those of runs."""
    state(scheduler)
    page = await (await client.get("/dashboard", headers=OPERATOR)).get_data(as_text=True)
    found = set(map(UUID, re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", page)))
    assert found <= {record.run_id for record in scheduler.records}


async def test_what_comes_from_outside_is_text_and_no_markup(
    client: Client, scheduler: FakeScheduler
) -> None:
    name = "<img src=x>\"'&"
    counts = {"errors": {name: 3}, "dispatched": {name: 1}, "suppressed": {name: 1}}
    scheduler.records = [states.record(1, states.NOW, **counts, shards=1, workers=1)]
    scheduler.shards = {states.run_id(1): [states.shard(0, worker=name)]}
    page = await show(client)
    assert "1 of 1 shard done by 1 worker." in page
    assert "<img src=x" not in page
    assert "&lt;img src=x&gt;&#34;&#39;&amp;" in page


async def test_the_ledger_is_read_once_a_second_however_many_look(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    states.good(scheduler)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(show, client)
    assert (scheduler.overviews, len(scheduler.listings)) == (1, 1)
    await trio.sleep(1)
    await show(client)
    assert (scheduler.overviews, len(scheduler.listings)) == (2, 2)


# --- A run that is over within a second, and a Postgres that hangs ---


async def test_a_run_that_is_over_within_a_second_is_shown_as_ended(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock
) -> None:
    """The page asks when the run begins and when it ends, and then not for a quarter of a minute."""
    states.live(scheduler)
    assert "under way, begun" in await show(client, "/dashboard/overview")
    scheduler.live_run = None
    scheduler.records[0] = states.record(60, states.NOW, seconds=0.6)
    await trio.sleep(LOOK_LASTS)
    page = await show(client, "/dashboard/overview")
    assert "under way" not in page
    assert '<g class="bar running"' not in page


async def hang(**how: object) -> NoReturn:
    await trio.sleep(600)
    raise AssertionError("nobody gave it up")


@pytest.mark.parametrize("hanging", [["list_runs"], ["read_overview"], ["list_runs", "read_overview"]])
async def test_a_page_over_a_postgres_that_hangs_comes_in_time_and_says_so(
    hanging: list[str],
    client: Client,
    scheduler: FakeScheduler,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states.good(scheduler)
    await show(client)
    for question in hanging:
        monkeypatch.setattr(scheduler, question, hang)
    await trio.sleep(60)
    began = trio.current_time()
    page = await show(client, status=503)
    assert trio.current_time() - began == DATABASE_PATIENCE
    assert "The ledger can&#39;t be read" in page
    assert "Postgres does not answer within 2.5 s" in page
    assert "What is shown below was known 62 s ago." in page
    assert page.count('<g class="bar ') == 60


async def test_a_run_of_this_process_is_shown_also_while_postgres_hangs(
    client: Client, scheduler: FakeScheduler, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    states.live(scheduler)
    for question in ("list_runs", "read_overview", "count_mentors"):
        monkeypatch.setattr(scheduler, question, hang)
    assert "5,412 mentors so far" in await show(client, status=503)


async def test_a_database_that_was_found_away_is_not_asked_again_for_the_charts(
    client: Client, scheduler: FakeScheduler
) -> None:
    states.away(scheduler)
    assert "check DATABASE_URL" in await show(client, status=503)
    assert (len(scheduler.listings), scheduler.overviews) == (1, 0)
