"""What coordinator and worker have to agree on: what decides who is walked, and by whom."""

from __future__ import annotations

from typing import Any

import pytest

from engine import load_settings
from engine.fleet.agreement import agreement_of
from tests.engine.fleet.world import OVER_HTTP


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return list(
        agreement_of(load_settings(**(OVER_HTTP | one))).differing(
            agreement_of(load_settings(**(OVER_HTTP | other)))
        )
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trigger_engine", "https://another.example/evaluate"),
        ("mentor_source", "https://project.supabase.example/rest/v1"),
        ("eligible_assignment_statuses", ("active", "pending")),
        ("mentors_per_invocation", 7),
    ],
)
def test_each_setting_that_has_to_be_the_same_is_told_by_its_name(name: str, value: Any) -> None:
    key = {"service_role_key": "key"} if name == "mentor_source" else {}
    assert differing({}, {name: value, **key}) == [f"SCHEDULER_{name.upper()}"]


def test_what_means_the_same_agrees() -> None:
    assert differing({}, {"mentors_per_invocation": 1, "database_url": "postgresql://a@b/c"}) == []
    assert (
        differing(
            {"eligible_assignment_statuses": ("a", "b")}, {"eligible_assignment_statuses": ("b", "a", "b")}
        )
        == []
    )
    in_database = {"trigger_engine": "in-database"}
    assert differing(in_database, in_database | {"mentors_per_invocation": 7}) == []


def test_nothing_of_a_setting_can_be_read_in_it() -> None:
    written = agreement_of(load_settings(**OVER_HTTP)).model_dump_json()
    assert "127.0.0.1" not in written
    assert '"active' not in written
