"""Weights in files of their own: found beside the model, refused elsewhere, known by hash."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sa_runtime.artefact.contract import METADATA_KEY
from sa_runtime.artefact.external_data import WEIGHTS_KEY, external_tensors
from sa_runtime.artefact.formats import files_of
from sa_runtime.artefact.metadata import contract_text
from sa_runtime.errors import ContractError, InputError
from sa_runtime.runners import auto
from sa_runtime.runners.opening import open_runner
from sa_runtime.tensorrt.graph import read_graph

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts

pytest_plugins = ("tests.tiny_artefacts",)

RUNTIMES = ("onnxruntime", "openvino")
Moved = Callable[..., Path]


@pytest.fixture(params=["functions", "plain"])
def moved(request: pytest.FixtureRequest, tiny_artefacts: TinyArtefacts, tmp_path: Path) -> Moved:
    """Writes ``home/model.onnx`` with its weights in another file, as converters do.

    With model-local functions, as this project exports, and without, as others do: OpenVINO gets
    the first as bytes and the second as a path.
    """
    import onnx
    from onnx.inliner import inline_local_functions

    def write(location: str = "w.bin", *, scale: float = 1.0, home: str = "home") -> Path:
        model = onnx.load(tiny_artefacts.files["onnx"])
        if request.param == "plain":
            model = inline_local_functions(model)
        for item in model.graph.initializer:
            weights = onnx.numpy_helper.to_array(item)
            if weights.ndim == 4 and scale != 1:
                item.raw_data = (weights[::-1] * np.float32(scale)).tobytes()
        path = tmp_path / home / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        onnx.save_model(
            model, path, save_as_external_data=True, location="w.bin", size_threshold=64
        )
        relocate(path, location)
        return path

    return write


def relocate(path: Path, location: str) -> None:
    """Call the weights of a model by another location; the file is not moved."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for item in model.graph.initializer:
        for entry in item.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(model, path)


def opened_everywhere(path: Path, images: np.ndarray, expected: np.ndarray) -> None:
    for runtime in RUNTIMES:
        with open_runner(path, runtime) as runner:
            np.testing.assert_allclose(runner.run(images), expected, atol=2e-5)
    read_graph(path)


def refused_everywhere(path: Path, kind: type[Exception], message: str) -> None:
    for runtime in (*RUNTIMES, "auto"):
        with pytest.raises(kind, match=message):
            open_runner(path, runtime)
    with pytest.raises(kind, match=message):
        read_graph(path)


