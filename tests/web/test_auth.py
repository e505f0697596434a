"""Credentials: what opens and what does not, to the character, and what is logged of whoever is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import SecretStr
from quart.typing import TestClientProtocol as Client
from structlog.testing import capture_logs
from trio.testing import MockClock

from web.auth import LOG_PAUSE, Credential, _Refusals

ONE, OTHER = "one secret", "another"


@pytest.fixture
def credential() -> Credential:
    return Credential(SecretStr(ONE), None, SecretStr(OTHER))


@pytest.mark.parametrize(
    ("given", "opens"),
    [
        (ONE, True),
        (OTHER, True),
        ("", False),
        ("None", False),
        (ONE + OTHER, False),
        (ONE[:-1], False),
        (f"{ONE} ", False),
        (ONE.upper(), False),
        ("\udcff\udc80", False),  # bytes of a header that are no UTF-8
    ],
)
def test_each_secret_opens_and_nothing_else_does(given: str, opens: bool, credential: Credential) -> None:
    assert credential.opens(given) is opens


@pytest.mark.parametrize("secrets", [(), (None,), (None, None)])
def test_a_credential_without_a_secret_opens_to_nobody(secrets: Sequence[None]) -> None:
    credential = Credential(*secrets)
    assert not credential.is_set
    assert not credential.opens("")
    assert not credential.opens_with_header([""])
    assert not credential.opens_with_bearer(["Bearer "])


@pytest.mark.parametrize(
    ("values", "opens"), [([], False), ([ONE], True), ([ONE, ONE], False), (["", ONE], False)]
)
def test_a_header_opens_if_it_is_given_once(
    values: Sequence[str], opens: bool, credential: Credential
) -> None:
    assert credential.opens_with_header(values) is opens


@pytest.mark.parametrize(
    ("values", "opens"),
    [
        ([f"Bearer {ONE}"], True),
        ([f"bearer {OTHER}"], True),
        ([f"BEARER   {OTHER} "], True),
        ([f"Bearer \t{OTHER}"], False),
        ([f"Bearer X{OTHER}X"], False),
        ([f"Bearer{OTHER}"], False),
        ([f" Bearer {OTHER}"], False),
        ([f"Basic {OTHER}"], False),
        ([OTHER], False),
        (["Bearer"], False),
        ([], False),
        ([f"Bearer {OTHER}", f"Bearer {OTHER}"], False),
    ],
)
def test_a_bearer_opens_in_any_case_if_it_is_given_once(
    values: Sequence[str], opens: bool, credential: Credential
) -> None:
    assert credential.opens_with_bearer(values) is opens


@pytest.mark.parametrize(
    ("method", "path", "scheme"),
    [
        ("POST", "/run", "SharedSecret"),
        ("POST", "/trigger-engine", "Bearer"),
        ("GET", "/runs", "Bearer"),
        ("POST", "/explain", "Bearer"),
        ("GET", "/metrics", "Bearer"),
    ],
)
async def test_whoever_is_refused_is_told_by_which_scheme_to_come_back(
    method: str, path: str, scheme: str, client: Client
) -> None:
    response = await client.open(path, method=method)
    assert response.status_code == 401
    assert response.headers.getlist("WWW-Authenticate") == [f'{scheme} realm="scenario-scheduler"']


async def test_refusals_are_counted_and_logged_a_line_at_a_time(
    client: Client, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.auth._refusals", _Refusals())
    with capture_logs() as logs:
        for path, later in (
            ("/run", 0.0),
            ("/runs", 0.0),
            ("/trigger-engine", LOG_PAUSE - 1.0),
            ("/run", 1.0),
            ("/runs", LOG_PAUSE - 0.5),
            ("/trigger-engine", 0.5),
        ):
            autojump_clock.jump(later)
            method = "GET" if path == "/runs" else "POST"
            assert (await client.open(path, method=method)).status_code == 401
    line = {"event": "unauthorized", "log_level": "warning"}
    assert [each for each in logs if each["event"] == "unauthorized"] == [
        line | {"path": "/run", "refused": 1},
        line | {"path": "/run", "refused": 3},
        line | {"path": "/trigger-engine", "refused": 2},
    ]
