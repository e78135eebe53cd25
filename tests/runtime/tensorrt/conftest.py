"""TensorRT without a GPU: the real bindings over stub libraries, and the kernel interpreted."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime.tensorrt import plugin
from sa_runtime.tensorrt.ptx import constants
from sa_runtime.tensorrt.tactics import Pool, Tactic, plan
from tests.conftest import MadeOnce
from tests.runtime.tensorrt.aot_plugin import Registry

# All that the bindings need of TensorRT's libraries; every one of them answers "nothing".
STUBS = """
#define STUB(name) void *name(void) { return 0; }
STUB(createInferBuilder_INTERNAL) STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL) STUB(createNvOnnxParserRefitter_INTERNAL)
STUB(createNvOnnxParser_INTERNAL) STUB(getBuilderPluginRegistry)
STUB(getNvOnnxParserVersion) STUB(getPluginRegistry) STUB(initLibNvInferPlugins)
"""


def write_stub_tensorrt(folder: Path) -> Path:
    """A ``tensorrt`` package in ``folder``: the installed bindings over stub libraries."""
    spec = importlib.util.find_spec("tensorrt_bindings")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    package = folder / "tensorrt"
    shutil.copytree(spec.submodule_search_locations[0], package)
    source = folder / "stubs.c"
    source.write_text(STUBS)
    needed = rb"lib(?:nvinfer|nvinfer_plugin|nvonnxparser)\.so\.\d+"
    for name in {n.decode() for n in re.findall(needed, (package / "tensorrt.so").read_bytes())}:
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", package / name, source],
            check=True,
        )
    return folder


@pytest.fixture(scope="session")
def stub_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``PYTHONPATH`` that holds the stubbed ``tensorrt``."""
    return write_stub_tensorrt(tmp_path_factory.mktemp("stub_tensorrt"))


@pytest.fixture(scope="session")
def _loaded_stubs(stub_site: Path) -> dict[str, ModuleType]:
    """The stubbed modules, imported once: an extension module loads only once a process."""
    sys.path.insert(0, str(stub_site))
    try:
        importlib.import_module("tensorrt")
        importlib.import_module("tensorrt.plugin")
    finally:
        sys.path.remove(str(stub_site))
    names = [name for name in sys.modules if name.partition(".")[0] == "tensorrt"]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def stub_tensorrt(
    _loaded_stubs: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The real ``tensorrt`` 11 bindings, importable for one test, with a clean plugin registry."""
    for name, module in _loaded_stubs.items():
        monkeypatch.setitem(sys.modules, name, module)
    lib = _loaded_stubs["tensorrt.plugin._lib"]
    monkeypatch.setattr(lib, "op", type(lib.op)())
    monkeypatch.setattr(lib, "QDP_REGISTRY", {})
    monkeypatch.setattr(lib, "QDP_CREATORS", {})
    monkeypatch.setattr(plugin, "_registered", {})
    return _loaded_stubs["tensorrt"]


@pytest.fixture
def registry(stub_tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with the plugin registered for compute capability 9.0."""
    registry = Registry(stub_tensorrt)
    monkeypatch.setattr(stub_tensorrt, "get_plugin_registry", lambda: registry.double)
    plugin.register_attention_pool(stub_tensorrt, 90)
    return registry


@pytest.fixture(scope="session", autouse=True)
def _triton_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Triton compiles into a folder of this run, so that no older kernel answers for a new one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


Interpreted = Callable[
    [NDArray[np.float32], Pool, Tactic], tuple[NDArray[np.float32], NDArray[np.int64]]
]
"""(x, pool, tactic) -> y (N, C, P) float32 and how often each element of x was read."""


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Interpreted]:
    """The Triton kernel on Triton's interpreter, in a process of its own."""
    worker = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("interpreter.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None

    def run(
        x: NDArray[np.float32], pool: Pool, tactic: Tactic
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        cut = plan(pool, tactic)
        request = (x, pool.element, (len(x), cut.splits), constants(pool, cut))
        pickle.dump(request, worker.stdin)  # type: ignore[arg-type]
        worker.stdin.flush()  # type: ignore[union-attr]
        y, reads = pickle.load(worker.stdout)  # type: ignore[arg-type]
        return y, reads

    with worker:
        yield run
    assert worker.returncode == 0


@pytest.fixture(scope="session")
def exported_models(
    tiny_checkpoint: Path,
    tiny_onnx_model: Path,
    exports_share: None,
    made_once: MadeOnce,
) -> dict[str, Path]:
    """ONNX files of the tiny network as the exporter writes them, by precision.

    FP16 and int8 hold two embeddings, so that one function body serves P = 6 and P = 1. The int8
    ranges are made up: engines are built from these files, not evaluated.
    """
    folder = made_once("exported", lambda to: _export(tiny_checkpoint, to))
    lower = {name: folder / f"model.{name}.onnx" for name in ("fp16", "int8")}
    return {"fp32": tiny_onnx_model, **lower}


def _export(tiny_checkpoint: Path, folder: Path) -> None:
    import dataclasses

    from sa_export.artefacts import Exporter
    from sa_export.crop_sets import validation_crops
    from sa_export.onnx_graph import write_contract
    from sa_export.options import ExportOptions
    from sa_export.quantize.layers import quantised_tensors
    from sa_export.quantize.qdq import quantise
    from sa_export.quantize.scheme import SCHEMES
    from sa_training.checkpoints import load_checkpoint

    options = ExportOptions(embeddings=("parts", "global"), precision="fp16")
    crops = validation_crops(None, height=128, width=64)
    exporter = Exporter(load_checkpoint(tiny_checkpoint), options, crops)
    model = exporter.onnx_model(plugin=True)
    (folder / "model.fp16.onnx").write_bytes(model.SerializeToString())
    # An older version of the opset has no half-precision scales.
    model.opset_import[0].version = max(model.opset_import[0].version, 19)
    scheme = SCHEMES["tensorrt"]
    ranges = dict.fromkeys(quantised_tensors(model, scheme), (-4.0, 4.0))
    quantised = quantise(model, ranges, scheme)
    write_contract(quantised, dataclasses.replace(exporter.contract, precision="int8"))
    (folder / "model.int8.onnx").write_bytes(quantised.SerializeToString())
