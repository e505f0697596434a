"""This file is every setting: its unit, its default, and why it is so. Nothing else reads the environment."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from engine.errors import ConfigurationError

IN_DATABASE = "in-database"
POSTGRES = "postgres"
IN_PROCESS = "in-process"

# What a page and a chunk are when nothing is set. Over HTTP a chunk of one mentor is one call, as the trigger
# engine's users write it; in the database 2,000 a call cost 11 to 17 us a mentor, 100 a call 26 us.
PAGE_SIZE_OVER_HTTP, PAGE_SIZE_IN_DATABASE = 100, 2_000

# What the built-in trigger engine takes in one call over HTTP: 39 kB of ids.
MAX_MENTORS_OVER_HTTP = 1_000

# Seconds that must lie between the hard deadline and the platform limit: the count of what was left (0.5 s),
# its own cut if Postgres went silent (0.5 s), the verdict in the ledger (0.5 s), and the answer's way out.
ANSWER_MARGIN = 1.6

# Seconds by which a shard's hard deadline lies before that of its run: the count of what was left of it
# (0.5 s), its own cut if Postgres went silent (0.5 s), and its result's way to the coordinator. More takes
# from the budget; with less, a shard that was cut answers too late, and everybody in it is unprocessed.
SHARD_MARGIN = 1.6


def is_loopback(host: str) -> bool:
    """Whether the host is this machine and no other, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def leads_to_this_machine(database_url: SecretStr) -> bool:
    """Whether the server of that URL is on this machine, as far as the URL tells; all of them, of several.

    As asyncpg reads it: hosts before the path, else in the query, else of the environment, else a socket.
    """
    parts = urlsplit(database_url.get_secret_value())
    hosts = (
        parts.netloc.rpartition("@")[2] or _last_in_query(parts.query, "host") or os.environ.get("PGHOST", "")
    )
    return all(_is_here(unquote(host)) for host in hosts.split(",") if host)


def sslmode_of(database_url: SecretStr) -> str:
    """How TLS is used on the way to that server, as asyncpg reads it: the query, else the environment."""
    query = urlsplit(database_url.get_secret_value()).query
    mode = _last_in_query(query, "sslmode") or os.environ.get("PGSSLMODE", "prefer")
    return mode.replace("_", "-")


def _last_in_query(query: str, name: str) -> str:
    return next((value for each, value in reversed(parse_qsl(query)) if each == name), "")


def _is_here(host: str) -> bool:
    """With its port, or not; a host that begins with `/` or `@` is a socket's folder, or an abstract one."""
    if host.startswith(("/", "@")):
        return True
    name = host[1:].partition("]")[0] if host.startswith("[") else host
    return is_loopback(name if ":" in name and is_loopback(name) else name.partition(":")[0])


def _check_secret(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9A-Fa-f]{32,}", value.get_secret_value()):
        raise ValueError("must be at least 32 hex digits; make one with `scenario-scheduler secret`")
    return value


def _check_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces, because it travels in a header")
    return value


def _check_token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]{32,}", value.get_secret_value()):
        raise ValueError(
            "must be at least 32 characters of printable ASCII without spaces; "
            "make one with `scenario-scheduler secret`"
        )
    return value


