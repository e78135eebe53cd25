"""Foreign checkpoints and TorchScript files: loaded in torch, and traced into ONNX."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sa_export.families.base import HEIGHT, WIDTH, Network, Wanted
from sa_export.families.table import network_of
from sa_export.foreign import ForeignModel, ModelHints, refuse_map
from sa_export.foreign_weights import is_torchscript, read_foreign_weights
from sa_export.preprocessing import PRESETS
from sa_runtime.errors import InputError, RunnerError, bad_value
from sa_runtime.system.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
_INPUT, _OUTPUT = "input", "features"


def read_torch(path: Path, hints: ModelHints) -> ForeignModel:
    """Load a checkpoint or a TorchScript file, and trace it into ONNX.

    Raises:
        CheckpointError: no readable weights, or weights of no known network.
        InputError: hints that do not fit.
        RunnerError: the network fails at this size.
    """
    script = is_torchscript(path)
    _refuse_for_torch(path, hints, script=script)
    network = torchscript_network(path, hints) if script else checkpoint(path, hints)
    return foreign_from_network(path, network)


def _refuse_for_torch(path: Path, hints: ModelHints, *, script: bool) -> None:
    """What is said of graphs, and would change nothing here."""
    if hints.image is not None:
        raise bad_value("image", hints.image, f"{path} takes images alone; leave it out")
    if hints.output is not None and not script:
        raise bad_value(
            "output",
            hints.output,
            f"{path} is a checkpoint, whose network gives its vectors; leave it out, or adopt an "
            "ONNX file with that output",
        )


def checkpoint(path: Path, hints: ModelHints) -> Network:
    """The network of a foreign checkpoint."""
    wanted = Wanted(height=hints.height, width=hints.width, last_stride=hints.last_stride)
    found = read_foreign_weights(path)
    return network_of(found, wanted, arch=hints.arch, factory=hints.factory)


def torchscript_network(path: Path, hints: ModelHints) -> Network:
    """The network of a TorchScript file; its code runs, in torch's own interpreter.

    Raises:
        InputError: several outputs and none chosen, or none of that number.
        RunnerError: torch cannot load it, or it fails at this size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.load(str(path), map_location="cpu").eval().float()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as exc:
        raise RunnerError(f"{path}: torch cannot load it: {exc}") from exc
    height, width = hints.height or HEIGHT, hints.width or WIDTH
    output = _call(path, script, height, width)
    index = None
    if isinstance(output, tuple | list):
        shapes = ", ".join(f"{i} {tuple(value.shape)}" for i, value in enumerate(output))
        if hints.output is None or not hints.output.isdigit() or int(hints.output) >= len(output):
            raise bad_value(
                "output", hints.output, f"{path} has {len(output)} outputs: {shapes}; choose one"
            )
        index = int(hints.output)
    taken = hints.height is None or hints.width is None
    return Network(
        family="TorchScript",
        arch=getattr(script, "original_name", "TorchScript"),
        module=script,
        height=height,
        width=width,
        preprocessing=PRESETS["imagenet"],
        embedding="what the file gives",
        notes=(f"crops of {height}x{width}, which the file does not tell",) if taken else (),
        index=index,
    )


def _call(path: Path, run: Callable[[Tensor], object], height: int, width: int) -> object:
    try:
        with torch.inference_mode():
            return run(torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError, TypeError) as exc:
        text = " ".join(str(exc).split())[-200:]
        raise RunnerError(
            f"{path}: fails on images (1, 3, {height}, {width}); give the `height` and `width` it "
            f"was trained at ({text})"
        ) from exc


def foreign_from_network(path: Path, network: Network) -> ForeignModel:
    """Trace a network into ONNX.

    Raises:
        InputError: it gives no vectors.
        RunnerError: it fails at its size, or torch cannot write it as ONNX.
    """
    output = _call(path, network.vectors, network.height, network.width)
    if not isinstance(output, Tensor):
        raise InputError(f"{path}: gives {type(output).__name__}, expected one tensor of vectors")
    refuse_map(path, tuple(output.shape))
    return ForeignModel(
        path=path,
        model=_traced(path, network),
        image=_INPUT,
        layout="nchw",
        height=network.height,
        width=network.width,
        half=False,
        batch=None,
        output=_output_names(network)[network.index or 0],
        dim=output.flatten(1).shape[1],
        network=network,
        original=original(network),
        weights=weights_hash(network.module),
    )


def original(network: Network) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A network as a function: (N, H, W, 3) float32 -> (N, D) float32."""

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        x_N3HW = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        with torch.inference_mode():
            found = [network.vectors(batch) for batch in torch.split(x_N3HW, 16)]
            parts = [vectors.flatten(1).float() for vectors in found if isinstance(vectors, Tensor)]
        vectors: NDArray[np.float32] = torch.cat(parts).numpy()
        return vectors

    return run


def weights_hash(module: nn.Module) -> str:
    """Hash of names, shapes and values of a network's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _output_names(network: Network) -> list[str]:
    """Of all outputs up to the chosen one."""
    if network.index is None:
        return [_OUTPUT]
    return [f"{_OUTPUT}_{number}" for number in range(network.index + 1)]


def _traced(path: Path, network: Network) -> ModelProto:
    """By way of TorchScript, whose exporter takes scripted files as well as networks."""
    onnx = require("onnx", extra="export", purpose="sa-deploy adopt")
    example, names = torch.zeros(2, 3, network.height, network.width), _output_names(network)
    try:
        with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            target = Path(folder) / "model.onnx"
            torch.onnx.export(
                network.module.eval(),
                (example,),
                target,
                dynamo=False,
                input_names=[_INPUT],
                output_names=names,
                dynamic_axes={name: {0: "N"} for name in (_INPUT, *names)},
                opset_version=OPSET,
            )
            model: ModelProto = onnx.load(str(target))
            return model
    except (RuntimeError, ValueError, TypeError) as exc:  # torch.onnx's errors share no other base
        text = " ".join(str(exc).split())[:200]
        raise RunnerError(f"{path}: torch cannot write it as ONNX ({text})") from exc
