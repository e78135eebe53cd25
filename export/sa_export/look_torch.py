"""What a TorchScript file or a checkpoint is, and what ``adopt`` would make of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from sa_export.families.base import Network
from sa_export.foreign import ModelHints
from sa_export.foreign_torch import checkpoint, torchscript_network
from sa_export.foreign_weights import is_torchscript, read_foreign_weights
from sa_export.look import Look, Tensor
from sa_runtime.errors import CheckpointError, InputError, RunnerError, SaDeployError


def look_at_torch(path: Path) -> Look:
    """What a file of torch is; a TorchScript file's code runs once.

    Raises:
        CheckpointError: none of these, or a broken one.
    """
    if is_torchscript(path):
        return _script(path)
    own = _own(path)
    return own if own is not None else _checkpoint(path)


def _script(path: Path) -> Look:
    try:
        network = torchscript_network(path, ModelHints())
    except (InputError, RunnerError) as exc:
        return Look(
            path=path,
            kind="TorchScript",
            size_bytes=path.stat().st_size,
            parameters=0,
            notes=(str(exc),),
        )
    return _look(path, "TorchScript", network, network_parameters(network), network.notes)


def is_own(path: Path) -> bool:
    """Whether a file is a checkpoint of ``sa-deploy train``, which carries its recipe."""
    return _own(path) is not None


def network_flops(network: Network) -> int:
    """Operations of an image, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.vectors(torch.zeros(1, 3, network.height, network.width))
    return int(counter.get_total_flops())


def _own(path: Path) -> Look | None:
    """A checkpoint of ``sa-deploy train``, which needs no adopting."""
    try:
        content = torch.load(path, map_location="meta", weights_only=True, mmap=False)
    except (RuntimeError, OSError, ValueError, EOFError, LookupError, pickle.UnpicklingError):
        return None
    if not isinstance(content, dict) or "sa_deploy" not in content:
        return None
    recipe, weights = content["sa_deploy"], content["state_dict"]
    network = recipe["network"]
    return Look(
        path=path,
        kind="checkpoint",
        what=f"sa-deploy's own, recipe {recipe['name']}, {network['backbone']}, epoch "
        f"{content.get('epoch', 0)}",
        size_bytes=path.stat().st_size,
        parameters=sum(value.numel() for value in weights.values()),
        height=network["height"],
        width=network["width"],
        notes=(f"next: sa-deploy export {path} --onnx --out FOLDER",),
    )


def _checkpoint(path: Path) -> Look:
    found = read_foreign_weights(path)
    notes = [f"weights under {found.key!r}"] if found.key else []
    try:
        network = checkpoint(path, ModelHints())
    except CheckpointError as exc:
        return Look(
            path=path,
            kind="checkpoint",
            what="of no family that is known by its names",
            size_bytes=path.stat().st_size,
            parameters=found.parameters,
            notes=(*notes, str(exc)),
        )
    if network.left_out:
        classes = f" of {network.classes} classes" if network.classes else ""
        notes.append(f"a classifier{classes}, which the embedding does not depend on")
    return _look(path, "checkpoint", network, found.parameters, (*notes, *network.notes))


def network_parameters(network: Network) -> int:
    """Numbers in a network's parameters and buffers."""
    return sum(value.numel() for value in network.module.state_dict().values())


def _look(path: Path, kind: str, network: Network, parameters: int, notes: tuple[str, ...]) -> Look:
    shape, embedding, flops = (1, 3, network.height, network.width), "", 0
    outputs: tuple[Tensor, ...] = ()
    try:
        with torch.no_grad():
            vectors = network.vectors(torch.zeros(shape))
        assert isinstance(vectors, torch.Tensor)
        flops = network_flops(network)
        embedding = "features"
        outputs = (
            Tensor(
                name=embedding,
                type="float32",
                shape=(None, *vectors.shape[1:]),
                meaning=network.embedding,
            ),
        )
    except (SaDeployError, RuntimeError) as exc:
        notes = (*notes, f"fails on images {shape}: {' '.join(str(exc).split())[-120:]}")
    words = ["sa-deploy adopt", path.name, f"--out {path.name.partition('.')[0]}.onnx"]
    if kind == "TorchScript":
        words.append(f"--height {network.height} --width {network.width} --preprocessing NAME")
    return Look(
        path=path,
        kind=kind,
        what=f"{network.arch} of {network.family}, pixels {network.stated or network.preprocessing}"
        if kind == "checkpoint"
        else network.arch,
        size_bytes=path.stat().st_size,
        parameters=parameters,
        flops=flops,
        height=network.height,
        width=network.width,
        inputs=(Tensor(name="input", type="float32", shape=(None, *shape[1:])),),
        outputs=outputs,
        embedding=embedding,
        adopt=" ".join(words),
        notes=notes,
    )
