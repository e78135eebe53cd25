"""``sa-deploy embed``."""

from sa_deploy.commands.embed.command import embed

__all__ = ["embed"]
