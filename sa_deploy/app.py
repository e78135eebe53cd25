"""The typer application: every command by name; the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

import sa_deploy
from sa_deploy.output import print_error
from sa_runtime.errors import SaDeployError

COMMANDS: tuple[str, ...] = (
    "demo",
    "train",
    "ablate",
    "cam",
    "export",
    "inspect",
    "adopt",
    "bundle",
    "build",
    "embed",
    "evaluate",
    "bench",
    "doctor",
)
"""Commands in the order of the help; ``sa_deploy/commands/NAME.py`` holds the function NAME."""
GROUPS: tuple[str, ...] = ("data",)
"""Groups of commands; ``sa_deploy/commands/NAME.py`` holds their ``app``."""

app = typer.Typer(
    name="sa-deploy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    for name in COMMANDS:
        module = importlib.import_module(f"sa_deploy.commands.{name}")
        app.command(name)(getattr(module, name))
    for name in GROUPS:
        module = importlib.import_module(f"sa_deploy.commands.{name}")
        app.add_typer(module.app, name=name)


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


_register()


def main() -> None:
    """Run the command line: known errors end as one line on stderr and their exit code."""
    try:
        app()
    except SaDeployError as error:
        print_error(error)
        sys.exit(error.exit_code)
