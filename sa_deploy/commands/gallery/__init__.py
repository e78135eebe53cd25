"""``sa-deploy gallery``."""

from sa_deploy.commands.gallery.command import app

__all__ = ["app"]
