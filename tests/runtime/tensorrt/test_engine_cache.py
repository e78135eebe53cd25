"""Engines that are kept: built once among processes, and again when something matters."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sa_runtime.system.gpus import Gpu, Machine
from sa_runtime.system.locking import locked
from sa_runtime.tensorrt import engines
from sa_runtime.tensorrt.engines import BuildContext, cached_engine
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.options import BuildOptions
from sa_runtime.tensorrt.sidecar import sidecar_path
from tests.runtime.tensorrt.rtx_context import context, options

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


class Counting:
    """A context whose builds are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.builds = 0
        self.notes: list[str] = []
        plain = engines.build_engine

        def counting(*arguments: object, **named: object) -> object:
            self.builds += 1
            return plain(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(engines, "build_engine", counting)

    def context(self, **changes: object) -> BuildContext:
        return context(note=self.notes.append, **changes)


def test_the_cache_builds_once_and_again_when_something_matters(
    exported_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    model = tmp_path / "model.onnx"
    model.write_bytes(exported_models["fp16"].read_bytes())
    folder = tmp_path / "cache"

    def ask(asked: BuildOptions = options()) -> Path:  # noqa: B008
        return cached_engine(read_graph(model), folder, asked, counting.context())[0]

    engine = ask()
    assert counting.notes[-1].endswith("there is no engine yet; building it")
    assert ask() == engine
    assert counting.builds == 1

    model.write_bytes(exported_models["fp32"].read_bytes())
    assert ask() == engine  # in place
    assert "model.onnx has changed since the engine was built" in counting.notes[-1]

    other = ask(options(sizes=(1, 2, 4)))
    assert other != engine  # beside it: both may be in use
    assert counting.builds == 3

    engine.write_bytes(engine.read_bytes()[:-1])
    ask()
    assert "the engine is not the one its sidecar describes" in counting.notes[-1]

    fields = json.loads(sidecar_path(engine).read_text())
    sidecar_path(engine).write_text(json.dumps({**fields, "tensorrt_version": "1.2.3"}))
    ask()
    assert "it was built by TensorRT 1.2.3 and this is" in counting.notes[-1]

    sidecar_path(engine).write_text("{")
    ask()
    assert "not an engine's sidecar" in counting.notes[-1]
    assert counting.builds == 6


def test_engines_of_two_gpus_lie_beside_each_other(
    exported_models: dict[str, Path], tmp_path: Path
) -> None:
    graph = read_graph(exported_models["fp32"])
    names = {
        engines.cache_name(
            graph,
            options(),
            context(
                machine=Machine(
                    cuda_version=13000,
                    gpus=(Gpu(index=0, name=name, compute_capability=90, memory_bytes=1),),
                    problem="",
                )
            ),
        )
        for name in ("NVIDIA H100 80GB HBM3", "NVIDIA L4")
    }
    assert len(names) == 2
    assert any("nvidia-h100-80gb-hbm3" in name for name in names)


ASK = """
import sys
from pathlib import Path
from sa_runtime.tensorrt.engines import BuildContext, cached_engine
from sa_runtime.tensorrt.flavour import load_flavour
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.system.locking import locked
from sa_runtime.tensorrt.options import BuildOptions, Profile
from sa_runtime.system.gpus import Machine

context = BuildContext(
    flavour=load_flavour("tensorrt-rtx"),
    machine=Machine(cuda_version=None, gpus=(), problem="none"),
    note=lambda text: print(text, flush=True),
)
options = BuildOptions(profile=Profile(min=1, opt=4, max=8))
engine, info = cached_engine(read_graph(Path(sys.argv[1])), Path(sys.argv[2]), options, context)
print("got", engine, info.engine_sha256, flush=True)
"""


@pytest.mark.alone  # four processes with TensorRT-RTX in them: a worker beside others was lost here
def test_processes_that_ask_at_once_share_one_build(
    exported_models: dict[str, Path], tmp_path: Path
) -> None:
    model, folder = exported_models["fp32"], tmp_path / "cache"
    engine = folder / engines.cache_name(read_graph(model), options(), context())
    with contextlib.ExitStack() as stack:
        with locked(engine):
            asking = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", ASK, model, folder],
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                for _ in range(3)
            ]
            for process in asking:
                assert process.stdout is not None
                assert "another process is building it, waiting" in process.stdout.readline()
        answers = [process.communicate(timeout=60)[0].splitlines() for process in asking]
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert sum("there is no engine yet; building it" in lines[0] for lines in answers) == 1
    assert len({lines[-1] for lines in answers}) == 1
    assert sorted(path.suffix for path in folder.iterdir()) == [".engine", ".json", ".lock"]
