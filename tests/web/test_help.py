"""`--help` of every command: whole, in one style, and its examples can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from web.cli import commands


def every_command(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from every_command(inner, *path, name)


PATHS = list(every_command(commands))
every_one = pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path) or "by itself")


def help_of(path: tuple[str, ...]) -> str:
    result = CliRunner().invoke(commands, [*path, "--help"], prog_name="scenario-scheduler")
    assert result.exit_code == 0
    return result.output


def examples_in(text: str) -> list[list[str]]:
    """What is to be typed after the program's name, up to a pipe or a redirection."""
    examples = []
    for line in text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines():
        words = [word for word in shlex.split(line) if not word.startswith("SCHEDULER_BIND=")]
        end = next((index for index, word in enumerate(words) if word in ("|", ">")), len(words))
        assert words[0] == "scenario-scheduler"
        examples.append(words[1:end])
    return examples


def parse(arguments: list[str]) -> list[str]:
    """As the command line would, without doing it. Returns the path of the command."""
    command: click.Command = commands
    context = click.Context(commands)
    path = []
    while isinstance(command, click.Group):
        name, inner, arguments = command.resolve_command(context, arguments)
        assert inner is not None
        path.append(str(name))
        command = inner
    command.make_context(path[-1], arguments, parent=context)
    return path


def test_there_are_all_commands_of_the_contract() -> None:
    assert {" ".join(path) for path in PATHS} >= {
        "demo",
        "serve",
        "run",
        "migrate",
        "seed",
        "secret",
        "cron install",
        "cron status",
        "cron remove",
        "doctor",
        "explain",
        "runs",
    }


@every_one
def test_help_begins_with_a_sentence_that_a_list_of_commands_shows_whole(path: tuple[str, ...]) -> None:
    text = help_of(path)
    assert text.splitlines()[2].strip()
    assert "..." not in text.partition("Commands:")[2]
    for line in text.partition("Commands:\n")[2].splitlines():
        assert line.endswith((".", "?"))


@every_one
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command: click.Command = commands
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").endswith("."), parameter.name
            assert parameter.is_flag or parameter.metavar, parameter.name


@every_one
def test_the_examples_can_be_typed(path: tuple[str, ...]) -> None:
    examples = examples_in(help_of(path))
    assert examples
    for arguments in examples:
        assert tuple(parse(arguments))[: len(path)] == path
