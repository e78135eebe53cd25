"""Patterns, lists, tar files, and folders of frames."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sa_runtime import crops
from sa_runtime.decoding import read_image
from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import DetectionError, InputError, MissingFileError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.result import EmbedResult
from sa_runtime.sources.listing import listed
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

Run = Callable[..., tuple[EmbedResult, StoredEmbeddings]]


@pytest.fixture
def run(tiny_model: TinyModel, tmp_path: Path) -> Run:
    def call(sources: Any, **options: Any) -> tuple[EmbedResult, StoredEmbeddings]:
        out = tmp_path / "out.parquet"
        result = embed(sources, tiny_model.path, out, runtime="onnxruntime", **options)
        return result, read_embeddings(out)

    return call


def picture(seed: int, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    return cv2.imencode(".png", picture(seed))[1].tobytes()


def write_tar(path: Path, files: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_patterns_and_lists_stand_for_what_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b.mp4", "a.mp4", "sub/c.mp4", "x[1].mp4", "n.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert listed(["*.mp4"]) == ["a.mp4", "b.mp4", "x[1].mp4"]
    assert listed(["**/c.mp4", "n.jpg"]) == ["sub/c.mp4", "n.jpg"]
    assert listed(["x[1].mp4", "http://camera/a?b=*"]) == ["x[1].mp4", "http://camera/a?b=*"]
    (tmp_path / "day.txt").write_text("\ufeffb.mp4\r\n\nsub/c.mp4\n")
    assert listed([Path("day.txt")]) == ["b.mp4", "sub/c.mp4"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeffa.mp4\n b .mp4\n   \n\t\r\na.mp4\r\n"))
    assert listed(["-", "n.jpg"]) == ["a.mp4", " b .mp4", "n.jpg"]
    assert "standard input: 1 lines name a source again; each is embedded once" in caplog.text
    with pytest.raises(MissingFileError, match=r"\*\.avi: nothing fits the pattern"):
        listed(["*.avi"])
    (tmp_path / "none.lst").write_text("\n")
    with pytest.raises(InputError, match=r"none\.lst: names no source; expected one a line"):
        listed(["none.lst"])


def test_a_list_of_videos_finds_its_boxes_in_a_folder(run: Run, clip: Clip, tmp_path: Path) -> None:
    videos = []
    for name in ("c1/a.mp4", "c2/a.mp4", "b.mp4"):
        video = tmp_path / "videos" / name
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(clip.video.read_bytes())
        videos.append(video)
    boxes = tmp_path / "boxes"
    (boxes / "c1").mkdir(parents=True)
    (boxes / "c1" / "a.txt").write_text("1,1,10,10,30,60\n")
    (boxes / "a.csv").write_text("frame,x1,y1,x2,y2\n2,10,10,40,70\n3,10,10,40,70\n")
    (boxes / "b.det.json").write_text('[{"image_id": 5, "bbox": [10, 10, 30, 60]}]')
    (tmp_path / "all.txt").write_text("".join(f"{video}\n" for video in videos))
    _, stored = run(tmp_path / "all.txt", detections=boxes)
    rows = stored.rows.to_pylist()
    assert [(row["source"], row["frame"]) for row in rows] == [
        (str(videos[0]), 1),
        (str(videos[1]), 2),
        (str(videos[1]), 3),
        (str(videos[2]), 5),
    ]
    (boxes / "b.txt").write_text("")
    (boxes / "b.csv").write_text("")
    with pytest.raises(InputError, match=r"b\.csv and b\.det\.json: both may hold the boxes of"):
        run(videos, detections=boxes)
    for file in boxes.glob("b.*"):
        file.unlink()
    with pytest.raises(MissingFileError, match=r"no boxes for .*b\.mp4 in it; expected a file"):
        run(videos, detections=boxes)


def test_one_file_holds_the_boxes_of_several_videos(
    run: Run, clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = [tmp_path / name for name in ("a.mp4", "b.mp4", "empty.mp4")]
    for video in videos:
        video.write_bytes(clip.video.read_bytes())
    table = tmp_path / "all.csv"
    table.write_text("video,frame,x1,y1,x2,y2\nb,2,10,10,40,70\na.mp4,1,10,10,40,70\n")
    _, stored = run(videos, detections=table)
    rows = [(row["source"], row["frame"]) for row in stored.rows.to_pylist()]
    assert rows == [(str(videos[0]), 1), (str(videos[1]), 2)]
    assert f"no boxes of {videos[2]}; it names 2 videos" in caplog.text
    _, stored = run(videos[1], detections=table)
    assert stored.rows["frame"].to_pylist() == [2]
    table.write_text("frame,x1,y1,x2,y2\n2,10,10,40,70\n")
    with pytest.raises(InputError, match="does not say which of 3 videos its boxes belong to"):
        run(videos, detections=table)
    with pytest.raises(InputError, match=r"1 videos and 2 files of `detections`"):
        run(videos[0], detections=[table, table])


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_images_of_a_tar_file_are_those_of_its_folder(
    run: Run, tmp_path: Path, suffix: str
) -> None:
    files = {f"{index}.png": png(index) for index in range(4)}
    (tmp_path / "f").mkdir()
    for name, data in files.items():
        (tmp_path / "f" / name).write_bytes(data)
    others = {"0.json": b"{}", "2.cls": b"7", ".hidden.png": b"x"}
    tar = write_tar(tmp_path / f"x{suffix}", files | others, "w:gz" if suffix[-1] == "z" else "w")
    _, expected = run(tmp_path / "f")
    result, stored = run(tar)
    np.testing.assert_array_equal(stored.vectors, expected.vectors)
    assert stored.rows["source"].to_pylist() == [f"{tar}/{name}" for name in files]
    assert (result.counts.images, result.counts.other_files) == (4, 3)


def test_a_damaged_tar_file_is_named(run: Run, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {"0.png": png(0), "1.png": b"torn", "2.png": png(2)})
    result, stored = run(tar)
    assert (len(stored.vectors), result.counts.unreadable_images) == (2, 1)
    with pytest.raises(InputError, match=r"x\.tar/1\.png: not a whole image"):
        run(tar, strict=True)
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"x\.tar: cannot be read as a tar file"):
        run(tar, strict=True)
    (tmp_path / "y.tar").write_bytes(b"hello" * 200)
    with pytest.raises(InputError, match=r"y\.tar: cannot be read as a tar file"):
        run(tmp_path / "y.tar")
    with pytest.raises(MissingFileError, match=r"z\.tar: no such file"):
        run(tmp_path / "z.tar")
    with pytest.raises(InputError, match=r"n\.tar: no images in it; .*other kinds: 1"):
        run(write_tar(tmp_path / "n.tar", {"a.json": b"{}"}))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_what_stands_behind_damage_in_a_tar_file_is_not_lost_silently(
    run: Run, tmp_path: Path, suffix: str
) -> None:
    """A reader may take a damaged header, or a cut between two files, for the end."""
    tar = write_tar(tmp_path / f"x{suffix}", {f"{index}.png": png(index) for index in range(3)})
    whole = tar.read_bytes()
    with tarfile.open(tar) as archive:
        header = archive.getmembers()[1].offset

    def damaged(data: bytes, reason: str) -> None:
        tar.write_bytes(gzip.compress(data) if suffix == ".tar.gz" else data)
        with pytest.raises(InputError, match=rf"x\{suffix}: cannot be read as .*{reason}.*again"):
            run(tar)

    damaged(whole[:header], "nothing where the archive's end should be, after 1 files")
    damaged(whole[: header + 100], "something else where .* after 1 files")
    changed = whole[:header] + b"\x00\xff" + whole[header + 2 :]
    damaged(changed, "something else where .* after 1 files")
    packed = bytearray(gzip.compress(whole))
    packed[-8] ^= 1  # of the checksum
    (tmp_path / "y.tar.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"y\.tar\.gz: cannot be read as a tar file \(CRC check"):
        run(tmp_path / "y.tar.gz")


def sequence(folder: Path, frames: int = 4) -> Path:
    """A sequence as MOTChallenge lays it out."""
    (folder / "img1").mkdir(parents=True)
    (folder / "det").mkdir()
    for number in range(1, frames + 1):
        (folder / "img1" / f"{number:06d}.png").write_bytes(png(number))
    (folder / "det" / "det.txt").write_text("2,-1,5,5,20,40,0.9\n4,-1,6,6,20,40,0.5\n9,1,0,0,9,9\n")
    (folder / "seqinfo.ini").write_text("[Sequence]\nname=S\nframeRate=20\n")
    return folder


def test_a_sequence_of_motchallenge_brings_its_boxes(
    run: Run, tiny_model: TinyModel, tmp_path: Path
) -> None:
    folder = sequence(tmp_path / "MOT17-02")
    result, stored = run(folder)
    rows = stored.rows.to_pylist()
    assert [(row["source"], row["frame"], row["timestamp_s"]) for row in rows] == [
        (str(folder / "img1"), 2, 0.05),
        (str(folder / "img1"), 4, 0.15),
    ]
    assert (result.counts.frames, result.counts.beyond_end) == (2, 1)
    crop = read_image(folder / "img1" / "000002.png")[5:45, 5:25]
    expected = tiny_model.embed(np.stack([crops.resize(crop, 32, 16)]))
    np.testing.assert_allclose(stored.vectors[:1], expected, atol=1e-5)
    (folder / "boxes.csv").write_text("frame,x1,y1,x2,y2\n1,1,1,30,50\n")
    _, stored = run(folder, detections=folder / "boxes.csv")
    assert stored.rows["frame"].to_pylist() == [1]
    for file in (folder / "det").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="frames without boxes; pass `detections=FILE` for them"):
        run(folder)


def test_coco_boxes_find_the_images_of_a_folder_or_a_tar_file(run: Run, tmp_path: Path) -> None:
    names = ["still_a.png", "0001_c1s1_000151_01.png", "sub/0002_c1s1_000776_01.png"]
    for index, name in enumerate(names):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(png(index))
    images = [{"id": index, "file_name": Path(name).name} for index, name in enumerate(names)]
    images.append({"id": 9, "file_name": "gone.png"})
    annotations = [
        {"id": 1, "image_id": 2, "bbox": [1, 2, 30, 40], "category_id": 1},
        {"id": 2, "image_id": 0, "bbox": [5, 5, 30, 40], "category_id": 1},
        {"id": 3, "image_id": 9, "bbox": [5, 5, 30, 40], "category_id": 1},
    ]
    boxes = tmp_path / "coco.json"
    boxes.write_text(json.dumps({"images": images, "annotations": annotations}))
    result, stored = run(tmp_path / "f", detections=boxes)
    assert stored.rows["source"].to_pylist() == [
        str(tmp_path / "f" / names[0]),
        str(tmp_path / "f" / names[2]),
    ]
    assert stored.rows["frame"].null_count == 2
    assert result.counts.beyond_end == 1
    tar = write_tar(tmp_path / "f.tar", {n: (tmp_path / "f" / n).read_bytes() for n in names})
    _, packed = run(tar, detections=boxes)
    np.testing.assert_array_equal(packed.vectors, stored.vectors)
    boxes.write_text("[]")
    _, stored = run(tmp_path / "f", detections=boxes)
    assert len(stored.vectors) == 0


def test_a_padded_box_stays_in_its_frame(run: Run, clip: Clip, tmp_path: Path) -> None:
    boxes = tmp_path / "b.txt"
    boxes.write_text("1,1,10,10,40,80\n1,2,0,0,40,80\n1,3,100,100,12,9\n")
    wide = tmp_path / "wide.txt"
    wide.write_text("1,1,6,2,48,96\n1,2,0,0,44,88\n")
    result, stored = run(clip.video, detections=boxes, boxes=BoxOptions(pad=0.1, min_size=(10, 10)))
    _, expected = run(clip.video, detections=wide)
    np.testing.assert_array_equal(stored.vectors, expected.vectors)
    assert stored.rows["left"].to_pylist() == [10, 0]
    assert (result.counts.clipped, result.counts.filtered_boxes) == (0, 1)


def test_boxes_in_parts_of_the_frame_become_pixels(run: Run, clip: Clip, tmp_path: Path) -> None:
    boxes = tmp_path / "b.csv"
    boxes.write_text("frame,x1,y1,x2,y2\n1,0.125,0.25,0.25,0.5\n")
    _, stored = run(clip.video, detections=boxes, boxes=BoxOptions(normalized=True))
    row = stored.rows.to_pylist()[0]
    assert [row[name] for name in ("left", "top", "width", "height")] == [40, 60, 40, 60]
    with pytest.raises(DetectionError, match="pass `normalized=True`"):
        run(clip.video, detections=boxes)
