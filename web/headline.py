"""This file is the dashboard's first line: is it running, was everyone reached? In words, with the mend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine import Freshness, Overview, Rhythm, RunRecord
from web.charts.errors import advise_on
from web.wording import share, span

_SEE_FLEET = (
    "See that `scenario-scheduler worker` runs somewhere, and that SCHEDULER_FLEET can be reached from there "
    "and from here."
)
_SEE_TICKS = (
    "Look at what pg_cron posted and what came back, with `scenario-scheduler cron status`, and at what "
    "`scenario-scheduler doctor` finds."
)
_SEE_WORKERS = (
    "Start `scenario-scheduler worker` with the `SCHEDULER_FLEET` of this service; the log of one that runs "
    "says what keeps it from its shards."
)


@dataclass(frozen=True, slots=True)
class Headline:
    """`tone` is good, warn, bad or idle."""

    tone: str
    text: str
    advice: str = ""


def say_headline(overview: Overview, rhythm: Rhythm | None, *, is_live: bool) -> Headline:
    """The worst thing that is true comes first; good is only what leaves nothing to do."""
    latest = next((record for record in overview.runs if record.verdict != "running"), None)
    if latest is None and is_live:
        return Headline("idle", "The first run is under way.")
    if not overview.runs:
        return Headline(
            "idle",
            "Nothing has run yet.",
            "Nobody has ticked this service, so nobody was looked at.",
        )
    if not is_live and rhythm is not None and rhythm.is_overdue(overview.at):
        return _nobody_calls(overview, rhythm)
    if not overview.freshness.is_fresh:
        if latest is not None and (awaited := _awaited(overview, latest)):
            return awaited
        reached_all = latest is not None and _reached_all(latest)
        if reached_all and rhythm is not None and overview.freshness.limit < rhythm.interval:
            return _limit_too_short(overview.freshness, rhythm)
        if not is_live and reached_all:
            return _nobody_calls(overview, rhythm)
        return _not_everybody(overview.freshness, latest)
    return _everybody(overview.freshness, latest)


def say_stalled(freshness: Freshness) -> Headline:
    """Of a run under way whose shards lie still."""
    return Headline("warn" if freshness.is_fresh else "bad", "No worker takes shards.", _SEE_WORKERS)


def _reached_all(latest: RunRecord) -> bool:
    return (
        latest.verdict == "completed"
        and latest.scenario_types is None
        and latest.total_evaluated == latest.total_active_mentors
    )


def _awaited(overview: Overview, latest: RunRecord) -> Headline | None:
    """Of a scenario that was enabled since: nothing is wrong with the runs, only that none evaluated it."""
    freshness = overview.freshness
    evaluated = set(latest.evaluated_types)
    if latest.scenario_types is not None:  # then the others have ticks of their own
        evaluated.update(*(record.evaluated_types for record in overview.runs))
    waiting = [*freshness.never_covered, *freshness.stale]
    if latest.verdict in ("failed", "abandoned") or any(each in evaluated for each in waiting):
        return None
    age = freshness.ages[waiting[0]]
    since = "yet" if age is None else f"for {span(age)}"
    when = "the next run does" if latest.scenario_types is None else "the next run that is asked for it does"
    return Headline("warn", f"{waiting[0]} has not been evaluated {since}; {when}.")


def _limit_too_short(freshness: Freshness, rhythm: Rhythm) -> Headline:
    return Headline(
        "warn",
        f"The limit of freshness, {span(freshness.limit)}, is shorter than the interval of the ticks, "
        f"{span(rhythm.interval)}.",
        "The runs come on time and reach everybody: raise `SCHEDULER_FRESHNESS_LIMIT`, or tick more often.",
    )


def _nobody_calls(overview: Overview, rhythm: Rhythm | None) -> Headline:
    waited = (overview.at - overview.runs[0].started_at).total_seconds()
    expected = f"; expected every {span(rhythm.interval)}" if rhythm else ""
    return Headline(
        "warn" if overview.freshness.is_fresh else "bad",
        f"Nobody has called for {span(waited)}{expected}.",
        _SEE_TICKS,
    )


def _not_everybody(freshness: Freshness, latest: RunRecord | None) -> Headline:
    """Who was missed, for how long, and why: as far as the latest run tells."""
    if freshness.never_covered:
        since = " yet"
        scenario = f" for {freshness.never_covered[0]}"
    else:
        since = f" for {span(freshness.ages[freshness.stale[0]] or 0)}"
        scenario = ""
    who, why, advice = _shortfall(latest)
    return Headline("bad", f"{who} evaluated{scenario}{since}{why}.", advice)


def _shortfall(latest: RunRecord | None) -> tuple[str, str, str]:
    """Who was not evaluated, why, and what to do."""
    nobody_in_particular = "Not everybody was"
    if latest is None:
        return nobody_in_particular, "", "The first run is still under way."
    total = latest.total_active_mentors
    if latest.verdict in ("failed", "abandoned"):
        return nobody_in_particular, *_broken(latest)
    who = f"{share(total - latest.total_evaluated, total)} were not"
    if latest.total_errors > latest.total_unprocessed:
        worst = largest_class(latest.errors)
        return who, f": {_failing(worst)}", advise_on(worst)
    if latest.total_unprocessed:
        if fleet := _fault_of_fleet(latest):
            return who, *fleet
        if latest.stop_reason in ("soft_threshold", "hard_deadline"):
            return who, ": one budget does not suffice", "See the line on capacity below for what to change."
        if latest.stop_reason == "database_unavailable":
            return who, ": Postgres went away in mid-run", "The next run begins where this one stopped."
        return who, ": the last run was cut short", "The next run begins where this one stopped."
    if latest.scenario_types is None:  # it reached everybody, too long ago; else see _nobody_calls
        return nobody_in_particular, "", "The run that is under way is to reach everybody."
    return nobody_in_particular, "", f"The last run asked for a part of the scenarios. {_SEE_TICKS}"


def _fault_of_fleet(latest: RunRecord) -> tuple[str, str] | None:
    """Why a run left mentors, and what to do, if it is for want of workers; None if it isn't."""
    nobody_came = latest.total_shards and not latest.total_workers
    if latest.stop_reason == "fleet_unavailable" or nobody_came:
        return ": no worker took shards, or the fleet was away", _SEE_FLEET
    return None