def _check_database_url(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        _ = parts.hostname, parts.port
    except ValueError:  # whose own words quote the password
        raise ValueError(
            "can't be taken apart; percent-encode what is neither letter nor digit in its user and password"
        ) from None
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
    if "@" in value or not host or parts.fragment or re.search(r"[^\x21-\x7e]|\\", value):
        raise ValueError(fault)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError(fault)
    return value


def service_url(value: str) -> str:
    """The URL, if the tick may be sent there. Raises ConfigurationError."""
    try:
        return _check_service_url(value)
    except ValueError as error:
        raise ConfigurationError([f"The URL {error}."]) from None


def _check_trigger_engine(value: str) -> str:
    return value if value == IN_DATABASE else _check_service_url(value)


def _check_mentor_source(value: str) -> str:
    if value == POSTGRES:
        return value
    try:
        if "?" in _check_service_url(value):
            raise ValueError
    except ValueError:
        raise ValueError(
            "must be `postgres`, or the https URL of a Supabase REST API, or http to this machine, without a "
            "user part or a query; for example https://<project>.supabase.co/rest/v1"
        ) from None
    return value


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


def _check_fleet(value: str) -> str:
    """Where the password goes in the clear, only to this machine."""
    if value == IN_PROCESS:
        return value
    fault = (
        "must be `in-process`, or URLs separated by commas, nats:// to this machine or tls:// to any, each "
        "without a user part or a path; for example tls://nats-1.example:4222,tls://nats-2.example:4222"
    )
    for url in value.split(","):
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError(fault) from None
        if not host or re.search(r"[^\x21-\x7e]|[@\\?#]", url) or parts.path:
            raise ValueError(fault)
        if parts.scheme != "tls" and not (parts.scheme == "nats" and is_loopback(host)):
            raise ValueError(fault)
    return value


def _check_replicas(value: int) -> int:
    if value not in (1, 3, 5):
        raise ValueError("must be 1, 3 or 5: of an even number, no more may be lost than of one less")
    return value


def _check_bind(value: str) -> str:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(\d{1,5})", value)
    if match is None or int(match[2]) > 65_535:
        raise ValueError("must be an address and a port, for example 127.0.0.1:8000 or [::1]:8000")
    return value


def _split_list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if not parts:
        raise ValueError("must name at least one, separated by commas")
    return parts


Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
UpToAMonth = Annotated[float, Field(ge=1, le=30 * 86_400, allow_inf_nan=False)]  # seconds


class Settings(BaseSettings):
    """The settings of one process: what is passed in, else the environment, else the default.

    Immutable. Raises pydantic's ValidationError. `load_settings` says it for people, and also checks what
    must hold between settings.
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
    admin_database_url: Annotated[SecretStr, AfterValidator(_check_database_url)] | None = None
    database_pooler: Literal["session", "transaction"] = "session"
    bind: Annotated[str, AfterValidator(_check_bind)] = "127.0.0.1:8000"
    secret: Secret | None = None
    secret_next: Secret | None = None
    service_role_key: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    operator_token: Annotated[SecretStr, AfterValidator(_check_token)] | None = None
    trigger_engine: Annotated[str, AfterValidator(_check_trigger_engine)] = IN_DATABASE
    trigger_engine_dry_run: bool = False
    transport: Literal["direct", "httpx", "asks"] = "direct"
    mentor_source: Annotated[str, AfterValidator(_check_mentor_source)] = POSTGRES
    proxy: Annotated[SecretStr, AfterValidator(_check_proxy)] | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1_000)] = 10
    page_size: Annotated[int, Field(ge=1, le=100_000)] | None = None
    mentors_per_invocation: Annotated[int, Field(ge=1, le=100_000)] | None = None
    soft_threshold: Seconds = 25.0
    hard_deadline: Seconds = 28.0
    platform_limit: Seconds = 30.0
    invocation_timeout: Seconds = 5.0
    freshness_limit: UpToAMonth = 900.0
    eligible_assignment_statuses: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)] = (
        "active",
    )
    fleet: Annotated[str, AfterValidator(_check_fleet)] | None = None
    fleet_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")] = "scheduler"
    fleet_shards: Annotated[int, Field(ge=1, le=1_000)] = 32
    fleet_shards_at_once: Annotated[int, Field(ge=1, le=1_000)] = 5
    fleet_replicas: Annotated[int, AfterValidator(_check_replicas)] = 1
    # It is part of the subjects that its answers come to, where dots and asterisks have a meaning.
    fleet_user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    fleet_password: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    fleet_ca: str | None = None
    pg_bin_dir: str | None = Field(default=None, validation_alias="PG_BIN_DIR")

    @property
    def administrator_url(self) -> SecretStr | None:
        """What the commands log in with that change the database or look at all of it."""
        return self.admin_database_url or self.database_url

    @property
    def administrator_setting(self) -> str:
        """The name of the setting that `administrator_url` is from."""
        return _name_of("admin_database_url" if self.admin_database_url else "database_url")

    @property
    def over_http(self) -> bool:
        return self.trigger_engine != IN_DATABASE

    @property
    def mentors_over_rest(self) -> bool:
        return self.mentor_source != POSTGRES

    @property
    def fleet_is_remote(self) -> bool:
        return self.fleet is not None and self.fleet != IN_PROCESS

    @property
    def fleet_is_in_process(self) -> bool:
        return self.fleet == IN_PROCESS

    @property
    def concurrency_per_shard(self) -> int:
        """The share of the invocations in flight that each of the shards that are out at once may have."""
        return self.max_concurrency // self.fleet_shards_at_once

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
        bound_to, _, port = self.bind.rpartition(":")
        return (
            url.path == "/trigger-engine"
            and url.scheme == "http"
            and str(url.port or 80) == port
            and url.hostname in _hosts_that_reach(bound_to.strip("[]"))
        )

    @property
    def dry_run_supported(self) -> bool:
        return not self.over_http or self.trigger_engine_is_built_in or self.trigger_engine_dry_run


def _hosts_that_reach(bound_to: str) -> tuple[str, ...]:
    """The names of this machine under which a listener on that address answers."""
    return {
        "127.0.0.1": ("127.0.0.1", "localhost"),
        "localhost": ("127.0.0.1", "localhost"),
        "0.0.0.0": ("127.0.0.1", "localhost"),  # noqa: S104 - compared, not bound
        "::1": ("::1",),
        "::": ("::1", "localhost"),
    }.get(bound_to, (bound_to,))


def load_settings(
    *required: Literal["database_url", "administrator_url", "secret"],
    coordinates: bool = True,
    **given: Any,
) -> Settings:
    """The settings of this process; `given` ones win over the environment's.

    A worker, which is handed its share of everything, `coordinates` nothing.

    Raises ConfigurationError with one sentence for every fault there is.
    """
    faults = [_unknown_name(name) for name in os.environ if _is_stray(name)]
    wrong: set[str] = set()
    try:
        settings = Settings(**given)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            field = _field_of(str(fault["loc"][0]))
            message = fault["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
            faults.append(f"{_name_of(field)} {message}.")
            wrong.add(field)
        # Once more without those, for the faults between the others.
        settings = Settings(**(given | {field: Settings.model_fields[field].default for field in wrong}))
    faults += [
        f"{sentence}."
        for sentence, fields in [
            *_faults_between(settings),
            *(_faults_of_shares(settings) if coordinates else ()),
        ]
        if not wrong.intersection(fields)
    ]
    faults += [
        _MISSING[field]
        for field in required
        if not getattr(settings, field) and not wrong.intersection((field, *_STAND_IN.get(field, ())))
    ]
    if faults:
        raise ConfigurationError(faults)
    return settings


def _faults_between(settings: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is wrong between settings that are right by themselves, and between which."""
    soft, hard, limit = settings.soft_threshold, settings.hard_deadline, settings.platform_limit
    if not (soft < hard and hard + ANSWER_MARGIN <= limit):
        yield (
            "SCHEDULER_SOFT_THRESHOLD, SCHEDULER_HARD_DEADLINE and SCHEDULER_PLATFORM_LIMIT are "
            f"{soft:g}, {hard:g} and {limit:g} seconds; they must rise in this order, the last one by at "
            f"least {ANSWER_MARGIN:g} s, which the answer may take",
            ("soft_threshold", "hard_deadline", "platform_limit"),
        )
    if settings.mentors_per_chunk > settings.mentors_per_page:
        yield (
            f"SCHEDULER_MENTORS_PER_INVOCATION is {settings.mentors_per_chunk}, more than a page of "
            f"{settings.mentors_per_page}; raise SCHEDULER_PAGE_SIZE to at least as much",
            ("mentors_per_invocation", "page_size"),
        )
    if settings.trigger_engine_is_built_in and settings.mentors_per_chunk > MAX_MENTORS_OVER_HTTP:
        yield (
            f"SCHEDULER_MENTORS_PER_INVOCATION is {settings.mentors_per_chunk}, but this service's own "
            f"/trigger-engine takes {MAX_MENTORS_OVER_HTTP} at most; lower it, or use `in-database`",
            ("mentors_per_invocation", "trigger_engine", "bind"),
        )
    if settings.trigger_engine_is_built_in and settings.service_role_key is None:
        yield (
            "SCHEDULER_TRIGGER_ENGINE is this service's own /trigger-engine, which is closed while "
            "SCHEDULER_SERVICE_ROLE_KEY is not set; set it, or use `in-database`",
            ("trigger_engine", "service_role_key", "bind"),
        )
    if settings.mentors_over_rest and settings.service_role_key is None:
        yield (
            "SCHEDULER_MENTOR_SOURCE is a REST API, which answers nobody without a key; set "
            "SCHEDULER_SERVICE_ROLE_KEY to its service role key, or use `postgres`",
            ("mentor_source", "service_role_key"),
        )
    if settings.proxy is not None and not (settings.over_http and settings.transport == "httpx"):
        yield (
            "SCHEDULER_PROXY is set, but only a trigger engine at a URL, over SCHEDULER_TRANSPORT=httpx, is "
            "reached through one; set these, or remove it",
            ("proxy", "transport", "trigger_engine"),
        )
    if (settings.fleet_user is None) != (settings.fleet_password is None):
        yield (
            "Of SCHEDULER_FLEET_USER and SCHEDULER_FLEET_PASSWORD only one is set; set both, or neither",
            ("fleet_user", "fleet_password"),
        )
    for name in ("fleet_user", "fleet_ca"):
        if getattr(settings, name) is not None and not settings.fleet_is_remote:
            yield (
                f"{_name_of(name)} is set, but SCHEDULER_FLEET is no URL; set that, or remove it",
                (name, "fleet"),
            )


def _faults_of_shares(settings: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The same, of what a run has for all its shards together."""
    soft, hard = settings.soft_threshold, settings.hard_deadline
    if settings.fleet is not None and settings.concurrency_per_shard < 1:
        yield (
            f"SCHEDULER_FLEET_SHARDS_AT_ONCE is {settings.fleet_shards_at_once}, more than the "
            f"{settings.max_concurrency} of SCHEDULER_MAX_CONCURRENCY, of which each shard has its share; "
            "lower the one, or raise the other",
            ("fleet_shards_at_once", "max_concurrency", "fleet"),
        )
    if settings.fleet is not None and soft + SHARD_MARGIN > hard:
        yield (
            f"SCHEDULER_SOFT_THRESHOLD and SCHEDULER_HARD_DEADLINE are {soft:g} and {hard:g} seconds; with "
            f"SCHEDULER_FLEET they must lie {SHARD_MARGIN:g} s apart, by which shards end before their run",
            ("soft_threshold", "hard_deadline", "fleet"),
        )


_MISSING = {
    "database_url": "DATABASE_URL is not set; give it the URL of your Postgres "
    "(postgresql://user:password@host/database), or try `scenario-scheduler demo`, which brings its own.",
    "administrator_url": "Neither SCHEDULER_ADMIN_DATABASE_URL nor DATABASE_URL is set; give one of them the "
    "URL with which an administrator of your Postgres logs in (postgresql://user:password@host/database).",
    "secret": "SCHEDULER_SECRET is not set; make one with `scenario-scheduler secret` and give the same to "
    "the caller of /run.",
}


# What is wrong in one of these is said already, so that the other need not be missed.
_STAND_IN = {"administrator_url": ("admin_database_url", "database_url")}


def _name_of(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    return str(alias) if alias else f"SCHEDULER_{field.upper()}"


def _field_of(loc: str) -> str:
    """Pydantic names a field that has an alias by its alias."""
    return next((field for field in Settings.model_fields if loc in (field, _name_of(field))), loc)


def _is_stray(name: str) -> bool:
    return (
        name.upper().startswith("SCHEDULER_")  # pydantic takes lower case as well
        and not name.startswith("SCHEDULER_TEST_")  # for the tests, which run beside real settings
        and name not in map(_name_of, Settings.model_fields)
    )


def _unknown_name(name: str) -> str:
    # Without their prefix, which makes any two of them look alike.
    known = [_name_of(field).removeprefix("SCHEDULER_") for field in Settings.model_fields]
    near = difflib.get_close_matches(name.upper().removeprefix("SCHEDULER_"), known, n=1)
    mend = f"did you mean SCHEDULER_{near[0]}?" if near else "remove it, or see the settings in the README."
    return f"{name} is not a setting of this version; {mend}"
