"""Quantisation-aware fine-tuning: a network learns to give its own vectors in int8.

The backbone's convolutions see their inputs and weights rounded as ``sa-deploy export --precision
int8`` rounds them, gradients pass straight through the rounding (Jacob et al., arXiv 1712.05877),
and the network as it was, in float, is the teacher: the loss is what the vectors of the two differ
by. So no label is needed, and the new vectors stay near the old ones. Batch-norm statistics are
frozen, as the exporter folds them into the weights.

Shape suffixes: N images, C channels, D embedding, OIHW a convolution's weights.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sa_runtime.errors import DatasetError, TrainingError, check_fields
from sa_training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from sa_training.data import BatchSampler, TrainingCrops, TrainingImages, training_loader
from sa_training.network import SANetwork
from sa_training.optimisation import resolve_device
from sa_training.options import Progress, TrainingSet
from sa_training.pixels import IMAGENET_STD, network_input
from sa_training.ranges import Calibrator, Histogram, value_range

LEVELS = 127
"""Steps from zero to the largest value: symmetric int8, the coarsest scheme of the exporter."""
QAT = "qat.pt"
"""The file that a fine-tuning leaves."""
_BATCH = 32
Thresholds = Mapping[str, float]
"""Layer -> largest magnitude of its input that int8 represents."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QatOptions:
    """How a network is fine-tuned.

    Attributes:
        out: folder of the run, which gets ``qat.pt``.
        epochs: passes over the training images.
        batch: images a step.
        lr: of AdamW at the start; it falls to zero by a cosine.
        calibrator: how the inputs' ranges are taken, as the exporter takes them.
        calibration_images: number of images that ranges are taken from again before every epoch.
        seed: of order and augmentation.
        workers: processes that decode; 0 decodes in the training process.
        device: ``auto``, or a torch device.
        max_steps: stop early, ``None`` for all epochs.
    """

    out: Path
    epochs: int = 3
    batch: int = 64
    lr: float = 1e-4
    calibrator: Calibrator = "percentile"
    calibration_images: int = 256
    seed: int = 1
    workers: int = 0
    device: str = "auto"
    max_steps: int | None = None

    def __post_init__(self) -> None:
        """Check every field; raises InputError naming field, value and rule."""
        counts = ("epochs", "batch", "calibration_images")
        check_fields(
            self,
            [(field, getattr(self, field) >= 1, "at least 1") for field in counts]
            + [("lr", self.lr > 0, "more than 0")],
        )


