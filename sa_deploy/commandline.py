"""How every command is made: its help, and the options that all of them share.

The help is plain text of the width of the terminal, at most 80 columns: names are never cut, a
flag shows no value. The lines below ``Examples:`` in the docstring of a command end its help.
"""

from __future__ import annotations

import logging
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import TextWrapper
from typing import Any, Literal, Protocol

import typer
import typer.core

from sa_deploy.logs import LogOptions, configure, with_log_options

_log = logging.getLogger("sa_deploy")
_EXAMPLES = "\nExamples:\n"
_NAMES_WIDTH = 26
"""Widest column of names; the help of a longer one begins on the next line."""
_REGISTERED = re.compile(r"\{(sa_deploy\.\w+)\}")
"""Where a help line names what installed packages register."""
_JOINED = "\N{NO-BREAK SPACE}"
_METAVARS = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}
SHORT = {"--out": "-o", "--dataset": "-d", "--batch-size": "-b", "--arch": "-a", "--workers": "-j"}
"""The short name that an option has in every command."""
RENAMED = {
    "bench": {"--plot": "--picture"},
    "export": {"--batch": "--batch-size"},
}
"""Former names of a command's options, which keep working, and what they are called now."""


class Formatter(Protocol):
    """What is used of typer's formatter, whose own name is private."""

    width: int

    def write(self, string: str) -> None:
        """Append text as it is."""

    def section(self, name: str) -> AbstractContextManager[None]:
        """A heading; what follows is indented."""


