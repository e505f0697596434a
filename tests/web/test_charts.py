"""From runs to what is drawn: places, lengths, and what is said of them. Pure."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from engine import Freshness, ShardRecord, find_rhythm, remedy_of
from tests.web.states import NOW, WORKERS, history, record, shard, shards_of
from web.charts.errors import advise_on, draw_errors
from web.charts.gauges import draw_ages, draw_coverage
from web.charts.notifications import draw_notifications
from web.charts.scale import RootScale, Slots
from web.charts.shards import LONG_AFTER, SHARD_KINDS, Strip, describe_shards, draw_shards
from web.charts.timeline import Timeline, describe_run, draw_timeline


def number(text: str) -> float:
    assert text.endswith("%")
    return float(text[:-1])


def timeline(*runs: object, soft: float = 25.0, limit: float = 30.0) -> Timeline:
    return draw_timeline(runs, soft_threshold=soft, platform_limit=limit, rhythm=find_rhythm(runs))


def ago(seconds: float) -> object:
    return NOW - timedelta(seconds=seconds)


# --- Scales ---


def test_slots_fill_the_plot_from_left_to_right() -> None:
    slots = Slots(4)
    assert [slots.left(index) for index in range(4)] == ["0%", "25%", "50%", "75%"]
    assert slots.width == "25%"
    assert number(slots.bar_left(0)) + number(slots.bar_width) < 25
    assert slots.middle(1) == "37.5%"


def test_heights_are_by_the_square_root_and_end_at_the_top() -> None:
    scale = RootScale(100.0)
    assert [scale.height(value) for value in (-1, 0, 1, 25, 100, 400)] == [0, 0, 0.1, 0.5, 1, 1]


# --- The timeline ---


def test_bars_stand_in_the_order_in_which_the_runs_began() -> None:
    drawn = timeline(record(2, ago(10)), record(1, ago(310)))
    assert [bar.started_at for bar in drawn.bars] == [ago(310), ago(10)]
    assert number(drawn.bars[0].left) < number(drawn.bars[1].left)


def test_a_bar_ends_at_the_line_of_the_threshold_it_reached() -> None:
    drawn = timeline(record(1, NOW, seconds=25.0), record(2, NOW, seconds=30.0))
    tops = {level.kind: level.top for level in drawn.levels}
    assert {bar.top for bar in drawn.bars} == {tops["soft"], tops["limit"]}
    assert all(number(bar.top) + number(bar.height) == pytest.approx(100) for bar in drawn.bars)


def test_a_run_past_the_limit_stays_in_the_plot_and_one_of_no_time_is_seen() -> None:
    long, short = timeline(record(1, NOW, seconds=0.0), record(2, NOW, seconds=900.0)).bars
    assert number(long.top) == pytest.approx(10)
    assert number(short.height) > 1


def test_lines_have_labels_that_do_not_lie_on_one_another() -> None:
    for soft, limit in ((25.0, 30.0), (29.0, 30.6), (1.0, 3.0), (840.0, 900.0), (0.2, 1.8)):
        drawn = timeline(record(1, NOW), soft=soft, limit=limit)
        labelled = sorted(number(level.top) for level in drawn.levels if level.label)
        assert all(lower - upper >= 6 for upper, lower in pairwise(labelled))
        assert [level.kind for level in drawn.levels if level.name] == ["limit", "soft"]
        assert all(level.label for level in drawn.levels if level.kind == "tick")


def test_a_bar_is_named_by_its_counts_for_who_can_not_see_it() -> None:
    run = record(
        1, NOW, verdict="partial", stop_reason="soft_threshold", seconds=25.3, mentors=1_000, unprocessed=30,
        errors={"timeout": 2, "http_500": 8}, dispatched={"expiry": 4}, suppressed={"expiry": 5},
    )  # fmt: skip
    [bar] = timeline(run).bars
    assert bar.kind == "partial"
    assert bar.label.replace("\u00a0", " ") == (
        "Partial: the soft threshold came first, 25 s. 960 of 1,000 evaluated (96%). "
        "10 errors: http_500 8, timeout 2. 30 unprocessed. 4 dispatched, 5 suppressed"
    )


def test_what_is_not_known_to_be_all_is_said_to_be_the_least() -> None:
    lines = describe_run(record(1, NOW, verdict="abandoned", unprocessed=7, mentors=10))
    assert "at least 7 unprocessed" in lines


@pytest.mark.parametrize(
    ("verdict", "errors", "kind"),
    [
        ("completed", {}, "completed"),
        ("completed", {"timeout": 1}, "errors"),
        ("partial", {"timeout": 1}, "partial"),
        ("failed", {}, "failed"),
        ("abandoned", {}, "abandoned"),
        ("running", {"timeout": 1}, "running"),
    ],
)
def test_the_kind_of_a_bar_is_its_verdict_or_that_it_had_errors(
    verdict: str, errors: dict, kind: str
) -> None:
    drawn = timeline(record(1, NOW, verdict=verdict, errors=errors))
    assert [bar.kind for bar in drawn.bars] == [kind]
    assert drawn.kinds == [kind]
    assert drawn.summary.startswith("One run: ")


def test_a_pause_that_the_rhythm_does_not_explain_is_marked() -> None:
    times = [10, 310, 610, 910, 1210, 5000, 5300, 5600]
    drawn = timeline(*(record(index, ago(seconds)) for index, seconds in enumerate(times)))
    marked = [bar for bar in drawn.bars if bar.pause]
    assert [bar.started_at for bar in marked] == [ago(1210)]
    assert marked[0].label.startswith("After 1\u00a0h\u00a03\u00a0min without a run. ")


def test_a_timeline_counts_its_verdicts() -> None:
    drawn = timeline(record(3, NOW, verdict="failed"), record(2, NOW), record(1, NOW))
    assert drawn.summary == "The last 3 runs: 2 completed, 1 failed."


# --- Notifications ---


def test_a_scenario_without_a_notification_has_its_chart_too() -> None:
    charts = draw_notifications([record(1, NOW, dispatched={"inactivity": 3})])
    assert [chart.scenario_type for chart in charts] == ["expiry", "inactivity", "milestone"]
    assert [len(chart.columns) for chart in charts] == [0, 1, 0]


def test_a_scenario_that_the_database_does_not_know_has_its_chart() -> None:
    charts = draw_notifications([record(1, NOW, suppressed={"welcome": 3})])
    assert "welcome" in [chart.scenario_type for chart in charts]


def test_columns_are_as_high_as_the_most_in_a_run_each_half_by_itself() -> None:
    runs = [
        record(2, NOW, dispatched={"expiry": 10}, suppressed={"expiry": 500}),
        record(1, NOW, dispatched={"expiry": 5}, suppressed={"expiry": 1_000}),
    ]
    chart = draw_notifications(runs)[0]
    assert (chart.dispatched, chart.suppressed) == (15, 1_500)
    earlier, later = chart.columns
    assert number(later.dispatched_height) == number(chart.base)
    assert number(earlier.dispatched_height) == number(chart.base) / 2
    assert number(earlier.suppressed_height) == 100 - number(chart.base)
    assert number(later.suppressed_height) == (100 - number(chart.base)) / 2
    assert chart.summary == (
        "expiry, by run: 15 dispatched, at most 10 in a run; 1,500 suppressed, at most 1,000."
    )


def test_one_notification_among_thousands_is_seen() -> None:
    runs = [record(2, NOW, dispatched={"expiry": 1}), record(1, NOW, dispatched={"expiry": 9_999})]
    later = draw_notifications(runs)[0].columns[1]
    assert number(later.dispatched_height) >= 1


# --- Errors, freshness, coverage ---


def test_errors_are_summed_by_class_the_most_mentors_first() -> None:
    runs = [
        record(3, NOW, errors={"http_500": 1}),
        record(2, NOW, errors={"timeout": 10, "http_500": 2}),
        record(1, NOW, errors={"timeout": 2}),
    ]
    drawn = draw_errors(runs)
    assert [(each.name, each.mentors, each.runs, each.in_latest) for each in drawn] == [
        ("timeout", 12, 2, 0),
        ("http_500", 3, 2, 1),
    ]
    assert [each.width for each in drawn] == ["100%", "25%"]


def test_no_errors_are_none() -> None:
    assert draw_errors([]) == draw_errors([record(1, NOW)]) == []


@pytest.mark.parametrize(
    "error_class",
    [
        "timeout",
        "connection_refused",
        "http_401",
        "http_413",
        "http_503",
        "sql_42501",
        "sql_42883",
        "foreign_id",
        "mentor_missing",
        "oversize_answer",
    ],
)
def test_the_page_and_the_log_say_the_same_of_an_error_class(error_class: str) -> None:
    [drawn] = draw_errors([record(1, NOW, errors={error_class: 1})])
    assert drawn.advice == remedy_of(error_class)


def test_a_class_that_nothing_is_known_about_has_advice_too() -> None:
    assert "README" in advise_on("something_new")


def test_an_age_is_drawn_against_the_limit_and_stays_in_its_gauge() -> None:
    ages = draw_ages(Freshness(900.0, {"a": 0.0, "b": 900.0, "c": 901.0, "d": 1e9, "e": None}))
    assert [age.kind for age in ages] == ["fresh", "fresh", "stale", "stale", "never"]
    assert [age.width for age in ages] == ["0%", "75%", "75.083%", "100%", "0%"]


def test_the_parts_of_a_run_add_up_to_everybody() -> None:
    parts = draw_coverage(record(1, NOW, mentors=200, unprocessed=50, errors={"timeout": 50}))
    assert [(part.kind, part.mentors, part.share, part.left, part.width) for part in parts] == [
        ("evaluated", 100, "50%", "0%", "50%"),
        ("errors", 50, "25%", "50%", "25%"),
        ("unprocessed", 50, "25%", "75%", "25%"),
    ]


def test_a_run_over_nobody_is_drawn() -> None:
    run = record(1, NOW, mentors=0, seconds=0.1)
    assert [part.width for part in draw_coverage(run)] == ["0%"] * 3
    [bar] = timeline(run).bars
    assert "0 of 0 evaluated (0%)" in bar.lines


def test_sixty_runs_are_drawn_from_edge_to_edge() -> None:
    drawn = timeline(*history())
    assert drawn.bars[0].slot_left == "0%"
    assert number(drawn.bars[-1].slot_left) + number(drawn.bars[-1].slot_width) == pytest.approx(
        100, abs=0.01
    )


# --- Shards ---


def strip(*shards: ShardRecord, has_ended: bool = False) -> Strip:
    drawn = draw_shards(shards, has_ended=has_ended)
    assert drawn is not None
    return drawn


def said(text: str) -> list[str]:
    return text.replace("\u00a0", " ").split("\n")


@pytest.mark.parametrize(
    ("how", "under_way", "ended"),
    [
        ({"state": "finished"}, "completed", "completed"),
        ({"state": "finished", "errors": 1}, "errors", "errors"),
        ({"state": "finished", "errors": 1, "unprocessed": 1}, "partial", "partial"),
        ({"state": "running"}, "running", "lost"),
        ({"state": "lost"}, "lost", "lost"),
        ({"state": "waiting"}, "waiting", "withdrawn"),
        ({"state": "withdrawn"}, "withdrawn", "withdrawn"),
    ],
    ids=lambda part: part if isinstance(part, str) else "-".join(map(str, part.values())),
)
def test_the_kind_of_a_cell_is_what_has_become_of_its_shard_or_will_not(
    how: dict, under_way: str, ended: str
) -> None:
    for has_ended, kind in ((False, under_way), (True, ended)):
        drawn = strip(shard(3, **how), has_ended=has_ended)
        assert [cell.kind for cell in drawn.cells] == drawn.kinds == [kind]
        assert kind in SHARD_KINDS


def test_a_cell_is_named_by_what_its_worker_did_and_how_long_it_took() -> None:
    shards = [
        shard(0, errors=1, unprocessed=3, deliveries=2, share=0.031),
        shard(1, "running", unprocessed=12, seconds=0.8),
        shard(2, "waiting"),
        shard(3, "withdrawn"),
    ]
    cells = strip(*shards).cells
    assert [said(cell.text) for cell in cells] == [
        [
            "Shard 0: done in part, 2.1 s",
            "By worker-a.example:71, taken 2 times",
            "380 evaluated, 1 error, 3 left",
        ],
        [
            "Shard 1: under way for 0.8 s",
            "By worker-a.example:71",
            "380 evaluated, 12 in hand",
        ],
        ["Shard 2: waiting for a worker"],
        ["Shard 3: no worker began it in time"],
    ]
    assert [cell.again for cell in cells] == [True, False, False, False]
    ended = strip(*shards, has_ended=True).cells[0]
    assert said(ended.text)[2] == "380 evaluated, 1 error, 3 left; 3.1% of the run"


def test_a_strip_says_how_many_are_done_and_what_the_others_are() -> None:
    shards = shards_of(["finished"] * 3 + ["running"] * 2 + ["lost", "waiting"], redelivered=1)
    under_way, ended = strip(*shards), strip(*shards, has_ended=True)
    assert under_way.summary == ("3 of 7 shards done, 2 under way, 1 lost, 1 waiting; 1 delivered again.")
    assert under_way.kinds == ["completed", "running", "lost", "waiting", "again"]
    assert ended.summary == "3 of 7 shards done by 3 workers, 3 lost, 1 not begun; 1 delivered again."
    assert strip(shard(0)).summary == "1 of 1 shard done."


def test_a_strip_of_many_shards_is_long() -> None:
    assert not strip(*shards_of(["waiting"] * LONG_AFTER)).is_long
    assert strip(*shards_of(["waiting"] * (LONG_AFTER + 1))).is_long


def test_workers_are_by_name_with_what_each_did_and_when_it_was_heard_of() -> None:
    workers = strip(
        shard(0, worker="b", evaluated=60, age=9.0),
        shard(1, "running", worker="b", evaluated=15, errors=5, age=0.4),
        shard(2, worker="a", evaluated=20, unprocessed=7, age=4.0),
        shard(3, "lost", worker="c", evaluated=0, age=3.6),
        shard(4, worker="c", evaluated=0, age=5.0),
        shard(5, "waiting"),
    ).workers
    assert [(row.name, row.did, said(row.heard)[0], row.width, row.is_silent) for row in workers] == [
        ("a", "0 done, 1 done in part, 20 mentors", "nothing in hand for 4 s", "20%", False),
        ("b", "1 done, 1 under way, 80 mentors, 5 errors", "heard of 0.4 s ago", "80%", False),
        ("c", "1 done, 1 lost, 0 mentors", "silent for 3.6 s", "0%", True),
    ]


def test_a_worker_that_has_spoken_since_it_lost_a_shard_is_not_silent() -> None:
    [row] = strip(shard(0, "lost", age=8.0), shard(1, age=0.5)).workers
    assert (row.heard.replace("\u00a0", " "), row.is_silent) == ("nothing in hand for 0.5 s", False)


def test_of_an_ended_run_nobody_is_waited_for() -> None:
    for row in strip(*shards_of(["finished", "lost"]), has_ended=True).workers:
        assert (row.heard, row.is_silent) == ("", False)


def test_a_run_without_a_fleet_has_no_strip_and_no_line() -> None:
    assert draw_shards([], has_ended=True) is None
    assert describe_shards(record(1, NOW)) is None
    assert not any("shard" in line for line in describe_run(record(1, NOW)))


def test_a_bar_says_by_how_many_its_run_was_carried_out() -> None:
    assert describe_run(record(1, NOW, shards=32, workers=3))[-1] == "32 shards, 3 workers"
    run = record(1, NOW, shards=32, workers=1, redelivered=2)
    assert describe_run(run)[-1] == "32 shards, 1 worker, 2 delivered again"


def test_no_share_of_nobody_is_drawn() -> None:
    drawn = strip(shard(0, "running", evaluated=0, share=0.0), shard(1, "waiting"))
    assert [(row.name, row.width) for row in drawn.workers] == [(WORKERS[0], "0%")]
