from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sa_runtime.system.files import atomic_path


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((Path(name).name, (tmp_path / "a.txt").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert synced == [(temporary.name, False), (tmp_path.name, True)]
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_system_that_cannot_sync_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def files_only(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("torn")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_temporary_file_that_cannot_be_removed_does_not_hide_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="No space left"), atomic_path(tmp_path / "a.txt") as path:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
