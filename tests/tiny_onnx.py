"""A model for tests that need one but not a trained one.

A test module takes the fixtures with ``pytest_plugins = ("tests.tiny_onnx",)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.artefact.contract import METADATA_KEY, Contract, InputSpec, OutputSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A small ONNX artefact and what it computes, written in NumPy.

    The mean colours of a 4 x 2 grid go through one random matrix to unit length, so that the
    vectors depend on where a colour stands and on the channel order.
    """

    path: Path
    contract: Contract
    weights: NDArray[np.float32]  # (24, dim)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 -> (N, dim) float32."""
        n, h, w, _ = images.shape
        cells = images.reshape(n, 4, h // 4, 2, w // 2, 3).astype(np.float64).mean(axis=(2, 4))
        features = cells.transpose(0, 3, 1, 2).reshape(n, 24) / 255 - 0.5
        vectors = features @ self.weights.astype(np.float64)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(unit, np.float32)


def write_tiny_onnx(
    path: Path, *, height: int, width: int, dim: int, seed: int, max_batch: int | None
) -> TinyModel:
    """Write a :class:`TinyModel`: uint8 NHWC BGR in, unit vectors out, any batch."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(24, dim)).astype(np.float32)
    contract = Contract(
        input=InputSpec(height=height, width=width),
        output=OutputSpec(dim=dim),
        weights_sha256=f"{seed:064x}",
        space=f"tiny-{seed}",
        recipe="tiny",
        max_batch=max_batch,
    )
    cell = [height // 4, width // 2]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["cells"], kernel_shape=cell, strides=cell),
        helper.make_node("Flatten", ["cells"], ["flat"], axis=1),
        helper.make_node("Div", ["flat", "white"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "grey"], ["centred"]),
        helper.make_node("MatMul", ["centred", "weights"], ["vectors"]),
        helper.make_node("LpNormalization", ["vectors"], ["embeddings"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", dim])],
        [
            numpy_helper.from_array(np.array(255, np.float32), "white"),
            numpy_helper.from_array(np.array(0.5, np.float32), "grey"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    save(model, str(path))
    return TinyModel(path=path, contract=contract, weights=weights)


def write_convolutional_onnx(path: Path, pool: str = "global") -> NDArray[np.float32]:
    """Write an artefact for 16 x 8 pixels: one convolution over cells of 2 x 2, pooled.

    Args:
        path: the file.
        pool: ``global`` or ``mean``, the same in other words, or over the ``channels``.

    Returns:
        (8, 3, 2, 2) weights.
    """
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(0).normal(size=(8, 3, 2, 2)).astype(np.float32)
    held = [numpy_helper.from_array(weights, "weights")]
    mean = helper.make_node("GlobalAveragePool", ["last"], ["pooled"])
    if pool == "mean":
        held.append(numpy_helper.from_array(np.array([-1, -2]), "axes"))
        mean = helper.make_node("ReduceMean", ["last", "axes"], ["pooled"], keepdims=1)
    elif pool == "channels":
        held.append(numpy_helper.from_array(np.array([1]), "axes"))
        mean = helper.make_node("ReduceMean", ["last", "axes"], ["pooled"], keepdims=1)
    dim = 8 * 4 if pool == "channels" else 8
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "weights"], ["last"], strides=[2, 2]),
        mean,
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("LpNormalization", ["flat"], ["embeddings"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 16, 8, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", dim])],
        held,
    )
    contract = Contract(
        input=InputSpec(height=16, width=8),
        output=OutputSpec(dim=dim),
        weights_sha256="0",
        space="convolutional",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    save(model, str(path))
    return weights


@pytest.fixture(scope="session")
def make_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyModel]:
    """Factory of tiny ONNX artefacts; ``seed`` is another feature space."""
    folder = tmp_path_factory.mktemp("tiny")
    made: dict[tuple[int, int, int, int, int | None], TinyModel] = {}

    def make(
        *,
        height: int = 32,
        width: int = 16,
        dim: int = 12,
        seed: int = 0,
        max_batch: int | None = None,
    ) -> TinyModel:
        key = (height, width, dim, seed, max_batch)
        if key not in made:
            path = folder / f"tiny{len(made)}.onnx"
            made[key] = write_tiny_onnx(
                path, height=height, width=width, dim=dim, seed=seed, max_batch=max_batch
            )
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_model(make_tiny_model: Callable[..., TinyModel]) -> TinyModel:
    """The tiny artefact with its defaults: 32 x 16 pixels, 12 values."""
    return make_tiny_model()
