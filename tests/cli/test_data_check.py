"""``sa-deploy data check`` from the command line."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from sa_deploy.app import main

Output = tuple[int, str, str]


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Output:
    """Exit code, stdout and stderr of ``sa-deploy data check ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["sa-deploy", "data", "check", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


def test_table_and_json(
    synthetic_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run([str(synthetic_root), "--decode"], monkeypatch, capsys)
    assert code == 0
    assert out.startswith("synthetic data in the layout of Market-1501 (synthetic) in ")
    gallery = next(line for line in out.splitlines() if "gallery" in line)
    assert gallery.split()[-3:] == ["4", "6", "12"]
    code, out, _ = run([str(synthetic_root), "-d", "market", "--json"], monkeypatch, capsys)
    report = json.loads(out)
    assert (code, report["dataset"], report["usable"]) == (0, "market", True)
    gallery = report["splits"]["gallery"]
    assert (gallery["cameras"], gallery["junk"], gallery["distractors"]) == (4, 6, 12)
    assert gallery["published"] == {"images": 15913, "persons": 751}
    assert "gallery: " in report["notes"][-1]
    assert "published are 751" in report["notes"][-1]


def test_wrong_folder_ends_with_the_path_to_pass(
    synthetic_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([str(synthetic_root / "query")], monkeypatch, capsys)
    assert (code, out) == (2, "")
    inner = synthetic_root / "query"
    assert err == f"error: {inner}: inside of Market-1501; pass {synthetic_root}\n"


def test_unknown_name(
    synthetic_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run([str(synthetic_root), "-d", "makret"], monkeypatch, capsys)
    assert code == 2
    assert "error: data set 'makret': unknown; choose from market, duke, " in err


def test_unreadable_images_fail_after_the_report(
    synthetic_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = Path(shutil.copytree(synthetic_root, tmp_path / "copy"))
    broken = sorted((root / "query").glob("*.jpg"))[0]
    broken.write_bytes(b"")
    code, out, err = run([str(root)], monkeypatch, capsys)
    assert code == 2
    assert f"unreadable: {broken}: empty file" in out
    assert f"error: {root}: 1 images cannot be read (the first: {broken}: empty file); copy" in err
    code, out, _ = run([str(root), "--json"], monkeypatch, capsys)
    report = json.loads(out)
    assert (code, report["usable"]) == (2, False)
    assert report["unreadable"] == [{"path": str(broken), "fault": "empty file"}]


def test_cifar100(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data" / "cifar-100-python"
    root.mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        fields = {
            b"data": np.zeros((count, 3072), np.uint8),
            b"fine_labels": [0, 99] * (count // 2),
        }
        (root / split).write_bytes(pickle.dumps(fields))
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"x"] * 100}))
    code, out, err = run([str(root)], monkeypatch, capsys)
    assert code == 0
    assert out.startswith("CIFAR-100 (Python version) (cifar100) in ")
    assert "note: train: 4 images, published are 50,000\n" in err
    assert "note: test: 2 classes, published are 100\n" in err
    code, out, _ = run([str(root), "-d", "cifar100", "--json"], monkeypatch, capsys)
    assert json.loads(out)["splits"]["test"] == {
        "images": 2,
        "classes": 2,
        "published": {"images": 10_000, "classes": 100},
    }
    above = f"{root.parent}: CIFAR-100 (Python version) lies inside of it; pass {root}"
    for name in ("auto", "cifar100"):
        code, _, err = run([str(root.parent), "-d", name], monkeypatch, capsys)
        assert (code, err) == (2, f"error: {above}\n")
    (root / "test").write_bytes(b"")
    code, _, err = run([str(root)], monkeypatch, capsys)
    assert code == 2
    assert f"error: {root / 'test'}: cannot be read as CIFAR-100 (Ran out of input); unpack" in err
