"""A gallery whose writer is killed, or meets a full disk, before any of its changes of files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from sa_runtime.errors import MissingFileError
from sa_runtime.gallery.add import add_to
from sa_runtime.gallery.calibration import Calibration, Stated, calibrate_pairs
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import RowLabels, Where
from sa_runtime.retrieval.labels import Labels
from tests.runtime.gallery.conftest import contract_of, people
from tests.steps import Fault, every_fault

FAULTS: tuple[Fault, Fault] = ("killed", "full")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def calibration() -> Calibration:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(1, 21), 2)
    vectors = np.repeat(rng.standard_normal((20, 16)), 2, axis=0)
    vectors = vectors + 0.2 * rng.standard_normal(vectors.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    labels = Labels(person=person, camera=np.tile([1, 2], 20))
    return calibrate_pairs(vectors, labels, vectors, labels, stated=Stated(false_accepts=0.05))


def state_of(folder: Path) -> str:
    """All that a gallery says and holds; "nothing" where there is none."""
    if not (folder / "gallery.json").exists():
        with pytest.raises(MissingFileError, match="sa-deploy index"):
            Gallery(folder)
        return "nothing"
    gallery = Gallery(folder)
    held = gallery.read(Where())
    columns = [name for name in held.rows.column_names if name != "added"]
    said = (gallery.keep, gallery.calibration, [note["why"] for note in gallery.removals()])
    segments = [len(segment) for segment in gallery.segments]
    return repr((said, segments, held.rows.select(columns).to_pylist(), held.vectors.tolist()))


def only_what_counts(folder: Path) -> None:
    """No file is there that the gallery does not name."""
    named = {segment.info.name for segment in Gallery(folder).segments}
    assert {path.name for path in (folder / "segments").iterdir()} == named
    assert {path.name for path in folder.iterdir()} == {"gallery.json", "segments"}


WORKS: dict[str, Callable[[Path], object]] = {
    "first index": lambda folder: add_to(folder, [people(seed=3), people(9, source="c3.mp4")]),
    "index": lambda folder: add_to(folder, [people(seed=3, source="new"), people(9, source="c3")]),
    "replace": lambda folder: add_to(folder, [people(seed=3)], known="replace"),
    "remove": lambda folder: Gallery(folder).remove(Where(track=3)),
    "compact": lambda folder: Gallery(folder).compact(),
    "calibrate": lambda folder: Gallery(folder).set_calibration(calibration()),
    "keep": lambda folder: Gallery(folder).set_keep(timedelta(days=30)),
}


def between(folder: Path) -> None:
    """What `keep` leaves that was stopped: it is told how long, and has not forgotten yet."""
    path = folder / "gallery.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "keep_seconds": 30 * 86_400.0}))


def meet(work: str, fault: Fault, tmp_path: Path, stride: int) -> None:
    template, folder, copy = tmp_path / "template", tmp_path / "gallery", tmp_path / "copy"
    if work != "first index":
        gallery = Gallery.create(template, contract_of())
        gallery.add([people(), people(16, source="c2.mp4", seed=1)])
        gallery.add([people(8, source="old.mp4", seed=2)], labels=RowLabels(start=LONG_AGO))

    def begin(folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        if template.exists():
            shutil.copytree(template, folder)
        return folder

    old = state_of(begin(folder))
    WORKS[work](begin(copy))
    new = state_of(copy)
    allowed = {old, new}
    assert len(allowed) == 2
    if work == "keep":
        between(begin(copy))
        allowed.add(state_of(copy))
    for step in every_fault(lambda: WORKS[work](folder), fault, stride=stride):
        state = state_of(folder)
        assert state in allowed, f"change {step}"
        if fault == "full" and state == "nothing":
            assert not folder.exists(), f"change {step}"
        add_to(folder, [people(8, source="next")])
        only_what_counts(folder)
        begin(folder)
    assert state_of(folder) == new


@pytest.mark.parametrize(
    ("work", "fault"), [(work, FAULTS[number % 2]) for number, work in enumerate(WORKS)]
)
def test_old_or_new_whatever_it_meets(work: str, fault: Fault, tmp_path: Path) -> None:
    meet(work, fault, tmp_path, stride=4)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", WORKS)
def test_old_or_new_whatever_it_meets_at_every_change(
    work: str, fault: Fault, tmp_path: Path
) -> None:
    meet(work, fault, tmp_path, stride=1)
