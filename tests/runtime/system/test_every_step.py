"""Files of one writer that is killed, or meets a full disk, before any of its changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from sa_runtime.linking.fit import LinkParameters
from sa_runtime.retrieval.history import Entry, append_history, read_history
from sa_runtime.system.locking import owned_path
from tests.steps import Fault, every_fault


def plain(path: Path) -> None:
    with owned_path(path) as temporary:
        temporary.write_text("new")


def parameters(path: Path) -> None:
    numbers = {"idf1": 1.0, "worlds": 1, "tracks": 9, "persons": 3}
    LinkParameters(space="s", threshold=0.5, **numbers).write(path)  # type: ignore[arg-type]


def history(path: Path) -> None:
    entry = {field.name: 0.5 for field in dataclasses.fields(Entry)}
    append_history(path, [Entry(**entry)])  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["killed", "full"])
@pytest.mark.parametrize("write", [plain, parameters, history])
def test_old_or_new_and_no_leftovers(
    write: Callable[[Path], None], fault: Fault, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    write(path)
    old = path.read_text()
    write(path)
    new = path.read_text()
    path.write_text(old)
    for step in every_fault(lambda: write(path), fault):
        assert path.read_text() in (old, new), f"change {step}"
        path.write_text(old)
    assert path.read_text() == new
    left = {entry.name for entry in tmp_path.iterdir()} - {".a.jsonl.lock"}
    assert left == {"a.jsonl"}
    if write is history:
        assert len(read_history(path)) == 2
