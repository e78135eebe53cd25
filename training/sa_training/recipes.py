"""Recipes: functions that return a frozen configuration, by name in :data:`RECIPES`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from sa_runtime.errors import bad_value, check_fields
from sa_training.backbones import facts
from sa_training.growth import Phase, phases
from sa_training.network import Attention, NetworkConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: of the recipe, written into checkpoints and contracts.
        network: its architecture; ``classes`` is set from the data.
        batch: images a step.
        images_per_identity: K of the PK sampler; 0 draws images at random.
        epochs: passes over the training images.
        optimizer: ``sgd`` (Nesterov) or ``adamw``.
        momentum: of ``sgd``.
        lr: learning rate of everything but the backbone.
        backbone_lr_factor: of the backbone's learning rate.
        new_backbone_lr_factor: the same for a backbone that starts from random weights
            (``pretrained="none"``); ``None`` takes ``backbone_lr_factor`` for both, as the authors.
        weight_decay: of every parameter.
        schedule: ``step`` (times 0.1 every ``step_size`` epochs) or ``cosine`` (to zero, by steps).
        step_size: epochs, for ``step``.
        warmup: fraction of the steps with a linearly growing learning rate.
        ema: decay of the moving average of the weights, which is what is kept; 0 keeps the weights
            themselves.
        label_smoothing: of every cross entropy.
        triplet_weight: of the batch-hard triplet loss on the pooled parts; needs the PK sampler.
        triplet_margin: soft margin where 0.
        teacher_weight: of the difference between the batch's similarities and the teacher's, where
            there is one.
        teacher_feature_weight: of the angle between the teacher's vectors and a linear map of the
            pooled parts, likewise.
        flip: probability of a horizontal flip.
        pad: pixels of zero padding before a random crop back to size.
        erase: probability of random erasing.
        colour_jitter: largest relative change of brightness and of each colour channel.
        pretrained: ``imagenet`` (torchvision's or timm's weights for the backbone), ``none``, or a
            file of weights.
        growing: smaller inputs for the first parts of the training, see
            :mod:`sa_training.growth`; augmentation is at the network's size.
    """

    name: str
    network: NetworkConfig
    batch: int = 48
    images_per_identity: int = 0
    epochs: int = 100
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    lr: float = 0.1
    backbone_lr_factor: float = 0.1
    new_backbone_lr_factor: float | None = None
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine"] = "step"
    step_size: int = 40
    warmup: float = 0.0
    ema: float = 0.0
    label_smoothing: float = 0.0
    triplet_weight: float = 0.0
    triplet_margin: float = 0.3
    teacher_weight: float = 20.0
    teacher_feature_weight: float = 2.0
    flip: float = 0.5
    pad: int = 0
    erase: float = 0.0
    colour_jitter: float = 0.0
    pretrained: str = "imagenet"
    growing: str = ""

    def __post_init__(self) -> None:
        """Check every field; raises InputError naming field, value and rule."""
        rules: tuple[tuple[str, bool, str], ...] = (
            ("batch", self.batch >= 2, "at least 2 (batch normalisation)"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("lr", 0 < self.lr < math.inf, "more than 0"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("ema", 0 <= self.ema < 1, "in [0, 1)"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("teacher_weight", 0 <= self.teacher_weight < math.inf, "0 or more"),
            (
                "teacher_feature_weight",
                0 <= self.teacher_feature_weight < math.inf,
                "0 or more",
            ),
            ("triplet_margin", 0 <= self.triplet_margin < math.inf, "0 (soft) or more"),
            ("flip", 0 <= self.flip <= 1, "a probability"),
            ("erase", 0 <= self.erase <= 1, "a probability"),
            (
                "pad",
                0 <= self.pad < min(self.network.height, self.network.width),
                "0 or more pixels, and fewer than the input has",
            ),
            ("colour_jitter", 0 <= self.colour_jitter < 1, "in [0, 1)"),
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
                self.triplet_weight == 0
                or (self.triplet_weight > 0 and self.images_per_identity > 0),
                "0, or more where images_per_identity is set",
            ),
        )
        check_fields(self, rules, prefix=f"recipe {self.name}: ")
        self._check_growth()

    def _check_growth(self) -> None:
        """Every size must leave rows for the parts."""
        parts, backbone = self.network.parts, self.network.backbone
        for _, height, width in self.phases[:-1]:
            found = facts(backbone, height, width)
            if not found.staged or found.height < parts:
                rows = f"{found.height} rows for {parts} parts" if found.staged else "one size only"
                raise bad_value(
                    "growing",
                    self.growing,
                    f"{height}x{width} gives {backbone} {rows}; leave it out, or pass larger sizes",
                    prefix=f"recipe {self.name}: ",
                )

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Sizes of the input in the course of the training, the network's own last."""
        return phases(self.growing, self.network.height, self.network.width)

    @property
    def backbone_lr(self) -> float:
        """Learning rate of the backbone before warm-up and schedule."""
        new = self.new_backbone_lr_factor if self.pretrained == "none" else None
        return self.lr * (self.backbone_lr_factor if new is None else new)

    def network_for(self, classes: int) -> NetworkConfig:
        """The network's architecture for a number of training identities."""
        return dataclasses.replace(self.network, classes=classes)

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


def authors() -> Recipe:
    """HEAD of the authors' repository: attention at the stages, no random erasing."""
    return Recipe(name="authors", network=NetworkConfig(attention="stages"))


def paper() -> Recipe:
    """The paper's main results: as :func:`authors`, with the random erasing of its release."""
    return dataclasses.replace(authors(), name="paper", erase=0.5)


def _ablation(name: str, attention: Attention, *, stages: bool, parts: bool) -> Recipe:
    """A row of the paper's table of components: 60 epochs, no erasing."""
    network = NetworkConfig(
        attention=attention,
        deep_supervision=stages,
        parts=6 if parts else 1,
        head="parts" if parts else "global",
    )
    return Recipe(name=name, network=network, epochs=60)


def strong() -> Recipe:
    """What the field has learnt since, on the network of :func:`sa`.

    Warm-up and cosine, label smoothing, batch-hard triplets of PK batches, BNNeck, random erasing,
    colour jitter and shifts, an average of the weights; deep supervision without the division by
    the map's size, so that it has a say. A pretrained backbone learns at 3.5e-4, as is usual with
    Adam; one from nothing learns as fast as the rest. The triplet loss weighs 5 because it stands
    beside the sum of ten cross entropies, not beside one: half as much as they do together.
    """
    return Recipe(
        name="strong",
        network=NetworkConfig(stage_scale="unit", neck="bn", dropout=0.0),
        batch=64,
        images_per_identity=4,
        epochs=100,
        optimizer="adamw",
        lr=1.4e-3,
        backbone_lr_factor=0.25,
        new_backbone_lr_factor=1.0,
        weight_decay=1e-2,
        schedule="cosine",
        warmup=0.1,
        ema=0.999,
        label_smoothing=0.1,
        triplet_weight=5.0,
        pad=10,
        erase=0.5,
        colour_jitter=0.2,
    )


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
        epochs=8,
        optimizer="adamw",
        lr=3e-3,
        backbone_lr_factor=1.0,
        weight_decay=1e-2,
        schedule="cosine",
        warmup=0.1,
        label_smoothing=0.1,
        triplet_weight=5.0,
        pad=4,
        colour_jitter=0.2,
        pretrained="none",
    )


def cpu() -> Recipe:
    """For neither a GPU nor ImageNet weights: an hour on two cores for a set like Market-1501."""
    return dataclasses.replace(
        tiny(),
        name="cpu",
        network=dataclasses.replace(tiny().network, backbone="resnet18", features=256),
        epochs=40,
        lr=1e-3,
        ema=0.999,
        erase=0.3,
    )


def hour() -> Recipe:
    """An hour on two cores from ImageNet weights: MobileNetV2 at 160x80.

    What :func:`strong` does, at the size and the pace of a processor. The average of the weights
    forgets within an epoch or so: a slower one would still remember the beginning. Inputs that
    grow (``growing``) fit more epochs into the hour and lost almost 5 mAP by it on Market-1501, see
    docs/results.md.
    """
    network = NetworkConfig(
        backbone="mobilenet_v2",
        height=160,
        width=80,
        features=512,
        parts=4,
        stage_scale="unit",
        neck="bn",
        dropout=0.0,
    )
    return dataclasses.replace(
        strong(),
        name="hour",
        network=network,
        epochs=18,
        lr=2.8e-3,
        pad=6,
        erase=0.4,
        ema=0.99,
        colour_jitter=0.1,
    )


def hour_256() -> Recipe:
    """The network of :func:`hour` at 256x128, for a GPU or a night: the teacher of smaller ones."""
    start = hour()
    return dataclasses.replace(
        start,
        name="hour-256",
        network=dataclasses.replace(start.network, height=256, width=128),
        epochs=30,
        lr=1.4e-3,
        growing="128x64:0.4,192x96:0.7",
    )


def osnet() -> Recipe:
    """OSNet x0.25 at 256x128 as its makers and trackers run it, from nothing.

    The mean of its last map is the embedding: no parts, no attention. What torchreid and BoxMOT
    make of the same weights: ``benchmarks/osnet_for_peers.py``.
    """
    start = hour()
    plain = dataclasses.replace(start.network, parts=1, attention="none")
    network = dataclasses.replace(plain, backbone="osnet_x0_25", height=256, width=128)
    return dataclasses.replace(
        start, name="osnet", network=network, epochs=16, pad=10, pretrained="none"
    )


def cifar100_gap() -> Recipe:
    """Classification of 32x32 images: ResNet with global average pooling."""
    network = NetworkConfig(
        backbone="resnet18-32",
        height=32,
        width=32,
        classes=100,
        parts=1,
        attention="none",
        deep_supervision=False,
        dropout=0.0,
        head="linear",
    )
    return Recipe(
        name="cifar100-gap",
        network=network,
        batch=128,
        epochs=100,
        backbone_lr_factor=1.0,
        schedule="cosine",
        warmup=0.02,
        pad=4,
        pretrained="none",
    )


def cifar100_sa() -> Recipe:
    """As :func:`cifar100_gap`, the map weighted by spatial attention before it is pooled."""
    gap = cifar100_gap()
    network = dataclasses.replace(gap.network, attention="backbone")
    return dataclasses.replace(gap, name="cifar100-sa", network=network)


_ABLATIONS: tuple[tuple[str, Attention, bool, bool], ...] = (
    ("ablation-backbone", "none", False, False),
    ("ablation-backbone-sa", "backbone", False, False),
    ("ablation-ds", "none", True, False),
    ("ablation-ds-p", "none", True, True),
    ("ablation-ds-p-sa1", "backbone", True, True),
    ("ablation-ds-p-sa2", "stages", True, True),
    ("ablation-ds-p-sa1-sa2", "both", True, True),
)
"""Name, attention, deep supervision, parts: the rows of the paper's table of components."""

RECIPES: dict[str, Callable[[], Recipe]] = {
    "sa": sa,
    "paper": paper,
    "authors": authors,
    "strong": strong,
    "hour": hour,
    "hour-256": hour_256,
    "osnet": osnet,
    "cpu": cpu,
    "tiny": tiny,
    "cifar100-gap": cifar100_gap,
    "cifar100-sa": cifar100_sa,
    **{
        name: partial(_ablation, name, attention, stages=stages, parts=parts)
        for name, attention, stages, parts in _ABLATIONS
    },
}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        InputError: an unknown name; the message lists the choices.
    """
    if name not in RECIPES:
        raise bad_value("recipe", name, f"unknown; choose from {', '.join(RECIPES)}")
    return RECIPES[name]()
