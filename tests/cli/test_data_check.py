"""``sa-deploy data check`` from the command line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

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
    assert [cell.strip() for cell in gallery.split("│")][-4:-1] == ["4", "6", "12"]
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
