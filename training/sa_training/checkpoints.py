"""Checkpoints: ours and the authors' (facts: section 3), read without running any code in them.

A checkpoint is a dict with the authors' keys ``state_dict``, ``epoch`` (finished epochs) and
``best_top1``; ours adds ``sa_deploy`` with the recipe, and ``training`` with what a resume needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sa_runtime.errors import CheckpointError
from sa_runtime.system.files import atomic_path
from sa_training.network import NetworkConfig, SANetwork
from sa_training.recipes import Recipe, sa

_BROKEN = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What reading a file that is no whole checkpoint raises."""
CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
_UNUSED = re.compile(r"^(base\.fc\.|fusion_conv\.)|num_batches_tracked$")
"""Keys that the authors' files hold, or lack, without effect on the network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        network: with the weights loaded, in evaluation mode.
        recipe: that trained it; for the authors' files their architecture.
        epoch: finished epochs.
        training: optimizer and generator states of our own files, empty for others.
    """

    path: Path
    network: SANetwork
    recipe: Recipe
    epoch: int
    training: dict[str, Any]


def save_checkpoint(
    path: Path,
    network: SANetwork | Mapping[str, Tensor],
    recipe: Recipe,
    epoch: int,
    training: dict[str, Any],
    *,
    keep_previous: bool = False,
) -> None:
    """Write a checkpoint; it is whole or not there.

    Args:
        path: the file.
        network: the network, or its weights.
        recipe: that trains it.
        epoch: finished epochs.
        training: what a resumed run needs beside; tensors and plain values.
        keep_previous: the checkpoint that it replaces stays as :func:`previous_of` names it.
    """
    weights = network.state_dict() if isinstance(network, SANetwork) else dict(network)
    content = {
        "state_dict": weights,
        "epoch": epoch,
        "best_top1": 0,
        "sa_deploy": recipe.to_dict(),
        "training": training,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
        if keep_previous and path.is_file():
            _keep(path)


def previous_of(path: Path) -> Path:
    """Where the checkpoint before ``path`` is kept.

    >>> previous_of(Path("run/checkpoint.pt")).as_posix()
    'run/checkpoint.previous.pt'
    """
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing."""
    for partial in folder.glob(".*.partial.pt"):
        partial.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Give a file its second name, without a moment in which it has none."""
    with atomic_path(previous_of(path)) as second:
        try:
            os.link(path, second)
        except OSError:  # a file system without links
            shutil.copyfile(path, second)


def load_checkpoint(path: Path, config: NetworkConfig | None = None) -> Checkpoint:
    """Read our own checkpoint or one of the authors'.

    Args:
        path: the file.
        config: architecture of a file that does not say its own; the authors' network at
            384x128 where it is not given. The class count is always taken from the file.

    Raises:
        CheckpointError: no such file, a broken one, or weights that do not fit the architecture.
    """
    content = _read(path)
    weights: dict[str, Tensor] = content["state_dict"]
    if "sa_deploy" in content:
        recipe = Recipe.from_dict(content["sa_deploy"])
    else:
        recipe = dataclasses.replace(
            sa(), name="authors", network=config or authors_network(weights, path)
        )
        classes = weights["instance0.weight"].shape[0] if "instance0.weight" in weights else 0
        recipe = dataclasses.replace(
            recipe, network=dataclasses.replace(recipe.network, classes=classes or 751)
        )
    network = SANetwork(recipe.network)
    load_weights(network, weights, source=str(path))
    return Checkpoint(
        path=path,
        network=network.eval(),
        recipe=recipe,
        epoch=int(content.get("epoch", 0)),
        training=content.get("training", {}),
    )


def authors_network(weights: dict[str, Tensor], path: Path) -> NetworkConfig:
    """The authors' architecture with depth and features as the weights say.

    Raises:
        CheckpointError: the weights are of no ResNet that the authors' network supports.
    """
    blocks = len({key.split(".")[2] for key in weights if key.startswith("base.layer3.")})
    depth = {6: "resnet50", 23: "resnet101", 36: "resnet152"}.get(blocks)
    if depth is None or "local_conv.weight" not in weights:
        raise CheckpointError(
            f"{path}: not a checkpoint of the SA network (stage 3 has {blocks} blocks, expected "
            "6, 23 or 36 and a local_conv.weight); pass one that `sa-deploy train` or the authors' "
            "code wrote"
        )
    return NetworkConfig(
        backbone=depth, features=weights["local_conv.weight"].shape[0], attention="stages"
    )


def load_weights(network: SANetwork, weights: dict[str, Tensor], *, source: str) -> None:
    """Load a state dict; the authors' unused keys and ``num_batches_tracked`` may be there or not.

    Raises:
        CheckpointError: a missing or unknown key, or another shape.
    """
    named = {k.removeprefix("module."): v for k, v in weights.items()}
    own = network.state_dict()
    given = {k: v for k, v in named.items() if not _UNUSED.search(k)}
    expected = {k: v for k, v in own.items() if not _UNUSED.search(k)}
    missing = sorted(set(expected) - set(given))
    unknown = sorted(set(given) - set(expected))
    shapes = [
        f"{k} {tuple(given[k].shape)}, expected {tuple(expected[k].shape)}"
        for k in sorted(set(given) & set(expected))
        if given[k].shape != expected[k].shape
    ]
    for what, found in (
        ("lacks", missing),
        ("has unknown", unknown),
        ("has other shapes:", shapes),
    ):
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise CheckpointError(
                f"{source}: {what} {'; '.join(found[:3])}{more}; the weights are of another "
                f"architecture than {network.config.backbone} with {network.config.parts} parts"
            )
    network.load_state_dict({k: v for k, v in named.items() if k in own}, strict=False)


def weights_sha256(network: SANetwork) -> str:
    """Hash of what the embeddings depend on: names, shapes and values, classifiers left out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.startswith(("base.", "local_conv.", "feat_bn2d.")) and not _UNUSED.search(name):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_sums(path: Path) -> None:
    """Compare the parts of a zip with their checksums, which torch does not."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            wrong = parts.testzip()
        if wrong is not None:
            raise ValueError(f"{wrong} has changed since it was written")


def _last_good(path: Path) -> str:
    """The end of a message: the newest whole checkpoint beside a broken one.

    Those that a run can go on from come before those that only keep weights, as ``best.pt`` does.
    """
    weights_only = None
    files = [file for file in path.parent.glob(f"*{path.suffix}") if file != path]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            _check_sums(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
            step, epoch = content["training"].get("step"), content["epoch"]
        except Exception:
            continue
        if step is not None:
            return f"; the last good one is {file} (epoch {epoch}, step {step}): pass that"
        weights_only = weights_only or f"{file} (epoch {epoch}, weights only)"
    if weights_only is not None:
        return f"; the last good one is {weights_only}: pass that"
    return "; there is no good one beside it"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint of `sa-deploy train`")
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as exc:
        raise CheckpointError(
            f"{path}: not a readable checkpoint; it is truncated, or no checkpoint, or holds "
            f"more than tensors and plain values ({' '.join(str(exc).split())[:120]})"
            f"{_last_good(path)}"
        ) from exc
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(
            f"{path}: holds no 'state_dict'; expected a checkpoint, not bare weights"
        )
    return content
