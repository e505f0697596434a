"""What an error comes from: a process without a file descriptor, and nothing that merely lay around it."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from engine.out_of_files import is_out_of_files

OUT = OSError(errno.EMFILE, "Too many open files")


def raised(how: Callable[[], None]) -> BaseException:
    try:
        how()
    except BaseException as error:
        return error
    raise AssertionError


def from_it() -> None:
    raise ValueError from OUT


def amid_it() -> None:
    try:
        raise OUT
    except OSError:
        raise ValueError  # noqa: B904 - that is what is looked at


def beside_it() -> None:
    try:
        raise OUT
    except OSError:
        raise ValueError from None


def from_something_else_amid_it() -> None:
    try:
        raise OUT
    except OSError:
        raise ValueError from KeyError()


def about_it() -> None:
    raise ValueError(OUT) from None


def in_a_group() -> None:
    raise ValueError from ExceptionGroup("both", [KeyError(), raised(from_it)])  # type: ignore[list-item]


@pytest.mark.parametrize("how", [from_it, amid_it, about_it, in_a_group])
def test_an_error_that_comes_from_it_is_known_however_it_was_wrapped(how: Callable[[], None]) -> None:
    assert is_out_of_files(raised(how))
    assert is_out_of_files(OSError(errno.ENFILE, "of the machine"))


@pytest.mark.parametrize("how", [beside_it, from_something_else_amid_it])
def test_an_error_that_says_it_has_nothing_to_do_with_it_is_not_blamed_on_it(how: Callable[[], None]) -> None:
    assert not is_out_of_files(raised(how))
    assert not is_out_of_files(OSError(errno.ECONNREFUSED, "nobody there"))


class CountingError(Exception):
    """Counts how often it is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> object:
        if name == "__cause__":
            CountingError.looks += 1
        return super().__getattribute__(name)


def test_each_error_is_looked_at_once_also_where_it_is_cause_and_context_of_the_next() -> None:
    error = CountingError()
    for _ in range(30):
        following = CountingError()
        following.__context__ = following.__cause__ = error
        error = following
    CountingError.looks = 0
    assert not is_out_of_files(ExceptionGroup("twice", [error, error]))
    assert CountingError.looks == 31


def test_errors_that_lead_in_a_circle_are_looked_at_once() -> None:
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert not is_out_of_files(one)
