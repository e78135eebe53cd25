"""The wheel as users get it: four packages, and embedding without torch in a fresh environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

EMBED = """
import sys
from pathlib import Path
from sa_deploy import Embedder
import cv2, json
with Embedder(sys.argv[1]) as embedder:
    vectors = embedder.embed([cv2.imread(str(p)) for p in sorted(Path(sys.argv[2]).glob("*.png"))])
try:
    import torch
    found = True
except ModuleNotFoundError:
    found = False
lengths = (vectors ** 2).sum(1).tolist()
print(json.dumps({"shape": vectors.shape, "lengths": lengths, "torch": found}))
"""

TYPES = """
import sa_deploy
reveal_type(sa_deploy.Embedder("model.onnx").embed)
reveal_type(sa_deploy.InputError)
reveal_type(sa_deploy.recipe("sa").epochs)
sa_deploy.Embeder
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(ROOT)],
        check=True,
    )
    (path,) = out.glob("sa_deploy-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"sa_deploy", "sa_export", "sa_training", "sa_runtime"}
    for package in tops:
        assert f"{package}/py.typed" in names


@pytest.mark.slow
def test_cpu_extra_embeds_images_without_torch(
    wheel: Path, tiny_onnx_model: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[cpu]"], check=True)
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        picture = rng.integers(0, 256, (90 + index, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(images / f"{index}.png"), picture)
    result = subprocess.run(
        [python, "-c", EMBED, str(tiny_onnx_model), str(images)],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["torch"] is False
    assert report["shape"][0] == 3
    assert report["lengths"] == pytest.approx([1, 1, 1], abs=1e-5)
    out = tmp_path / "crops.parquet"
    program = str(environment / "bin" / "sa-deploy")
    command = [program, "embed", str(tiny_onnx_model), str(images), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert out.is_file()
    for words in ("demo", f"train --data-dir {images}", f"export {out} --onnx -o run"):
        done = subprocess.run(
            [program, *words.split()], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert "needs the package 'torch'" in done.stderr
        assert done.stderr.endswith("pip install 'sa-deploy[train,export]'\n")
    assert not (tmp_path / "out").exists()
    public = [str(python), "-c", "from sa_deploy import train_model"]
    done = subprocess.run(public, capture_output=True, text=True, check=False)
    assert "MissingPackageError: this needs the package 'torch'" in done.stderr


@pytest.mark.slow
def test_type_checkers_see_the_public_names_of_an_installed_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    """In an environment with nothing else, so that only the wheel's own types can be found."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (site,) = (environment / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = tmp_path / "script.py"
    script.write_text(TYPES)
    python = environment / "bin" / "python"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.mypy"]
    done = subprocess.run(
        [*mypy, f"--python-executable={python}", script.name],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    for line, text in zip(
        lines,
        (
            'Revealed type is "def (images: ',
            "-> sa_runtime.errors.InputError",
            'Revealed type is "int"',
            'Module has no attribute "Embeder"',
        ),
        strict=False,
    ):
        assert text in line, done.stdout
    assert len(lines) == 5, done.stdout
