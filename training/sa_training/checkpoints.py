"""Checkpoints: ours and the authors', read without running any code in them.

A checkpoint is a dict with the authors' keys ``state_dict``, ``epoch`` (finished epochs) and
``best_top1``; ours adds ``sa_deploy`` with the recipe, and ``training`` with what a resume needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import shutil
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sa_runtime.errors import CheckpointError, InputError, MissingFileError, bad_value
from sa_runtime.system.files import atomic_path
from sa_training.backbones import check_trusted
from sa_training.network import SANetwork
from sa_training.recipes import Recipe, sa
from sa_training.weights import (
    EMBEDDING,
    UNUSED,
    authors_network,
    classes_of,
    is_state_dict,
    load_weights,
    plain_names,
    refuse_other_files,
    require_classifiers,
)

_BROKEN = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What reading a file that is no whole checkpoint raises."""
_BARE = "bare"
"""Marks what was read from a file that holds nothing but a state dict."""
CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        network: with the weights loaded, in evaluation mode.
        recipe: what trained it; for the authors' files, their architecture.
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
        recipe: what trains it.
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
    """Remove what a killed process was writing: a run's own files and no others."""
    for own in (CHECKPOINT, previous_of(Path(CHECKPOINT)).name, BEST):
        stem, suffix = Path(own).stem, Path(own).suffix
        for partial in folder.glob(f".{stem}.*.partial{suffix}"):
            partial.unlink(missing_ok=True)


def holds_run(folder: Path) -> bool:
    """Whether a training has left weights in a folder."""
    return any((folder / name).exists() for name in (CHECKPOINT, BEST))


def refuse_older_run(folder: Path, resume: Path | None = None) -> None:
    """Raise InputError where weights of a run would be lost that is not the one to go on with."""
    if not holds_run(folder):
        return
    if resume is None or resume.absolute().parent.resolve() != folder.resolve():
        raise bad_value(
            "out",
            str(folder),
            f"holds the weights of an earlier run; go on with it by `resume={str(folder)!r}`, or "
            "choose another `out`",
        )


def _keep(path: Path) -> None:
    """Give a file its second name, without a moment in which it has none."""
    with atomic_path(previous_of(path)) as second:
        try:
            os.link(path, second)
        except OSError:  # a file system without links
            shutil.copyfile(path, second)


def load_checkpoint(
    path: Path | str, recipe: Recipe | None = None, *, classifiers: bool = False
) -> Checkpoint:
    """Read our own checkpoint, one of the authors', or a bare state dict.

    Names may carry what DataParallel and torch.compile put before them. The classifiers, which no
    embedding depends on, may be missing.

    Args:
        path: the file.
        recipe: of a file that does not say its own; the authors' network at 384x128 where it is
            not given. The class count is always taken from the file.
        classifiers: refuse a file that lacks them.

    Raises:
        CheckpointError: no such file, a broken one, weights that do not fit the architecture, or
            a bare state dict without ``recipe``.
    """
    path = Path(path)
    refuse_other_files(path)
    content = _read(path)
    weights = plain_names(content["state_dict"])
    if "sa_deploy" in content:
        _check_factory(content["sa_deploy"], path)
        recipe = Recipe.from_dict(content["sa_deploy"])
    else:
        recipe = _recipe_of(weights, recipe, path, bare=_BARE in content)
    network = SANetwork(recipe.network)
    lacks = load_weights(network, weights, source=str(path))
    if classifiers:
        require_classifiers(lacks, str(path))
    return Checkpoint(
        path=path,
        network=network.eval(),
        recipe=recipe,
        epoch=int(content.get("epoch", 0)),
        training=content.get("training", {}),
    )


def _check_factory(recipe: Any, path: Path) -> None:
    """Refuse to run code that only a file names."""
    network = recipe.get("network") if isinstance(recipe, dict) else None
    name = network.get("backbone") if isinstance(network, dict) else None
    try:
        check_trusted(name if isinstance(name, str) else "")
    except InputError as exc:
        raise CheckpointError(f"{path}: {exc}", path=path) from exc


def _recipe_of(
    weights: dict[str, Tensor], recipe: Recipe | None, path: Path, *, bare: bool
) -> Recipe:
    """The recipe of a file that does not say its own, for as many classes as it knows."""
    if recipe is None:
        if bare:
            raise CheckpointError(
                f"{path}: bare weights, which do not say their architecture; name its recipe, for "
                f"example `sa-deploy export {path} --recipe sa --onnx --out FOLDER`"
            )
        recipe = dataclasses.replace(sa(), name="authors", network=authors_network(weights, path))
    classes = classes_of(weights) or recipe.network.classes
    return dataclasses.replace(recipe, network=recipe.network_for(classes))


def weights_sha256(network: SANetwork) -> str:
    """Hash of what the embeddings depend on: names, shapes and values, classifiers left out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.startswith(EMBEDDING) and not UNUSED.search(name):
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


def _first_sentence(error: Exception) -> str:
    """Of another library's message, which may go on for pages."""
    text = " ".join(str(error).split()).partition(". ")[0]
    return textwrap.shorten(text, 120, placeholder=" ...")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file; expected a checkpoint of `sa-deploy train`", path=path
        )
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as exc:
        raise CheckpointError(
            f"{path}: not a readable checkpoint; it is truncated, or no checkpoint, or holds "
            f"more than tensors and plain values ({_first_sentence(exc)})"
            f"{_last_good(path)}"
        ) from exc
    if is_state_dict(content):
        return {"state_dict": content, _BARE: True}
    if not isinstance(content, dict) or not is_state_dict(content.get("state_dict")):
        raise CheckpointError(
            f"{path}: holds neither a 'state_dict' of tensors nor is one; expected a checkpoint "
            "of `sa-deploy train`, one of the authors', or bare weights"
        )
    return content
