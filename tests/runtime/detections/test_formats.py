"""The same boxes in every format; the files of ``written`` are by the programs that users have."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sa_runtime.detections.base import Detections
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.recognise import recognise
from sa_runtime.detections.table import DETECTIONS, read_boxes, read_detections
from sa_runtime.errors import DetectionError, InputError
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

WRITTEN = Path(__file__).parent / "written"
BOXES = [
    (1, 1, 20.25, 30.25, 40.0, 80.5, 0.875),
    (1, 2, 100.0, 40.0, 32.25, 96.0, 0.75),
    (2, 1, 24.25, 31.0, 40.0, 80.0, 0.5),
    (4, 2, 110.0, 41.75, 32.0, 96.5, 0.9375),
    (4, 3, 200.0, 60.0, 48.0, 120.0, 0.25),
]
"""What each file says: frame, id, box, confidence. The last one is of another class."""
FILES = {
    "mot15.txt": "mot",
    "mot16_gt.txt": "mot",
    "motmetrics.csv": "csv",
    "pandas.csv": "csv",
    "pandas_index.tsv": "csv",
    "pandas.parquet": "parquet",
    "supervision.csv": "csv",
    "coco.json": "coco",
    "coco_results.json": "coco",
    "labels": "ultralytics",
}
CAR = {"mot16_gt.txt": "3", "supervision.csv": "2", "labels": "2"}
"""How the class of the last box is called, where the file has no names."""


def options_for(name: str, **given: Any) -> BoxOptions:
    if name == "coco_results.json":
        given["coco_images"] = WRITTEN / "coco.json"
    return BoxOptions(**given)


def in_pixels(found: Detections) -> np.ndarray[Any, np.dtype[np.float64]]:
    return found.ltwh * ([320, 240, 320, 240] if found.normalized else 1)


def test_every_row_of_the_table_has_a_file_here() -> None:
    assert set(FILES.values()) == set(DETECTIONS)


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_boxes(name: str) -> None:
    assert recognise(WRITTEN / name, {}) in (FILES[name], "coco")
    found = read_detections(WRITTEN / name, options=options_for(name))
    assert found.frames.tolist() == [box[0] for box in BOXES]
    assert found.track_ids.tolist() == [box[1] for box in BOXES]
    expected = [list(box[2:6]) for box in BOXES]
    if name == "labels":  # written with six digits
        np.testing.assert_allclose(in_pixels(found), expected, atol=1e-3)
    else:
        assert found.ltwh.tolist() == expected
    assert found.confidences.tolist() == [box[6] for box in BOXES]
    assert (found.skipped, found.filtered) == (0, 0)


@pytest.mark.parametrize("name", FILES)
def test_boxes_are_left_out_by_confidence_and_class(name: str) -> None:
    sure = read_detections(WRITTEN / name, options=options_for(name, min_confidence=0.5))
    assert (len(sure), sure.filtered) == (4, 1)
    labels: tuple[str, ...] = ("CAR", CAR.get(name, "car"))
    if name in ("mot15.txt", "motmetrics.csv"):
        labels = ("-1",)
        if name == "mot15.txt":
            with pytest.raises(DetectionError, match=r"mot15\.txt: its boxes have no class"):
                read_detections(WRITTEN / name, options=options_for(name, classes=labels))
            return
    found = read_detections(WRITTEN / name, options=options_for(name, classes=labels))
    expected = [1, 2, 1, 2, 3] if labels == ("-1",) else [3]
    assert found.track_ids.tolist() == expected
    assert found.filtered == 5 - len(expected)


def test_motchallenges_first_class_has_its_name() -> None:
    options = BoxOptions(classes=("person",))
    assert len(read_detections(WRITTEN / "mot16_gt.txt", options=options)) == 4


@pytest.mark.parametrize("name", FILES)
def test_embedding_gives_the_same_rows_and_vectors(
    tiny_model: TinyModel, tmp_path: Path, name: str
) -> None:
    video = tmp_path / "clip.mp4"
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for _ in range(4):
        blocks = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        writer.write(cv2.resize(blocks, (320, 240)))
    writer.release()
    stored = []
    for number, boxes in enumerate((WRITTEN / "mot15.txt", WRITTEN / name)):
        out = tmp_path / f"{number}.parquet"
        embed(
            video,
            tiny_model.path,
            out,
            detections=boxes,
            boxes=options_for(boxes.name),
            runtime="onnxruntime",
        )
        stored.append(read_embeddings(out))
    first, second = stored
    assert len(first.vectors) == len(BOXES)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    if name != "labels":
        assert first.rows.equals(second.rows)
    for column in ("left", "top", "width", "height"):
        np.testing.assert_allclose(first.rows[column], second.rows[column], atol=1e-3)


def test_a_coco_file_names_the_files_of_its_frames() -> None:
    found = read_boxes(WRITTEN / "coco.json")[""]
    assert found.image_names == {frame: f"{frame:06d}.jpg" for frame in range(1, 5)}


def test_arrays_and_supervision_give_the_same() -> None:
    @dataclasses.dataclass
    class Found:
        """The fields that ``supervision.Detections`` has."""

        xyxy: Any
        confidence: Any
        tracker_id: Any

    xyxy = np.array([(x, y, x + w, y + h) for _, _, x, y, w, h, _ in BOXES])
    frames = np.array([box[0] for box in BOXES])
    ids, scores = np.array([box[1] for box in BOXES]), np.array([box[6] for box in BOXES])
    plain = Detections.from_arrays(frames, xyxy, track_ids=ids, confidences=scores)
    from_zero = Detections.from_arrays(
        frames - 1, xyxy, track_ids=ids, confidences=scores, first_frame=0
    )
    each = [Found(xyxy[frames == f], scores[frames == f], ids[frames == f]) for f in range(1, 5)]
    in_order = Detections.from_supervision(each)
    numbered = Detections.from_supervision(dict(enumerate(each)), first_frame=0)
    expected = read_detections(WRITTEN / "mot15.txt").digest()
    for found in (plain, from_zero, in_order, numbered):
        assert found.digest() == expected
    bare = Detections.from_supervision([Found(xyxy[:1], None, None)])
    assert (bare.track_ids.tolist(), bare.confidences.tolist()) == ([-1], [1])
    with pytest.raises(DetectionError, match=r"frame 0: before the first, 1; pass `first_frame=0`"):
        Detections.from_arrays([0], [[0, 0, 1, 1]])
    with pytest.raises(DetectionError, match="2 frames, 1 boxes"):
        Detections.from_arrays([1, 2], [[0, 0, 1, 1]])
    with pytest.raises(DetectionError, match="frames: expected whole numbers"):
        Detections.from_arrays([1.5], [[0, 0, 1, 1]])


def test_columns_of_any_name_are_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("t,who,bbox_x,bbox_y,ww,hh\n0,7,1,2,30,40\n")
    columns = {"frame": "t", "id": "who", "left": "bbox_x", "width": "ww", "height": "hh"}
    found = read_detections(path, options=BoxOptions(columns=columns, first_frame=0))
    assert (found.frames.tolist(), found.track_ids.tolist()) == ([1], [7])
    assert found.ltwh.tolist() == [[1, 2, 30, 40]]
    table = pa.table({name: [0, 1] for name in ("t", "bbox_x", "bbox_y", "ww", "hh")})
    pq.write_table(table, tmp_path / "odd.parquet")
    with pytest.raises(DetectionError, match=r"columns 't, bbox_x.*without frame, .*`columns`"):
        read_detections(tmp_path / "odd.parquet")
    with pytest.raises(DetectionError, match=r"a line of names, .*without a column 'nope'"):
        read_detections(path, options=BoxOptions(columns={"frame": "nope"}))
    with pytest.raises(InputError, match="columns='middle': unknown; choose from frame, id, left"):
        BoxOptions(columns={"middle": "x"})


def test_boxes_by_their_centre_and_in_parts_of_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("frame,cx,cy,w,h\n1,0.5,0.5,0.2,0.4\n")
    with pytest.raises(DetectionError, match=r"all 1 boxes lie below one pixel.*normalized=True"):
        read_detections(path)
    found = read_detections(path, options=BoxOptions(normalized=True))
    assert found.normalized
    np.testing.assert_allclose(found.ltwh, [[0.4, 0.3, 0.2, 0.4]])


BAD = {
    "short.csv": ("frame,x1,y1,x2,y2\n1,2,3,4,5\n1,2,3\n", r"short\.csv:3: 'Expected 5 columns"),
    "text.csv": ("frame,x1,y1,x2,y2\n1,2,3,4,5\n1,2,b,4,5\n", r":3: 'b' as top, expected a number"),
    "empty.csv": ("frame,x1,y1,x2,y2\n1,,3,4,5\n", r"empty\.csv:2: no left, expected a number"),
    "zero.csv": ("frame,x1,y1,x2,y2\n0,1,3,4,5\n", r":2: frame 0, .*pass `first_frame=0`"),
    "half.csv": ("frame,x1,y1,x2,y2\n1.5,1,3,4,5\n", r":2: frame 1.5, expected a whole number"),
    "id.csv": ("frame,id,x1,y1,x2,y2\n1,-7,1,3,4,5\n", r":2: id -7, expected a whole number"),
    "conf.csv": ("frame,x1,y1,x2,y2,conf\n1,1,3,4,5,inf\n", r":2: confidence inf, expected a fin"),
    "cut.json": ('[{"image_id": 1, "bbox": [1, 2', r"cut\.json: cannot be read as JSON"),
    "not.json": ("hello", r"not\.json: cannot be read as JSON \('hello' stands for '\{'\)"),
    "nobox.json": ('[{"image_id": 1}]', r"nobox\.json: box 1, .*: no 'bbox'; expected image_id"),
    "three.json": ('[{"image_id": 1, "bbox": [1, 2, 3]}]', r"box 1, .*not enough values"),
    "lost.json": (
        '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": '
        '[{"image_id": 2, "bbox": [1, 2, 3, 4]}]}',
        r"lost\.json: box 1, .*no image has the id 2",
    ),
    "still.json": ('[{"image_id": "still", "bbox": [1, 2, 3, 4]}]', r"pass `coco_images=FILE`"),
    "noid.json": ('{"images": [{"file_name": "1.jpg"}]}', r"without 'id'; expected COCO's JSON"),
    "text.parquet": ("hello", r"text\.parquet: not a Parquet file that can be read"),
    "v_1.txt": ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 9 0.1\n", r"v_1\.txt:2: .* is no box in parts of"),
    "w_1.txt": ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n", r"w_1\.txt:2: 4 fields in"),
    "i_1.txt": ("0 0.5 0.5 0.1 0.1 0.9 -7\n", r"i_1\.txt: box 1: id -7, expected a whole"),
    "x.txt": ("0 0.5 0.5 0.1 0.1\n", r"x\.txt: the name has no number of a frame"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_its_place(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(DetectionError, match=message):
        read_detections(tmp_path / name)


def test_label_files_of_any_layout_give_the_same_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain files are read by columns, others line by line; in chunks of few boxes too."""
    ends = ["", " 0.5", " 7", " 7.0", " 1", " 1.0", " 0.5 7", " 0.25 1e2"]
    expected = [(1, -1), (0.5, -1), (1, 7), (1, 7), (1, 1), (1, -1), (0.5, 7), (0.25, 100)]
    for folder, line in (("plain", "{}"), ("odd", " {}\n\n")):
        (tmp_path / folder).mkdir()
        for number, end in enumerate(ends, 1):
            lines = [line.format(f"{label} 0.5 0.5 0.1 0.25{end}") for label in (0, 2)]
            (tmp_path / folder / f"clip_{number}.txt").write_text("\n".join(lines))
        (tmp_path / folder / "clip_99.txt").write_text("")
    plain = read_detections(tmp_path / "plain")
    assert plain.frames.tolist() == [frame for frame in range(1, 9) for _ in range(2)]
    found = zip(plain.confidences.tolist()[::2], plain.track_ids.tolist()[::2], strict=True)
    assert list(found) == expected
    np.testing.assert_allclose(plain.ltwh, [[0.45, 0.375, 0.1, 0.25]] * 16)
    monkeypatch.setattr("sa_runtime.detections.ultralytics._CHUNK_BOXES", 3)
    for folder in ("plain", "odd"):
        options = BoxOptions(classes=("2",))
        assert read_detections(tmp_path / folder).digest() == plain.digest()
        assert len(read_detections(tmp_path / folder, options=options)) == 8


