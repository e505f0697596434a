"""The application over a scheduler that is a fake: what HTTP makes of what a caller sends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
import trio
from pydantic import SecretStr
from quart.typing import TestClientProtocol as Client
from quart.wrappers import Request
from quart.wrappers import Response as QuartResponse
from quart_trio import QuartTrio

from engine import (
    Explanation,
    Freshness,
    LiveRun,
    Measures,
    Overview,
    RunRecord,
    RunRequest,
    Settings,
    ShardRecord,
    StopReason,
    Summary,
)
from engine.errors import SchedulerError
from engine.trigger.in_database import MentorResult
from tests.fakes import RUN_ID
from tests.web.documented import undocumented
from web.app import create_app

SECRET = "a1" * 32
NEXT_SECRET = "b2" * 32
KEY = "service-role-key"
TOKEN = "operator-token-of-32-characters!"

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
        self.records: list[RunRecord] = []
        self.listings: list[tuple[UUID | None, int]] = []
        self.shards: dict[UUID, list[ShardRecord]] = {}
        self.shard_listings: list[UUID] = []
        self.freshness = Freshness(900.0, {})
        self.freshness_measurements = 0
        self.explanations: dict[UUID, Explanation] = {}
        self.explained: list[UUID] = []
        self.measures = Measures()
        self.at = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
        self.overviews = 0
        self.live_run: LiveRun | None = None
        self.mentors = 0
        self._draining = trio.Event()

    def drain(self) -> None:
        self._draining.set()

    @property
    def is_draining(self) -> bool:
        return self._draining.is_set()

    async def wait_until_draining(self) -> None:
        await self._draining.wait()

    async def read_overview(self, *, limit: int) -> Overview:
        await trio.lowlevel.checkpoint()
        self.overviews += 1
        self._raise()
        ended = next((record for record in self.records if record.verdict != "running"), None)
        shards = self.shards.get(ended.run_id, []) if ended else []
        return Overview(self.at, self.records[:limit], self.freshness, shards)

    async def count_mentors(self) -> int:
        await trio.lowlevel.checkpoint()
        self._raise()
        return self.mentors

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

    async def list_runs(self, *, before: UUID | None, limit: int) -> list[RunRecord]:
        """Those of `records` after the one of that id, as they stand."""
        await trio.lowlevel.checkpoint()
        self.listings.append((before, limit))
        self._raise()
        ids = [None, *(record.run_id for record in self.records)]
        start = ids.index(before) if before in ids else len(self.records)
        return self.records[start : start + limit]

    async def find_run(self, run_id: UUID) -> RunRecord | None:
        await trio.lowlevel.checkpoint()
        self._raise()
        return next((record for record in self.records if record.run_id == run_id), None)

    async def list_shards(self, run_id: UUID) -> list[ShardRecord]:
        await trio.lowlevel.checkpoint()
        self.shard_listings.append(run_id)
        self._raise()
        return self.shards.get(run_id, [])

    async def explain(self, mentor_id: UUID) -> Explanation:
        await trio.lowlevel.checkpoint()
        self.explained.append(mentor_id)
        self._raise()
        return self.explanations[mentor_id]

    async def check_ready(self) -> None:
        await trio.lowlevel.checkpoint()
        self.readiness_checks += 1
        if isinstance(self.error, SchedulerError):
            raise self.error

    async def measure_freshness(self) -> Freshness:
        await trio.lowlevel.checkpoint()
        self.freshness_measurements += 1
        return self.freshness


@pytest.fixture(autouse=True)
def every_answer_is_documented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test of this folder has the application answer is held against /openapi.json."""
    faults: list[str] = []
    handle_request = QuartTrio.handle_request

    async def handle_and_compare(self: QuartTrio, request: Request) -> QuartResponse:
        response = await handle_request(self, request)
        faults.extend(await undocumented(self, request, response))
        return response

    monkeypatch.setattr(QuartTrio, "handle_request", handle_and_compare)
    yield
    assert faults == []


@pytest.fixture
def scheduler() -> FakeScheduler:
    return FakeScheduler()


def make_settings(**changes: object) -> Settings:
    values = {
        "secret": SecretStr(SECRET),
        "service_role_key": SecretStr(KEY),
        "operator_token": SecretStr(TOKEN),
    }
    return Settings(**(values | changes))


@pytest.fixture
def client(scheduler: FakeScheduler) -> Client:
    return create_app(scheduler, make_settings()).test_client()
