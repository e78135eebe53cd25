"""``sa-deploy evaluate``: how well models find labelled people again."""

from sa_deploy.commands.evaluate.command import evaluate

__all__ = ["evaluate"]
