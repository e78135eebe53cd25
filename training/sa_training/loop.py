"""The training loop: epochs over crops, metrics as JSON lines, a checkpoint after every epoch."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.errors import CheckpointError, DatasetError
from sa_training.checkpoints import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from sa_training.data import EpochSampler, TrainingCrops
from sa_training.losses import batch_hard_triplet, classification_loss
from sa_training.network import SANetwork
from sa_training.pixels import network_input
from sa_training.recipes import Recipe

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What does not change what is learnt, only where and how fast.

    Attributes:
        out: folder of the run.
        seed: of weights, order and augmentation.
        workers: processes that decode; 0 decodes in the training process.
        device: ``auto``, or a torch device.
        precision: ``auto`` (bf16 where the processor or GPU has it), ``fp32`` or ``bf16``.
        max_steps: stop early, ``None`` for the whole recipe.
    """

    out: Path
    seed: int = 1
    workers: int = 0
    device: str = "auto"
    precision: str = "auto"
    max_steps: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """State after a step, for whoever watches.

    Attributes:
        epoch: from 1.
        step, steps: finished and planned steps of the run.
        loss: of the step.
        accuracy: of the global classifier on the step's batch, a fraction.
        images_per_s: since the epoch began.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_s: float


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, the CPU otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is done by the hardware (CUDA, or a CPU with AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _cpu_flag("avx512_bf16")


def _cpu_flag(flag: str) -> bool:
    try:
        return flag in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def train_network(
    recipe: Recipe,
    dataset: ReidDataset,
    options: TrainingOptions,
    *,
    resume: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Train a network and leave ``checkpoint.pt`` and ``metrics.jsonl`` in the run's folder.

    Args:
        recipe: how; the class count comes from the data.
        dataset: its training images.
        options: where and how fast.
        resume: checkpoint of an interrupted run of the same recipe; its finished epochs are kept.
        on_step: called after every step.

    Returns:
        The last checkpoint, its network in evaluation mode.

    Raises:
        DatasetError: fewer training images than one batch.
        CheckpointError: ``resume`` cannot be read or is of another recipe.
    """
    labels = dataset.train_labels().tolist()
    if len(labels) < recipe.batch:
        raise DatasetError(
            f"{dataset.root}: {len(labels)} training images, expected at least one batch of "
            f"{recipe.batch}; pass a smaller --batch-size"
        )
    classes = max(labels) + 1
    recipe = dataclasses.replace(
        recipe, network=dataclasses.replace(recipe.network, classes=classes)
    )
    torch.manual_seed(options.seed)
    device = resolve_device(options.device)
    bf16 = options.precision == "bf16" or (options.precision == "auto" and has_fast_bf16(device))
    network = SANetwork(recipe.network).to(device, memory_format=torch.channels_last)
    optimizer = _optimizer(network, recipe)
    crops = TrainingCrops(dataset.train, labels, recipe, options.seed)
    sampler = EpochSampler(labels, recipe.batch, recipe.images_per_identity, options.seed)
    loader = DataLoader(
        crops, batch_size=recipe.batch, sampler=sampler, num_workers=options.workers, drop_last=True
    )
    epoch_steps = len(sampler) // recipe.batch
    planned = recipe.epochs * epoch_steps
    steps = planned if options.max_steps is None else min(planned, options.max_steps)
    first = _resume(resume, recipe, network, optimizer) if resume else 0
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / CHECKPOINT
    epoch, step = first, first * epoch_steps
    while step < steps:
        sampler.epoch = crops.epoch = epoch
        network.train()
        began = time.perf_counter()
        losses: list[float] = []
        for images, targets in _limited(loader, steps - step):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * lr_factor(recipe, step, planned, epoch_steps)
            loss, accuracy = _step(
                network, optimizer, recipe, images.to(device), targets.to(device), bf16
            )
            step += 1
            losses.append(loss)
            rate = len(losses) * recipe.batch / (time.perf_counter() - began)
            if on_step is not None:
                on_step(
                    Progress(
                        epoch=epoch + 1,
                        step=step,
                        steps=steps,
                        loss=loss,
                        accuracy=accuracy,
                        images_per_s=rate,
                    )
                )
        epoch += 1
        save_checkpoint(
            target, network, recipe, epoch, {"optimizer": optimizer.state_dict(), "step": step}
        )
        _log(
            options.out / METRICS,
            {"epoch": epoch, "step": step, "loss": sum(losses) / len(losses), "images_per_s": rate},
        )
    return load_checkpoint(target)


def lr_factor(recipe: Recipe, step: int, steps: int, epoch_steps: int) -> float:
    """What the learning rate is multiplied with at a step.

    >>> from sa_training.recipes import sa
    >>> [round(lr_factor(sa(), epoch * 10, 1000, 10), 4) for epoch in (0, 39, 40, 80)]
    [1.0, 1.0, 0.1, 0.01]
    """
    warmup = recipe.warmup * steps
    if step < warmup:
        return (step + 1) / math.ceil(warmup)
    if recipe.schedule == "cosine":
        done = (step - warmup) / max(1.0, steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))
    return float(0.1 ** (step // epoch_steps // recipe.step_size))


def _optimizer(network: SANetwork, recipe: Recipe) -> torch.optim.Optimizer:
    base = list(network.base.parameters())
    inside = {id(parameter) for parameter in base}
    head = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    groups = [
        {"params": base, "base_lr": recipe.lr * recipe.backbone_lr_factor},
        {"params": head, "base_lr": recipe.lr},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    images_NHW3: Tensor,
    labels_N: Tensor,
    bf16: bool,
) -> tuple[float, float]:
    with torch.autocast(images_NHW3.device.type, torch.bfloat16, enabled=bf16):
        output = network(network_input(images_NHW3))
    loss = classification_loss(output, labels_N, recipe.label_smoothing)
    if recipe.triplet_weight:
        vectors_ND = output.pooled_NCP.flatten(1)
        loss = loss + recipe.triplet_weight * batch_hard_triplet(
            vectors_ND, labels_N, recipe.triplet_margin
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    global_NK = output.logits[recipe.network.parts]
    accuracy = (global_NK.argmax(1) == labels_N).float().mean()
    return float(loss.detach()), float(accuracy)


def _limited(loader: DataLoader[tuple[Tensor, int]], most: int) -> Iterator[Sequence[Tensor]]:
    for count, batch in enumerate(loader):
        if count == most:
            return
        yield batch


def _resume(
    path: Path, recipe: Recipe, network: SANetwork, optimizer: torch.optim.Optimizer
) -> int:
    checkpoint = load_checkpoint(path, recipe.network)
    if checkpoint.training and checkpoint.recipe.network != recipe.network:
        raise CheckpointError(
            f"{path}: trained with recipe {checkpoint.recipe.name!r} and another network; "
            f"pass --recipe {checkpoint.recipe.name} and the same data to resume it"
        )
    load_weights(network, checkpoint.network.state_dict(), source=str(path))
    if checkpoint.training:
        optimizer.load_state_dict(checkpoint.training["optimizer"])
    return checkpoint.epoch


def _log(path: Path, record: dict[str, float]) -> None:
    with path.open("a") as lines:
        lines.write(json.dumps(record) + "\n")
