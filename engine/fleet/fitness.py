"""This file is whether a worker is fit to take shards: its database answers, and its settings are the run's.

A worker that takes what it can't claim keeps it from those that could: few shards are out at once, and each
is delivered a few times at most. So the database is asked before the first is taken, and again after any
claim that failed, and nothing is taken until it answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog
import trio

from engine.errors import SchedulerError
from engine.fleet.protocol import ACK_WAIT
from engine.fleet.shard_ledger import ShardLedger

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds between two questions whether the database is there.
ASKING_PERIOD = 1.0

# Seconds for which nothing is taken after a claim that failed: at first, and at most; doubled as long as no
# claim is answered, because a database that is there may still refuse every one. Longer than the shard is
# kept from the others, who have the first chance of it.
FIRST_REST, LONGEST_REST = ACK_WAIT + 1.0, 30.0


class Fitness:
    """Of one worker, for all that it has in hand."""

    def __init__(self, ledger: ShardLedger) -> None:
        self._ledger = ledger
        self._is_in_doubt = True
        self._disagrees = False
        self._has_said = False
        self._rest = 0.0
        self._resting = trio.CancelScope()
        self._taking = trio.CancelScope()

    @property
    def delay(self) -> float:
        """Seconds for which to keep back from the others what could not be claimed.

        They may fail as well, and it is delivered a few times only; but so long it takes up a place.
        """
        return min(self._rest / 8, ACK_WAIT)

    async def wait(self) -> None:
        """Until it is fit; for ever, if its settings are not those of a run.

        **Cancellation:** leaves nothing behind.
        """
        while self._is_in_doubt:
            with trio.CancelScope() as self._resting:
                await trio.sleep(self._rest)
                while not await self._is_ready():  # noqa: ASYNC110 - nobody says when it is
                    await trio.sleep(ASKING_PERIOD)
                self._is_in_doubt = False
        if self._disagrees:
            await trio.sleep_forever()

    async def _is_ready(self) -> bool:
        try:
            await self._ledger.check_ready()
        except SchedulerError as error:
            if not self._has_said:
                log.warning("not_taking", reason=str(error))
            self._has_said = True
        else:
            if self._has_said:
                log.info("taking_again")
            self._has_said = False
        return not self._has_said

    @contextmanager
    def taking(self) -> Iterator[None]:
        """The block is left as soon as there is doubt."""
        with trio.CancelScope() as self._taking:
            yield

    def claim_answered(self) -> None:
        self._rest = 0.0
        self._is_in_doubt = False
        self._resting.cancel()

    def claim_failed(self, reason: str) -> None:
        if not self._is_in_doubt:
            log.warning("shard_not_claimed", reason=reason)
            self._rest = min(max(FIRST_REST, 2 * self._rest), LONGEST_REST)
        self._is_in_doubt = True
        self._taking.cancel()

    def disagree(self, settings: Iterable[str]) -> None:
        """With a coordinator, in these settings."""
        if not self._disagrees:
            log.error(
                "settings_differ",
                settings=list(settings),
                remedy="Give these the same values here as where the run was begun, and restart this worker; "
                "until then it takes nothing more.",
            )
        self._disagrees = True
        self._taking.cancel()
