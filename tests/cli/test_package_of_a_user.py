"""A package of a user's brings a backbone and a data set: installed, trained with, exported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "my-people"
version = "1.0"

[tool.setuptools]
py-modules = ["my_people"]

[project.entry-points."sa_deploy.backbones"]
my-net = "my_people:my_net"

[project.entry-points."sa_deploy.datasets"]
my-set = "my_people:load"
"""
MODULE = '''
import dataclasses

from torch import nn

import sa_deploy


class Net(nn.Module):
    def __init__(self, height):
        super().__init__()
        block = lambda a, b: nn.Sequential(
            nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()
        )
        self.first = nn.Sequential(block(3, 8), block(8, 8))
        self.second, self.third = block(8, 16), block(16, 16)
        self.last = nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU())
        self.height = height

    def forward(self, x):
        one = self.first(x)
        two = self.second(one)
        three = self.third(two)
        return one, two, three, self.last(three)


def my_net(height):
    return Net(height)


def load(root):
    """The world, with everything in one folder under other names."""
    found = sa_deploy.load_dataset("synthetic", root / "people")
    return dataclasses.replace(found, name="my-set", root=root)
'''
RUN = """
import json, sys
from typer.testing import CliRunner
from sa_deploy.app import app

said = []
for line in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said.append(done.stdout)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the package."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "my_people.py").write_text(MODULE)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", str(target), str(source)], check=True)
    return target


@pytest.mark.slow
def test_it_trains_and_exports_without_a_line_changed_here(
    installed: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "people").symlink_to(synthetic_root, target_is_directory=True)
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    data = ["-d", "my-set", "--data-dir", "data"]
    size = ["--height", "64", "--width", "32", "--set", "network.parts=2", "-b", "16"]
    recipe = ["--recipe", "tiny", "--arch", "my-net", *size, "--max-steps", "3", "--out", "run"]
    few = ["--validation", "data/people", "--validation-crops", "40"]
    lines = [
        ["train", "--help"],
        ["train", *data, *recipe, "--json"],
        ["export", "run/checkpoint.pt", "--onnx", "--out", "run", *few, "--json"],
        ["evaluate", "run/model.onnx", *data, "--json"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(lines)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, trained, _, found = json.loads(done.stdout)
    said = " ".join(said.split())
    assert "(of installed packages: my-net)" in said
    assert "(of installed packages: my-set)" in said
    assert json.loads(trained)["steps"] == 3
    assert json.loads(found)["mAP"] > 0
