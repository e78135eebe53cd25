"""``sa-deploy data``: make and check data sets."""

from __future__ import annotations

from sa_deploy.commandline import add_command, make_app
from sa_deploy.commands.data import check, synth

app = make_app("Make and check data sets.")
add_command(app, "synth", synth.synth)
add_command(app, "check", check.check)
