"""One optimisation step: forward, losses, backward, update; in chunks where memory asks for it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sa_training.distributed import Processes
from sa_training.losses import batch_hard_triplet, classification_losses
from sa_training.network import Output, SANetwork
from sa_training.optimisation import MovingAverage, optimizer_of
from sa_training.pixels import network_input
from sa_training.recipes import Recipe


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

    Attributes:
        names: of the losses: one for each classifier, and ``triplet``.
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
        self.names = (*network.config.classifiers, *(("triplet",) if recipe.triplet_weight else ()))
        self._parallel: DistributedDataParallel | None = None
        forward: nn.Module = network
        if processes.count > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            forward = self._parallel = DistributedDataParallel(network, device_ids=devices)
        self._forward: Any = torch.compile(forward, backend=compiler) if compiler else forward

    def step(self, images_NHW3: Tensor, labels_N: Tensor, number: int) -> tuple[list[float], float]:
        """One step.

        Where a loss is not finite nothing is changed; the caller looks at what comes back.

        Args:
            images_NHW3: (N, H, W, 3) uint8 BGR.
            labels_N: identities.
            number: of the step, from 0; with the seed it decides what dropout leaves out.

        Returns:
            The losses in the order of ``names``, and the accuracy of the global classifier.
        """
        entropy = np.random.SeedSequence((self.seed, number, self.processes.rank))
        torch.manual_seed(int(entropy.generate_state(1)[0]))
        self.optimizer.zero_grad(set_to_none=True)
        figures: list[Tensor] = []
        chunks = list(
            zip(images_NHW3.chunk(self.accumulate), labels_N.chunk(self.accumulate), strict=True)
        )
        for count, (x_NHW3, y_N) in enumerate(chunks, start=1):
            with self._without_exchange(count < len(chunks)):
                with torch.autocast(
                    self.device.type, self.compute, enabled=self.compute is not None
                ):
                    output = Output(*self._forward(network_input(x_NHW3)))
                losses = self._losses(output, y_N)
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
        return state

    def load(self, kept: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of :meth:`kept_weights` and :meth:`state`."""
        self.network.load_state_dict(state.get("weights", kept), strict=False)
        if self.average is not None:
            self.average.load(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def _losses(self, output: Output, labels_N: Tensor) -> list[Tensor]:
        losses = classification_losses(output, labels_N, self.recipe.label_smoothing)
        if self.recipe.triplet_weight:
            vectors_ND = output.pooled_NCP.flatten(1)
            triplet = batch_hard_triplet(vectors_ND, labels_N, self.recipe.triplet_margin)
            losses.append(self.recipe.triplet_weight * triplet)
        return losses

    def _without_exchange(self, wanted: bool) -> Any:
        """Between chunks the processes keep their gradients to themselves."""
        if wanted and self._parallel is not None:
            return self._parallel.no_sync()
        return nullcontext()
