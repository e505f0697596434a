"""This file is every setting: its unit, its default, and why it is so. Nothing else reads the environment."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from engine.errors import ConfigurationError

IN_DATABASE = "in-database"

# What a page and a chunk are when nothing is set. Over HTTP a chunk of one mentor is one call, as the trigger
# engine's users write it; in the database 2,000 a call cost 11 to 17 us a mentor, 100 a call 26 us.
PAGE_SIZE_OVER_HTTP, PAGE_SIZE_IN_DATABASE = 100, 2_000


def is_loopback(host: str) -> bool:
    """Whether the host is this machine and no other, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_secret(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9A-Fa-f]{32,}", value.get_secret_value()):
        raise ValueError("must be at least 32 hex digits; make one with `scenario-scheduler secret`")
    return value


def _check_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces, because it travels in a header")
    return value


def _check_database_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("must be a URL that begins with postgresql://")
    return value


def _check_service_url(value: str) -> str:
    """https, or http to loopback; no user part, so that nothing is hidden before an `@`."""
    fault = (
        "must be an https URL, or http to this machine, without a user part; for example https://host/path"
    )
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(fault) from None
    if "@" in value or not host or parts.fragment or re.search(r"[\x00-\x20\x7f-\uffff\\]", value):
        raise ValueError(fault)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError(fault)
    return value


def _check_trigger_engine(value: str) -> str:
    return value if value == IN_DATABASE else _check_service_url(value)


def _check_proxy(value: SecretStr) -> SecretStr:
    """Unlike a service's, its URL may hold a user and a password, and it is often plain http."""
    try:
        parts = urlsplit(value.get_secret_value())
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be the URL of an HTTP proxy, for example http://proxy.example:3128")
    return value


def _check_bind(value: str) -> str:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(\d{1,5})", value)
    if match is None or int(match[2]) > 65_535:
        raise ValueError("must be an address and a port, for example 127.0.0.1:8000 or [::1]:8000")
    return value


def _split_list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The settings of one process: what is passed in, else the environment, else the default.

    Immutable. Raises pydantic's ValidationError; `load_settings` says the same for people.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="SCHEDULER_",
        env_ignore_empty=True,  # an empty secret is no secret
        hide_input_in_errors=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    database_url: Annotated[SecretStr, AfterValidator(_check_database_url)] | None = Field(
        default=None, validation_alias="DATABASE_URL"
    )
    database_pooler: Literal["session", "transaction"] = "session"
    bind: Annotated[str, AfterValidator(_check_bind)] = "127.0.0.1:8000"
    secret: Secret | None = None
    secret_next: Secret | None = None
    service_role_key: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    trigger_engine: Annotated[str, AfterValidator(_check_trigger_engine)] = IN_DATABASE
    trigger_engine_dry_run: bool = False
    transport: Literal["direct", "httpx", "asks"] = "direct"
    proxy: Annotated[SecretStr, AfterValidator(_check_proxy)] | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1_000)] = 10
    page_size: Annotated[int, Field(ge=1, le=100_000)] | None = None
    mentors_per_invocation: Annotated[int, Field(ge=1, le=100_000)] | None = None
    soft_threshold: Seconds = 25.0
    hard_deadline: Seconds = 28.0
    platform_limit: Seconds = 30.0
    invocation_timeout: Seconds = 5.0
    eligible_assignment_statuses: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split_list), Field(min_length=1)
    ] = ("active",)
    pg_bin_dir: str | None = Field(default=None, validation_alias="PG_BIN_DIR")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.soft_threshold < self.hard_deadline < self.platform_limit:
            raise ValueError(
                "SCHEDULER_SOFT_THRESHOLD, SCHEDULER_HARD_DEADLINE and SCHEDULER_PLATFORM_LIMIT must rise in "
                f"this order, but are {self.soft_threshold:g}, {self.hard_deadline:g} and "
                f"{self.platform_limit:g} seconds"
            )
        if self.mentors_per_chunk > self.mentors_per_page:
            raise ValueError(
                f"SCHEDULER_MENTORS_PER_INVOCATION is {self.mentors_per_chunk}, more than a page of "
                f"{self.mentors_per_page}; raise SCHEDULER_PAGE_SIZE to at least as much"
            )
        if self.proxy is not None and self.transport != "httpx":
            raise ValueError(
                f"SCHEDULER_PROXY is set, but SCHEDULER_TRANSPORT is {self.transport}, which knows no proxy; "
                "set it to httpx"
            )
        if self.trigger_engine_is_built_in and self.service_role_key is None:
            raise ValueError(
                "SCHEDULER_TRIGGER_ENGINE is this service's own /trigger-engine, which is closed while "
                "SCHEDULER_SERVICE_ROLE_KEY is not set; set it, or use `in-database`"
            )
        return self

    @property
    def over_http(self) -> bool:
        return self.trigger_engine != IN_DATABASE

    @property
    def mentors_per_page(self) -> int:
        if self.page_size is not None:
            return self.page_size
        default = PAGE_SIZE_OVER_HTTP if self.over_http else PAGE_SIZE_IN_DATABASE
        return max(default, self.mentors_per_invocation or 1)

    @property
    def mentors_per_chunk(self) -> int:
        return self.mentors_per_invocation or (1 if self.over_http else self.mentors_per_page)

    @property
    def trigger_engine_is_built_in(self) -> bool:
        """Whether invocations over HTTP come back to this very service, as far as its address tells."""
        if not self.over_http:
            return False
        url = urlsplit(self.trigger_engine)
        own_host, _, own_port = self.bind.rpartition(":")
        return (
            url.path == "/trigger-engine"
            and url.scheme == "http"
            and str(url.port or 80) == own_port
            and is_loopback(own_host.strip("[]"))
        )

    @property
    def dry_run_supported(self) -> bool:
        return not self.over_http or self.trigger_engine_is_built_in or self.trigger_engine_dry_run


