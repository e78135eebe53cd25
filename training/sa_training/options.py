"""The options of a run, what it trains on, and what it reports after each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from sa_runtime.errors import check_fields
from sa_training.data import TrainingImages


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What does not change what is learnt, only where, how fast and how it is watched.

    Attributes:
        out: folder of the run.
        overwrite: start over on the run that ``out`` holds, which is refused otherwise.
        seed: of weights, order and augmentation.
        workers: processes that decode; 0 decodes in the training process.
        device: ``auto``, or a torch device.
        precision: ``auto`` (bf16 where the hardware has it), ``fp32``, ``bf16`` or ``fp16``.
        compiler: backend of ``torch.compile``; ``None`` runs the network as it is.
        accumulate: chunks that each batch is split into, for less memory. Batch norm and triplets
            then see a chunk at a time.
        max_steps: stop early, ``None`` for the whole recipe.
        checkpoint_steps: steps between two further checkpoints; 0 leaves none.
        checkpoint_seconds: age of the last checkpoint at which another is left; 0 leaves none.
        evaluate_every: epochs between two evaluations, of which the best network is kept; 0
            evaluates never.
        log_every: steps between two rows of the table of steps.
        tensorboard: also write events for TensorBoard.
    """

    out: Path
    overwrite: bool = False
    seed: int = 1
    workers: int = 0
    device: str = "auto"
    precision: str = "auto"
    compiler: str | None = None
    accumulate: int = 1
    max_steps: int | None = None
    checkpoint_steps: int = 0
    checkpoint_seconds: float = 600.0
    evaluate_every: int = 0
    log_every: int = 10
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Check every field; raises InputError naming field, value and rule."""
        rules: tuple[tuple[str, bool, str], ...] = (
            ("seed", self.seed >= 0, "0 or more"),
            ("workers", self.workers >= 0, "0 or more"),
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1"),
            ("checkpoint_steps", self.checkpoint_steps >= 0, "0 or more"),
            ("checkpoint_seconds", self.checkpoint_seconds >= 0, "0 or more"),
            ("evaluate_every", self.evaluate_every >= 0, "0 or more"),
            ("log_every", self.log_every >= 1, "at least 1"),
        )
        check_fields(self, rules)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """State after a step, for whoever watches.

    Attributes:
        epoch, epochs: from 1, and of the recipe.
        step, steps: finished and planned steps of the run.
        loss: of the step, the sum of ``losses``.
        losses: by classifier (``part0``, ..., ``global``, ``stage1``, ...) and ``triplet``.
        accuracy: of the global classifier on the step's batch, a fraction.
        lr: learning rate of everything but the backbone.
        images_per_s: since the epoch began, of all processes together.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    losses: Mapping[str, float]
    accuracy: float
    lr: float
    images_per_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """TrainingImages to train on, with labels 0..K-1, and what to call the set in messages."""

    name: str
    images: TrainingImages
    labels: Sequence[int]

    @property
    def classes(self) -> int:
        """K."""
        return max(self.labels) + 1
