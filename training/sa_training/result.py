"""What a finished training or fine-tuning gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sa_training.checkpoints import Checkpoint, weights_sha256
from sa_training.options import Progress

_HASH_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A checkpoint and its figures.

    Attributes:
        checkpoint: the file.
        recipe: its name.
        epochs: that were trained, over all sittings.
        steps: the same in steps.
        loss: of the last step; ``None`` where this sitting had no step to do.
        images_per_s: of the last epoch.
        weights_sha256: of the network.
        test: figures as fractions by network, such as ``best, epoch 40``; empty for a trial.
        time: seconds of a budget and of the run, and the plans; ``None`` without a budget.
    """

    checkpoint: Path
    recipe: str
    epochs: int
    steps: int
    loss: float | None
    images_per_s: float | None
    weights_sha256: str
    test: Mapping[str, Mapping[str, float]]
    time: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        last: Progress | None,
        test: Mapping[str, Mapping[str, float]],
        *,
        steps: int,
    ) -> TrainingResult:
        """The result of a checkpoint, the last step's state and its figures."""
        time = checkpoint.training.get("pace")
        return cls(
            checkpoint=checkpoint.path,
            recipe=checkpoint.recipe.name,
            epochs=checkpoint.epoch,
            steps=steps,
            loss=last.loss if last else None,
            images_per_s=last.images_per_s if last else None,
            weights_sha256=weights_sha256(checkpoint.network.cpu()),
            test=test,
            time={key: time[key] for key in ("budget_s", "elapsed_s", "plans")} if time else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, exact."""
        time = {} if self.time is None else {"time": dict(self.time)}
        return {
            "checkpoint": str(self.checkpoint),
            "recipe": self.recipe,
            "epochs": self.epochs,
            "steps": self.steps,
            "loss": self.loss,
            "images_per_s": self.images_per_s,
            "weights_sha256": self.weights_sha256,
            "test": {name: dict(figures) for name, figures in self.test.items()},
            **time,
        }

    def rows(self) -> list[tuple[str, str]]:
        """The same for people, without the figures: rounded, the hash short."""
        return [
            ("checkpoint", str(self.checkpoint)),
            ("recipe", self.recipe),
            ("epochs", str(self.epochs)),
            ("steps", str(self.steps)),
            ("loss", _significant(self.loss)),
            ("images/s", "-" if self.images_per_s is None else f"{self.images_per_s:.0f}"),
            ("weights (SHA-256)", f"{self.weights_sha256[:_HASH_SHOWN]}..."),
        ]


def _significant(value: float | None) -> str:
    """Four figures.

    >>> _significant(22.953206062316895), _significant(0.000312345)
    ('22.95', '0.0003123')
    """
    return "-" if value is None else f"{value:.4g}"
