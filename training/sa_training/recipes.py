"""Recipes: functions that return a frozen configuration, by name in :data:`RECIPES`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from sa_training.network import NetworkConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: of the recipe, written into checkpoints and contracts.
        network: its architecture; ``classes`` is set from the data.
        batch: images a step.
        images_per_identity: K of the PK sampler; 0 draws images at random.
        epochs: passes over the training images.
        optimizer: ``sgd`` (Nesterov, momentum 0.9) or ``adamw``.
        lr: learning rate of everything but the backbone.
        backbone_lr_factor: of the backbone's learning rate.
        weight_decay: of every parameter.
        schedule: ``step`` (times 0.1 every ``step_size`` epochs) or ``cosine`` (to zero, by steps).
        step_size: epochs, for ``step``.
        warmup: fraction of the steps with a linearly growing learning rate.
        label_smoothing: of every cross entropy.
        triplet_weight: of the batch-hard triplet loss on the pooled parts; needs the PK sampler.
        triplet_margin: soft margin where 0.
        flip: probability of a horizontal flip.
        pad: pixels of zero padding before a random crop back to size.
        erase: probability of random erasing.
        colour_jitter: largest relative change of brightness and of each colour channel.
    """

    name: str
    network: NetworkConfig
    batch: int = 48
    images_per_identity: int = 0
    epochs: int = 100
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    backbone_lr_factor: float = 0.1
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine"] = "step"
    step_size: int = 40
    warmup: float = 0.0
    label_smoothing: float = 0.0
    triplet_weight: float = 0.0
    triplet_margin: float = 0.3
    flip: float = 0.5
    pad: int = 0
    erase: float = 0.0
    colour_jitter: float = 0.0

    def __post_init__(self) -> None:
        """Check every field; raises ValueError naming field, value and rule."""
        rules: tuple[tuple[str, bool, str], ...] = (
            ("batch", self.batch >= 2, "at least 2 (batch normalisation)"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("lr", self.lr > 0, "more than 0"),
            ("optimizer", self.optimizer in ("sgd", "adamw"), "sgd or adamw"),
            ("schedule", self.schedule in ("step", "cosine"), "step or cosine"),
            ("step_size", self.step_size >= 1, "at least 1 epoch"),
            ("warmup", 0 <= self.warmup < 1, "a fraction in [0, 1)"),
            (
                "images_per_identity",
                self.images_per_identity == 0
                or (self.images_per_identity >= 2 and self.batch % self.images_per_identity == 0),
                f"0, or at least 2 and a divisor of the batch ({self.batch})",
            ),
            (
                "triplet_weight",
                self.triplet_weight == 0 or self.images_per_identity > 0,
                "0 unless images_per_identity is set",
            ),
        )
        for field, holds, rule in rules:
            if not holds:
                raise ValueError(
                    f"recipe {self.name}: {field}={getattr(self, field)!r}: expected {rule}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as checkpoints keep them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Recipe:
        """Inverse of :meth:`to_dict`."""
        return cls(**{**fields, "network": NetworkConfig(**fields["network"])})


def sa() -> Recipe:
    """The authors' training with attention at the stages and in the backbone: the default."""
    return Recipe(name="sa", network=NetworkConfig())


def tiny() -> Recipe:
    """A ten-layer network at 128x64 that learns the synthetic world in a minute on two cores."""
    network = NetworkConfig(
        backbone="resnet10-thin",
        height=128,
        width=64,
        features=128,
        dropout=0.0,
        stage_scale="unit",
    )
    return Recipe(
        name="tiny",
        network=network,
        batch=64,
        images_per_identity=4,
        epochs=20,
        optimizer="adamw",
        lr=2e-3,
        backbone_lr_factor=1.0,
        weight_decay=1e-2,
        schedule="cosine",
        warmup=0.1,
        label_smoothing=0.1,
        triplet_weight=1.0,
        pad=4,
        colour_jitter=0.3,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"sa": sa, "tiny": tiny}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        ValueError: an unknown name; the message lists the choices.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe={name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()
