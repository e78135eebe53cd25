"""``sa-deploy train``."""

from sa_deploy.commands.train.command import train

__all__ = ["train"]
