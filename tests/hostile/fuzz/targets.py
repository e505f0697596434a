"""This file is what the fuzzer is pointed at: bytes in, one oracle of tests/hostile over them.

The first bytes say how, the rest is what is said: so an input that crashed can be read, and be made by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import trio
from trio.testing import MockClock

from engine.fleet.shard import write
from tests.engine.fleet.test_shard import RESULT, SHARD
from tests.hostile.answers import FIRST, RIGHT, as_answer, check_evaluation, check_split
from tests.hostile.environments import CANARY, SECRET_NAMES, check_environment
from tests.hostile.messages import check_message, with_field
from tests.hostile.requests import Application, check_request
from tests.web.conftest import KEY, SECRET, TOKEN

ENDINGS = ("close", "reset", "hang")
NAMES = (
    *("DATABASE_URL", "SCHEDULER_SECRET", "SCHEDULER_SERVICE_ROLE_KEY", "SCHEDULER_OPERATOR_TOKEN"),
    *("SCHEDULER_PROXY", "SCHEDULER_BIND", "SCHEDULER_TRIGGER_ENGINE", "SCHEDULER_MENTOR_SOURCE"),
    *("SCHEDULER_PAGE_SIZE", "SCHEDULER_SOFT_THRESHOLD", "SCHEDULER_ELIGIBLE_ASSIGNMENT_STATUSES"),
    *("SCHEDULER_TRANSPORT", "SCHEDULER_FRESHNESS_LIMIT", "SCHEDULER_TRIGGER_ENGINE_DRY_RUN", "SCHEDULER_"),
    *("SCHEDULER_FLEET", "SCHEDULER_FLEET_NAME", "SCHEDULER_FLEET_USER", "SCHEDULER_FLEET_PASSWORD"),
    *("SCHEDULER_FLEET_CA", "SCHEDULER_FLEET_SHARDS_AT_ONCE", "SCHEDULER_FLEET_REPLICAS"),
)


class Target(Protocol):
    seeds: Sequence[bytes]

    def check(self, data: bytes) -> None: ...


class Direct:
    """Byte 0: how the server ends; 1: where it cuts what it says; 2: how large a body may be."""

    def __init__(self) -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nright\r\n0\r\nX: y\r\n\r\n"
        busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        early = b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
        answers = (RIGHT, chunked, busy, early + RIGHT, RIGHT + RIGHT, b"HTTP/1.0 200 OK\r\n\r\nright")
        self.seeds = [bytes([how, 16, 255]) + answer for answer in answers for how in range(3)]

    def check(self, data: bytes) -> None:
        if len(data) < 3:
            return
        step = data[1] + 1
        cuts = range(0, len(data), step) if data[1] < 64 else ()
        check_split(data[3:], list(cuts), ENDINGS[data[0] % 3], max_body_bytes=5 + data[2])


class Results:
    """Byte 0: how the server ends, and of how many mentors; 1: the status; the rest is the body."""

    def __init__(self) -> None:
        one = b'{"mentor_id": "%b", "dispatched": ["inactivity"], "suppressed": []}' % str(FIRST).encode()
        many = b'{"results": [%b, {"mentor_id": "%b", "error": "x"}]}' % (one, str(UUID(int=3)).encode())
        self.seeds = [
            bytes([how, status]) + body for body in (one, many) for how in (2, 5) for status in (0, 9)
        ]

    def check(self, data: bytes) -> None:
        if len(data) < 2:
            return
        statuses = (200, 200, 200, 200, 302, 400, 401, 429, 500, 503, 999)
        mentor_ids = [FIRST, UUID(int=3)] if data[0] & 4 else [FIRST]
        answer = as_answer(data[2:], statuses[data[1] % len(statuses)])
        check_evaluation([answer[:40], answer[40:]], ENDINGS[data[0] % 3], mentor_ids)


class Requests:
    """Byte 0: the route, and who asks; then a line of fields, `name: value|…`; then the body."""

    _JSON = (b"content-type", b"application/json")
    _WHO = (
        ("POST", b"/run", [(b"x-scheduler-secret", SECRET.encode()), _JSON]),
        ("POST", b"/trigger-engine", [(b"authorization", b"Bearer " + KEY.encode()), _JSON]),
        ("POST", b"/explain", [(b"authorization", b"Bearer " + TOKEN.encode()), _JSON]),
        ("POST", b"/login", []),
        ("POST", b"/run", []),
        ("GET", b"/runs?", [(b"authorization", b"Bearer " + TOKEN.encode())]),
        ("GET", b"/dashboard", []),
        ("GET", b"/", []),
    )

    def __init__(self) -> None:
        # Both once: an application takes 30 ms to make. Its time goes on from one input to the next.
        self._clock = MockClock(autojump_threshold=0)
        self._application = Application()
        self.seeds = [
            b'\x00x: y\n{"scenario_types": ["inactivity"], "dry_run": true, "source": "x"}',
            b'\x00\n{"invoked_at": "2026-11-23T20:49:00.123456+00:00"}',
            b'\x01\n{"mentor_ids": ["00000000-0000-0000-0000-000000000001"], "run_id": null}',
            b'\x02\n{"mentor_id": "00000000-0000-0000-0000-000000000001"}',
            b"\x03cookie: scheduler_form=00000000000000000000000000000000\nform_token=x&token=y",
            b"\x04authorization: Bearer x|x-scheduler-secret: y\n",
            b"\x05limit=1&before=00000000-0000-0000-0000-000000000001\n",
            b"\x06cookie: scheduler_session=a.b.c\n",
            b"\x07runs/x\n",
        ]

    def check(self, data: bytes) -> None:
        if not data:
            return
        method, target, fields = self._WHO[data[0] % len(self._WHO)]
        head, _, body = data[1:].partition(b"\n")
        # What h11 lets through.
        head = bytes(byte for byte in head if byte not in b"\0\r\x0b\x0c")
        if target.endswith((b"?", b"/")):
            target += bytes(byte for byte in head if 0x21 <= byte <= 0x7E)
            more: list[tuple[bytes, bytes]] = []
        else:
            pairs = (part.partition(b":") for part in head.split(b"|"))
            more = [(name.strip().lower() or b"x", value.strip()) for name, _, value in pairs]
            more = [
                (name, value) for name, value in more if name.isalnum() or (b"-" in name and name.isascii())
            ]

        async def ask() -> None:
            await check_request(self._application, method, target, [*fields, *more], [body] if body else [])

        trio.run(ask, clock=self._clock)


class Environments:
    """Lines: the first byte of each is the name of a setting, the rest its value. `$` is a canary."""

    def __init__(self) -> None:
        right = b"\x00postgresql://u:$@127.0.0.1/d\n\x01$\n"
        self.seeds = [
            right,
            right + b"\x05[::1]:8000\n\x06http://127.0.0.1:8000/trigger-engine\n\x02key$",
            right + b"\x04http://u:$@proxy:3128\n\x06https://h/p?q\n\x0bhttpx",
            right + b"\x07https://h/rest/v1\n\x02key$\n\x08100\n\x0925.5\n\x0aactive, on leave\n\x0dtrue",
            right
            + b"\x0ftls://h:4222,tls://[::1]\n\x10a-b_c\n\x11user\n\x12word$\n\x13/ca.pem\n\x145\n\x153",
            right + b"\x0fnats://127.0.0.1:4222",
            right + b"\x0fin-process\n\x1410\n\x0928",
        ]

    def check(self, data: bytes) -> None:
        values: dict[str, str] = {}
        for line in data.replace(b"\0$", b"\0").split(b"\n")[:8]:
            if not line:
                continue
            number = line[0] % len(NAMES)
            text = line[1:].replace(b"\0", b"").decode("utf-8", "surrogateescape")
            values[NAMES[number]] = text.replace("$", CANARY if NAMES[number] in SECRET_NAMES else "")
        check_environment(values)


class Messages:
    """Byte 0: what is sent: as it is, or as a field of a shard (1) or result (2); then byte 1: of which."""

    def __init__(self) -> None:
        whole = [b"\x00" + write(message) for message in (SHARD, RESULT)]
        other = b'\x00{"version": 2}'
        fields = [
            b"\x01\x05",
            b'\x01\x06["expiry"]',
            b"\x01\x07NaN",
            b'\x02\x04{"timeout": 1}',
            b"\x02\x031e3",
        ]
        self.seeds = [*whole, other, *fields, b"\x01\x03null", b'\x02\x09"finished"', b"\x02\x0c[0, 1]"]

    def check(self, data: bytes) -> None:
        if len(data) < 2:
            return
        how = data[0] % 3
        check_message(data[1:] if how == 0 else with_field(how - 1, data[1], data[2:]))


def make_target(name: str) -> Target:
    targets: dict[str, type[Target]] = {
        "direct": Direct,
        "results": Results,
        "requests": Requests,
        "environments": Environments,
        "messages": Messages,
    }
    return targets[name]()
