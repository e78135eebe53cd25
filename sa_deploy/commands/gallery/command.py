"""``sa-deploy gallery``: look at a gallery, remove from it, change how long it keeps."""

from __future__ import annotations

from sa_deploy.commandline import add_command, make_app
from sa_deploy.commands.gallery import change, info

app = make_app("Look at galleries, remove people and times from them.")
add_command(app, "info", info.info)
add_command(app, "remove", change.remove)
add_command(app, "keep", change.keep)
add_command(app, "compact", change.compact)
