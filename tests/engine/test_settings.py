"""Settings: a wrong value stops the start with one sentence per fault, all faults at once."""

from __future__ import annotations

import os
from typing import Any

import pytest
from pydantic import SecretStr

from engine.errors import ConfigurationError
from engine.settings import leads_to_this_machine, load_settings

SECRET = "0f" * 32
DATABASE = "postgresql://service:word@db.example/app"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SCHEDULER_") or name in ("DATABASE_URL", "PG_BIN_DIR"):
            monkeypatch.delenv(name)


def faults(*required: str, **given: object) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(*required, **given)  # type: ignore[arg-type]
    for fault in caught.value.faults:
        assert fault.endswith((".", "?"))
    return caught.value.faults


def test_settings_have_the_documented_defaults() -> None:
    settings = load_settings()
    assert settings.bind == "127.0.0.1:8000"
    assert settings.trigger_engine == "in-database"
    assert settings.transport == "direct"
    assert (settings.mentor_source, settings.mentors_over_rest) == ("postgres", False)
    assert settings.max_concurrency == 10
    assert (settings.mentors_per_page, settings.mentors_per_chunk) == (2_000, 2_000)
    assert (settings.soft_threshold, settings.hard_deadline, settings.platform_limit) == (25.0, 28.0, 30.0)
    assert settings.invocation_timeout == 5.0
    assert settings.freshness_limit == 900.0
    assert settings.eligible_assignment_statuses == ("active",)
    assert settings.database_pooler == "session"
    assert (settings.fleet, settings.fleet_is_in_process, settings.fleet_is_remote) == (None, False, False)
    assert (settings.fleet_name, settings.fleet_replicas) == ("scheduler", 1)
    assert (settings.fleet_shards, settings.fleet_shards_at_once, settings.concurrency_per_shard) == (
        32,
        5,
        2,
    )


def test_over_http_a_page_is_100_and_a_chunk_one_mentor() -> None:
    settings = load_settings(trigger_engine="https://engine.example/functions/v1/evaluate")
    assert (settings.mentors_per_page, settings.mentors_per_chunk) == (100, 1)


def test_a_chunk_larger_than_the_default_page_makes_the_page_as_large() -> None:
    settings = load_settings(trigger_engine="https://engine.example/", mentors_per_invocation=250)
    assert (settings.mentors_per_page, settings.mentors_per_chunk) == (250, 250)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    monkeypatch.setenv("SCHEDULER_SECRET", SECRET)
    monkeypatch.setenv("SCHEDULER_PAGE_SIZE", "500")
    monkeypatch.setenv("SCHEDULER_ELIGIBLE_ASSIGNMENT_STATUSES", "active, on leave ,")
    monkeypatch.setenv("SCHEDULER_FLEET_REPLICAS", "3")
    settings = load_settings("database_url", "secret")
    assert settings.page_size == 500
    assert settings.fleet_replicas == 3
    assert settings.eligible_assignment_statuses == ("active", "on leave")
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == DATABASE


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(
        database_url=DATABASE,
        secret=SECRET,
        service_role_key="hush-hush",
        operator_token="psst" * 8,
        fleet="nats://127.0.0.1:4222",
        fleet_user="worker",
        fleet_password="open-sesame",
    )
    for hidden in (SECRET, "hush-hush", "psst", ":word", "open-sesame"):
        assert hidden not in repr(settings)
        assert hidden not in str(settings)


def test_all_faults_are_said_at_once_and_no_value_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_SECRET", "tooshort")
    monkeypatch.setenv("SCHEDULER_MAX_CONCURRENCY", "many")
    monkeypatch.setenv("SCHEDULER_BIND", "nowhere")
    monkeypatch.setenv("SCHEDULER_PAGESIZE", "100")
    found = faults("database_url", "secret")
    assert [fault.split()[0] for fault in sorted(found)] == [
        "DATABASE_URL",
        "SCHEDULER_BIND",
        "SCHEDULER_MAX_CONCURRENCY",
        "SCHEDULER_PAGESIZE",
        "SCHEDULER_SECRET",
    ]
    assert "tooshort" not in "".join(found)