def test_a_format_can_be_insisted_on(tmp_path: Path) -> None:
    (tmp_path / "boxes.txt").write_text("frame,x1,y1,x2,y2\n1,2,3,4,5\n")
    assert len(read_detections(tmp_path / "boxes.txt", "csv")) == 1
    with pytest.raises(DetectionError, match=r"boxes\.txt: cannot be read as JSON"):
        read_detections(tmp_path / "boxes.txt", "coco")
    with pytest.raises(InputError, match="format='xml': unknown; choose from mot, csv, parquet"):
        read_detections(tmp_path / "boxes.txt", "xml")


def test_a_file_of_several_videos_is_split(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("video,frame,x1,y1,x2,y2\nb.mp4,2,0,0,9,9\na.mp4,1,1,1,9,9\nb.mp4,1,2,2,9,9\n")
    found = read_boxes(path)
    assert {name: boxes.frames.tolist() for name, boxes in found.items()} == {
        "a.mp4": [1],
        "b.mp4": [1, 2],
    }
    assert found["b.mp4"].ltwh[:, 0].tolist() == [2, 0]
    assert read_detections(path, video="a.mp4").frames.tolist() == [1]
    with pytest.raises(InputError, match=r"video=None: .*holds boxes of 2 videos: 'b\.mp4, a\.mp4"):
        read_detections(path)


def test_coco_videos_and_folders_name_videos(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 30, 40], "category_id": 1}
    images = [
        {"id": 1, "file_name": "MOT17-02/img1/000001.jpg"},
        {"id": 2, "file_name": "MOT17-04/img1/000001.jpg"},
        {"id": 3, "file_name": "MOT17-04/img1/000007.jpg"},
    ]
    annotations = [{"id": one["id"], "image_id": one["id"], **box} for one in images]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"annotations": annotations, "images": images}))
    found = read_boxes(path)
    assert {name: boxes.frames.tolist() for name, boxes in found.items()} == {
        "MOT17-02": [1],
        "MOT17-04": [1, 7],
    }
    for number, image in enumerate(images):
        image |= {"video_id": 5, "frame_id": number}
    videos = [{"id": 5, "name": "lobby.mp4"}]
    path.write_text(json.dumps({"annotations": annotations, "images": images, "videos": videos}))
    found = read_boxes(path, BoxOptions(first_frame=0))
    assert {name: boxes.frames.tolist() for name, boxes in found.items()} == {
        "lobby.mp4": [1, 2, 3]
    }


def test_images_without_numbers_go_by_their_order(tmp_path: Path) -> None:
    names = ["0001_c1s1_000151_01.jpg", "0002_c1s1_000776_01.jpg"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    annotations = [{"image_id": 1, "bbox": [1, 2, 30, 40]}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    found = read_detections(path)
    assert found.frames.tolist() == [2]
    assert found.image_names == {1: names[0], 2: names[1]}


@pytest.mark.parametrize(
    "box",
    [
        {"image_id": "x" * 100_000, "bbox": [1, 2, 3, 4]},
        {"image_id": 1, "bbox": [1, 2, "y" * 100_000, 4]},
    ],
)
def test_no_message_quotes_a_long_value(tmp_path: Path, box: dict[str, object]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([box]))
    with pytest.raises(DetectionError, match="box 1") as caught:
        read_detections(path)
    assert len(str(caught.value)) < len(str(path)) + 500
