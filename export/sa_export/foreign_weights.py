"""Checkpoints of others, read without running any code in them."""

from __future__ import annotations

import argparse
import dataclasses
import pickle
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sa_runtime.errors import CheckpointError, MissingFileError
from sa_training.weights import is_state_dict, plain_names

_KEYS = ("state_dict", "model", "model_state_dict", "net", "network", "weights")
"""Under which frameworks keep the weights: torchreid, timm and Luo's baseline the first, fast-reid
the second."""
_BROKEN = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ForeignWeights:
    """What a checkpoint holds.

    Attributes:
        path: the file.
        weights: by their names, without what wrappers put before them.
        key: under which they stood, empty for a bare state dict.
        said: further plain values beside them, such as ``epoch`` or timm's ``arch``.
    """

    path: Path
    weights: dict[str, Tensor]
    key: str
    said: dict[str, Any]

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(value.numel() for value in self.weights.values())


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


def read_foreign_weights(path: Path) -> ForeignWeights:
    """Read a checkpoint.

    Tensors, plain values, NumPy's numbers and argparse's namespaces are read, and nothing that runs
    code.

    Raises:
        CheckpointError: no checkpoint, a broken one, or one without weights; the message says what
            it holds.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected a checkpoint", path=path)
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    if is_state_dict(content):
        return ForeignWeights(path=path, weights=_plain(content), key="", said={})
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected weights by name")
    for key in _KEYS:
        if is_state_dict(content.get(key)):
            said = {
                name: value
                for name, value in content.items()
                if isinstance(value, str | int | float | argparse.Namespace)
            }
            return ForeignWeights(
                path=path, weights=_plain(content[key]), key=key, said=_flat(said)
            )
    held = textwrap.shorten(", ".join(map(str, content)), 120, placeholder=" ...")
    raise CheckpointError(
        f"{path}: holds {held or 'nothing'}, and no weights under {', '.join(_KEYS)}; save the "
        "network's state_dict() alone"
    )


def _torch(path: Path) -> Any:
    kinds: list[Any] = [np.dtype, argparse.Namespace, np.float64, np.float32, np.int64]
    kinds += [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4")]
    scalar = np.float64(0).__reduce__()[0]
    allowed = [*kinds, scalar, (scalar, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as exc:
        text = " ".join(str(exc).split())
        if "Unsupported global" in text or "weights_only" in text.lower():
            kind = text.partition("GLOBAL ")[2].partition(" was not")[0]
            raise CheckpointError(
                f"{path}: holds Python objects{f' ({kind})' if kind else ''}, which only running "
                "its code would load, such as a whole network; load it where it came from, and "
                "save its state_dict() or a TorchScript file"
            ) from exc
        short = textwrap.shorten(text, 120, placeholder=" ...")
        raise CheckpointError(
            f"{path}: not a whole checkpoint of torch ({short}); copy it again"
        ) from exc


def _safetensors(path: Path) -> Any:
    from sa_runtime.system.extras import require

    library = require("safetensors.torch", extra="timm", purpose="reading .safetensors files")
    try:
        return library.load_file(str(path))
    except Exception as exc:  # its errors share no base
        raise CheckpointError(f"{path}: not a whole .safetensors file ({exc})") from exc


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without wrappers' names, and without the word that all names begin with, as Lightning's."""
    plain = plain_names(weights)
    for word in ("model.", "net.", "network.", "reid_model.", "student."):
        if all(name.startswith(word) for name in plain):
            plain = {name.removeprefix(word): value for name, value in plain.items()}
    return plain


def _flat(said: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in said.items():
        if isinstance(value, argparse.Namespace):
            flat |= {k: v for k, v in vars(value).items() if isinstance(v, str | int | float)}
        else:
            flat[name] = value
    return flat
