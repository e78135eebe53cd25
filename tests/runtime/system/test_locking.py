from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sa_runtime.errors import InputError
from sa_runtime.system.files import HashedFile, atomic_path, remove_leftovers, sha256_of
from sa_runtime.system.locking import owned
from tests.file_limits import files_up_to

HOLD = """
import sys, time
from pathlib import Path
from sa_runtime.system.locking import owned
with owned(Path(sys.argv[1]), folder=sys.argv[2] == "folder"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(target: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns a target."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target), kind], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_second_owner_is_refused_and_a_dead_one_is_followed(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "people"
    with held(target, kind) as process:
        name = f"{re.escape(str(target))}: is being written by process {process.pid} on .+ since 2"
        for _ in range(2):
            with pytest.raises(InputError, match=name), owned(target, folder=kind == "folder"):
                pass
        process.kill()
        process.wait()
        with owned(target, folder=kind == "folder"):
            assert list(tmp_path.rglob("*lock"))
    assert not list(tmp_path.rglob("*lock"))


def test_threads_of_one_process_are_kept_apart_too(tmp_path: Path) -> None:
    with (
        owned(tmp_path / "a"),
        pytest.raises(InputError, match=f"process {os.getpid()} on"),
        owned(tmp_path / "a"),
    ):
        pass
    with owned(tmp_path / "a"), owned(tmp_path / "b"):
        pass


def test_never_two_owners_while_locks_come_and_go(tmp_path: Path) -> None:
    inside, most, turns = 0, 0, [0] * 4
    stop = time.monotonic() + 0.7

    def own(index: int) -> None:
        nonlocal inside, most
        while time.monotonic() < stop:
            try:
                with owned(tmp_path / "a"):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.0002)
                    inside -= 1
                    turns[index] += 1
            except InputError:
                continue

    threads = [threading.Thread(target=own, args=(index,)) for index in range(len(turns))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sum(turns) > 20


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(InputError, match=r"file/a: cannot be written, since \.a\.lock cannot be"),
        owned(tmp_path / "file" / "a"),
    ):
        pass


def test_temporary_names_of_one_target_differ(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as first, atomic_path(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a.txt").read_text() == "1"  # the outer block ended last
    assert len(list(tmp_path.iterdir())) == 1


def test_only_leftovers_of_the_target_are_removed(tmp_path: Path) -> None:
    kept = [
        ".film.partial.mp4",
        ".export.9.partial.onnx",
        ".people.9.partial.onnx",
        ".other.12-00ff00ff00ff.partial.parquet",
        ".people.notes.partial.parquet",
    ]
    for name in [*kept, ".people.12-00ff00ff00ff.partial.parquet", ".people.9.partial.parquet"]:
        (tmp_path / name).write_text("x")
    (tmp_path / ".people.7.partial.parquet").mkdir()
    remove_leftovers(tmp_path, "people", ".parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*kept, ".people.7.partial.parquet"]
    )


def test_a_file_is_hashed_while_it_is_written(tmp_path: Path) -> None:
    with HashedFile(tmp_path / "a") as file:
        file.write(b"one")
        file.write(memoryview(b"two"))
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert (file.size_bytes, file.sha256) == (6, sha256_of(tmp_path / "a"))


def test_a_disk_without_room_for_a_name_can_be_locked(tmp_path: Path) -> None:
    with files_up_to(0), owned(tmp_path / "a"):
        with pytest.raises(InputError, match="is being written by another process"):
            owned(tmp_path / "a").__enter__()
        assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
    assert list(tmp_path.iterdir()) == []
