"""Settings from whatever the environment says: never a traceback, never a secret's value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Settings
from engine.settings import _name_of
from tests.hostile.counting import counted, tries
from tests.hostile.environments import CANARY, SECRET_NAMES, check_environment

NAMES = [_name_of(field) for field in Settings.model_fields]

# What an environment can hold: bytes that are no UTF-8 come as surrogates, and NUL can't be.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
texts |= st.binary(max_size=8).map(lambda value: value.replace(b"\0", b"").decode("utf-8", "surrogateescape"))

words = st.sampled_from(
    [
        *(
            "",
            " ",
            "0",
            "1",
            "-1",
            "25",
            "1e3",
            "1e400",
            "nan",
            "inf",
            "٣",
            "0x10",
            "1_000",
            "true",
            "yes",
            "null",
        ),
        *(
            "in-database",
            "postgres",
            "session",
            "transaction",
            "direct",
            "httpx",
            "asks",
            "active",
            ",",
            "a,,b",
            "[]",
        ),
        *(
            "127.0.0.1:8000",
            "[::1]:8000",
            ":8000",
            "x:99999",
            "0.0.0.0:0",
            "[::1",
            "127.0.0.1:٣",
            "localhost:1\n",
        ),
        *(
            "https://h/p",
            "http://127.0.0.1:8000/trigger-engine",
            "http://localhost:99999/",
            "https://[::1",
            "http://h",
        ),
        *(
            "https://u:p@h/",
            "https://h/#f",
            "https://h\\@e/",
            "https://h/\x7f",
            "https://\uff45vil/",
            "file:///etc/passwd",
        ),
        *(
            "http://127.0.0.1@evil/",
            "http://[::ffff:127.0.0.1]/",
            "https://h:0/",
            "https://h:/",
            "https:///p",
            "//h",
        ),
        *(
            "postgresql://",
            "postgresql://h/d?host=/x",
            "postgresql://a,b:1/d",
            "postgres://u:%zz@h/d",
            "postgresql://[/",
        ),
        *(
            "in-process",
            "nats://127.0.0.1:4222",
            "nats://h",
            "tls://h:4222,tls://[::1]",
            "tls://u:p@h",
            "tls://h/p",
            "tls://h,",
            "/nowhere.pem",
        ),
    ]
)
around = st.sampled_from(
    ["", "postgresql://u:", "postgresql://u:[", "http://u:", "https://h/?", " ", "[", "\n"]
)
behind = st.sampled_from(["", "@h/d", "@[h/d", "@h:port/d", "@h:3128", "/", " ", "\n", "]", "\udcff", "é"])
with_canary = st.builds(lambda a, b, c: f"{a}{CANARY}{b}{c}", around, behind, texts)


def value_of(name: str) -> st.SearchStrategy[str]:
    return with_canary if name in SECRET_NAMES else words | texts


entries = st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), value_of(name)))
strangers = st.tuples(
    st.sampled_from(["SCHEDULER_", "scheduler_secret", "SCHEDULER_SECRT", "SCHEDULER_X", "SCHEDULER_TEST_X"]),
    texts,
)
environments = st.lists(entries | entries | entries | strangers, max_size=8).map(dict)
RIGHT = {"DATABASE_URL": f"postgresql://u:{CANARY}@127.0.0.1/d", "SCHEDULER_SECRET": CANARY}


@tries(800)
@given(environments, st.booleans())
@counted("environments")
def test_whatever_is_set_is_taken_or_a_sentence_for_each_fault_and_no_secret(
    values: dict[str, str], otherwise_right: bool
) -> None:
    check_environment(RIGHT | values if otherwise_right else values)


@pytest.mark.parametrize("name", NAMES)
@tries(25)
@given(value=words | texts)
@counted("environments")
def test_one_setting_gone_wrong_is_taken_or_named(name: str, value: str) -> None:
    check_environment(RIGHT | {name: value})


def test_every_setting_that_is_a_secret_is_among_those_that_are_searched_for() -> None:
    secret = {
        _name_of(name) for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)
    }
    assert secret == set(SECRET_NAMES)


def test_what_is_right_is_taken() -> None:
    assert check_environment(RIGHT) is not None
