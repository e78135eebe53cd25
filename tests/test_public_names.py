"""The public names: table, typed imports and ``__all__`` agree; nothing is loaded early."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sa_deploy
from sa_runtime import errors

HEAVY = {"cv2", "numpy", "onnx", "onnxruntime", "openvino", "pyarrow", "rich", "torch", "typer"}
TOUCH = """
import json, sys
import sa_deploy
dir(sa_deploy)
heavy = set(json.loads(sys.argv[1]))
loaded = [sorted(heavy & set(sys.modules))]
for name in sa_deploy.__all__:
    if sa_deploy._PUBLIC.get(name, "").startswith(("sa_runtime", "sa_deploy")):
        getattr(sa_deploy, name)
loaded.append("torch" in sys.modules)
print(json.dumps(loaded))
"""


def typed_imports() -> Iterator[tuple[str, str]]:
    """Name and ``module:attribute`` of every import in the block that type checkers read."""
    tree = ast.parse(Path(sa_deploy.__file__).read_text())
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )
    for node in block.body:
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}:{alias.name}"


def test_type_checkers_and_python_are_given_the_same_names() -> None:
    assert dict(typed_imports()) == sa_deploy._PUBLIC


def test_all_and_dir_list_the_public_names_in_order() -> None:
    assert sa_deploy.__all__ == sorted([*sa_deploy._PUBLIC, "__version__"])
    assert dir(sa_deploy) == sa_deploy.__all__


@pytest.mark.parametrize("name", sa_deploy.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(sa_deploy, name)
    assert found is getattr(sa_deploy, name)
    if name != "__version__":
        assert found.__name__ == name
        assert inspect.getdoc(found)


def test_every_public_class_says_what_threads_may_do_with_it() -> None:
    found = [getattr(sa_deploy, name) for name in sa_deploy.__all__]
    classes = [it for it in found if isinstance(it, type) and not issubclass(it, Exception)]
    assert len(classes) > 15
    silent = [it.__name__ for it in classes if "thread" not in (it.__doc__ or "").lower()]
    assert not silent


def test_every_error_is_public() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SaDeployError)
    }
    assert tree <= set(sa_deploy.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Embeder'"):
        sa_deploy.Embeder  # type: ignore[attr-defined]  # noqa: B018


def test_importing_is_light_and_only_training_and_export_need_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOUCH, json.dumps(sorted(HEAVY))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[], False]
