"""This file is the last look at the deadline, right before an act that nothing takes back.

trio looks at deadlines between two passes of its loop. A process that was frozen in mid-pass, and woken past
its hard deadline or its fence, would act once more per dispatcher before trio cuts it. So whoever is about to
act looks once more, and again after everything that was waited for in between.
"""

from __future__ import annotations

import trio


async def look_at_deadline() -> None:
    """Return at once while there is time, without a checkpoint; past the deadline, wait to be cut.

    **Cancellation:** is what ends the wait.
    """
    if trio.current_time() >= trio.current_effective_deadline():
        await trio.sleep_forever()
