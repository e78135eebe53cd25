"""A teacher: the vectors of a trained network, which a student learns beside the identities.

The training images are embedded once, before the first step and as they are: a student of two cores
has no time for a teacher at every step, and what a crop shows of a person does not depend on how it
was shifted or erased. What the student learns from them stands in :mod:`sa_training.losses`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sa_runtime.crops import resize
from sa_training.checkpoints import load_checkpoint, weights_sha256
from sa_training.options import TrainingSet
from sa_training.pixels import network_input

_BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """What a trained network makes of the training images.

    Attributes:
        vectors_NE: of each image, (N, E) float16 on the CPU, rows of unit length.
        sha256: of the teacher's weights, by which a resumed run knows it again.
    """

    vectors_NE: Tensor
    sha256: str

    @property
    def width(self) -> int:
        """E."""
        return self.vectors_NE.shape[1]

    def of(self, indices_N: Tensor, device: torch.device) -> Tensor:
        """The vectors of a batch, float32 of unit length."""
        rows_NE = self.vectors_NE[indices_N.cpu()].to(device).float()
        return torch.nn.functional.normalize(rows_NE, dim=1)


def teacher_of(
    path: Path | str,
    training: TrainingSet,
    device: torch.device,
    *,
    compute: torch.dtype | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Teacher:
    """Embed the training images with a checkpoint, at its own input size.

    Args:
        path: the checkpoint.
        training: the images, which the student sees at its own size.
        device: where the teacher runs.
        compute: type of the convolutions, ``None`` for float32.
        on_progress: called with the number of images just embedded.

    Raises:
        CheckpointError: as :func:`sa_training.checkpoints.load_checkpoint`.
    """
    network = load_checkpoint(path).network
    sha256 = weights_sha256(network)
    network = network.to(device).eval()
    size = network.config.height, network.config.width
    rows = []
    for start in range(0, len(training.labels), _BATCH):
        indices = range(start, min(start + _BATCH, len(training.labels)))
        crops_NHW3 = np.stack([resize(training.images.crop(index), *size) for index in indices])
        x_N3HW = network_input(torch.from_numpy(crops_NHW3).to(device))
        with (
            torch.inference_mode(),
            torch.autocast(device.type, compute, enabled=compute is not None),
        ):
            rows.append(network.embed(x_N3HW).half().cpu())
        if on_progress is not None:
            on_progress(len(indices))
    return Teacher(vectors_NE=torch.cat(rows).clone(), sha256=sha256)
