"""The order in which a fleet's runs walk everybody, in virtual time, whatever other runs come in between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import RunRequest
from engine.fleet.plan import PastShard, longest_waiting_first, plan
from engine.mentors.protocol import IdRange
from engine.run_id import new_run_id
from tests.engine.fleet.world import World, run_to_its_end
from tests.engine.test_accounting import in_virtual_time
from tests.fakes import FakeTriggerEngine, ids


async def _begin_nothing(world: World, how: str) -> None:
    """A run that ends before it has a plan."""
    if how == "drained":
        async with world.open_scheduler() as scheduler:
            started = await scheduler.start(RunRequest())
            scheduler.drain()
            await started.summary()
    else:
        world.database.execute("begin_run", new_run_id(), None, 28.0, 10.0)
        world.database.runs[-1].verdict = how
    assert not world.database.runs[-1].is_sharded


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(st.sampled_from(["drained", "abandoned", "failed"]), max_size=3), min_size=3, max_size=3
    )
)
def test_runs_that_end_before_their_plan_change_no_order(between: list[list[str]]) -> None:
    """Of runs whose budget reaches a third of everybody."""

    async def main() -> None:
        engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
        world = World(ids(120), engine, page_size=1, fleet_shards=8, soft_threshold=4.0, hard_deadline=7.0)
        waiting = None
        async with world.open_worker():
            for others in between:
                async with world.open_scheduler() as scheduler:
                    assert (await run_to_its_end(scheduler)).partial
                planned = [row.after_id for row in world.shards_of()]
                assert waiting is None or planned == [each.after for each in plan(ids(120), 8, waiting)]
                waiting = longest_waiting_first(
                    [
                        PastShard(IdRange(row.after_id, row.until_id), row.low_water_mark, row.is_completed)
                        for row in world.shards_of()
                    ]
                )
                assert waiting is not None
                for how in others:
                    await _begin_nothing(world, how)

    in_virtual_time(main)


@pytest.mark.parametrize("how", ["drained", "abandoned", "failed"])
def test_everybody_is_visited_although_every_other_run_ends_before_its_plan(how: str) -> None:
    async def main() -> None:
        reached = 0
        engine = FakeTriggerEngine(latency=lambda chunk: 1.0)
        world = World(ids(800), engine, page_size=1, fleet_shards=40)
        async with world.open_worker():
            for _ in range(5):
                async with world.open_scheduler() as scheduler:
                    reached += (await run_to_its_end(scheduler)).total_evaluated
                await _begin_nothing(world, how)
        assert reached < 3 * 800
        assert set(engine.evaluated) == set(ids(800))

    in_virtual_time(main)
