"""``sa_deploy::AttentionPool`` as a TensorRT plugin whose kernel lives inside the engine.

TensorRT's ONNX parser prefers a registered plugin to a node's function body, so that
registering this before parsing is all it takes. The kernel is compiled while the engine
is built, once per tactic; running the engine needs neither Python nor Triton.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.attention_pool import NORMALIZATIONS, Normalize
from sa_runtime.errors import BuildError, InputError
from sa_runtime.system.extras import require
from sa_runtime.tensorrt.ptx import kernel_from_pool
from sa_runtime.tensorrt.tactics import TACTICS, Element, Pool, tactics_for

PLUGIN = "sa_deploy::AttentionPool"
_SOURCES = ("kernel.py", "plugin.py", "ptx.py", "tactics.py")


class AttentionPoolPlugin:
    """The plugin's three callbacks over one ``tensorrt`` module.

    Args:
        trt: the ``tensorrt`` module.
        trtp: its ``tensorrt.plugin``.
        compute_capability: architecture to compile the kernel for, 80 for 8.0.
    """

    def __init__(self, trt: ModuleType, trtp: ModuleType, compute_capability: int) -> None:
        self.trtp = trtp
        self.compute_capability = compute_capability
        self.elements: dict[Any, Element] = {
            trt.DataType.FLOAT: "fp32",
            trt.DataType.HALF: "fp16",
            trt.DataType.BF16: "bf16",
        }

    def describe(self, x: Any, parts: int, normalize: str) -> Any:
        """(N, C, H, W) -> (N, C, P) of the same type."""
        shape = (x.shape_expr[0], x.shape_expr[1], parts)
        return self.trtp.from_shape_expr(shape, x.dtype)

    def autotune(self, x: Any, parts: int, normalize: str, outputs: Sequence[Any]) -> list[Any]:
        """Input and output of one type, each timed with every tactic that suits the map."""
        kinds = "FP32|FP16|BF16"
        tactics = tactics_for(self.pool(x, parts, normalize))
        return [self.trtp.AutoTuneCombination(f"{kinds}, {kinds}", "LINEAR", tactics)]

    def implement(
        self, x: Any, parts: int, normalize: str, outputs: Sequence[Any], tactic: int
    ) -> tuple[str, str, Any, Any]:
        """The kernel's name, its PTX, how to launch it, and its extra scalars: none."""
        pool = self.pool(x, parts, normalize)
        number = tactic or tactics_for(pool)[0]
        kernel = kernel_from_pool(pool, number, self.compute_capability)
        launch = self.trtp.KernelLaunchParams(
            grid_x=x.shape_expr[0],
            grid_y=TACTICS[number - 1].splits,
            block_x=kernel.threads,
            shared_mem=kernel.shared_bytes,
        )
        # Every tactic passes the same number of scalars: Blackwell's launcher takes one number
        # for all tactics of a plugin.
        return kernel.name, kernel.ptx, launch, self.trtp.SymIntExprs(0)

    def pool(self, x: Any, parts: int, normalize: str) -> Pool:
        """The node's constants.

        Raises:
            BuildError: the map's type or size is none the kernel is made for.
        """
        _, channels, height, width = (int(size) for size in x.shape)
        element = self.elements.get(x.dtype)
        if element is None:
            raise BuildError(
                f"{PLUGIN}: a map of type {x.dtype}, expected FP32, FP16 or BF16; "
                "build with `plugin=False`"
            )
        try:
            return Pool(
                channels=channels,
                height=height,
                width=width,
                parts=parts,
                normalize=normalize_from_field(normalize),
                element=element,
            )
        except InputError as exc:
            raise BuildError(str(exc)) from exc

    def register(self) -> None:
        """Register with TensorRT's process-wide registry.

        TensorRT reads the callbacks' annotations as objects and refuses defaults and strings,
        which is why they are set here instead of written in the signatures above.
        """
        trtp = self.trtp
        desc, pair = trtp.TensorDesc, tuple[trtp.TensorDesc]  # type: ignore[name-defined]
        # `parts` is an array of one number: for an `int` TensorRT 10 calls int() on such an array,
        # which NumPy no longer does.
        attributes = {"parts": NDArray[np.int64], "normalize": str}

        def describe(x: Any, parts: Any, normalize: str) -> Any:
            return self.describe(x, int(parts[0]), normalize)

        def autotune(x: Any, parts: Any, normalize: str, outputs: Any) -> Any:
            return self.autotune(x, int(parts[0]), normalize, outputs)

        def implement(x: Any, parts: Any, normalize: str, outputs: Any, tactic: int) -> Any:
            return self.implement(x, int(parts[0]), normalize, outputs, tactic)

        describe.__annotations__ = {"x": desc, **attributes, "return": desc}
        autotune.__annotations__ = {
            "x": desc,
            **attributes,
            "outputs": pair,
            "return": list[trtp.AutoTuneCombination],  # type: ignore[name-defined]
        }
        implement.__annotations__ = {
            "x": desc,
            **attributes,
            "outputs": pair,
            "tactic": int,
            "return": tuple[str, str, trtp.KernelLaunchParams, trtp.SymExprs],  # type: ignore[name-defined]
        }
        trtp.register(PLUGIN)(describe)
        trtp.autotune(PLUGIN)(autotune)
        trtp.aot_impl(PLUGIN)(implement)


def normalize_from_field(text: str) -> Normalize:
    """The attribute ``normalize`` as TensorRT's ONNX parser hands it over.

    It ends in a NUL, and the bindings of TensorRT 10.9 to 10.15 repeat the first character of
    every string, which leaves its length.

    Raises:
        BuildError: none of the operator's normalisations.

    >>> [normalize_from_field(text) for text in ("none", "sum\\0", "ssss", "ssssssss")]
    ['none', 'sum', 'sum', 'softmax']
    """
    for name in NORMALIZATIONS:
        repeated = (name[0] * len(name), name[0] * (len(name) + 1))
        if text.rstrip("\0") == name or text in repeated:
            return name
    raise BuildError(f"{PLUGIN}: normalize={text!r}, expected one of {', '.join(NORMALIZATIONS)}")


_registered: dict[str, AttentionPoolPlugin] = {}


def register_attention_pool(trt: ModuleType, compute_capability: int) -> None:
    """Make TensorRT's parser take AttentionPool nodes as the fused plugin, for one architecture.

    The registry is the process's own: a second call only changes the architecture.

    Args:
        trt: the ``tensorrt`` module; never TensorRT-RTX, which has no plugin layers.
        compute_capability: 80 for 8.0.

    Raises:
        MissingPackageError: Triton is not installed.
        BuildError: this TensorRT has no ahead-of-time Python plugins.
    """
    require("triton", extra="gpu", purpose="building the fused attention-pool plugin")
    if not hasattr(trt, "QuickPluginCreationRequest"):
        raise BuildError(
            f"TensorRT {trt.__version__} has no ahead-of-time Python plugins, expected 10.9 or "
            "newer; update it, or build with `plugin=False`"
        )
    existing = _registered.get(trt.__name__)
    if existing is not None:
        existing.compute_capability = compute_capability
        return
    trtp = require(f"{trt.__name__}.plugin", extra="gpu", purpose="the attention-pool plugin")
    plugin = AttentionPoolPlugin(trt, trtp, compute_capability)
    plugin.register()
    _registered[trt.__name__] = plugin


@functools.cache
def plugin_sha256() -> str:
    """Hash of everything that decides the embedded kernel: its sources and Triton's version."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    triton = require("triton", extra="gpu", purpose="hashing the attention-pool plugin")
    digest.update(triton.__version__.encode())
    return digest.hexdigest()
