"""This file is the command `explain`: why did this one person not get it?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

import click
import trio

from engine import (
    Explanation,
    Outcome,
    ScenarioExplanation,
    Settings,
    load_settings,
    open_scheduler,
)

_OUTCOMES = {
    Outcome.DISPATCHED: "due: a run now would dispatch it",
    Outcome.SUPPRESSED: "due, but a cooldown suppresses it",
    Outcome.NOT_DUE: "not due",
    Outcome.DISABLED: "disabled",
    Outcome.ERROR: "a run now would count an error, and dispatch nothing",
}

_WHY_ERROR = {
    "23502": "There is no user to notify.",
    "25006": "Its function writes, which can't be tried here.",
    "42883": "It has no function, or one that calls what is not there.",
}


@click.command()
@click.argument("mentor_id", metavar="MENTOR", type=click.UUID)
@click.option(
    "--json", "as_json", is_flag=True, help="All of it as one JSON object, alone on standard output."
)
def explain(mentor_id: UUID, as_json: bool) -> None:
    """Why did, or didn't, this one person get it?

    Why each scenario would or would not fire for MENTOR, an id, and whether the walk reaches it at all.

    Needs DATABASE_URL, and no server; it writes nothing.

    \b
    Examples:
      scenario-scheduler explain 019ab0c5-7b1e-7c3a-9a64-0d5b7f0f6a11
    """
    explanation = trio.run(_ask, load_settings("database_url"), mentor_id)
    if as_json:
        click.echo(json.dumps(explanation.as_json()))
    else:
        for line in describe(explanation):
            click.echo(line)


async def _ask(settings: Settings, mentor_id: UUID) -> Explanation:
    async with open_scheduler(settings) as scheduler:
        return await scheduler.explain(mentor_id)


def describe(explanation: Explanation) -> Iterator[str]:
    """The lines to show: the walk first, then a paragraph for each scenario. Instants in local time."""
    reached = (
        "The walk reaches this mentor." if explanation.is_reached else "The walk does not reach this mentor."
    )
    visit = explanation.last_visit
    yield " ".join([reached, *explanation.hindrances])
    if visit is None:
        yield "No walk has passed its id lately."
    else:
        began = _local(visit.started_at)
        yield f"The last walk past its id was that of the run {visit.run_id}, begun {began}."
    yield from explanation.remarks
    if not explanation.scenarios:
        yield "There is no scenario."
    for scenario in explanation.scenarios:
        yield ""
        yield f"{scenario.scenario_type}: {_outcome(explanation, scenario)}"
        for sentence in _sentences(scenario):
            yield f"  {sentence}"


def _outcome(explanation: Explanation, scenario: ScenarioExplanation) -> str:
    said = _OUTCOMES[scenario.outcome]
    if scenario.outcome is Outcome.NOT_DUE and explanation.status != "active":
        return f"{said}: only active mentors are"
    if scenario.outcome is Outcome.DISABLED and scenario.is_due:
        return f"{said}, else it would be due"
    if scenario.outcome in (Outcome.DISPATCHED, Outcome.SUPPRESSED) and not explanation.is_reached:
        return f"{said}, if the walk reached this mentor"
    return said


def _sentences(scenario: ScenarioExplanation) -> Iterator[str]:
    params = json.dumps(scenario.params)
    if scenario.error is not None:
        why = _WHY_ERROR.get(scenario.error, "Its function fails for this mentor.")
        yield f"{why} (SQLSTATE {scenario.error})"
    elif scenario.outcome is Outcome.ERROR:
        yield "Another scenario fails for this mentor, and all are evaluated together."
    facts = scenario.facts or {}
    if "words" in facts:
        words = facts["words"]
        yield from map(str, words if isinstance(words, list) else [words])
    elif facts:
        yield f"Facts: {json.dumps(facts)}, with {params}."
    else:
        yield f"Its function says {'due' if scenario.is_due else 'not due'}, with {params}."
    if scenario.payload is not None:
        yield f"To send: {json.dumps(scenario.payload)}"
    yield f"Cooldown of {scenario.cooldown}: {_cooldown(scenario)}."
    if scenario.last_sent_at is None:
        yield "Never sent."
    else:
        by = f" by the run {scenario.last_run_id}" if scenario.last_run_id else ""
        yield f"Last sent {_local(scenario.last_sent_at)}{by}: {json.dumps(scenario.last_payload)}"


def _cooldown(scenario: ScenarioExplanation) -> str:
    if not scenario.is_cooling:
        return "not running"
    return f"until {_local(scenario.cooldown_until)}" if scenario.cooldown_until else "for good"


def _local(instant: datetime) -> str:
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"
