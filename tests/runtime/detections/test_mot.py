from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_runtime.detections.table import read_detections
from sa_runtime.errors import DetectionError


def written(folder: Path, text: str) -> Path:
    path = folder / "det.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_of_every_accepted_form(tmp_path: Path) -> None:
    text = (
        "\ufeff3,7,10,20,30,40,0.9,-1,-1,-1\n"
        "1,-1,1.5,2.5,3.5,4.5\n"
        "\n"
        "3 8 11 21 31 41 0.8\r\n"
        "2.0,5.0,\t-5, -6,10,12,1\n"
    )
    found = read_detections(written(tmp_path, text))
    assert found.frames.tolist() == [1, 2, 3, 3]
    assert found.track_ids.tolist() == [-1, 5, 7, 8]
    assert found.confidences.tolist() == [1, 1, 0.9, 0.8]
    assert found.ltwh.tolist() == [
        [1.5, 2.5, 3.5, 4.5],
        [-5, -6, 10, 12],
        [10, 20, 30, 40],
        [11, 21, 31, 41],
    ]
    assert found.xyxy[2].tolist() == [10, 20, 40, 60]
    assert found.groups() == [(1, slice(0, 1)), (2, slice(1, 2)), (3, slice(2, 4))]
    assert found.skipped == 0


def test_boxes_without_size_or_not_finite_are_counted(tmp_path: Path) -> None:
    text = "1,1,0,0,0,5\n1,2,0,0,5,-1\n1,3,nan,0,5,5\n1,4,0,inf,5,5\n1,5,0,0,5,5\n"
    found = read_detections(written(tmp_path, text))
    assert found.track_ids.tolist() == [5]
    assert found.skipped == 4


def test_an_empty_file_holds_no_boxes(tmp_path: Path) -> None:
    found = read_detections(written(tmp_path, "\n  \n"))
    assert len(found) == 0
    assert found.groups() == []
    assert found.xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "frame,id,left,top,width,height",
            "'frame,id,left,top,width,height' does not hold numbers",
        ),
        ("1,1,2,3,4", "5 fields in '1,1,2,3,4', expected frame,id,left,top,width,height"),
        ("1,1,2,3,4,x", "'1,1,2,3,4,x' does not hold numbers"),
        ("0,1,2,3,4,5", "frame 0, expected a whole number; frames count from 1"),
        ("-4,1,2,3,4,5", "frame -4, expected"),
        ("1.5,1,2,3,4,5", "frame 1.5, expected"),
        ("nan,1,2,3,4,5", "frame nan, expected"),
        ("1e300,1,2,3,4,5", "frame 1e300, expected"),
        ("1,1.5,2,3,4,5", "id 1.5, expected a whole number"),
        ("1,inf,2,3,4,5", "id inf, expected"),
        ("1,1,2,3,4,5,nan", "confidence nan, expected a finite number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, f"1,1,2,3,4,5\n\n{line}\n")
    with pytest.raises(DetectionError) as caught:
        read_detections(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.txt: cannot be read \(No such file"):
        read_detections(tmp_path / "absent.txt")
    path = tmp_path / "video.mp4"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DetectionError, match=r"video\.mp4: cannot be read \(not UTF-8 text\)"):
        read_detections(path)


boxes = st.tuples(
    st.integers(1, 12),
    st.integers(-1, 5),
    *[st.floats(-100, 100, width=32)] * 2,
    *[st.floats(0.5, 100, width=32)] * 2,
)


@settings(max_examples=50)
@given(rows=st.lists(boxes, max_size=20))
def test_grouping_keeps_every_box_in_the_order_of_its_frame(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]]
) -> None:
    text = "".join(",".join(map(repr, row)) + "\n" for row in rows)
    found = read_detections(written(tmp_path_factory.mktemp("det"), text))
    assert (np.diff(found.frames) >= 0).all()
    regrouped = {
        frame: list(zip(found.track_ids[where].tolist(), found.ltwh[where].tolist(), strict=True))
        for frame, where in found.groups()
    }
    expected: dict[float, list[tuple[float, list[float]]]] = {}
    for frame, track_id, *ltwh in rows:
        expected.setdefault(frame, []).append((track_id, ltwh))
    assert regrouped == expected
