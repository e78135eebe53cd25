"""A command in this process, by the one application; known errors as ``main`` prints them."""

from __future__ import annotations

from typing import NamedTuple

from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.errors import SaDeployError


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def invoke(*words: object) -> Done:
    """Run ``sa-deploy WORDS`` before a terminal of 200 columns."""
    done = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
    error = done.exception
    if isinstance(error, SaDeployError):
        return Done(error.exit_code, done.stdout, f"{done.stderr}error: {error}\n")
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return Done(done.exit_code, done.stdout, done.stderr)
