"""The typer application: every command by name, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from sa_runtime.errors import SaDeployError

import sa_deploy
from sa_deploy.commands import data as data_commands
from sa_deploy.commands import demo as demo_command
from sa_deploy.commands import embed, evaluate, export, train
from sa_deploy.output import print_error

app = typer.Typer(
    name="sa-deploy",
    help="Person re-identification from weights to production embeddings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo_command.demo)
app.command("train")(train.train)
app.command("export")(export.export)
app.command("embed")(embed.embed)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(data_commands.app, name="data")


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
    """Run the command line: known errors end as one line on stderr and exit code 2 (3: parity)."""
    try:
        app()
    except SaDeployError as error:
        print_error(error)
        sys.exit(error.exit_code)
