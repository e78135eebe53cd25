"""A command in this process, by the one application; known errors as ``main`` prints them."""

from __future__ import annotations

from typing import NamedTuple

import typer.main
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_deploy.errors import for_command, known_error, running_command


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def invoke(*words: object) -> Done:
    """Run ``sa-deploy WORDS`` before a terminal of 200 columns."""
    arguments = list(map(str, words))
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    error = done.exception
    if error is None or isinstance(error, SystemExit):
        return Done(done.exit_code, done.stdout, done.stderr)
    known = known_error(error)
    if known is None:
        raise error
    said = for_command(known, running_command(typer.main.get_command(app), arguments))
    return Done(known.exit_code, done.stdout, f"{done.stderr}error: {said}\n")