def load_settings(*required: Literal["database_url", "secret"], **given: Any) -> Settings:
    """The settings of this process; `given` ones win over the environment's.

    Raises ConfigurationError with one sentence for every fault there is.
    """
    faults = [_unknown_name(name) for name in os.environ if _is_stray(name)]
    missing = set(required)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            field = str(fault["loc"][0]) if fault["loc"] else ""
            message = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{_name_of(field)} {_in_lower_case(message)}." if field else f"{message}.")
            missing -= {field.lower()}
        missing -= {name for name in missing if os.environ.get(_name_of(name))}
    else:
        missing -= {name for name in missing if getattr(settings, name) is not None}
    faults += [_MISSING[name] for name in _MISSING if name in missing]
    if faults:
        raise ConfigurationError(faults)
    return settings


_MISSING = {
    "database_url": "DATABASE_URL is not set; give it the URL of your Postgres "
    "(postgresql://user:password@host/database), or try `scenario-scheduler demo`, which brings its own.",
    "secret": "SCHEDULER_SECRET is not set; make one with `scenario-scheduler secret` and give the same to "
    "the caller of /run.",
}


def _name_of(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias if field in Settings.model_fields else field
    return str(alias) if alias else f"SCHEDULER_{field.upper()}"


def _in_lower_case(message: str) -> str:
    """Pydantic's own messages are sentences; ours continue the name of the setting."""
    return message.replace("Input should", "should", 1)


def _is_stray(name: str) -> bool:
    return (
        name.startswith("SCHEDULER_")
        and not name.startswith("SCHEDULER_TEST_")  # for the tests, which run beside real settings
        and name.removeprefix("SCHEDULER_").lower() not in Settings.model_fields
    )


def _unknown_name(name: str) -> str:
    known = [_name_of(field) for field in Settings.model_fields]
    near = difflib.get_close_matches(name, known, n=1)
    mend = f"did you mean {near[0]}?" if near else "remove it, or see the table of settings in the README."
    return f"{name} is not a setting of this version; {mend}"
