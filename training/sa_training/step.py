"""One optimisation step: forward, losses, backward, update; in chunks where memory asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sa_runtime.errors import DatasetError, bad_value
from sa_training.distributed import Processes
from sa_training.growth import Phase, resized
from sa_training.losses import (
    batch_hard_triplet,
    classification_losses,
    feature_distillation,
    similarity_distillation,
)
from sa_training.network import Output, SANetwork
from sa_training.optimisation import (
    MovingAverage,
    autocast_type,
    optimizer_of,
    resolve_device,
)
from sa_training.options import TrainingOptions, TrainingSet
from sa_training.pixels import network_input
from sa_training.pretrained import initialise
from sa_training.recipes import Recipe
from sa_training.teacher import Teacher


class Trainer:
    """The network under training and everything that a step changes.

    Args:
        network: on its device already.
        recipe: losses and optimizer.
        processes: which of how many this is; gradients and reported losses are their mean.
        compute: type of the convolutions, ``None`` for float32; float16 scales the loss.
        accumulate: chunks that a batch is split into, whose gradients are averaged.
        compiler: backend of ``torch.compile``, or ``None``.
        seed: of dropout.
        teacher_width: numbers of a teacher's vectors; 0 without a teacher.

    Attributes:
        names: of the losses: one for each classifier, ``triplet``, and those of a teacher.
    """

    def __init__(
        self,
        network: SANetwork,
        recipe: Recipe,
        *,
        processes: Processes,
        compute: torch.dtype | None,
        accumulate: int,
        compiler: str | None,
        seed: int,
        teacher_width: int = 0,
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.processes = processes
        self.compute = compute
        self.accumulate = accumulate
        self.seed = seed
        self.device = next(network.parameters()).device
        self.optimizer = optimizer_of(network, recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=compute == torch.float16)
        self.average = MovingAverage(network, recipe.ema) if recipe.ema else None
        taught = teacher_width > 0
        weights = {
            "triplet": recipe.triplet_weight,
            "similarity": taught * recipe.teacher_weight,
            "feature": taught * recipe.teacher_feature_weight,
        }
        self._weights = {name: weight for name, weight in weights.items() if weight}
        self.names = (*network.config.classifiers, *self._weights)
        self._map: nn.Linear | None = None
        if "feature" in self._weights:
            width = network.embedding_dim("parts")
            self._map = nn.Linear(width, teacher_width, bias=False).to(self.device)
            group = {"params": list(self._map.parameters()), "base_lr": recipe.lr}
            self.optimizer.add_param_group(group)
        self._parallel: DistributedDataParallel | None = None
        forward: nn.Module = network
        if processes.count > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            forward = self._parallel = DistributedDataParallel(network, device_ids=devices)
        self._forward: Any = torch.compile(forward, backend=compiler) if compiler else forward

    def step(
        self,
        images_NHW3: Tensor,
        labels_N: Tensor,
        number: int,
        phase: Phase | None = None,
        teacher_NE: Tensor | None = None,
    ) -> tuple[list[float], float]:
        """One step.

        Where a loss is not finite nothing is changed; the caller looks at what comes back.

        Args:
            images_NHW3: (N, H, W, 3) uint8 BGR.
            labels_N: identities.
            number: of the step, from 0; with the seed it decides what dropout leaves out.
            phase: the size that they are brought to; their own by default.
            teacher_NE: what a teacher makes of the images, rows of unit length.

        Returns:
            The losses in the order of ``names``, and the accuracy of the global classifier.
        """
        entropy = np.random.SeedSequence((self.seed, number, self.processes.rank))
        torch.manual_seed(int(entropy.generate_state(1)[0]))
        self.optimizer.zero_grad(set_to_none=True)
        figures: list[Tensor] = []
        images, labels = images_NHW3.chunk(self.accumulate), labels_N.chunk(self.accumulate)
        taught: Sequence[Tensor | None] = [None] * len(images)
        if teacher_NE is not None:
            taught = teacher_NE.chunk(self.accumulate)
        chunks = list(zip(images, labels, taught, strict=True))
        for count, (x_NHW3, y_N, t_NE) in enumerate(chunks, start=1):
            with self._without_exchange(count < len(chunks)):
                with torch.autocast(
                    self.device.type, self.compute, enabled=self.compute is not None
                ):
                    output = Output(*self._forward(resized(network_input(x_NHW3), phase)))
                losses = self._losses(output, y_N, t_NE)
                total = torch.stack(losses).sum() / len(chunks)
                self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            global_NK = output.logits[self.names.index("global")]
            accuracy = (global_NK.argmax(1) == y_N).float().mean()
            figures.append(torch.stack([*losses, accuracy]).detach())
        mean = torch.stack(figures).mean(dim=0)
        if self._parallel is not None:
            dist.all_reduce(mean)
            mean /= self.processes.count
        *values, correct = mean.tolist()
        if np.isfinite(values).all():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.average is not None:
                self.average.update(self.network, number + 1)
        return values, correct

    def kept_weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps as the network: the moving average where there is one."""
        return self.network.state_dict() if self.average is None else self.average.state

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside :meth:`kept_weights`."""
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        if self.average is not None:
            state["weights"] = self.network.state_dict()
        if self._map is not None:
            state["map"] = self._map.state_dict()
        return state

    def load(self, kept: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of :meth:`kept_weights` and :meth:`state`."""
        self.network.load_state_dict(state.get("weights", kept), strict=False)
        if self.average is not None:
            self.average.load(kept)
        if self._map is not None:
            self._map.load_state_dict(state["map"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def _losses(self, output: Output, labels_N: Tensor, teacher_NE: Tensor | None) -> list[Tensor]:
        losses = classification_losses(output, labels_N, self.recipe.label_smoothing)
        for name, weight in self._weights.items():
            losses.append(weight * self._further_loss(name, output, labels_N, teacher_NE))
        return losses

    def _further_loss(
        self, name: str, output: Output, labels_N: Tensor, teacher_NE: Tensor | None
    ) -> Tensor:
        if name == "triplet":
            vectors_ND = output.pooled_NCP.flatten(1)
            return batch_hard_triplet(vectors_ND, labels_N, self.recipe.triplet_margin)
        assert teacher_NE is not None
        unit_NCP = F.normalize(output.pooled_NCP.float(), dim=1)  # as they are embedded
        if name == "similarity":
            return similarity_distillation(unit_NCP.flatten(1), teacher_NE)
        assert self._map is not None
        return feature_distillation(self._map(unit_NCP.flatten(1)), teacher_NE)

    def _without_exchange(self, wanted: bool) -> Any:
        """Between chunks the processes keep their gradients to themselves."""
        if wanted and self._parallel is not None:
            return self._parallel.no_sync()
        return nullcontext()


def trainer_for(
    recipe: Recipe,
    training: TrainingSet,
    options: TrainingOptions,
    *,
    resumed: bool,
    teacher: Teacher | None,
) -> Trainer:
    """A network at its start, on its device, and what trains it.

    Raises:
        DatasetError: fewer training images than one batch.
        InputError: ``accumulate`` does not divide the batch, or a device that is not there.
    """
    processes = Processes.from_environment()
    if len(training.labels) < recipe.batch * processes.count:
        raise DatasetError(
            f"{training.name}: {len(training.labels)} training images, expected at least one batch "
            f"of {recipe.batch * processes.count}; pass a smaller `batch_size`"
        )
    _check_chunks(recipe, options)
    recipe = dataclasses.replace(recipe, network=recipe.network_for(training.classes))
    device = resolve_device(options.device, processes.local)
    compute = autocast_type(options.precision, device)
    torch.manual_seed(options.seed)
    network = initialise(SANetwork(recipe.network), recipe, resumed=resumed)
    return Trainer(
        network.to(device).to(memory_format=torch.channels_last),
        recipe,
        processes=processes,
        compute=compute,
        accumulate=options.accumulate,
        compiler=options.compiler,
        seed=options.seed,
        teacher_width=0 if teacher is None else teacher.width,
    )


def _check_chunks(recipe: Recipe, options: TrainingOptions) -> None:
    """Chunks must be equal, and hold whole identities where triplets are formed."""
    unit = recipe.images_per_identity or 1
    if recipe.batch % (options.accumulate * unit):
        whole = f" of whole identities ({unit} images each)" if unit > 1 else ""
        raise bad_value(
            "accumulate",
            options.accumulate,
            f"a batch of {recipe.batch} does not split into so many equal chunks{whole}; pass a "
            "divisor",
        )
