"""What a fleet promises, whichever it is: engine/fleet/protocol.py."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
import trio

from engine.fleet.protocol import MAX_DELIVERIES, Delivery, Gathering
from engine.run_id import new_run_id
from tests.fleet.conftest import SHARDS_AT_ONCE, FleetPair

# Seconds within which what is to come must have come. Only a failing test waits so long.
PATIENCE = 15.0


@pytest.fixture
def run_id() -> UUID:
    return new_run_id()


async def submit(gathering: Gathering, *indices: int) -> None:
    for index in indices:
        await gathering.submit(index, content_of(index))


def content_of(index: int) -> bytes:
    return b"shard %d" % index


async def take(pair: FleetPair) -> Delivery:
    with trio.fail_after(PATIENCE):
        return await pair.workplace.take()


async def take_many(pair: FleetPair, count: int) -> list[Delivery]:
    return [await take(pair) for _ in range(count)]


async def finish(delivery: Delivery, result: bytes = b"done") -> None:
    await delivery.report(result)
    await delivery.finish()


async def next_result(gathering: Gathering) -> tuple[int, bytes]:
    with trio.fail_after(PATIENCE):
        return await gathering.next_result()


async def nothing_comes(pair: FleetPair) -> bool:
    with trio.move_on_after(pair.quiet):
        await pair.workplace.take()
        return False
    return True


async def test_a_fleet_that_is_there_is_ready(fleet_pair: FleetPair, clock: object) -> None:
    await fleet_pair.fleet.check_ready()


async def test_a_shard_goes_to_a_worker_and_its_result_to_who_gathers(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 7)
        delivery = await take(fleet_pair)
        assert (delivery.run_id, delivery.index, delivery.message) == (run_id, 7, b"shard 7")
        await delivery.report(b"\x00 any bytes \xff")
        assert await next_result(gathering) == (7, b"\x00 any bytes \xff")
        await delivery.finish()
        assert await nothing_comes(fleet_pair)


async def test_shards_go_out_in_the_order_in_which_they_were_submitted(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 3, 1, 4, 0, 5)
        taken = []
        for _ in range(5):
            delivery = await take(fleet_pair)
            taken.append(delivery.index)
            await delivery.finish()
        assert taken == [3, 1, 4, 0, 5]


async def test_a_large_result_arrives_whole(fleet_pair: FleetPair, run_id: UUID, clock: object) -> None:
    result = bytes(range(256)) * 2_048  # MAX_RESULT_BYTES
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        await finish(await take(fleet_pair), result)
        assert await next_result(gathering) == (0, result)


async def test_a_result_waits_for_who_gathers(fleet_pair: FleetPair, run_id: UUID, clock: object) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0, 1)
        for _ in range(2):
            await finish(await take(fleet_pair))
        await trio.sleep(fleet_pair.quiet)
        assert {(await next_result(gathering))[0] for _ in range(2)} == {0, 1}


async def test_no_more_are_in_hand_at_once_than_the_fleet_was_opened_for_of_all_runs_together(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with (
        fleet_pair.fleet.open_gathering(run_id) as one,
        fleet_pair.fleet.open_gathering(new_run_id()) as other,
    ):
        await submit(one, *range(2))
        await submit(other, *range(2))
        in_hand = await take_many(fleet_pair, SHARDS_AT_ONCE)
        assert await nothing_comes(fleet_pair)
        await finish(in_hand[0])
        await take(fleet_pair)
        assert await nothing_comes(fleet_pair)


async def test_two_workers_never_have_the_same_shard(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    taken: Counter[int] = Counter()

    async def work() -> None:
        while True:
            delivery = await fleet_pair.workplace.take()
            taken[delivery.index] += 1
            await trio.sleep(0.001)
            await finish(delivery)

    async with fleet_pair.fleet.open_gathering(run_id) as gathering, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(work)
        await submit(gathering, *range(20))
        for _ in range(20):
            await next_result(gathering)
        nursery.cancel_scope.cancel()
    assert taken == Counter(range(20))


# --- A worker that is lost ---


async def test_the_shard_of_a_worker_that_is_not_heard_of_goes_to_another_when_ack_wait_is_over(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        await take(fleet_pair)
        taken_at = trio.current_time()
        again = await take(fleet_pair)
        waited = trio.current_time() - taken_at
        assert (again.index, again.message) == (0, b"shard 0")
        assert fleet_pair.ack_wait - fleet_pair.travel <= waited <= fleet_pair.ack_wait + 1.0
        await finish(again)
        assert await next_result(gathering) == (0, b"done")


async def test_who_says_that_it_lives_keeps_its_shard(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        delivery = await take(fleet_pair)
        taken_at = trio.current_time()
        for _ in range(4):
            await trio.sleep(fleet_pair.ack_wait / 3)
            assert await delivery.keep()
        again = await take(fleet_pair)
        assert trio.current_time() - taken_at >= fleet_pair.ack_wait * 7 / 3 - fleet_pair.travel
        await again.finish()


async def test_a_shard_that_kills_its_workers_is_delivered_so_often_and_no_more(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        for _ in range(MAX_DELIVERIES):
            await (await take(fleet_pair)).hand_back()
        assert await nothing_comes(fleet_pair)
        await submit(gathering, 1)  # and takes nobody else's place
        assert (await take(fleet_pair)).index == 1


# --- The three ends of a delivery ---


async def test_what_is_finished_or_refused_is_not_delivered_again(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0, 1)
        finished, refused = await take_many(fleet_pair, 2)
        await finish(finished)
        await refused.refuse()
        with trio.move_on_after(fleet_pair.ack_wait + fleet_pair.quiet):
            await fleet_pair.workplace.take()
            pytest.fail("One came again.")
        assert await next_result(gathering) == (finished.index, b"done")
        with trio.move_on_after(fleet_pair.quiet):
            await gathering.next_result()
            pytest.fail("What was refused has a result.")


async def test_what_is_handed_back_is_delivered_at_once(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        await (await take(fleet_pair)).hand_back()
        handed_back_at = trio.current_time()
        again = await take(fleet_pair)
        assert trio.current_time() - handed_back_at <= fleet_pair.travel
        await again.finish()


async def test_what_is_handed_back_with_a_delay_is_delivered_when_that_is_over(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        handed_back_at = trio.current_time()
        await (await take(fleet_pair)).hand_back(delay=0.5)
        again = await take(fleet_pair)
        assert 0.5 <= trio.current_time() - handed_back_at <= 0.5 + 2 * fleet_pair.travel
        await again.finish()


async def test_a_shard_that_was_reported_and_not_finished_is_delivered_again(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    """Its worker died in between; both results may arrive, of which the first counts."""
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        await (await take(fleet_pair)).report(b"done")
        again = await take(fleet_pair)
        await finish(again)
        assert await next_result(gathering) == (0, b"done")


async def test_what_comes_again_comes_before_what_waits(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    """A lost shard is done again at once, and not when everything else is done."""
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, *range(8))
        first, *_ = await take_many(fleet_pair, SHARDS_AT_ONCE)
        await first.hand_back()
        assert (await take(fleet_pair)).index == 0
        await trio.sleep(fleet_pair.ack_wait + fleet_pair.travel)  # nobody is heard of any more
        assert {each.index for each in await take_many(fleet_pair, SHARDS_AT_ONCE)} == {0, 1, 2}


# --- The coordinator ---


async def test_a_shard_submitted_twice_is_one(fleet_pair: FleetPair, run_id: UUID, clock: object) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0, 0)
        delivery = await take(fleet_pair)
        await submit(gathering, 0)
        assert await nothing_comes(fleet_pair)
        await finish(delivery)
        await submit(gathering, 0)
        assert await nothing_comes(fleet_pair)


async def test_a_result_reported_twice_arrives(fleet_pair: FleetPair, run_id: UUID, clock: object) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0, 1)
        for delivery in await take_many(fleet_pair, 2):
            await delivery.report(b"done")
            await finish(delivery)
        arrived = {await next_result(gathering)}
        while len(arrived) < 2:
            arrived.add(await next_result(gathering))
        assert arrived == {(0, b"done"), (1, b"done")}


async def test_a_run_gathers_its_own_results_and_no_others(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with (
        fleet_pair.fleet.open_gathering(run_id) as one,
        fleet_pair.fleet.open_gathering(new_run_id()) as other,
    ):
        await submit(one, 0)
        await submit(other, 1)
        for delivery in await take_many(fleet_pair, 2):
            await finish(delivery, b"of one" if delivery.run_id == run_id else b"of the other")
        assert await next_result(one) == (0, b"of one")
        assert await next_result(other) == (1, b"of the other")


async def test_what_is_withdrawn_is_taken_by_nobody_and_what_is_in_hand_is_finished(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, *range(5))
        [in_hand] = await take_many(fleet_pair, 1)
        await gathering.withdraw()
        assert await nothing_comes(fleet_pair)
        await in_hand.keep()
        await finish(in_hand)
        assert await next_result(gathering) == (in_hand.index, b"done")
        assert await nothing_comes(fleet_pair)


async def test_another_run_is_not_withdrawn(fleet_pair: FleetPair, run_id: UUID, clock: object) -> None:
    async with (
        fleet_pair.fleet.open_gathering(run_id) as one,
        fleet_pair.fleet.open_gathering(new_run_id()) as other,
    ):
        await submit(one, 0)
        await submit(other, 1)
        await one.withdraw()
        assert (await take(fleet_pair)).index == 1


async def test_a_result_for_nobody_does_no_harm(fleet_pair: FleetPair, run_id: UUID, clock: object) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        await submit(gathering, 0)
        delivery = await take(fleet_pair)
    await finish(delivery)
    assert await nothing_comes(fleet_pair)


# --- Cancellation ---


async def test_a_gathering_that_was_cut_while_it_waited_still_gets_what_arrives(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        with trio.move_on_after(fleet_pair.quiet):
            await gathering.next_result()
        await submit(gathering, 0)
        await finish(await take(fleet_pair))
        assert await next_result(gathering) == (0, b"done")


async def test_a_shard_on_its_way_to_a_worker_that_was_cut_comes_again(
    fleet_pair: FleetPair, run_id: UUID, clock: object
) -> None:
    async with fleet_pair.fleet.open_gathering(run_id) as gathering:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet_pair.workplace.take)
            await submit(gathering, 0)
            nursery.cancel_scope.cancel()
        submitted_at = trio.current_time()
        delivery = await take(fleet_pair)
        assert trio.current_time() - submitted_at <= fleet_pair.ack_wait + 1.0
        await finish(delivery)


async def test_a_worker_that_waits_can_be_cut_at_once(fleet_pair: FleetPair, clock: object) -> None:
    began = trio.current_time()
    assert await nothing_comes(fleet_pair)
    assert trio.current_time() - began <= fleet_pair.quiet + fleet_pair.travel + 0.5
