from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime import crops
from sa_runtime.decoding import read_image
from sa_runtime.errors import DetectionError, InputError, VideoError
from sa_runtime.outputs.read import read_embeddings
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tiny_model: TinyModel, tmp_path: Path) -> Run:
    """Run the command with ``--json``; raises what it raised; gives its JSON and notes."""

    def call(*arguments: str | Path) -> dict[str, Any]:
        words = [str(tiny_model.path), *map(str, arguments), "--out", str(tmp_path / "o.parquet")]
        words += ["--runtime", "onnxruntime", "--json"]
        result = CliRunner().invoke(app, ["embed", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        summary: dict[str, Any] = json.loads(result.stdout)
        return summary | {"notes": result.stderr.replace("\n", " ")}

    return call


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "o.parquet"


def write_image(path: Path, seed: int) -> NDArray[np.uint8]:
    image = np.random.default_rng(seed).integers(0, 256, (50, 25, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())
    return read_image(path)


def write_video(path: Path, frames: int, codec: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    for number in range(1, frames + 1):
        writer.write(np.full((48, 64, 3), 20 + 10 * (number % 20), np.uint8))
    writer.release()
    return path


def write_boxes(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_folders_and_files_become_rows(run: Run, tiny_model: TinyModel, tmp_path: Path) -> None:
    names = ["f/0002_c1s1_000451_03.jpg", "f/a/0001_c2s1_1_00.PNG", "f/b/x.webp", "y.bmp"]
    images = [write_image(tmp_path / name, seed) for seed, name in enumerate(names)]
    (tmp_path / "f" / "Thumbs.db").write_bytes(b"x")
    summary = run(tmp_path / "y.bmp", tmp_path / "f", "--camera", "door", "-b", "3")
    read = read_embeddings(summary["out"])
    order = [3, 0, 1, 2]
    assert read.rows["source"].to_pylist() == [str(tmp_path / names[i]) for i in order]
    assert set(read.rows["camera"].to_pylist()) == {"door"}
    assert read.rows["frame"].null_count == 4
    expected = tiny_model.embed(np.stack([crops.resize(images[i], 32, 16) for i in order]))
    np.testing.assert_allclose(read.vectors, expected, atol=1e-5)
    assert read.contract == tiny_model.contract
    assert (summary["rows"], summary["images"], summary["frames"]) == (4, 4, 0)
    assert summary["space"] == "tiny-0"
    assert summary["runtime"] == "onnxruntime"
    assert summary["size_bytes"] == Path(summary["out"]).stat().st_size
    assert set(summary["busy_s"]) == {"decode", "crop", "inference", "write"}


def test_videos_take_their_detections_in_order(run: Run, tmp_path: Path) -> None:
    first, second = write_video(tmp_path / "a.mp4", 12), write_video(tmp_path / "b.mp4", 8)
    image = tmp_path / "c.png"
    write_image(image, 1)
    boxes = [
        write_boxes(tmp_path / "a.txt", "7,1,0,0,20,40\n2,9,5,5,30,30,0.5\n"),
        write_boxes(tmp_path / "b.txt", "1,4,-10,-10,30,40\n"),
    ]
    summary = run(first, image, second, "--detections", boxes[0], "--detections", boxes[1])
    rows = read_embeddings(summary["out"]).rows.to_pylist()
    assert [(r["source"], r["frame"], r["track_id"]) for r in rows] == [
        (str(first), 2, 9),
        (str(first), 7, 1),
        (str(image), None, None),
        (str(second), 1, 4),
    ]
    assert [r["timestamp_s"] for r in rows] == pytest.approx([0.1, 0.6, None, 0.0])
    assert [r["confidence"] for r in rows] == [0.5, 1, None, 1]
    assert (rows[3]["left"], rows[3]["width"]) == (-10, 30)  # as given; the crop is clipped


def test_what_is_left_out_is_counted(run: Run, tmp_path: Path) -> None:
    text = (
        "1,1,0,0,20,40\n1,2,64,0,20,40\n1,3,-30,0,20,40\n2,4,0,0,0,40\n2,5,0,nan,9,9\n"
        "6,6,0,0,20,40\n7,7,0,0,20,40\n"
    )
    video = write_video(tmp_path / "a.mp4", 6)
    summary = run(video, "--detections", write_boxes(tmp_path / "a.txt", text))
    assert read_embeddings(summary["out"]).rows["track_id"].to_pylist() == [1, 6]
    assert summary["skipped"] == {
        "boxes_outside": 2,
        "boxes_without_size": 2,
        "boxes_filtered": 0,
        "boxes_beyond_end": 1,
        "unreadable_images": 0,
    }
    assert summary["truncated_videos"] == []


def test_boxes_that_lose_area_are_counted_and_doubted(run: Run, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 3)
    # x1,y1,x2,y2 in a frame of 64x48, without and with the line of names that says so.
    text = "1,1,30,20,60,46\n2,1,34,8,50,40\n3,1,2,2,20,30\n"
    summary = run(video, "--detections", write_boxes(tmp_path / "a.txt", text))
    assert (summary["rows"], summary["boxes_clipped"]) == (3, 2)
    assert "warning: 2 of 3 boxes reach out of their frame and lost area" in summary["notes"]
    Path(summary["out"]).unlink()
    named = write_boxes(tmp_path / "a.txt", "frame,id,x1,y1,x2,y2\n" + text)
    summary = run(video, "--detections", named)
    assert (summary["rows"], summary["boxes_clipped"]) == (3, 0)
    assert "warning" not in summary["notes"]
    assert [r["width"] for r in read_embeddings(summary["out"]).rows.to_pylist()] == [30, 16, 18]


def test_a_cut_video_is_embedded_as_far_as_it_goes(run: Run, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 40, "MJPG").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    text = "".join(f"{number},1,5,5,20,30\n" for number in range(1, 41))
    summary = run(cut, "--detections", write_boxes(tmp_path / "a.txt", text))
    assert 3 < summary["rows"] < 40
    assert summary["skipped"]["boxes_beyond_end"] == 40 - summary["rows"]
    assert summary["truncated_videos"] == [f"{cut}: ends at frame {summary['rows']} of 40"]
    assert "truncated video: " in summary["notes"]


def test_no_boxes_make_an_empty_file_and_a_note(run: Run, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 3)
    summary = run(video, "--detections", write_boxes(tmp_path / "a.txt", ""))
    assert read_embeddings(summary["out"]).vectors.shape == (0, 12)
    assert "no rows: " in summary["notes"]
    assert summary["rows_per_s"] == 0


def test_a_damaged_image_of_a_folder_is_left_out(run: Run, tmp_path: Path, out: Path) -> None:
    write_image(tmp_path / "f" / "a.jpg", 0)
    torn = tmp_path / "f" / "b.jpg"
    torn.write_bytes((tmp_path / "f" / "a.jpg").read_bytes()[:-30])
    summary = run(tmp_path / "f")
    assert (summary["rows"], summary["skipped"]["unreadable_images"]) == (1, 1)
    assert f"skipped: {torn}: not a whole image" in summary["notes"]
    out.unlink()
    for arguments in ([tmp_path / "f", "--strict"], [tmp_path / "f" / "a.jpg", torn]):
        with pytest.raises(InputError, match=r"b\.jpg: not a whole image"):
            run(*arguments)
    (tmp_path / "f" / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="none of 2 images could be decoded; no rows were written"):
        run(tmp_path / "f")
    assert not out.exists()
    assert not list(tmp_path.glob(".*partial*"))


def test_a_name_that_is_not_utf8_is_left_out(run: Run, tmp_path: Path, out: Path) -> None:
    write_image(tmp_path / "f" / "a.jpg", 0)
    odd = tmp_path / "f" / "caf\udce9.jpg"
    odd.write_bytes((tmp_path / "f" / "a.jpg").read_bytes())
    summary = run(tmp_path / "f")
    assert (summary["rows"], summary["skipped"]["unreadable_images"]) == (1, 1)
    assert r"caf\udce9.jpg: a name that is not UTF-8; rename" in summary["notes"]
    assert read_embeddings(out).rows["source"].to_pylist() == [str(tmp_path / "f" / "a.jpg")]
    (tmp_path / "f" / "a.jpg").unlink()
    for more in ([], ["--strict"]):
        with pytest.raises(InputError, match="a name that is not UTF-8"):
            run(tmp_path / "f", *more)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no-detections", InputError, r"a\.mp4: a video without boxes; pass `detections=FILE`"),
        ("too-many", InputError, r"1 videos and 2 files of `detections`: expected one for each"),
        ("bad-line", DetectionError, r"bad\.txt:2: '1,1,0,0,9,x'"),
        ("unreadable", VideoError, r"text\.mp4: cannot be opened as a video"),
        ("absent", InputError, r"absent\.jpg: no such file or folder"),
        ("empty-folder", InputError, r"empty: no images below it"),
        ("videos", InputError, r"videos: .* named one by one .* such as .*videos/\*\.mp4"),
    ],
)
def test_what_cannot_work_fails_before_a_file_is_written(
    run: Run, tmp_path: Path, out: Path, name: str, error: type[Exception], message: str
) -> None:
    video = write_video(tmp_path / "a.mp4", 3)
    boxes = write_boxes(tmp_path / "a.txt", "1,1,0,0,9,9\n")
    bad = write_boxes(tmp_path / "bad.txt", "1,1,0,0,9,9\n1,1,0,0,9,x\n")
    text = write_boxes(tmp_path / "text.mp4", "hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(video)
    arguments: dict[str, list[str | Path]] = {
        "no-detections": [video],
        "too-many": [video, "--detections", boxes, "--detections", boxes],
        "bad-line": [video, "--detections", bad],
        "unreadable": [text, "--detections", boxes],
        "absent": [tmp_path / "absent.jpg"],
        "empty-folder": [tmp_path / "empty"],
        "videos": [tmp_path / "videos"],
    }
    with pytest.raises(error, match=message):
        run(*arguments[name])
    assert not out.exists()


def test_the_table_names_rows_and_file(tiny_model: TinyModel, tmp_path: Path, out: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    words = [str(tiny_model.path), str(tmp_path / "a.png"), "--out", str(out)]
    words += ["--dtype", "float16", "--runtime", "onnxruntime"]
    result = CliRunner().invoke(
        app, ["embed", *words], catch_exceptions=False, env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0
    lines = {
        cells[0]: cells[1]
        for cells in (re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines())
        if len(cells) == 2
    }
    assert lines["rows"] == "1"
    assert lines["embedding"] == "parts, 12 x float16"
    assert lines["skipped: boxes outside"] == "0"
    assert lines["file"].startswith(str(out))
    assert read_embeddings(out).vectors.shape == (1, 12)


def test_a_deadline_gives_the_same_vectors(run: Run, tmp_path: Path) -> None:
    for seed in range(5):
        write_image(tmp_path / "f" / f"{seed}.png", seed)
    plain = read_embeddings(run(tmp_path / "f")["out"]).vectors
    hurried = read_embeddings(run(tmp_path / "f", "--max-delay-ms", "0.5")["out"]).vectors
    np.testing.assert_allclose(hurried, plain, atol=1e-6)


def test_a_video_gives_a_row_for_every_box(run: Run, clip: Clip) -> None:
    summary = run(clip.video, "--detections", clip.detections)
    read = read_embeddings(summary["out"])
    assert read.vectors.shape == (clip.boxes, 12)
    assert np.isfinite(read.vectors).all()
    np.testing.assert_allclose(np.linalg.norm(read.vectors, axis=1), 1, atol=1e-5)
    assert sum(summary["skipped"].values()) == 0
