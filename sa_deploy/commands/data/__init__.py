"""``sa-deploy data``."""

from sa_deploy.commands.data.command import app

__all__ = ["app"]
