"""``sa-deploy data check`` from the command line."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np

from tests.cli.invoke import invoke


def test_table_and_json(synthetic_root: Path) -> None:
    code, out, _ = invoke("data", "check", synthetic_root, "--decode")
    assert code == 0
    assert out.startswith("synthetic data in the layout of Market-1501 (synthetic) in ")
    gallery = next(line for line in out.splitlines() if "gallery" in line)
    assert gallery.split()[-3:] == ["4", "6", "12"]
    code, out, _ = invoke("data", "check", synthetic_root, "-d", "market", "--json")
    report = json.loads(out)
    assert (code, report["dataset"], report["usable"]) == (0, "market", True)
    gallery = report["splits"]["gallery"]
    assert (gallery["cameras"], gallery["junk"], gallery["distractors"]) == (4, 6, 12)
    assert gallery["published"] == {"images": 15913, "persons": 751}
    assert "gallery: " in report["notes"][-1]
    assert "published are 751" in report["notes"][-1]


def test_wrong_folder_ends_with_the_path_to_pass(synthetic_root: Path) -> None:
    code, out, err = invoke("data", "check", synthetic_root / "query")
    assert (code, out) == (2, "")
    inner = synthetic_root / "query"
    assert err == f"error: {inner}: inside of Market-1501; pass {synthetic_root}\n"


def test_the_folder_is_given_as_the_other_commands_take_it(synthetic_root: Path) -> None:
    as_option = invoke("data", "check", "--data-dir", synthetic_root, "--json")
    assert as_option == invoke("data", "check", synthetic_root, "--json")
    assert as_option.returncode == 0
    both = invoke("data", "check", synthetic_root, "--data-dir", synthetic_root)
    assert (both.returncode, "give one folder" in both.stderr) == (2, True)
    neither = invoke("data", "check")
    expected = "error: --data-dir: expected the folder of a data set\n"
    assert (neither.returncode, neither.stderr) == (2, expected)


def test_unknown_name(synthetic_root: Path) -> None:
    code, _, err = invoke("data", "check", synthetic_root, "-d", "makret")
    assert code == 2
    assert "error: --dataset makret: unknown; choose from market, duke, " in err


def test_unreadable_images_fail_after_the_report(synthetic_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(synthetic_root, tmp_path / "copy"))
    broken = sorted((root / "query").glob("*.jpg"))[0]
    broken.write_bytes(b"")
    code, out, err = invoke("data", "check", root)
    assert code == 2
    assert f"unreadable: {broken}: empty file" in out
    assert f"error: {root}: 1 images cannot be read (the first: {broken}: empty file); copy" in err
    code, out, _ = invoke("data", "check", root, "--json")
    report = json.loads(out)
    assert (code, report["usable"]) == (2, False)
    assert report["unreadable"] == [{"path": str(broken), "fault": "empty file"}]


def test_cifar100(tmp_path: Path) -> None:
    root = tmp_path / "data" / "cifar-100-python"
    root.mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        fields = {
            b"data": np.zeros((count, 3072), np.uint8),
            b"fine_labels": [0, 99] * (count // 2),
        }
        (root / split).write_bytes(pickle.dumps(fields))
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"x"] * 100}))
    code, out, err = invoke("data", "check", root)
    assert code == 0
    assert out.startswith("CIFAR-100 (Python version) (cifar100) in ")
    assert "note: train: 4 images, published are 50,000\n" in err
    assert "note: test: 2 classes, published are 100\n" in err
    code, out, _ = invoke("data", "check", root, "-d", "cifar100", "--json")
    assert json.loads(out)["splits"]["test"] == {
        "images": 2,
        "classes": 2,
        "published": {"images": 10_000, "classes": 100},
    }
    above = f"{root.parent}: CIFAR-100 (Python version) lies inside of it; pass {root}"
    for name in ("auto", "cifar100"):
        code, _, err = invoke("data", "check", root.parent, "-d", name)
        assert (code, err) == (2, f"error: {above}\n")
    (root / "test").write_bytes(b"")
    code, _, err = invoke("data", "check", root)
    assert code == 2
    assert f"error: {root / 'test'}: cannot be read as CIFAR-100 (Ran out of input); unpack" in err
