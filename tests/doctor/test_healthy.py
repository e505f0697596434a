"""A healthy installation is green."""

from __future__ import annotations

from engine.doctor.examine import CHECKS
from tests.doctor.conftest import Healthy


async def test_a_healthy_installation_is_all_green(healthy: Healthy) -> None:
    findings = await healthy.examine()
    assert [finding.found for finding in findings if not finding.ok] == []
    assert [finding.check for finding in findings] == list(CHECKS)
