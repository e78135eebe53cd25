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
        ("0,1,2,3,4,5", "pass `first_frame=0` where they count from 0"),
        (",1,2,3,4,5", "('' as frame), expected frame"),
        ("1,1,,3,4,5,0.9", "('' as left), expected frame"),
        ("1\t\t10\t\t50\t100", "('' as top), expected frame"),
        ("1,-2,2,3,4,5", "id -2, expected a whole number from 0 on, -1 for none"),
        ("1,1_0,2,3,4,5", "('1_0' as id)"),
        ("1,1,1_0,3,4,5", "('1_0' as left)"),
        ("\u0661,1,2,3,4,5", "as frame)"),
        ("1,1,\u0662,3,4,5", "as left)"),
        ("1,1,0x10,3,4,5", "('0x10' as left)"),
        ("1,1,2,3,4,5\x0c2", "as height)"),
        ("1 1 2\xa03 4 5", "5 fields"),
        ("1,1,2 3,4,5,6,7", "expected frame"),
        ("1,3 498,5 203,5 66,0 141,0 0,9", "frame 1.3, expected a whole number"),
        ("1,3,498,5,203,5,66,0,141,0,0,9", "12 fields in '1,3,498,5,203,5,66,0,141,0,0,9', expec"),
        ("{" + '"bbox": [1, 2, 3, 4], ' * 10**5, "…'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, f"1,1,2,3,4,5\n\n{line}\n")
    with pytest.raises(DetectionError) as caught:
        read_detections(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.txt: cannot be read \(No such file"):
        read_detections(tmp_path / "absent.txt")
    path = tmp_path / "video.mp4"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DetectionError, match=r"video\.mp4: cannot be read \(not UTF-8 text\)"):
        read_detections(path)


BOX = [498.5, 203.5, 66.0, 141.0]
"""What each of the following lines says, of frame 1: id, box and confidence."""


@pytest.mark.parametrize("others", ["", "1,3,1,2,3,4\n"])  # a file of one kind is read in one go
@pytest.mark.parametrize(
    ("line", "track_id", "confidence"),
    [
        ("1,3,498.5,203.5,66,141,0.9", 3, 0.9),
        ("1, 3, 498.5, 203.5, 66, 141, 0.9", 3, 0.9),
        ("1,3,498.5,203.5,66,141,0.9,-1,-1,-1", 3, 0.9),
        ("1,3,498.5,203.5,66,141", 3, 1),
        ("1,3,498.5,203.5,66,141,", 3, 1),
        ("1,3,498.5,203.5,66,141,,-1,-1", 3, 1),
        ("1,,498.5,203.5,66,141,0.9", -1, 0.9),
        ("1, ,498.5,203.5,66,141, ", -1, 1),
        ("1,-1,498.5,203.5,66,141,0.9", -1, 0.9),
        ("1,18446744073709551615,498.5,203.5,66,141,0.9", -1, 0.9),
        ("1 3 498.5 203.5 66 141 0.9", 3, 0.9),
        ("  1   3 498.5  203.5 66 141 0.9 ", 3, 0.9),
        ("1 3 498,5 203,5 66,0 141,0 0,9", 3, 0.9),
        ("1\t3\t498.5\t203.5\t66\t141\t0.9", 3, 0.9),
        ("1\t\t498,5\t203,5\t66\t141\t0.9", -1, 0.9),
        ("1;3;498.5;203.5;66;141;0.9", 3, 0.9),
        ("1;;498,5;203,5;66,0;141,0;", -1, 1),
        ("1.0,3.0,4.985e2,2.035E+2,66.,141,.9", 3, 0.9),
        ("+1,+3,+498.5,203.5,0066,141,9e-1", 3, 0.9),
        ("1,3,498.5,203.5,66,141,0.9\r", 3, 0.9),
    ],
)
def test_a_box_is_read_as_it_is_written(
    tmp_path: Path, line: str, track_id: int, confidence: float, others: str
) -> None:
    found = read_detections(written(tmp_path, f"\ufeff{line}\n{others}"))
    assert found.frames[0] == 1
    assert found.track_ids[0] == track_id
    assert found.ltwh[0].tolist() == BOX
    assert found.confidences[0] == confidence


@pytest.mark.parametrize("sign", [",", ";", "\t", " ", ", "])
@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("frame,id,left,top,width,height,conf", "1,3,498.5,203.5,66,141,0.9"),
        (
            "frame,id,bb_left,bb_top,bb_width,bb_height,conf,x,y,z",
            "1,3,498.5,203.5,66,141,0.9,-1,-1,-1",
        ),
        ("Frame,Track_ID,x1,y1,x2,y2,Score", "1,3,498.5,203.5,564.5,344.5,0.9"),
        ("# frame,id,xmin,ymin,xmax,ymax,confidence", "1,3,498.5,203.5,564.5,344.5,0.9"),
        ('"frame","x","y","w","h","class","id","score"', "1,498.5,203.5,66,141,0,3,0.9"),
        ("frame,x1,y1,x2,y2,width,height,score,id", "1,498.5,203.5,564.5,344.5,66,141,0.9,3"),
    ],
)
def test_a_line_of_names_says_which_column_is_which(
    tmp_path: Path, names: str, line: str, sign: str
) -> None:
    text = f"{names}\n{line}\n{line}\n".replace(",", sign)
    found = read_detections(written(tmp_path, text))
    assert found.ltwh.tolist() == [BOX, BOX]
    assert found.track_ids.tolist() == [3, 3]
    assert found.confidences.tolist() == [0.9, 0.9]


