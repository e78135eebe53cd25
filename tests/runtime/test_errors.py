"""The error tree: what a Python program can catch, and what an error carries."""

from __future__ import annotations

import ast
import inspect
import multiprocessing
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sa_runtime import errors
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.bench.result import BenchResult
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.datasets.recognise import recognise
from sa_runtime.decoding import read_image
from sa_runtime.detections.table import read_detections
from sa_runtime.embedder import Embedder
from sa_runtime.errors import (
    InputError,
    MissingFileError,
    MissingPackageError,
    RunnerError,
    SaDeployError,
    bad_value,
    shown,
)
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.runners.opening import open_runner
from sa_runtime.sources.reader import VideoReader
from sa_runtime.sources.table import find_sources
from sa_runtime.system.extras import require

BUILT_IN: dict[str, type[Exception]] = {
    "InputError": ValueError,
    "MissingFileError": FileNotFoundError,
    "DatasetError": ValueError,
    "DetectionError": ValueError,
    "VideoError": ValueError,
    "CheckpointError": ValueError,
    "ContractError": ValueError,
    "MissingPackageError": ImportError,
    "TrainingError": RuntimeError,
    "BuildError": RuntimeError,
    "RunnerError": RuntimeError,
    "IncompleteError": RuntimeError,
}
EXIT_CODES = {"GateError": 3, "ParityError": 3, "RegressionError": 3, "IncompleteError": 4}
TREE = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, SaDeployError)
}

MISSING: dict[str, Callable[[Path], object]] = {
    "model": lambda path: open_runner(path.with_suffix(".onnx")),
    "embedder": lambda path: Embedder(path.with_suffix(".onnx")),
    "contract": lambda path: read_contract(path.with_suffix(".onnx")),
    "source": lambda path: find_sources([path], []),
    "video": VideoReader,
    "image": read_image,
    "detections": read_detections,
    "embeddings": read_embeddings,
    "data set": lambda path: load_dataset("market", path),
    "data set of any kind": recognise,
    "benchmark": BenchResult.from_file,
}


@pytest.mark.parametrize("name", sorted(TREE))
def test_every_error_is_what_a_python_program_would_catch(name: str) -> None:
    kind = TREE[name]
    if name in BUILT_IN:
        assert issubclass(kind, BUILT_IN[name])
    else:
        assert name in ("SaDeployError", "GateError", "ParityError", "RegressionError")
    assert kind.exit_code == EXIT_CODES.get(name, 2)
    assert str(kind("a line")) == "a line"


def test_the_drawing_of_the_tree_names_every_error_below_its_base() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        name = next((word for word in line.split() if word in TREE), None)
        if name is None:
            continue
        depth = line.index(name)
        above = [(other, base) for other, base in above if other < depth]
        drawn[name] = above[-1][1] if above else ""
        above.append((depth, name))
    bases = {name: kind.__mro__[1].__name__ for name, kind in TREE.items()}
    assert drawn == {**bases, "SaDeployError": ""}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_not_there_is_a_file_not_found_with_its_path(what: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(FileNotFoundError) as caught:
        MISSING[what](absent)
    assert isinstance(caught.value, MissingFileError)
    assert isinstance(caught.value, InputError)
    assert Path(str(caught.value.path)).stem == "absent"
    assert caught.value.filename == caught.value.path
    assert str(absent) in str(caught.value)


def test_a_missing_package_is_an_import_error_with_its_name() -> None:
    with pytest.raises(ImportError, match=r"pip install 'sa-deploy\[cpu\]'") as caught:
        require("no_such_module", extra="cpu", purpose="this test")
    assert caught.value.name == "no_such_module"


def _raise(error: SaDeployError) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        MissingFileError("a: no such file", path=Path("a")),
        bad_value("streams", 3, "expected 1 or 2"),
        MissingPackageError("needs onnx", name="onnx"),
        RunnerError("b: cannot be loaded", path="b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_error_is_about_survives_a_process(error: SaDeployError) -> None:
    again = pickle.loads(pickle.dumps(error))
    with multiprocessing.get_context("fork").Pool(1) as pool, pytest.raises(type(error)) as caught:
        pool.apply(_raise, (error,))
    for other in (again, caught.value):
        assert str(other) == str(error)
        assert (other.path, other.parameter, other.value) == (
            error.path,
            error.parameter,
            error.value,
        )
        assert getattr(other, "name", None) == getattr(error, "name", None)


def test_a_message_quotes_eighty_characters_of_a_file_at_most(tmp_path: Path) -> None:
    assert shown("short") == "'short'"
    assert len(shown("y" * 1000)) == errors.MOST_SHOWN + 2
    assert shown(b"\xff\x00a") == r"'\\xff\x00a'"
    coco = tmp_path / "boxes.json"
    coco.write_text('{"annotations": [' + '{"bbox": [1, 2, 3, 4]}, ' * 100_000)
    with pytest.raises(InputError, match=r"boxes\.json: ") as caught:
        read_detections(coco)
    assert len(str(caught.value)) < 400


FLOORS = ("runtime", "training", "export")
WITH_COMMANDS: dict[str, str] = {
    "export/sa_export/look.py": "the command line that adopts a model, as a result",
    "export/sa_export/look_torch.py": "the same",
    "runtime/sa_runtime/system/environment.py": "git describe",
    "runtime/sa_runtime/tensorrt/ptx.py": "ptxas",
    "runtime/sa_runtime/doctor.py": "pip, and docker run",
}
"""Files that start or name a program, whose options they write."""


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string but docstrings; what an f-string fills in is left out."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                skipped.add(id(statement.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            skipped |= {id(part) for part in parts}
            yield node.lineno, "".join(str(part.value) for part in parts)
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            yield node.lineno, str(node.value)


def test_the_floors_below_the_command_line_speak_of_no_options() -> None:
    """A whole command between backticks may have options: anybody can run it."""
    root = Path(__file__).parents[2]
    found = []
    for path in (path for floor in FLOORS for path in sorted((root / floor).rglob("*.py"))):
        name = str(path.relative_to(root))
        for line, text in _texts(ast.parse(path.read_text())):
            alone = re.sub(r"`(sa-deploy|ffmpeg|torchrun|curl|ray) [^`]*`", "", text)
            if re.search(r"(?<![\w-])--[a-z]", alone) and name not in WITH_COMMANDS:
                found.append(f"{name}:{line}: {text}")
    assert not found, "name the Python parameter, as `batch_size`:\n" + "\n".join(found)
