"""Run ids are UUIDv7."""

from __future__ import annotations

import time

from engine.run_id import new_run_id


def test_run_ids_bear_the_version_the_variant_and_the_moment() -> None:
    before = time.time_ns() // 1_000_000
    run_id = new_run_id()
    after = time.time_ns() // 1_000_000
    assert run_id.version == 7
    assert run_id.variant == "specified in RFC 4122"
    assert before <= run_id.int >> 80 <= after


def test_run_ids_differ() -> None:
    assert len({new_run_id() for _ in range(1_000)}) == 1_000
