"""This file is what must hold of whatever the environment says: settings, or a sentence for each fault."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from engine import ConfigurationError, Settings, load_settings
from engine.settings import leads_to_this_machine
from engine.trigger.endpoint import parse_endpoint
from web.sessions import are_cookies_secure

# Part of every value that is a secret: to be seen in no fault and in no way that settings are shown.
CANARY = "cafe0123456789abcdef0123456789abcdef"

SECRET_NAMES = (
    "DATABASE_URL",
    "SCHEDULER_ADMIN_DATABASE_URL",
    "SCHEDULER_SECRET",
    "SCHEDULER_SECRET_NEXT",
    "SCHEDULER_SERVICE_ROLE_KEY",
    "SCHEDULER_OPERATOR_TOKEN",
    "SCHEDULER_PROXY",
    "SCHEDULER_FLEET_PASSWORD",
)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Nothing is set of ours but these."""
    before = dict(os.environ)
    for name in before:
        if name.upper().startswith(("SCHEDULER_", "DATABASE_URL", "PG")):
            del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_environment(values: Mapping[str, str]) -> Settings | None:
    """Settings that can be used, or None and a sentence for each fault; no secret in either."""
    faults: list[str] = []
    settings: Settings | None = None
    with environment(values):
        try:
            settings = load_settings("database_url", "secret")
        except ConfigurationError as error:
            faults = error.faults
            shown = [*faults, str(error), repr(error)]
        else:
            shown = [repr(settings), str(settings)]
            use(settings)
    assert (settings is None) == bool(faults)
    for fault in faults:
        assert fault.endswith((".", "?")), fault
        assert "\n" not in fault, fault
        assert "Traceback" not in fault
    for each in shown:
        assert CANARY not in each, each
    return settings


def use(settings: Settings) -> None:
    """Whatever else reads them takes them as they are."""
    assert settings.database_url is not None
    leads_to_this_machine(settings.database_url)
    _ = (settings.trigger_engine_is_built_in, settings.dry_run_supported, settings.administrator_url)
    assert settings.mentors_per_chunk <= settings.mentors_per_page
    assert settings.soft_threshold < settings.hard_deadline < settings.platform_limit
    are_cookies_secure(settings)
    if settings.over_http:
        endpoint = parse_endpoint(settings.trigger_engine)
        assert endpoint.host
        # What goes onto the wire is one line, whatever the URL.
        f"{endpoint.target} {endpoint.authority}".encode("ascii")
        assert not set("\r\n \t") & set(endpoint.target + endpoint.authority)
    if settings.fleet is not None:
        assert settings.concurrency_per_shard >= 1
        assert settings.fleet_is_in_process is not settings.fleet_is_remote
    # A subject's part, where a dot or an asterisk would make it another's.
    for name in (settings.fleet_name, settings.fleet_user):
        assert name is None or re.fullmatch(r"[\w-]+", name, re.ASCII), name
    for secret in (settings.service_role_key, settings.operator_token, settings.fleet_password):
        assert secret is None or secret.get_secret_value().isascii()
