"""The application over a scheduler that is a fake: what HTTP makes of what a caller sends."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
from pydantic import SecretStr
from quart.typing import TestClientProtocol as Client

from engine import RunRequest, Settings, StopReason, Summary
from engine.errors import SchedulerError
from engine.trigger.in_database import MentorResult
from tests.fakes import RUN_ID
from web.app import create_app

SECRET = "a1" * 32
NEXT_SECRET = "b2" * 32
KEY = "service-role-key"

SUMMARY = Summary(
    total_active_mentors=3,
    total_evaluated=2,
    total_dispatched=1,
    total_suppressed=0,
    total_errors=1,
    duration_ms=12,
    completed=True,
    partial=False,
    total_unprocessed=0,
    remaining_known=True,
    stop_reason=StopReason.FINISHED,
    run_id=RUN_ID,
)


class FakeScheduler:
    """Answers with SUMMARY, or raises `error`; keeps what it was asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.requests: list[RunRequest] = []
        self.asked_at: list[float | None] = []
        self.invocations: list[tuple[Sequence[UUID], dict[str, object]]] = []
        self.due: list[MentorResult] = []
        self.readiness_checks = 0

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    async def start(self, request: RunRequest, *, asked_at: float | None = None) -> FakeScheduler:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        self.asked_at.append(asked_at)
        self._raise()
        return self

    async def summary(self) -> Summary:
        await trio.lowlevel.checkpoint()
        return SUMMARY

    @property
    def built_in(self) -> FakeScheduler:
        return self

    async def evaluate(self, mentor_ids: Sequence[UUID], **how: object) -> list[MentorResult]:
        await trio.lowlevel.checkpoint()
        self.invocations.append((mentor_ids, how))
        self._raise()
        return self.due

    async def check_ready(self) -> None:
        await trio.lowlevel.checkpoint()
        self.readiness_checks += 1
        if isinstance(self.error, SchedulerError):
            raise self.error


@pytest.fixture
def scheduler() -> FakeScheduler:
    return FakeScheduler()


def make_settings(**changes: object) -> Settings:
    values = {"secret": SecretStr(SECRET), "service_role_key": SecretStr(KEY)}
    return Settings(**(values | changes))


@pytest.fixture
def client(scheduler: FakeScheduler) -> Client:
    return create_app(scheduler, make_settings()).test_client()
