"""This file is what can be wrong with NATS, in a sentence for people, and what to do."""

from __future__ import annotations

import socket
import ssl

import nats.errors
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

from engine.errors import FleetUnavailable

# Seconds after which to ask again: a stream whose leader died has another one by then.
RETRY_AFTER = 5.0

_MAKE_STREAMS = "start a service that has SCHEDULER_FLEET, which makes them"

# By the error code of JetStream's API.
_OF_JETSTREAM = {
    10_005: "its cluster has fewer servers than SCHEDULER_FLEET_REPLICAS asks for; start them, or lower it",
    10_008: "too few of its servers are up to agree on anything; start the others",
    10_023: "it is out of space; give its store_dir more, or raise its limits",
    10_039: "JetStream is not on for this account; turn it on in the servers' configuration",
    10_047: "it is out of space; give its store_dir more, or raise its limits",
    10_059: f"the fleet's streams do not exist yet; {_MAKE_STREAMS}",
    10_074: "it is no cluster, so SCHEDULER_FLEET_REPLICAS must be 1; lower it, or make it a cluster",
    10_076: "JetStream is not on; start the server with -js",
}

_OF_THE_NETWORK: dict[type[Exception], str] = {
    ssl.SSLCertVerificationError: "its certificate is not to be trusted; check SCHEDULER_FLEET_CA, and that "
    "the host in SCHEDULER_FLEET is the one in the certificate",
    ssl.SSLError: "TLS did not come about; if the server is up, see that its configuration has "
    "`handshake_first: true` in its block `tls`",
    socket.gaierror: "the name of its host can't be resolved; check SCHEDULER_FLEET",
    ConnectionRefusedError: "nobody listens there; check SCHEDULER_FLEET and that the server is up",
    nats.errors.AuthorizationError: "it refused the login; check SCHEDULER_FLEET_USER and "
    "SCHEDULER_FLEET_PASSWORD",
    nats.errors.NoRespondersError: f"JetStream is not on, or the streams do not exist yet; {_MAKE_STREAMS}",
    NoStreamResponseError: "its streams have no leader; if that stays so, see that most servers are up",
    TimeoutError: "it does not answer; check the network, and that most of its servers are up",
    ConnectionError: "the connection was lost; check that the server is up",
    nats.errors.ConnectionClosedError: "the connection was lost; check that the server is up",
}


class PullRefused(nats.errors.Error):
    """The server hands nothing out to whoever asks like this; `status` is its own word, in digits."""

    def __init__(self, status: str | None) -> None:
        super().__init__(f"status {status}")


def describe(error: BaseException, refusal: str | None) -> FleetUnavailable:
    """`refusal`: what the server said meanwhile that this user may not do; it then answers nothing at all."""
    return FleetUnavailable(f"NATS can't be used: {_reason(error, refusal)}.", RETRY_AFTER)


def describe_of_tls(error: BaseException) -> FleetUnavailable:
    """Of a connection that did not come about. Two that wait for one another to begin end in many ways."""
    in_handshake = isinstance(error, TimeoutError | ConnectionResetError | ConnectionAbortedError)
    return describe(ssl.SSLError() if in_handshake else error, None)


def is_of_the_server(error: BaseException) -> bool:
    """Whether another server might do better, or the same one over another connection."""
    return not isinstance(error, APIError | PullRefused) or isinstance(error, ServiceUnavailableError)


def _reason(error: BaseException, refusal: str | None) -> str:
    if refusal is not None and isinstance(error, TimeoutError):
        return (
            f"this user may not do that ({refusal.removeprefix('nats: ')}); check SCHEDULER_FLEET_USER, and "
            "its rights in the servers' configuration"
        )
    if isinstance(error, PullRefused):
        return f"it hands nothing out ({error}); look at its log"
    if isinstance(error, ServiceUnavailableError) and error.err_code is None:
        error = nats.errors.NoRespondersError()  # which is what nats-py has made this of
    if isinstance(error, APIError):
        known = _OF_JETSTREAM.get(error.err_code or 0)
        return known or f"JetStream answered {error.code}/{error.err_code}; its manual has the meaning"
    if "authorization violation" in str(error).lower():
        error = nats.errors.AuthorizationError()
    reasons = (reason for kind, reason in _OF_THE_NETWORK.items() if isinstance(error, kind))
    return next(reasons, f"{type(error).__name__}; check SCHEDULER_FLEET and that the server is up")
