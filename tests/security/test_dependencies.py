"""What is installed to serve: listed, pinned, and nothing that came along unseen.

For known holes there is pip-audit, whose data is not to be had everywhere: SECURITY.md has the command.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = "scenario-scheduler"


def required_by(name: str, extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    """What a distribution that is installed asks for here."""
    for line in requires(name) or ():
        requirement = Requirement(line)
        markers = [{"extra": extra} for extra in (*extras, "")]
        if requirement.marker is None or any(requirement.marker.evaluate(each) for each in markers):
            yield requirement


def needed_to_serve() -> set[str]:
    """All of it, with what that needs in turn, by its normalised name."""
    found: dict[str, frozenset[str]] = {}
    waiting = list(required_by(PROJECT))
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name in found and extras <= found[name]:
            continue
        found[name] = found.get(name, frozenset()) | extras
        waiting += required_by(name, extras)
    return set(found)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pairs}


def is_as_reviewed() -> bool:
    """Whether this is what constraints.txt pins; what came out since may need what nobody has looked at."""
    try:
        direct = [canonicalize_name(each.name) for each in required_by(PROJECT)]
        return all(version(name) == pins().get(name) for name in direct)
    except PackageNotFoundError:
        return False


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="reviewed for Python 3.11: others need other packages"
)
def test_what_is_installed_to_serve_is_listed() -> None:
    table = (ROOT / "SECURITY.md").read_text("utf-8").partition("| for | packages |")[2].partition("\n\n")[0]
    listed = re.sub(r"\(.*?\)", "", table)
    reviewed = {
        canonicalize_name(name)
        for row in listed.splitlines()[2:]
        for name in re.split("[ ,]+", row.split("|")[2])
        if name
    }
    assert reviewed <= pins().keys()
    if is_as_reviewed():
        assert needed_to_serve() == reviewed


def test_whatever_is_needed_to_serve_is_pinned_to_one_version_that_the_project_takes() -> None:
    pinned = pins()
    if is_as_reviewed():
        assert needed_to_serve() - pinned.keys() == set()
    for requirement in required_by(PROJECT):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_every_line_of_the_constraints_pins_one_version() -> None:
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.!+]+", line), line
