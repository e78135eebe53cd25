"""The typer application: every command by name; the one place where errors become exit codes.

A command's module is imported when the command is called, so that ``--help`` and every command
start without the others.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

import sa_deploy
from sa_deploy.signals import exit_on_sigterm
from sa_runtime.errors import SaDeployError

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

COMMANDS: dict[str, str] = {
    "demo": "Draw a world, train, export, embed a video and evaluate.",
    "train": "Train the SA network; the authors' command lines run as they are.",
    "ablate": "Train recipes with several seeds each; print means and spreads.",
    "cam": "Draw class activation maps with and without spatial attention.",
    "export": "Write artefacts that find the same people as their network.",
    "inspect": "Show an artefact's inputs, outputs, space, provenance and parity.",
    "adopt": "Give a foreign ONNX model a contract, after a parity check.",
    "bundle": "Write a Triton model repository, or a DeepStream ReID section.",
    "build": "Build a TensorRT engine, with the fused attention pooling inside.",
    "embed": "Embed people: whole images, or the boxes of videos.",
    "evaluate": "Find a data set's queries in its gallery; print mAP and ranks.",
    "bench": "Measure artefacts on every runtime that opens them, in turns.",
    "doctor": "Show what this machine can run, and the command that mends a gap.",
    "data": "Make and check data sets.",
}
"""Commands in the order of the help, with their line in it.

``sa_deploy/commands/NAME.py`` holds the function NAME, or the ``app`` of a group.
"""


class _Commands(Mapping[str, "Command"]):
    """The commands of the table, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Command:
        if name not in COMMANDS:
            raise KeyError(name)
        module = importlib.import_module(f"sa_deploy.commands.{name}")
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(name)(getattr(module, name))
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Root(typer.core.TyperGroup):
    """The group of all commands; its help needs none of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]  # read only

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


# The list of commands is plain text: typer's boxes would take half of the start-up time.
app = typer.Typer(
    name="sa-deploy",
    cls=_Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sa-deploy {sa_deploy.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Person re-identification from weights to production embeddings."""


def main() -> None:
    """Run the command line: known errors end as one line on stderr and their exit code."""
    exit_on_sigterm()
    try:
        app()
    except SaDeployError as error:
        from sa_deploy.output import print_error

        print_error(error)
        sys.exit(error.exit_code)
