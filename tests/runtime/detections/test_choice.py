"""Frames and the best boxes of tracks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_runtime.detections import base
from sa_runtime.detections.base import Detections
from sa_runtime.detections.choice import chosen
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.quality import qualities
from sa_runtime.errors import DetectionError, InputError
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def quality_of(*boxes: tuple[float, float, float, float], confidence: float = 1) -> list[float]:
    found = Detections.from_arrays([1] * len(boxes), boxes, confidences=[confidence] * len(boxes))
    return [round(float(one), 6) for one in qualities(found, (1000, 1000))]


def test_quality_by_hand() -> None:
    whole = (0, 0, 128, 320)
    assert quality_of(whole) == [1]
    assert quality_of(whole, confidence=0.5) == [0.5]
    assert quality_of((0, 0, 64, 160)) == [round((64 * 160 / 32768) ** 0.5, 6)]  # small
    assert quality_of((0, 0, 256, 320)) == [0.5]  # 1.25 high for its width
    assert quality_of((-64, 0, 64, 320)) == [0.5]  # half of it outside
    # The second reaches lower and covers a half of the first.
    assert quality_of(whole, (64, 10, 192, 330)) == [round(1 - 64 * 310 / (128 * 320), 6), 1]


def test_frames_are_chosen_by_number_and_rate() -> None:
    boxes = Detections.from_arrays(np.arange(1, 21), np.tile([0, 0, 9, 9], (20, 1)))
    every = chosen(boxes, BoxOptions(every=5), fps=0, size=None)
    assert every.frames.tolist() == [1, 6, 11, 16]
    assert every.filtered == 16
    rate = chosen(boxes, BoxOptions(fps=2.5), fps=10, size=None)
    assert rate.frames.tolist() == [1, 5, 9, 13, 17]
    assert chosen(boxes, BoxOptions(fps=60), fps=10, size=None).frames.tolist() == [*range(1, 21)]
    with pytest.raises(InputError, match=r"fps=2\.0: the video does not say its own rate"):
        chosen(boxes, BoxOptions(fps=2.0), fps=0, size=None)
    with pytest.raises(InputError, match="every=0: expected 1 or more"):
        BoxOptions(every=0)
    with pytest.raises(DetectionError, match="no box has the id of a track"):
        chosen(boxes, BoxOptions(per_track=2), fps=0, size=None)


def test_frames_in_files_tell_the_quality_of_boxes_as_a_video_does(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    """By the size of the first whole one, in pixels and in parts of it."""
    (tmp_path / "frames").mkdir()
    for number in range(1, 5):
        image = np.full((240, 320, 3), 40 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"{number:06}.png"), image)
    (tmp_path / "frames" / "000001.png").write_bytes(b"torn")
    xyxy = np.array([[-30, 20, 50, 220], [280, 150, 360, 290], [100, 20, 180, 220]], np.float64)
    expected = qualities(Detections.from_arrays([1, 1, 1], xyxy), (320, 240)).tolist()
    assert max(expected[:2]) < expected[2]
    box = xyxy / [320, 240, 320, 240]
    for scale, parts in ((1, xyxy), (0, box)):
        lines = [
            f"{frame},{track},{x0},{y0},{x1},{y1}\n"
            for frame in (2, 3)
            for track, (x0, y0, x1, y1) in enumerate(parts)
        ]
        file = tmp_path / "boxes.csv"
        file.write_text("frame,id,x1,y1,x2,y2\n" + "".join(lines))
        out = tmp_path / f"{scale}.parquet"
        embed(
            *(tmp_path / "frames", tiny_model.path, out), detections=file, runtime="onnxruntime",
            boxes=BoxOptions(per_track=1, normalized=not scale),
        )  # fmt: skip
        stored = read_embeddings(out).rows["quality"].to_pylist()
        np.testing.assert_allclose(stored, expected, rtol=1e-6)


rows = st.lists(
    st.tuples(st.integers(1, 30), st.integers(-1, 4), st.integers(20, 200)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(rows=rows, count=st.integers(1, 4), block=st.integers(1, 9))
def test_the_best_of_each_track_are_chosen(
    rows: list[tuple[int, int, int]], count: int, block: int
) -> None:
    """Against a plain sort of all boxes, whatever the size of a block."""
    rows = [row for row in rows if row[1] >= 0] or [(1, 0, 50)]
    frames, ids, heights = zip(*rows, strict=True)
    xyxy = [(0, 0, height / 2.5, height) for height in heights]
    boxes = Detections.from_arrays(frames, xyxy, track_ids=ids)
    marks = qualities(boxes, (640, 480))
    expected = []
    for track in set(ids):
        places = np.flatnonzero(boxes.track_ids == track).tolist()
        expected += sorted(places, key=lambda one: (-marks[one], one))[:count]
    patch = pytest.MonkeyPatch()
    patch.setattr(base, "BLOCK_BOXES", block)
    patch.setattr(Detections.blocks, "__defaults__", (0, block))
    try:
        found = chosen(boxes, BoxOptions(per_track=count), fps=0, size=(640, 480))
    finally:
        patch.undo()
    assert found.frames.tolist() == boxes.frames[sorted(expected)].tolist()
    assert found.track_ids.tolist() == boxes.track_ids[sorted(expected)].tolist()
    assert found.qualities is not None
    np.testing.assert_array_equal(found.qualities, marks[sorted(expected)])


def test_the_best_of_each_track_are_embedded(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    out = tmp_path / "o.parquet"
    options = BoxOptions(per_track=3, every=2)
    result = embed(
        clip.video,
        tiny_model.path,
        out,
        detections=clip.detections,
        boxes=options,
        runtime="onnxruntime",
    )
    table = read_embeddings(out).rows
    assert result.rows == 3 * clip.tracks == len(table)
    assert result.counts.filtered_boxes == clip.boxes - result.rows
    assert all(0 < one <= 1 for one in table["quality"].to_pylist())
    assert all(number % 2 for number in table["frame"].to_pylist())
    assert table["frame"].to_pylist() == sorted(table["frame"].to_pylist())