@pytest.mark.parametrize("name", ["SCHEDULER_DATABASE_URL", "SCHEDULER_PG_BIN_DIR", "scheduler_secret"])
def test_no_setting_has_a_second_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    assert faults()[0].startswith(f"{name} is not a setting of this version;")


def test_what_is_like_no_setting_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_WEATHER", "x")
    assert "did you mean" not in faults()[0]


def test_a_setting_misspelt_is_refused_with_the_one_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_PAGESIZE", "100")
    [fault] = faults()
    assert fault == "SCHEDULER_PAGESIZE is not a setting of this version; did you mean SCHEDULER_PAGE_SIZE?"


def test_settings_of_the_tests_themselves_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_TEST_REQUIRE", "all")
    load_settings()


@pytest.mark.parametrize("secret", [None, "", "f" * 31, "g" * 64, "f" * 32 + " "])
def test_a_start_without_a_secret_of_32_hex_digits_is_refused_and_says_how_to_make_one(
    secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if secret is not None:
        monkeypatch.setenv("SCHEDULER_SECRET", secret)
    [fault] = faults("secret")
    assert "`scenario-scheduler secret`" in fault


def test_a_second_secret_is_held_to_the_same() -> None:
    [fault] = faults(secret_next="short")
    assert fault.startswith("SCHEDULER_SECRET_NEXT ")


@pytest.mark.parametrize(
    "url",
    [
        "https://engine.example/",
        "https://engine.example:8443/path?x=1",
        "http://127.0.0.1:9000/",
        "http://localhost/evaluate",
        "http://[::1]:9000/",
    ],
)
def test_a_trigger_engine_is_https_or_http_to_this_machine(url: str) -> None:
    assert load_settings(trigger_engine=url).over_http


WRONG_URLS = [
    "http://engine.example/",
    "http://10.0.0.1/",
    "ftp://engine.example/",
    "engine.example",
    "https://user:word@engine.example/",
    "http://localhost:x@evil.example/",
    "http://localhost@evil.example/",
    "http://localhost.evil.example/",
    "https://",
    "https://engine.example:port/",
    "https://engine.example/\r\nX-Evil: 1",
    "https://engine.example/a b",
    "https://engine.example\\@evil.example/",
    "https://engine.example/#fragment",
    "https://engine.example/\U0001f600",
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_any_other_trigger_engine_is_refused(url: str) -> None:
    [fault] = faults(trigger_engine=url)
    assert fault.startswith("SCHEDULER_TRIGGER_ENGINE ")
    assert "word" not in fault


@pytest.mark.parametrize(
    "url", ["https://project.supabase.co/rest/v1", "https://a.example:8443/", "http://127.0.0.1:3000"]
)
def test_mentors_come_from_a_rest_api_that_is_https_or_http_to_this_machine(url: str) -> None:
    settings = load_settings(mentor_source=url, service_role_key="key")
    assert (settings.mentor_source, settings.mentors_over_rest) == (url, True)


@pytest.mark.parametrize("url", [*WRONG_URLS, "Postgres", "rest", "https://a.example/?apikey=word"])
def test_any_other_mentor_source_is_refused(url: str) -> None:
    [fault] = faults(mentor_source=url, service_role_key="key")
    assert fault.startswith("SCHEDULER_MENTOR_SOURCE must be `postgres`, or ")
    assert "word" not in fault


def test_a_rest_api_without_a_key_is_refused() -> None:
    [fault] = faults(mentor_source="https://project.supabase.co/rest/v1")
    assert "set SCHEDULER_SERVICE_ROLE_KEY " in fault
    load_settings(mentor_source="postgres")


@pytest.mark.parametrize(
    ("soft", "hard", "limit"),
    [(28.0, 28.0, 30.0), (25.0, 30.0, 30.0), (29.0, 28.0, 30.0), (25.0, 28.0, 27.0)],
)
def test_the_budget_must_rise(soft: float, hard: float, limit: float) -> None:
    [fault] = faults(soft_threshold=soft, hard_deadline=hard, platform_limit=limit)
    assert "must rise" in fault


@pytest.mark.parametrize(
    "name", ["soft_threshold", "invocation_timeout", "freshness_limit", "max_concurrency", "page_size"]
)
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9"])
def test_numbers_without_sense_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SCHEDULER_{name.upper()}", value)
    found = faults()
    assert f"SCHEDULER_{name.upper()}" in found[0]


def test_freshness_may_be_a_matter_of_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_FRESHNESS_LIMIT", "2592000")
    assert load_settings().freshness_limit == 30 * 86_400.0


def test_a_chunk_can_not_be_larger_than_a_page() -> None:
    [fault] = faults(page_size=100, mentors_per_invocation=101)
    assert "SCHEDULER_PAGE_SIZE" in fault


@pytest.mark.parametrize(
    "bind", ["8000", "127.0.0.1", "127.0.0.1:65536", "::1:8000", "http://127.0.0.1:80", ":80"]
)
def test_a_bind_that_is_no_address_and_port_is_refused(bind: str) -> None:
    [fault] = faults(bind=bind)
    assert fault.startswith("SCHEDULER_BIND ")


def test_the_administrator_logs_in_as_the_service_does_where_there_is_no_other_url() -> None:
    administrator = "postgresql://postgres:word@db.example/app"
    alone = load_settings("administrator_url", database_url=DATABASE)
    both = load_settings("administrator_url", database_url=DATABASE, admin_database_url=administrator)
    only = load_settings("administrator_url", admin_database_url=administrator)
    urls = [settings.administrator_url for settings in (alone, both, only)]
    assert [url and url.get_secret_value() for url in urls] == [DATABASE, administrator, administrator]
    [fault] = faults("administrator_url")
    assert fault.startswith("Neither SCHEDULER_ADMIN_DATABASE_URL nor DATABASE_URL is set;")
    [fault] = faults("administrator_url", admin_database_url="mysql://host/db")
    assert fault.startswith("SCHEDULER_ADMIN_DATABASE_URL must")


@pytest.mark.parametrize("url", ["mysql://host/db", "host=/tmp", "sqlite:///x"])
def test_a_database_that_is_not_postgres_is_refused(url: str) -> None:
    [fault] = faults(database_url=url)
    assert fault.startswith("DATABASE_URL ")


def test_the_services_own_trigger_engine_is_known_by_its_address() -> None:
    own = load_settings(trigger_engine="http://127.0.0.1:8000/trigger-engine", service_role_key="key")
    other = load_settings(trigger_engine="http://127.0.0.1:8001/trigger-engine", service_role_key="key")
    assert (own.trigger_engine_is_built_in, own.dry_run_supported) == (True, True)
    assert (other.trigger_engine_is_built_in, other.dry_run_supported) == (False, False)


@pytest.mark.parametrize(
    ("bind", "host", "built_in"),
    [
        ("127.0.0.1:8000", "localhost", True),
        ("0.0.0.0:8000", "127.0.0.1", True),
        ("[::]:8000", "[::1]", True),
        ("[::1]:8000", "[::1]", True),
        ("127.0.0.1:8000", "[::1]", False),
        ("[::1]:8000", "127.0.0.1", False),
        ("127.0.0.1:8001", "127.0.0.1", False),
    ],
)
def test_the_services_own_trigger_engine_is_where_it_listens(bind: str, host: str, built_in: bool) -> None:
    url = f"http://{host}:8000/trigger-engine"
    assert (
        load_settings(bind=bind, trigger_engine=url, service_role_key="key").trigger_engine_is_built_in
        is built_in
    )


def test_the_services_own_trigger_engine_without_a_key_is_refused() -> None:
    [fault] = faults(trigger_engine="http://127.0.0.1:8000/trigger-engine")
    assert "SCHEDULER_SERVICE_ROLE_KEY" in fault


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_can_not_travel_in_a_header_is_refused(key: str) -> None:
    [fault] = faults(service_role_key=key)
    assert fault.startswith("SCHEDULER_SERVICE_ROLE_KEY ")


@pytest.mark.parametrize("token", ["t" * 31, "t" * 31 + " ", "t" * 31 + "\n", "ü" * 32, "two words" * 8])
def test_an_operator_token_of_less_than_32_printable_characters_is_refused_and_says_how_to_make_one(
    token: str,
) -> None:
    [fault] = faults(operator_token=token)
    assert fault.startswith("SCHEDULER_OPERATOR_TOKEN ")
    assert "`scenario-scheduler secret`" in fault
    assert token.strip() not in fault


@pytest.mark.parametrize("token", ["t" * 32, SECRET, "~!" * 16])
def test_an_operator_token_of_32_printable_characters_is_taken(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().operator_token is None
    monkeypatch.setenv("SCHEDULER_OPERATOR_TOKEN", token)
    given = load_settings().operator_token
    assert given is not None
    assert given.get_secret_value() == token


@pytest.mark.parametrize(
    "proxy", ["proxy.example:3128", "socks5://proxy.example", "http://", "http://host:x"]
)
def test_a_proxy_that_is_no_url_of_an_http_proxy_is_refused(proxy: str) -> None:
    [fault] = faults(proxy=proxy, transport="httpx")
    assert fault.startswith("SCHEDULER_PROXY ")


def test_a_proxy_needs_the_transport_that_knows_one_and_somewhere_to_go() -> None:
    proxy, engine = "http://user:word@proxy.example:3128", "https://engine.example/"
    load_settings(proxy=proxy, transport="httpx", trigger_engine=engine)
    for given in ({"transport": "httpx"}, {"trigger_engine": engine}):
        [fault] = faults(proxy=proxy, **given)
        assert "SCHEDULER_TRANSPORT=httpx" in fault
        assert "word" not in fault


def test_faults_between_settings_are_said_with_all_the_others() -> None:
    found = faults(
        "database_url",
        bind="nowhere",
        soft_threshold=30.0,
        page_size=10,
        mentors_per_invocation=20,
        proxy="http://proxy.example",
    )
    assert [fault.split()[0] for fault in found] == [
        "SCHEDULER_BIND",
        "SCHEDULER_SOFT_THRESHOLD,",
        "SCHEDULER_MENTORS_PER_INVOCATION",
        "SCHEDULER_PROXY",
        "DATABASE_URL",
    ]


def test_a_fault_of_a_setting_is_not_said_twice_as_one_between_settings() -> None:
    [fault] = faults(hard_deadline="soon", soft_threshold=29.0)
    assert fault.startswith("SCHEDULER_HARD_DEADLINE ")


@pytest.mark.parametrize("password", ["a#b", "a/b", "a?b", "hunter2\uff03x"])
def test_a_password_that_breaks_its_url_is_refused_and_not_quoted(password: str) -> None:
    [fault] = faults(database_url=f"postgresql://user:{password}@127.0.0.1/db")
    assert "percent-encode" in fault
    assert password not in fault


def test_a_dry_run_needs_an_engine_that_honours_it() -> None:
    assert load_settings().dry_run_supported
    assert not load_settings(trigger_engine="https://engine.example/").dry_run_supported
    assert load_settings(
        trigger_engine="https://engine.example/", trigger_engine_dry_run=True
    ).dry_run_supported


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("postgresql:///name", True),
        ("postgresql://app:pw@/name?host=/var/run", True),
        ("postgresql://app@localhost:5432/name", True),
        ("postgresql://[::1]:5432/name", True),
        ("postgresql://%2Fvar%2Frun/name", True),
        ("postgresql:///name?host=127.0.0.1:5432", True),
        ("postgresql://db.example/name", False),
        ("postgresql:///name?host=db.example", False),
        ("postgresql:///name?host=localhost,db.example", False),
        ("postgresql://localhost,db.example:5432/name", False),
        ("postgresql://[2001:db8::1]/name", False),
    ],
)
def test_whether_a_database_is_on_this_machine(
    url: str, is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    assert leads_to_this_machine(SecretStr(url)) is is_here


def test_a_database_of_which_the_environment_names_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    assert not leads_to_this_machine(SecretStr("postgresql:///name"))
    assert leads_to_this_machine(SecretStr("postgresql://localhost/name"))


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1:4222",
        "nats://localhost",
        "nats://[::1]:4222",
        "tls://nats.example",
        "tls://nats-1.example:4222,tls://nats-2.example:4222,nats://127.0.0.1:1",
    ],
)
def test_a_fleet_is_reached_over_tls_or_on_this_machine(url: str) -> None:
    settings = load_settings(fleet=url)
    assert (settings.fleet, settings.fleet_is_remote, settings.fleet_is_in_process) == (url, True, False)


