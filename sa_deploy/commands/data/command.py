"""``sa-deploy data``: make and check data sets."""

from __future__ import annotations

import typer

from sa_deploy.commands.data import check, synth

app = typer.Typer(help="Make and check data sets.", no_args_is_help=True, add_completion=False)
app.command("synth")(synth.synth)
app.command("check")(check.check)
