"""`run --dry-run --set`: when what it shows is all there is, which its exit code says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from engine import StopReason
from tests.web.conftest import SUMMARY
from web.trial import DryRun, Trial


def dry_run(**changes: object) -> DryRun:
    return DryRun(replace(SUMMARY, **changes), Counter(), Counter(), Counter())


WHOLE = dry_run()
CUT = dry_run(completed=False, partial=True, stop_reason=StopReason.SOFT_THRESHOLD, total_unprocessed=2)
ERRORS_ALONE = dry_run(total_evaluated=0, total_errors=3)


@pytest.mark.parametrize(
    ("now", "tried", "is_whole"),
    [
        (WHOLE, WHOLE, True),
        (CUT, WHOLE, False),
        (WHOLE, CUT, False),
        (ERRORS_ALONE, WHOLE, False),
        (WHOLE, ERRORS_ALONE, False),
    ],
)
def test_a_trial_is_whole_only_if_both_of_its_walks_are(now: DryRun, tried: DryRun, is_whole: bool) -> None:
    assert Trial({}, ["inactivity"], now, tried).is_whole is is_whole