def finetune(
    checkpoint: Checkpoint,
    training: TrainingSet,
    options: QatOptions,
    *,
    on_step: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Fine-tune the backbone of a network for int8 and leave it as ``qat.pt``.

    Args:
        checkpoint: the network; it is not changed.
        training: images at the network's size; their labels are not used.
        options: how.
        on_step: called after every step; ``loss`` is 1 less the mean cosine to the teacher.

    Returns:
        The new checkpoint, its network in evaluation mode, its recipe's name with ``+qat`` behind.

    Raises:
        DatasetError: fewer training images than one batch.
        TrainingError: a loss that is not finite; nothing is written.
    """
    if len(training.labels) < options.batch:
        raise DatasetError(
            f"{training.name}: {len(training.labels)} training images, expected at least one batch "
            f"of {options.batch}; pass a smaller `batch_size`"
        )
    device = resolve_device(options.device)
    teacher = copy.deepcopy(checkpoint.network).to(device).eval()
    network = copy.deepcopy(teacher)
    # What is learnt is to give the same vectors; crops that hide people would only blur that.
    recipe = dataclasses.replace(checkpoint.recipe, erase=0.0)
    sampler = BatchSampler(training.labels, options.batch, 0, options.seed)
    crops = TrainingCrops(training.images, training.labels, recipe, options.seed)
    loader = training_loader(crops, sampler, options.workers, pin=device.type == "cuda")
    steps = min(options.epochs * sampler.steps, options.max_steps or options.epochs * sampler.steps)
    optimizer = torch.optim.AdamW(network.base.parameters(), lr=options.lr, weight_decay=0.0)
    step = 0
    while step < steps:
        sampler.epoch = step // sampler.steps
        thresholds = thresholds_of(network, training.images, options)
        with in_int8(network, thresholds):
            for images_NHW3, _, _ in loader:
                lr = options.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
                for group in optimizer.param_groups:
                    group["lr"] = lr
                loss = _step(network, teacher, optimizer, images_NHW3.to(device))
                step += 1
                if not math.isfinite(loss):
                    raise TrainingError(f"step {step}: loss is {loss}; pass a smaller `lr`")
                if on_step is not None:
                    on_step(_progress(loss, lr, step, steps, sampler.epoch + 1, options.epochs))
                if step == steps:
                    break
    name = checkpoint.recipe.name.removesuffix("+qat") + "+qat"
    path = options.out / QAT
    recipe = dataclasses.replace(checkpoint.recipe, name=name)
    save_checkpoint(path, network.cpu(), recipe, checkpoint.epoch, {})
    return load_checkpoint(path)


def convolutions(network: SANetwork) -> dict[str, nn.Conv2d]:
    """The layers that the exporter quantises, called as it calls them: ``layer1.0.conv2``."""
    return {
        name: module
        for name, module in network.base.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def thresholds_of(
    network: SANetwork, images: TrainingImages, options: QatOptions
) -> dict[str, float]:
    """Ranges of the convolutions' inputs on images spread over a set, not augmented.

    Args:
        network: in evaluation mode, in float.
        images: at the network's size.
        options: how many of them, and the calibrator.
    """
    device = next(network.parameters()).device
    found = {name: Histogram() for name in convolutions(network)}

    def count(name: str, conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0] * _pixel_scale(conv, inputs[0])
        found[name].add(seen.float().cpu().numpy())

    hooks = [
        conv.register_forward_pre_hook(partial(count, name))
        for name, conv in convolutions(network).items()
    ]
    wanted = min(options.calibration_images, len(images))
    rows = [i * len(images) // wanted for i in range(wanted)]
    try:
        with torch.inference_mode():
            for start in range(0, wanted, _BATCH):
                batch = np.stack([images.crop(i) for i in rows[start : start + _BATCH]])
                network.base(network_input(torch.from_numpy(batch).to(device)))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: max(map(abs, value_range(histogram, options.calibrator, LEVELS)))
        for name, histogram in found.items()
    }


@contextmanager
def in_int8(network: SANetwork, thresholds: Thresholds) -> Iterator[None]:
    """Within it the backbone's convolutions round inputs and weights to int8.

    Args:
        network: its weights stay float, and get gradients.
        thresholds: of every convolution, from :func:`thresholds_of`.
    """
    layers = convolutions(network)
    for name, conv in layers.items():
        conv.forward = partial(_rounded_forward, conv, thresholds[name])  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in layers.values():
            del conv.forward


def _rounded_forward(conv: nn.Conv2d, threshold: float, x_NCHW: Tensor) -> Tensor:
    """A convolution of rounded values.

    Its weights are rounded before batch norm is folded into them, the exporter's after: for scales
    of each output channel that is the same.
    """
    scale = _pixel_scale(conv, x_NCHW)
    x_NCHW = rounded(x_NCHW * scale, max(threshold, 1e-7) / LEVELS) / scale
    weights_OIHW = conv.weight / scale
    peak_O111 = weights_OIHW.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    weights_OIHW = rounded(weights_OIHW, peak_O111.clamp_min(1e-7) / LEVELS) * scale
    output: Tensor = conv._conv_forward(x_NCHW, weights_OIHW, conv.bias)
    return output


def rounded(x: Tensor, step: Tensor | float) -> Tensor:
    """To the next of -127..127 steps; the gradient is 1 inside that range and 0 outside.

    >>> rounded(torch.tensor([0.4, 0.26, -99.0]), 0.5)
    tensor([  0.5000,   0.5000, -63.5000])
    """
    step = torch.as_tensor(step, dtype=x.dtype, device=x.device)
    inside = torch.clamp(x, -LEVELS * step, LEVELS * step)
    return inside + (torch.round(inside / step) * step - inside).detach()


def _pixel_scale(conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
    """What the first layer's input is multiplied with where the exporter quantises it.

    There the standard deviation of each colour stands in the weights, not in the pixels.
    """
    if conv.in_channels != len(IMAGENET_STD):
        return x_NCHW.new_ones(1)
    return x_NCHW.new_tensor(IMAGENET_STD)[:, None, None]


def _step(
    network: SANetwork, teacher: SANetwork, optimizer: torch.optim.Optimizer, images_NHW3: Tensor
) -> float:
    x_N3HW = network_input(images_NHW3)
    with torch.no_grad():
        wanted_ND = teacher.embed(x_N3HW)
    loss = 1 - (network.embed(x_N3HW) * wanted_ND).sum(dim=1).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if torch.isfinite(loss):
        optimizer.step()
    return float(loss.detach())


def _progress(loss: float, lr: float, step: int, steps: int, epoch: int, epochs: int) -> Progress:
    return Progress(
        epoch=epoch,
        epochs=epochs,
        step=step,
        steps=steps,
        loss=loss,
        losses={"cosine": loss},
        accuracy=0.0,
        lr=lr,
        images_per_s=0.0,
    )
