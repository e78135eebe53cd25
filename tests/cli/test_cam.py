"""``sa-deploy cam``: its pictures, its figures and what it says of mistakes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_runtime.errors import CheckpointError, InputError, MissingFileError, SaDeployError
from sa_training.network import NetworkConfig, SANetwork


def cam(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["cam", *map(str, arguments)])


def picture(path: Path | str) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image, np.uint8)


@pytest.fixture(scope="module")
def people(synthetic_root: Path) -> list[Path]:
    return sorted((synthetic_root / "query").glob("*.jpg"))[:2]


def test_a_folder_and_a_named_image(
    tiny_checkpoint: Path, people: list[Path], tmp_path: Path
) -> None:
    folder, out = tmp_path / "people", tmp_path / "cams"
    (folder / "more").mkdir(parents=True)
    for target in (folder / "a.jpg", folder / "more" / "a.jpg"):
        shutil.copy(people[0], target)
    (folder / "cut.jpg").write_bytes(people[0].read_bytes()[:600])
    done = cam(tiny_checkpoint, folder, people[1], "--out", out, "--stages", "--json")
    assert done.exit_code == 0, done.output
    assert "skipped:" in done.stderr
    assert "cut.jpg: not a whole image" in done.stderr
    figures = json.loads(done.stdout)
    names = ["a.cam.png", "a-2.cam.png", f"{people[1].stem}.cam.png"]
    assert [Path(entry["picture"]).name for entry in figures["pictures"]] == names
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert [entry["image"] for entry in figures["pictures"]][2] == str(people[1])
    for entry in figures["pictures"]:
        assert picture(entry["picture"]).shape == (112 + 336 + 52, 56 + 7 * 168 + 6 * 18, 3)
        assert 0 <= entry["label"] < 4
        assert 0.25 <= entry["probability"] <= 1
        assert entry["map_size"] == [8, 4]
        assert entry["largest_attention"] > 1
    same = [picture(out / name)[112:448] for name in names[:2]]
    assert (same[0] == same[1]).all()


def test_its_own_pictures_are_not_drawn_again(
    tiny_checkpoint: Path, people: list[Path], tmp_path: Path
) -> None:
    shutil.copy(people[0], tmp_path / "a.jpg")
    for _ in range(2):
        done = cam(tiny_checkpoint, tmp_path, "--out", tmp_path, "--label", 2)
        assert done.exit_code == 0, done.output
        assert "a.cam.png" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cam.png", "a.jpg"]
    (tmp_path / "a.jpg").unlink()
    done = cam(tiny_checkpoint, tmp_path, "--out", tmp_path)
    assert "holds only pictures of this command" in str(done.exception)


def test_a_checkpoint_of_the_authors(people: list[Path], tmp_path: Path) -> None:
    network = SANetwork(NetworkConfig(classes=5, attention="stages"))
    weights = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": network.state_dict(), "epoch": 100, "best_top1": 0}, weights)
    done = cam(weights, people[0], "--out", tmp_path / "cams", "--json")
    assert done.exit_code == 0, done.output
    (entry,) = json.loads(done.stdout)["pictures"]
    assert entry["map_size"] == [24, 8]


def test_mistakes_end_before_a_picture_is_written(
    tiny_checkpoint: Path, people: list[Path], tmp_path: Path
) -> None:
    empty, cut, note = tmp_path / "empty", tmp_path / "cut.png", tmp_path / "note.txt"
    empty.mkdir()
    cut.write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    note.write_text("text")
    out = tmp_path / "cams"
    mistakes: list[tuple[tuple[object, ...], type[SaDeployError], str]] = [
        ((tmp_path / "none.pt", people[0]), MissingFileError, "none.pt: no such file"),
        ((note, people[0]), CheckpointError, "note.txt: not a readable checkpoint"),
        ((tiny_checkpoint, tmp_path / "no.jpg"), InputError, "no.jpg: no such file or folder"),
        ((tiny_checkpoint, cut), InputError, "cut.png: not a whole image"),
        ((tiny_checkpoint, note), InputError, "note.txt: not a whole image"),
        ((tiny_checkpoint, empty), InputError, "empty: no images below it"),
        ((tiny_checkpoint, people[0], "--label", 4), InputError, "know the classes 0 to 3; pass"),
    ]
    for arguments, error, text in mistakes:
        done = cam(*arguments, "--out", out)
        assert isinstance(done.exception, error), (arguments, done.output, done.exception)
        assert text in str(done.exception)
    assert not out.exists()
    done = cam(tiny_checkpoint, people[0], "--out", note)
    assert "note.txt: a file; --out expects a folder" in str(done.exception)


def test_a_mistake_is_one_line_and_exit_code_2(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sa_deploy", "cam", str(tiny_checkpoint), "no.jpg", "--out"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: no.jpg: no such file or folder; expected images or folders of them"
    ]
