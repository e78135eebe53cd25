"""The typer application: every command by name; the one place where errors become exit codes.

A command's module is imported when the command is called, so that ``--help`` and every command
start without the others.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
import typer.main

import sa_deploy
from sa_deploy import logs
from sa_deploy.commandline import HelpGroup, add_command, make_app
from sa_deploy.signals import exit_on_signals
from sa_deploy.threads import share_cores

COMMANDS: dict[str, str] = {
    "demo": "Draw a world, train, export, embed a video and evaluate.",
    "train": "Train the SA network; the authors' command lines run as they are.",
    "ablate": "Train recipes with several seeds each; print means and spreads.",
    "cam": "Draw class activation maps with and without spatial attention.",
    "export": "Write artefacts that find the same people as their network.",
    "inspect": "Show what a model file takes and gives, and where it comes from.",
    "adopt": "Give a foreign model a contract, after a parity check.",
    "compress": "Write an artefact that gives shorter vectors.",
    "bundle": "Write a Triton model repository, or a DeepStream ReID section.",
    "build": "Build a TensorRT engine, with the fused attention pooling inside.",
    "embed": "Embed people: whole images, or the boxes of videos.",
    "serve": "Serve models over HTTP: batches across requests, limits, draining.",
    "evaluate": "Find a data set's queries in its gallery; print mAP and ranks.",
    "index": "Put stored embeddings into a gallery that can be searched.",
    "search": "Find who in a gallery looks like an image, a track or vectors.",
    "calibrate": "Set thresholds from labelled people, at a stated rate of error.",
    "gallery": "Look at galleries, remove people and times from them.",
    "link": "Find who is the same person under several cameras, from tracks.",
    "bench": "Measure artefacts on every runtime that opens them, in turns.",
    "doctor": "Show what this machine can run, and the command that fixes a gap.",
    "data": "Make and check data sets.",
}
"""Commands in the order of the help, with their line in it.

``sa_deploy/commands/NAME.py`` holds the function NAME, or the ``app`` of a group.
"""


class _Commands(Mapping[str, Any]):
    """The commands of the table, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        module = importlib.import_module(f"sa_deploy.commands.{name}")
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)
        alone = make_app()
        add_command(alone, name, getattr(module, name))
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Root(HelpGroup):
    """The group of all commands; its help needs none of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]  # read only

    def command_lines(self) -> list[tuple[str, str]]:
        return list(COMMANDS.items())

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what typer would end without a word ends as any other error."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, KeyboardInterrupt) as error:
            from sa_deploy.errors import known_error

            raise known_error(error) or error from error


app = make_app("Person re-identification from weights to production embeddings.", _Root)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sa-deploy {sa_deploy.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    verbose: logs.Verbose = 0,
    quiet: logs.Quiet = False,
    log_json: logs.LogJson = False,
) -> None:
    """Person re-identification from weights to production embeddings."""
    logs.configure(logs.LogOptions(verbose=verbose, quiet=quiet, as_json=log_json))


def main() -> None:
    """Run the command line; ``sa_deploy.errors`` says what went wrong, and with which exit code."""
    exit_on_signals()
    share_cores()
    code: int | str | None = 0
    try:
        app()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = _report(error)
    try:
        # Output that is still buffered may meet a closed pipe or a full disk.
        sys.stdout.flush()
    except OSError as error:
        error.filename = error.filename or "standard output"
        code = _report(error)
        _leave_stdout_alone()
    sys.exit(code)


def _report(error: BaseException) -> int:
    from sa_deploy.errors import report

    return report(error, lambda: typer.main.get_command(app), sys.argv[1:])


def _leave_stdout_alone() -> None:
    """Lead it nowhere, so that the interpreter does not fail over it again as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
