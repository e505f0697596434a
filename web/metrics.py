"""This file is GET /metrics, in the text format of Prometheus; the only one that knows prometheus-client.

Nothing is counted here but refused credentials. A scrape reads what the engine has counted, and asks the
database how fresh everybody is. While that one can't say, its gauges are left out; the rest is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from quart import Blueprint, Response, request

from engine import Freshness, Histogram, Scheduler, SchedulerError, Totals, Verdict
from web.auth import Operator, unauthorized
from web.cached import Cached
from web.openapi import ANYONE, OPERATOR, describe

# Of what generate_latest writes; the constants for it changed their meaning between releases.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds that an answer of the database is good for.
FRESHNESS_LASTS = 1.0

# Seconds that a scrape waits for the database. Prometheus gives up a scrape, and all of it, after 10 s.
DATABASE_PATIENCE = 2.0

# Who was refused, by the blueprint of the path; whatever else asks for a credential asks the operator.
_CALLERS = {"run": "run", "trigger_engine": "trigger_engine"}
_OPERATOR = "operator"


def metrics_blueprint(scheduler: Scheduler, freshness_limit: float, operator: Operator) -> Blueprint:
    blueprint = Blueprint("metrics", __name__)
    collector = SchedulerCollector(scheduler, freshness_limit)
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)

    async def freshness() -> Freshness | None:
        try:
            return await scheduler.measure_freshness()
        except SchedulerError:
            return None

    cached = Cached(freshness, FRESHNESS_LASTS)

    @blueprint.get("/metrics")
    @describe(str, by=OPERATOR if operator.is_set else ANYONE, media_type="text/plain")
    async def get_metrics() -> Response:
        """What this process has done since it began, in the text format of Prometheus."""
        if operator.is_set and not await operator.is_asking():
            return unauthorized("Bearer")
        known = None
        with trio.move_on_after(DATABASE_PATIENCE):
            known = await cached.answer()
        # From here on nothing awaits: all counts are of one moment.
        collector.freshness = known
        return Response(generate_latest(registry), content_type=CONTENT_TYPE)

    @blueprint.after_app_request
    async def count_refusals(response: Response) -> Response:
        if response.status_code == 401:
            collector.refusals[_CALLERS.get(request.blueprint or "", _OPERATOR)] += 1
        return response

    return blueprint


class SchedulerCollector(Collector):
    """Turns counts into metrics. `freshness` is to be set before each scrape, None where it is not known."""

    def __init__(self, scheduler: Scheduler, freshness_limit: float) -> None:
        self._scheduler = scheduler
        self._freshness_limit = freshness_limit
        self.freshness: Freshness | None = None
        self.refusals = dict.fromkeys((*_CALLERS.values(), _OPERATOR), 0)

    def collect(self) -> Iterator[Metric]:
        totals = self._scheduler.measures.totals()
        yield from self._of_runs(totals)
        yield from self._of_invocations(totals)
        yield from self._of_freshness()
        yield _counter(
            "scheduler_unauthorized",
            "Requests refused because their credential was missing or wrong, by what they asked for.",
            "path",
            self.refusals,
        )

    def _of_runs(self, totals: Totals) -> Iterator[Metric]:
        yield _counter(
            "scheduler_runs",
            "Ended runs of this process, by verdict, and abandoned ones of any whose lease it took over; dry "
            "runs are counted nowhere but as invocations.",
            "verdict",
            {str(verdict): totals.runs[verdict] for verdict in Verdict} | {"abandoned": totals.abandoned},
        )
        yield _histogram("scheduler_run_duration_seconds", "How long runs took.", totals.durations)
        yield _counter(
            "scheduler_mentors",
            "Mentors, by what became of them in a run; unprocessed ones are known when it has ended.",
            "result",
            {
                "evaluated": totals.evaluated,
                "error": totals.errors.total(),
                "unprocessed": totals.unprocessed,
            },
        )
        yield _counter(
            "scheduler_errors", "Mentors who could not be evaluated, by error class.", "class", totals.errors
        )
        notifications = CounterMetricFamily(
            "scheduler_notifications",
            "Notifications by scenario type; a cooldown suppressed those that were not dispatched.",
            labels=["scenario", "result"],
        )
        for result, counts in (("dispatched", totals.dispatched), ("suppressed", totals.suppressed)):
            for scenario_type, count in counts.items():
                notifications.add_metric([scenario_type, result], count)
        yield notifications

    def _of_invocations(self, totals: Totals) -> Iterator[Metric]:
        measures = self._scheduler.measures
        yield GaugeMetricFamily(
            "scheduler_invocations_in_flight",
            "Invocations of the trigger engine that are under way.",
            measures.in_flight,
        )
        yield _histogram(
            "scheduler_invocation_duration_seconds",
            "How long invocations of the trigger engine took, whether it answered, failed or was cut.",
            totals.invocations,
        )
        yield GaugeMetricFamily(
            "scheduler_channel_depth",
            "Chunks that wait for a dispatcher; near 0 in a run, the pages are what it waits for.",
            measures.channel_depth,
        )

    def _of_freshness(self) -> Iterator[Metric]:
        freshness = self.freshness
        yield GaugeMetricFamily(
            "scheduler_database_up",
            "1 if the database could say how fresh everybody is; else the gauges that need it are missing.",
            int(freshness is not None),
        )
        yield GaugeMetricFamily(
            "scheduler_freshness_limit_seconds",
            "The age past which GET /freshness answers 503.",
            self._freshness_limit,
        )
        if freshness is None:
            return
        yield _gauge(
            "scheduler_freshness_seconds",
            "Age of the oldest evaluation of anybody, by enabled scenario; missing while never_covered.",
            "scenario",
            {name: age for name, age in freshness.ages.items() if age is not None},
        )
        yield _gauge(
            "scheduler_never_covered",
            "1 for an enabled scenario for which somebody may never have been evaluated.",
            "scenario",
            {name: int(age is None) for name, age in freshness.ages.items()},
        )
        oldest = freshness.oldest
        if oldest is not None:
            yield GaugeMetricFamily(
                "scheduler_oldest_unvisited_seconds",
                "How long ago the ids covered longest ago were; missing while any scenario is never_covered.",
                oldest,
            )


def _counter(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> Metric:
    return _filled(CounterMetricFamily(name, documentation, labels=[label]), counts)


def _gauge(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    return _filled(GaugeMetricFamily(name, documentation, labels=[label]), values)


def _filled(family: Any, values: Mapping[str, float]) -> Metric:
    for value, number in values.items():
        family.add_metric([value], number)
    metric: Metric = family
    return metric


def _histogram(name: str, documentation: str, histogram: Histogram) -> Metric:
    buckets = [
        ("+Inf" if bound == float("inf") else str(bound), float(count))
        for bound, count in histogram.cumulative()
    ]
    return HistogramMetricFamily(name, documentation, buckets, histogram.sum)
