"""Processes that write a gallery and are killed at any moment: it is whole, old or new."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import Where
from tests.runtime.gallery.conftest import contract_of, people

KEPT, NEW = 600, 30_000
WRITER = """
import sys
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import Where
from tests.runtime.gallery.conftest import people
gallery = Gallery(sys.argv[1])
new = people(30_000, source="new", seed=1)
print("ready", flush=True)
for _ in range(10_000):
    gallery.add([new, people(30_000, source="more", seed=2)])
    gallery.compact()
    gallery.remove(Where(source=("new", "more")))
"""


def kill_and_look(folder: Path, delay: float) -> int:
    """Let a writer run for a while, kill it, and see that no state but a whole one is there."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "ready\n"
        time.sleep(delay)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    gallery = Gallery(folder)
    rows = len(gallery)
    assert rows in (KEPT, KEPT + 2 * NEW)
    assert gallery.count(Where(source=("old",))) == KEPT
    old = people(KEPT, source="old")
    found = gallery.search(old, 1)
    assert found.index[:, 0].tolist() == list(range(KEPT))
    assert (found.distance == 0).all()
    return rows


def trials(folder: Path, kills: int) -> None:
    Gallery.create(folder, contract_of()).add([people(KEPT, source="old")])
    rng = np.random.default_rng(kills)
    states = {kill_and_look(folder, delay) for delay in rng.uniform(0, 0.4, kills)}
    # What was left over goes with the next change.
    gallery = Gallery(folder)
    gallery.add([people(8, source="last")])
    named = {segment.info.name for segment in gallery.segments}
    assert {path.name for path in (folder / "segments").iterdir()} == named
    assert not list(folder.glob(".*.partial*"))
    if kills > 10:
        assert states == {KEPT, KEPT + 2 * NEW}


def test_a_killed_writer_loses_nothing(tmp_path: Path) -> None:
    trials(tmp_path / "gallery", 2)


@pytest.mark.soak
def test_many_killed_writers_lose_nothing(tmp_path: Path) -> None:
    trials(tmp_path / "gallery", 20)
