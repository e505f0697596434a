"""What a person may write to try another configuration, and what is said of what can't be tried."""

from __future__ import annotations

import pytest

from engine import InvalidOverride, OverridesUnsupported, RunRequest, parse_overrides
from tests.engine.test_scheduler import open_model
from tests.fakes import FakeTriggerEngine, ids
from tests.model_database import ModelDatabase

SCENARIOS = {
    "inactivity": {"days": 14},
    "milestone": {"counts": [10, 25, 50]},
    "welcome": {
        "text": "hello",
        "share": 0.5,
        "loud": False,
        "offset": -1,
        "anything": None,
        "list": [],
        "shape": {"a": 1},
    },
}


@pytest.mark.parametrize(
    ("assignments", "overrides"),
    [
        ([], {}),
        (["inactivity.days=10"], {"inactivity": {"params": {"days": 10}}}),
        (["inactivity.cooldown=3d"], {"inactivity": {"cooldown": "3d"}}),
        (["inactivity.cooldown=3"], {"inactivity": {"cooldown": "3"}}),
        (
            ["inactivity.days=10", "inactivity.cooldown=2 weeks", "milestone.counts=[5,20]"],
            {
                "inactivity": {"params": {"days": 10}, "cooldown": "2 weeks"},
                "milestone": {"params": {"counts": [5, 20]}},
            },
        ),
        (["inactivity.days=0"], {"inactivity": {"params": {"days": 0}}}),
        (["welcome.offset=-2"], {"welcome": {"params": {"offset": -2}}}),
        (["milestone.counts=[]"], {"milestone": {"params": {"counts": []}}}),
        (["welcome.text=a=b.c"], {"welcome": {"params": {"text": "a=b.c"}}}),
        (["welcome.text=10"], {"welcome": {"params": {"text": "10"}}}),
        (['welcome.text="quoted"'], {"welcome": {"params": {"text": "quoted"}}}),
        (["welcome.text=NaN"], {"welcome": {"params": {"text": "NaN"}}}),
        (["welcome.share=1"], {"welcome": {"params": {"share": 1}}}),
        (["welcome.loud=true"], {"welcome": {"params": {"loud": True}}}),
        (["welcome.anything=[1, null]"], {"welcome": {"params": {"anything": [1, None]}}}),
        (["welcome.anything=soon"], {"welcome": {"params": {"anything": "soon"}}}),
        (['welcome.list=["x"]'], {"welcome": {"params": {"list": ["x"]}}}),
        (['welcome.shape={"b": 2}'], {"welcome": {"params": {"shape": {"b": 2}}}}),
    ],
)
def test_what_is_written_is_read_as_json_or_else_as_text(
    assignments: list[str], overrides: dict[str, object]
) -> None:
    assert parse_overrides(assignments, SCENARIOS) == overrides


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("inactivity", "inactivity is not of the form TYPE.PARAM=VALUE"),
        ("inactivity=10", "is not of the form"),
        ("inactivity.days", "is not of the form"),
        ("", "is not of the form"),
        ("birthday.days=1", "it evaluates: inactivity, milestone, welcome."),
        ("inactivity.dayz=10", "inactivity has no dayz; it has: days, cooldown."),
        ("inactivity.=10", "it has: days, cooldown."),
        ("inactivity.days=abc", "inactivity.days takes a whole number, such as 14."),
        ("inactivity.days=10.5", "a whole number"),
        ("inactivity.days=true", "a whole number"),
        ("inactivity.days=null", "a whole number"),
        ("inactivity.days=[10]", "a whole number"),
        ("inactivity.days=NaN", "a whole number"),
        ("milestone.counts=5", "milestone.counts takes a list, such as [10, 25, 50]."),
        ('milestone.counts=["a"]', "a list"),
        ("milestone.counts=[5, true]", "a list"),
        ("welcome.share=much", "a number, such as 0.5"),
        ("welcome.loud=1", "true or false"),
        ("welcome.shape=[]", "an object"),
        ("inactivity.days=-5", "inactivity.days takes no number below zero; it is 14 as stored."),
        ("milestone.counts=[5,-5]", "milestone.counts takes no number below zero"),
        ("welcome.share=-0.5", "welcome.share takes no number below zero"),
        ("welcome.anything" + "=" + "[" * 100_000, ""),
    ],
)
def test_what_can_not_be_tried_is_refused_naming_what_can(assignment: str, sentence: str) -> None:
    if not sentence:  # nested too deep to be JSON, so it is a text
        assert parse_overrides([assignment], SCENARIOS)
        return
    with pytest.raises(InvalidOverride) as caught:
        parse_overrides([assignment], SCENARIOS)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["days", "cooldown"])
@pytest.mark.parametrize("second", ["{}=3", "{}=10", " {} =10"])
def test_what_is_given_twice_is_refused_and_not_the_last_one_taken(name: str, second: str) -> None:
    target = f"inactivity.{name}"
    with pytest.raises(InvalidOverride, match=f"{target} is given twice"):
        parse_overrides([f"{target}=10", second.format(target)], SCENARIOS)


OVERRIDES = {"inactivity": {"params": {"days": 10}}}


async def test_another_configuration_is_refused_where_the_trigger_engine_could_not_hear_of_it() -> None:
    engine = FakeTriggerEngine()
    async with open_model(ModelDatabase(ids(3)), engine, trigger_engine_dry_run=True) as scheduler:
        with pytest.raises(OverridesUnsupported, match="over HTTP"):
            await scheduler.start(RunRequest(dry_run=True, overrides=OVERRIDES))
        with pytest.raises(OverridesUnsupported, match="over HTTP"):
            await scheduler.read_overrides(["inactivity.days=10"], None)
    assert engine.chunks == []


async def test_another_configuration_is_refused_for_a_run_that_sends() -> None:
    database, engine = ModelDatabase(ids(3)), FakeTriggerEngine()
    async with open_model(database, engine) as scheduler:
        with pytest.raises(OverridesUnsupported, match="dry run"):
            await scheduler.start(RunRequest(overrides=OVERRIDES))
    assert (database.runs, engine.chunks) == ([], [])