def make_app(
    help_text: str | None = None, cls: type[typer.core.TyperGroup] | None = None
) -> typer.Typer:
    """A typer application with this project's help; ``help_text`` makes it a group."""
    return typer.Typer(
        cls=cls or HelpGroup,
        help=help_text,
        no_args_is_help=help_text is not None,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def add_command(app: typer.Typer, name: str, function: Callable[..., None]) -> None:
    """Add a function as a command that also takes ``-v``, ``-q`` and ``--log-json``."""
    app.command(name, cls=HelpCommand)(with_log_options(function))


def examples(command: Any) -> list[str]:
    """The command lines that end a command's help."""
    _, _, lines = (command.help or "").partition(_EXAMPLES)
    return [line.strip() for line in lines.splitlines() if line.strip()]


class HelpCommand(typer.core.TyperCommand):
    """A command whose help shows names in full, grouped by panel."""

    def __init__(self, *, name: str | None, **settings: Any) -> None:
        super().__init__(name=name, **settings)
        self._renamed = RENAMED.get(name or "", {})
        for param in self.params:
            shorts = {SHORT[long] for long in param.opts if long in SHORT}
            param.opts[:0] = shorts - set(param.opts)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments of the line; of former names the present ones are said."""
        return super().parse_args(ctx, [self._present(word, args) for word in args])

    def _present(self, word: str, args: Sequence[str]) -> str:
        former, equals, value = word.partition("=")
        if former not in self._renamed:
            return word
        name = self._renamed[former]
        quiet = not {"-q", "--quiet"}.isdisjoint(args)
        configure(LogOptions(quiet=quiet, as_json="--log-json" in args))
        _log.info("%s is called %s now", former, name)
        return name + equals + value

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments and required options by name."""
        return [*_usage(self, ctx), "[OPTIONS]"]

    def format_help_text(self, ctx: Any, formatter: Formatter) -> None:
        """The docstring without its examples."""
        _write_text(self, formatter)

    def format_options(self, ctx: Any, formatter: Formatter) -> None:
        """Arguments and options by panel."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Formatter) -> None:
        """The examples."""
        if lines := examples(self):
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in lines))


class HelpGroup(typer.core.TyperGroup):
    """A group with the same help, which lists its commands."""

    def format_help_text(self, ctx: Any, formatter: Formatter) -> None:
        """The docstring."""
        _write_text(self, formatter)

    def format_options(self, ctx: Any, formatter: Formatter) -> None:
        """Options and commands."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Formatter) -> None:
        """Every command with the first line of its help."""
        with formatter.section("Commands"):
            _write_columns(self.command_lines(), formatter)

    def command_lines(self) -> list[tuple[str, str]]:
        """Name and line of every command."""
        return [(name, (one.help or "").split("\n")[0]) for name, one in self.commands.items()]


def _usage(command: Any, ctx: Any) -> Iterator[str]:
    for param in command.get_params(ctx):
        if param.param_type_name == "argument":
            yield _argument_name(param)
        elif param.required:
            yield f"{_long(param.opts)} {_metavar(command, param)}"


def _long(names: Sequence[str]) -> str:
    return next((name for name in names if name.startswith("--")), names[0])


def _argument_name(param: Any) -> str:
    name = (param.metavar or param.name).upper()
    name += "" if param.nargs == 1 else "..."
    return name if param.required else f"[{name}]"


def _write_text(command: Any, formatter: Formatter) -> None:
    text = (command.help or "").partition(_EXAMPLES)[0].strip()
    for paragraph in text.split("\n\n"):
        formatter.write("\n" + _wrapped(paragraph, formatter.width) + "\n")


def _write_columns(rows: Sequence[tuple[str, str]], formatter: Formatter) -> None:
    """Names on the left, their text on the right; below a name that is too long for its column."""
    column = min(_NAMES_WIDTH, max(len(name) for name, _ in rows))
    indent = " " * (2 + column + 2)
    for name, text in rows:
        body = _wrapped(text, formatter.width, indent=indent)
        beside = f"  {name:{column}}  {body[len(indent) :]}"
        formatter.write((beside if len(name) <= column else f"  {name}\n{body}") + "\n")


def _wrapped(text: str, width: int, indent: str = "") -> str:
    """Lines of whole words; an option's name is one, as is what no-break spaces join."""
    wrapper = TextWrapper(
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapper.fill(re.sub(r"[ \n]+", " ", text)).replace(_JOINED, " ")


def _write_options(command: Any, ctx: Any, formatter: Formatter) -> None:
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in command.get_params(ctx):
        if param.hidden:
            continue
        if param.param_type_name == "argument":
            panels["Arguments"].append((_argument_name(param), _text(param)))
        else:
            panel = panels.setdefault(getattr(param, "rich_help_panel", None) or "Options", [])
            panel.append((_option_names(command, param), _text(param)))
    for panel_name, rows in panels.items():
        if rows:
            with formatter.section(panel_name):
                _write_columns(rows, formatter)


def _option_names(command: Any, param: Any) -> str:
    names = ", ".join(sorted(param.opts, key=lambda name: len(name) > 2))
    if param.secondary_opts:
        names += f" / {', '.join(param.secondary_opts)}"
    takes_value = not (param.is_flag or param.count)
    return f"{names} {_metavar(command, param)}" if takes_value else names


def _metavar(command: Any, param: Any) -> str:
    """What an option takes: as declared, or told by the type of the function's parameter."""
    if param.metavar:
        return str(param.metavar)
    kind = typing.get_type_hints(command.callback).get(param.name, str)
    kinds = [one for one in typing.get_args(kind) if one is not types.NoneType]
    if typing.get_origin(kind) in (typing.Union, types.UnionType) and len(kinds) == 1:
        kind = kinds[0]
    if typing.get_origin(kind) is list:
        (kind,) = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return _METAVARS.get(kind, "TEXT")


def _text(param: Any) -> str:
    """The help line, with default and limits."""
    facts = []
    if param.required and param.param_type_name == "option":
        facts.append("required")
    default = param.default
    if param.show_default and default is not None and not callable(default):
        if param.param_type_name == "argument" or not param.is_flag:
            facts.append(f"default: {default}")
        elif param.secondary_opts:
            facts.append(f"default: {(param.opts if default else param.secondary_opts)[0]}")
    stated = f"[{', '.join(facts)}]".replace(" ", _JOINED) if facts else ""
    return f"{_REGISTERED.sub(_names_of_packages, param.help or '')} {stated}".strip()


def _names_of_packages(marked: re.Match[str]) -> str:
    """What installed packages register, in the place of its group in a help line."""
    from sa_runtime.system.extensions import registered  # slow to import

    names = ", ".join(registered(marked[1]))
    return f" (of installed packages: {names})" if names else ""