def test_weights_beside_the_model_are_found_from_any_working_directory(
    moved: Moved, tiny_artefacts: TinyArtefacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tiny_artefacts.crops(2)
    expected = tiny_artefacts.embed(images)
    path = moved()
    other = moved(scale=3.0, home="elsewhere").parent
    monkeypatch.chdir(other)  # holds a w.bin of the same size
    opened_everywhere(path, images, expected)
    below = path.parent / "weights"
    below.mkdir()
    (path.parent / "w.bin").rename(below / "all.bin")
    relocate(path, "weights/all.bin")
    opened_everywhere(path, images, expected)
    assert files_of(path) == [path, below / "all.bin"]
    # Download caches link a model and its weights to a folder of files.
    links = tmp_path / "links"
    links.mkdir()
    relocate(path, "w.bin")
    (below / "all.bin").rename(path.parent / "blob")
    (links / "model.onnx").symlink_to(path)
    (links / "w.bin").symlink_to(path.parent / "blob")
    opened_everywhere(links / "model.onnx", images, expected)


def test_weights_outside_the_models_folder_are_refused(moved: Moved, tmp_path: Path) -> None:
    path = moved()
    outside = tmp_path / "outside.bin"
    shutil.move(path.parent / "w.bin", outside)
    stated = r"home/model\.onnx: tensor '[\w.]+' has its weights in "
    refused_everywhere(path, InputError, stated + r"'w\.bin', and .*home/w\.bin is missing; copy")
    (path.parent / "w.bin").symlink_to(outside)
    mend = r".*; keep weights in the model's own folder, or store them inside the model: onnx\.save"
    link = r"'w\.bin', a link to .*outside\.bin, which is outside the model's folder"
    refused_everywhere(path, InputError, stated + link + mend)
    for location, why in (
        ("../outside.bin", "which leaves the model's folder"),
        ("x/../../outside.bin", "which leaves the model's folder"),
        (r"..\outside.bin", "which leaves the model's folder"),
        (str(outside), "expected a path relative to the model's folder"),
        (r"C:\outside.bin", "expected a path relative to the model's folder"),
        ("", "expected a path relative to the model's folder"),
    ):
        relocate(path, location)
        refused_everywhere(path, InputError, stated + f".*, {why}{mend}")


def test_other_weights_are_not_of_the_space_that_the_contract_names(
    moved: Moved, tiny_artefacts: TinyArtefacts
) -> None:
    import onnx

    images = tiny_artefacts.crops(2)
    path, other = moved(), moved(scale=3.0, home="elsewhere")
    shutil.copyfile(other.with_name("w.bin"), path.with_name("w.bin"))
    refused_everywhere(
        path,
        ContractError,
        r"home/model\.onnx: the weights of '[\w.]+' in 'w\.bin' are not those the model was written"
        r" with, .* another feature space .*; copy all of its files again, or export the model",
    )
    # Files of older versions say nothing of their weights, and open as they did.
    model = onnx.load(path, load_external_data=False)
    kept = [entry for entry in model.metadata_props if entry.key != WEIGHTS_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    for runtime in RUNTIMES:
        with open_runner(path, runtime) as runner:
            assert np.abs(runner.run(images) - tiny_artefacts.embed(images)).max() > 0.01
    model.metadata_props.add(key=WEIGHTS_KEY, value="[1]")
    onnx.save(model, path)
    with pytest.raises(ContractError, match=r"its record of weights .* cannot be read"):
        open_runner(path, "onnxruntime")


def test_weights_that_were_cut_short_are_named(moved: Moved) -> None:
    path = moved()
    weights = path.with_name("w.bin")
    os.truncate(weights, weights.stat().st_size // 2)
    refused_everywhere(path, InputError, r"tensor '[\w.]+' is bytes \d+ to \d+ of .*w\.bin, which")


def test_a_choice_is_not_remembered_for_other_weights(
    moved: Moved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SA_DEPLOY_CACHE", str(tmp_path / "cache"))
    path, other = moved(), moved(scale=3.0, home="elsewhere")
    before = auto._memory(path, [])
    assert auto._memory(path, []) == before
    assert path.read_bytes() == other.read_bytes()
    assert auto._memory(other, []) != before


def test_the_weights_of_an_openvino_model_are_known_by_their_hash(
    tiny_artefacts: TinyArtefacts, tmp_path: Path
) -> None:
    source = tiny_artefacts.files["openvino"]
    path = tmp_path / "model.xml"
    shutil.copyfile(source, path)
    weights = bytearray(source.with_suffix(".bin").read_bytes())
    path.with_suffix(".bin").write_bytes(weights)
    open_runner(path, "openvino").close()
    weights[len(weights) // 2] ^= 1
    path.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(ContractError, match=r"model\.xml: the weights in 'model\.bin' are not "):
        open_runner(path, "openvino")
    path.write_text(path.read_text().replace("<weights ", "<unknown "))
    open_runner(path, "openvino").close()


def test_external_tensors_are_found_wherever_onnx_allows_them(tmp_path: Path) -> None:
    """In constants, in both branches of an If, in functions; by onnx's own writer."""
    from onnx import NodeProto, TensorProto, helper, numpy_helper

    def external(name: str) -> TensorProto:
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", f"{name}.bin"), ("offset", "8"), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
        return tensor

    def constant(name: str) -> NodeProto:
        return helper.make_node("Constant", [], [name], value=external(f"in_{name}"))

    branches = [
        helper.make_graph([constant(name)], name, [], [], [external(f"of_{name}")])
        for name in ("then", "else")
    ]
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    graph = helper.make_graph([constant("x"), choice], "g", [], [], [external("w")])
    function = helper.make_function(
        "d", "F", [], ["z"], [constant("z")], [helper.make_opsetid("", 18)]
    )
    model = helper.make_model(graph, functions=[function])
    helper.set_model_props(model, {METADATA_KEY: "text", "other": "thing"})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = external_tensors(path)
    names = {"w", "in_x", "in_then", "in_else", "of_then", "of_else", "in_z"}
    assert {tensor.name for tensor in found} == names
    assert all(tensor[1:] == (f"{tensor.name}.bin", 8, 16) for tensor in found)
    assert contract_text(path) == "text"
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        # Cut between two fields it is a shorter message, elsewhere it is damaged.
        with contextlib.suppress(InputError):
            assert {tensor.name for tensor in external_tensors(path)} <= names
