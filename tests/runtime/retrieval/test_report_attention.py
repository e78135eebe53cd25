"""Maps of where a model looks, against the network in torch and against NumPy."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.retrieval.report.attention import attention_of

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_artefacts", "tests.tiny_onnx")


def written(images: NDArray[np.uint8], folder: Path) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    return paths


def shares(maps: NDArray[Any]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = 255.0 * maps / maps.max(axis=(1, 2), keepdims=True)
    return share


@pytest.mark.parametrize("kind", ["onnx", "fixed"])
def test_the_maps_are_the_networks_attention(
    tiny_artefacts: TinyArtefacts, kind: str, tmp_path: Path
) -> None:
    from sa_training.cam import class_activations

    images = tiny_artefacts.crops(18)
    done: list[int] = []
    found = attention_of(tiny_artefacts.files[kind], written(images, tmp_path), done.append)
    expected = np.stack(
        [one.attention for one in class_activations(tiny_artefacts.network, images)]
    )
    assert (found.kind, found.reason) == ("attention", "")
    assert found.maps.shape == expected.shape
    assert expected.shape[1] * expected.shape[2] > 1
    np.testing.assert_allclose(found.maps, shares(expected), atol=1)
    assert np.ptp(found.maps) > 50
    assert sum(done) == 18
    described = found.to_dict()
    assert described["count"] == 18
    assert base64.b64decode(described["maps"]) == found.maps.tobytes()


@pytest.mark.parametrize("pool", ["global", "mean"])
def test_a_network_without_attention_shows_where_its_last_map_is_strong(
    pool: str, tmp_path: Path
) -> None:
    from tests.tiny_onnx import write_convolutional_onnx

    weights = write_convolutional_onnx(tmp_path / "m.onnx", pool)
    images = np.random.default_rng(1).integers(0, 256, (5, 16, 8, 3), np.uint8)
    found = attention_of(tmp_path / "m.onnx", written(images, tmp_path))
    cells = images.reshape(5, 8, 2, 4, 2, 3).astype(float)
    last = np.einsum("nyaxbc,kcab->nkyx", cells, weights.astype(float))
    assert found.kind == "strength"
    np.testing.assert_allclose(found.maps, shares((last**2).mean(axis=1)), atol=1)


def test_what_has_no_map_says_so(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny_onnx import write_convolutional_onnx

    crop = written(np.zeros((1, 32, 16, 3), np.uint8), tmp_path)
    write_convolutional_onnx(tmp_path / "m.onnx", "channels")
    cases = {
        tiny_model.path: "pools no map",
        tmp_path / "m.onnx": "pools no map",
        tmp_path / "engine.plan": "ONNX files only",
        tmp_path / "gone.onnx": "gone.onnx",
    }
    for model, reason in cases.items():
        found = attention_of(model, crop)
        assert (found.kind, len(found.maps)) == ("none", 0)
        assert reason in found.reason

    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "'onnx', which is not installed" in attention_of(tiny_model.path, crop).reason