def _failing(worst: str) -> str:
    """Where the engine is in the database, it is no engine that the operator knows of which fails."""
    if worst.startswith("sql_"):
        return f"the evaluation fails in Postgres ({worst})"
    return f"the trigger engine fails ({worst})" if worst else "the trigger engine fails"


def _broken(latest: RunRecord) -> tuple[str, str]:
    if latest.verdict == "failed":
        return (
            ": the last run failed",
            "A bug ended it; its cause is in the log of the service, by its run id.",
        )
    return (
        ": the last run was abandoned",
        "Its service went away before its end; see that one's log. The next run takes over where it stopped.",
    )


def _everybody(freshness: Freshness, latest: RunRecord | None) -> Headline:
    if not freshness.ages:
        return Headline(
            "warn", "No scenario is enabled.", "Enable one in scheduler.scenario_evaluation_config."
        )
    age = max(age for age in freshness.ages.values() if age is not None)
    reached = f"Everybody was reached {span(age)} ago"
    if latest is None:
        return Headline("good", f"{reached}.")
    if latest.verdict in ("failed", "abandoned"):
        why, advice = _broken(latest)
        return Headline("warn", f"{reached}, but {why.removeprefix(': ')}.", advice)
    total = latest.total_active_mentors
    if not total:
        return Headline(
            "warn",
            "The last run found nobody to evaluate.",
            "The views that mentors are read from are empty, or row-level security hides everybody from the "
            "service: look at what `scenario-scheduler doctor` finds.",
        )
    if latest.total_unprocessed:
        left = share(latest.total_unprocessed, total)
        why, advice = _fault_of_fleet(latest) or (
            "",
            "The last one was partial; the next begins where it stopped.",
        )
        return Headline("warn", f"{reached}; {left} wait for the next run{why}.", advice)
    if latest.total_errors:
        worst = largest_class(latest.errors)
        return Headline(
            "warn",
            f"{reached}, but for {share(latest.total_errors, total)} that failed ({worst or 'errors'}).",
            advise_on(worst),
        )
    return Headline("good", f"{reached}.")


def largest_class(errors: Mapping[str, int]) -> str:
    return max(sorted(errors), key=errors.__getitem__, default="")