def test_columns_that_are_not_named_are_not_there(tmp_path: Path) -> None:
    found = read_detections(written(tmp_path, "frame,x1,y1,x2,y2\n1,498.5,203.5,564.5,344.5\n"))
    assert (found.ltwh.tolist(), found.track_ids.tolist()) == ([BOX], [-1])
    assert found.confidences.tolist() == [1]


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        ("frame,id,a,b,w,h", "without left, top; expected names as frame,id,left"),
        ("id,x1,y1,x2,y2", "without frame;"),
        ("frame,id,left,top,conf", "without width and height, or right and bottom;"),
        ("time of day and so on " * 500, "without frame, left, top, width"),
    ],
)
def test_names_that_do_not_say_what_a_box_is_are_refused(
    tmp_path: Path, names: str, lacking: str
) -> None:
    path = written(tmp_path, f"{names}\n1,2,3,4,5,6\n")
    with pytest.raises(DetectionError) as caught:
        read_detections(path)
    assert str(caught.value).startswith(f"{path}:1: a line of names, ")
    assert lacking in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_edges_that_are_not_finite_or_swapped_are_counted(tmp_path: Path) -> None:
    text = "frame,x1,y1,x2,y2\n1,9,9,3,20\n1,inf,0,inf,9\n1,nan,0,4,4\n1,5,5,9,9\n"
    found = read_detections(written(tmp_path, text))
    assert (found.ltwh.tolist(), found.skipped) == ([[5, 5, 4, 4]], 3)


def test_parts_of_the_frame_are_not_pixels(tmp_path: Path) -> None:
    path = written(tmp_path, "1,1,0.26,0.19,0.03,0.13\n2,1,0.5,0.5,0.5,0.5\n")
    with pytest.raises(
        DetectionError, match=r"all 2 boxes lie below one pixel.*multiply them by the width and"
    ):
        read_detections(path)
    assert len(read_detections(written(tmp_path, "1,1,0.26,0.19,0.03,0.13\n1,1,5,5,9,9\n"))) == 2


@st.composite
def spelled(draw: st.DrawFn) -> tuple[str, list[tuple[float, ...]]]:
    """A file in one of the legal spellings, and its boxes."""
    separator = draw(st.sampled_from([",", ", ", ";", "\t", " ", "   "]))
    decimal_comma = "," not in separator and draw(st.booleans())
    names = draw(st.sampled_from(["", "frame,id,left,top,width,height,conf,x,y,z"]))
    lines, expected = [names.replace(",", separator)] if names else [], []
    for _ in range(draw(st.integers(1, 8))):
        number = draw(st.sampled_from(["{:.2f}", "{:e}", "{:+.3f}", "{!r}"]))
        values = [draw(st.floats(2, 2000)) for _ in range(4)]
        frame, track_id = draw(st.integers(1, 10**6)), draw(st.integers(-1, 10**9))
        texts = [str(frame), str(track_id), *map(number.format, values)]
        confidence = draw(st.sampled_from(["0.5", "", None]))
        if confidence == "" and not separator.strip(" "):
            confidence = None
        if track_id == -1 and separator.strip(" ") and draw(st.booleans()):
            texts[1] = ""
        texts += [] if confidence is None else [confidence]
        box = tuple(float(text) for text in texts[2:6])
        expected.append((frame, track_id, *box, float(confidence or 1)))
        line = separator.join(texts)
        lines.append(line.replace(".", ",") if decimal_comma else line)
    mark, end = draw(st.sampled_from(["", "\ufeff"])), draw(st.sampled_from(["\n", "\r\n"]))
    return mark + end.join([*lines, ""]), expected


@settings(max_examples=150)
@given(file=spelled())
def test_every_legal_spelling_gives_the_same_boxes(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, list[tuple[float, ...]]]
) -> None:
    text, rows = file
    path = tmp_path_factory.mktemp("det") / "det.txt"
    path.write_bytes(text.encode())
    found = read_detections(path)
    expected = sorted(rows, key=lambda row: row[0])
    assert found.frames.tolist() == [row[0] for row in expected]
    assert found.track_ids.tolist() == [row[1] for row in expected]
    assert found.ltwh.tolist() == [list(row[2:6]) for row in expected]
    assert found.confidences.tolist() == [row[6] for row in expected]


boxes = st.tuples(
    st.integers(1, 12),
    st.integers(-1, 5),
    *[st.floats(-100, 100, width=32)] * 2,
    *[st.floats(1.5, 100, width=32)] * 2,
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