def test_a_fleet_may_be_within_the_process() -> None:
    settings = load_settings(fleet="in-process")
    assert (settings.fleet_is_remote, settings.fleet_is_in_process) == (False, True)


@pytest.mark.parametrize(
    "url",
    [
        "nats://nats.example:4222",
        "nats://10.0.0.1",
        "https://nats.example",
        "tls://user:word@nats.example",
        "tls://nats.example/path",
        "tls://nats.example?tls=no",
        "tls://nats.example:port",
        "tls://",
        "nats.example:4222",
        "tls://a.example,",
        "tls://a.example, tls://b.example",
        "tls://a.example,nats://b.example",
        "in process",
    ],
)
def test_any_other_fleet_is_refused(url: str) -> None:
    [fault] = faults(fleet=url)
    assert fault.startswith("SCHEDULER_FLEET must be `in-process`, or URLs ")
    assert "word" not in fault


def test_each_shard_has_an_invocation_at_least() -> None:
    [fault] = faults(fleet="in-process", fleet_shards_at_once=11)
    assert fault.startswith("SCHEDULER_FLEET_SHARDS_AT_ONCE is 11, more than the 10 of ")
    load_settings(fleet_shards_at_once=11)  # without a fleet it says nothing
    load_settings(fleet="in-process", max_concurrency=3, coordinates=False)  # and to a worker neither
    assert load_settings(fleet_shards_at_once=11, max_concurrency=25).concurrency_per_shard == 2


