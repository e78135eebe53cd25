"""Backbones by name: what stands between the pixels and the SA network's pooling."""

from sa_training.backbones.base import Backbone, Facts
from sa_training.backbones.table import (
    BACKBONES,
    backbone,
    check_name,
    check_trusted,
    facts,
    in_timm,
    plain_name,
    stride,
)

__all__ = [
    "BACKBONES",
    "Backbone",
    "Facts",
    "backbone",
    "check_name",
    "check_trusted",
    "facts",
    "in_timm",
    "plain_name",
    "stride",
]
