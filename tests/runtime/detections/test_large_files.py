"""Files of more boxes than are held in memory, with limits that are smaller here."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sa_runtime.detections import collect
from sa_runtime.detections.table import read_boxes


@pytest.fixture(params=["ordered", "shuffled", "by track"])
def order(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_not_held_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    rng = np.random.default_rng(1)
    count = 5000
    frames = np.sort(rng.integers(1, 400, count))
    videos = rng.integers(0, 3, count)
    if order == "shuffled":
        rng.shuffle(frames)
    elif order == "by track":
        frames = np.tile(np.arange(1, 101), count // 100)
    lines = [
        f"v{video},{frame},{index},{index % 50},{index % 40},{5 + index % 9},{6 + index % 7},0.5"
        for index, (video, frame) in enumerate(zip(videos, frames, strict=True))
    ]
    path = tmp_path / "all.csv"
    path.write_text("video,frame,id,x,y,w,h,conf\n" + "\n".join(lines) + "\n")
    held = read_boxes(path)
    monkeypatch.setattr(collect, "HELD_BOXES", 300)
    monkeypatch.setattr(collect, "RUN_BOXES", 100)
    spilled = read_boxes(path)
    assert list(held) == list(spilled)
    for name, boxes in held.items():
        other = spilled[name]
        assert boxes.mapping is None
        assert other.mapping is not None
        assert boxes.digest() == other.digest()
        blocks = list(other.blocks(after=50, boxes=64))
        assert len(blocks) > 3
        np.testing.assert_array_equal(
            np.concatenate([block.track_ids for block in blocks]),
            boxes.track_ids[boxes.frames > 50],
        )
        borders = [(a.frames[-1], b.frames[0]) for a, b in pairwise(blocks)]
        assert all(last < first for last, first in borders)
