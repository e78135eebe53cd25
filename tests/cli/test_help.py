"""The help of every command: at 80 columns, with names in full."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_deploy.commandline import RENAMED, SHORT, examples


def commands() -> Iterator[tuple[str, Any]]:
    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for child, below in command.commands.items():
                yield from walk(f"{name} {child}".strip(), below)
        else:
            yield name, command

    yield from walk("", typer.main.get_command(app))


ALL = dict(commands())


def shown(name: str, flag: str = "--help") -> str:
    done = CliRunner().invoke(app, [*name.split(), flag], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def options(name: str) -> list[Any]:
    return [param for param in ALL[name].params if param.param_type_name == "option"]


def entry(param: Any, text: str) -> str:
    """What follows an option's names in the help."""
    names = ", ".join(sorted(param.opts, key=lambda name: len(name) > 2))
    (rest,) = re.findall(rf"(?m)^  {re.escape(names)}(?![-\w])(.*)$", text)
    return str(rest)


@pytest.mark.parametrize("name", ALL)
def test_names_stand_in_full_within_80_columns(name: str) -> None:
    text = shown(name)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "…" not in text
    for param in options(name):
        entry(param, text)


@pytest.mark.parametrize("name", ALL)
def test_a_flag_shows_no_value_and_an_option_does(name: str) -> None:
    text = shown(name)
    for param in options(name):
        flag = param.is_flag or param.count
        assert bool(re.match(r" [A-Za-z]", entry(param, text))) is not flag, param.name


@pytest.mark.parametrize("name", ALL)
def test_two_examples_end_the_help_and_are_command_lines(name: str) -> None:
    lines = examples(ALL[name])
    assert len(lines) == 2
    assert shown(name).rstrip().splitlines()[-2:] == [f"  {line}" for line in lines]
    for line in lines:
        words = shlex.split(line)
        assert words[: 1 + len(name.split())] == ["sa-deploy", *name.split()]
        ALL[name].make_context(name, words[1 + len(name.split()) :])  # an error is raised


@pytest.mark.parametrize("name", ALL)
def test_every_line_is_a_sentence_and_says_what_holds_without_the_option(name: str) -> None:
    for param in ALL[name].params:
        text = param.help or ""
        assert re.match(r"[A-Z][^.]", text), (param.name, text)
        assert text.endswith("."), (param.name, text)
        assert len(text.split()) > 3, (param.name, text)
        assert not re.match(r"(Of|As|And|Likewise|Through) ", text), (param.name, text)
        takes_one = param.nargs == 1 and not param.multiple and not getattr(param, "is_flag", False)
        if takes_one and param.default is None and not param.required:
            assert re.search(r"default|without|same|as --", text), (param.name, text)


@pytest.mark.parametrize("name", ["", "train", "data", "data check"])
def test_h_is_help(name: str) -> None:
    assert shown(name, "-h") == shown(name)


def test_an_option_has_one_short_name_in_every_command() -> None:
    for name in ALL:
        for param in options(name):
            for long in set(param.opts) & SHORT.keys():
                assert SHORT[long] in param.opts, f"{name} {long}"


@pytest.mark.parametrize(
    ("command", "former", "name"),
    [(command, *names) for command, renamed in RENAMED.items() for names in renamed.items()],
)
@pytest.mark.parametrize("joined", [False, True])
def test_a_former_name_works_and_says_the_present_one(
    command: str, former: str, name: str, joined: bool
) -> None:
    assert name in {long for param in options(command) for long in param.opts}
    words = [f"{former}=7"] if joined else [former, "7"]
    for quiet in ([], ["-q"]):
        done = CliRunner().invoke(app, [command, "absent.onnx", *words, *quiet, "--log-json"])
        assert done.exit_code, done.output
        assert (f"{former} is called {name} now" in done.output) == (not quiet)
        assert "No such option" not in done.output