def test_shards_end_before_their_run() -> None:
    [fault] = faults(fleet="in-process", soft_threshold=27.5)
    assert "with SCHEDULER_FLEET they must lie 1.6 s apart" in fault
    load_settings(soft_threshold=27.5)
    load_settings(fleet="in-process", soft_threshold=27.5, coordinates=False)
    load_settings(fleet="in-process", soft_threshold=26.4)


def test_a_fleets_user_and_password_belong_together() -> None:
    fleet = "tls://nats.example"
    for only in ({"fleet_user": "worker"}, {"fleet_password": "word"}):
        [fault] = faults(fleet=fleet, **only)
        assert fault.startswith("Of SCHEDULER_FLEET_USER and SCHEDULER_FLEET_PASSWORD only one is set")
    load_settings(fleet=fleet, fleet_user="worker", fleet_password="word")


@pytest.mark.parametrize("fleet", [None, "in-process"])
def test_what_belongs_to_a_fleet_elsewhere_is_refused_without_one(fleet: str | None) -> None:
    [fault] = faults(fleet=fleet, fleet_ca="/etc/ca.pem")
    assert fault.startswith("SCHEDULER_FLEET_CA is set, but SCHEDULER_FLEET is no URL")
    [fault] = faults(fleet=fleet, fleet_user="worker", fleet_password="word")
    assert fault.startswith("SCHEDULER_FLEET_USER is set, but SCHEDULER_FLEET is no URL")


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", "a" * 33])
def test_the_name_of_a_fleet_can_be_part_of_a_subject(name: str) -> None:
    [fault] = faults(fleet_name=name)
    assert fault.startswith("SCHEDULER_FLEET_NAME ")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"fleet_replicas": 2}, "SCHEDULER_FLEET_REPLICAS must be 1, 3 or 5"),
        ({"fleet_user": "a.b", "fleet_password": "x"}, "SCHEDULER_FLEET_USER"),
        ({"fleet_user": "*", "fleet_password": "x"}, "SCHEDULER_FLEET_USER"),
    ],
)
def test_a_fleet_that_can_not_be_is_said(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        load_settings(fleet="nats://127.0.0.1:4222", **given)
