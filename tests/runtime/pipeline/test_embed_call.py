"""The main job as a library call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sa_runtime.detections.table import read_detections
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.result import EmbedProgress
from sa_runtime.sources.images import ImageSource
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


def write_images(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(3)
    folder.mkdir()
    for index in range(count):
        image = rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)
        (folder / f"{index}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return folder


def test_a_path_a_source_and_an_open_model_give_the_same(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "images", 5)
    first = embed(
        [clip.video, folder],
        tiny_model.path,
        tmp_path / "a.parquet",
        detections=clip.detections,
        camera="door",
        runtime="onnxruntime",
    )
    source = ImageSource(paths=tuple(sorted(folder.iterdir())), camera="door")
    with Embedder(tiny_model.path, "onnxruntime") as embedder:
        second = embed(
            [clip.video, source],
            embedder,
            tmp_path / "b.parquet",
            detections=[read_detections(clip.detections)],
            camera="door",
        )
        assert embedder.embed([np.zeros((4, 2, 3), np.uint8)]).shape == (1, embedder.dim)
    assert (first.rows, second.rows) == (clip.boxes + 5, clip.boxes + 5)
    stored = [read_embeddings(tmp_path / f"{name}.parquet") for name in "ab"]
    assert stored[0].rows == stored[1].rows
    np.testing.assert_array_equal(stored[0].vectors, stored[1].vectors)
    assert set(stored[0].rows["camera"].to_pylist()) == {"door"}


def test_progress_counts_every_row_and_names_the_most(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    seen: list[EmbedProgress] = []
    result = embed(
        clip.video,
        tiny_model.path,
        tmp_path / "a.parquet",
        detections=clip.detections,
        runtime="onnxruntime",
        on_progress=seen.append,
    )
    assert (seen[0].rows, seen[-1].rows) == (0, result.rows)
    assert [state.rows for state in seen] == sorted({state.rows for state in seen})
    assert {state.rows_at_most for state in seen} == {clip.boxes}
    assert seen[0].runner.name == "onnxruntime"
    assert {(state.source, state.sources) for state in seen} == {(1, 1)}
    assert (seen[-1].pictures, seen[-1].left_out) == (result.counts.frames, 0)
    assert seen[-1].rows_per_s > 0


@pytest.mark.parametrize("name", ["people.txt", "-", "s3://bucket/people.txt", "a.npy"])
def test_what_cannot_be_written_is_refused_before_a_model_is_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"cannot be written to; expected NAME\.parquet, .* a fold"
    ):
        embed("absent.jpg", "absent.onnx", name)
    assert not list(tmp_path.iterdir())


def test_a_trailing_slash_makes_a_folder_of_any_name(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 3)
    for _ in range(2):
        result = embed(folder, tiny_model.path, f"{tmp_path}/c1.avi/", resume=True)
    assert (result.rows, result.resumed_rows) == (3, 3)
    assert (tmp_path / "c1.avi" / "part-00000.parquet").is_file()


def test_options_of_a_model_that_is_open_are_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 1)
    with (
        Embedder(tiny_model.path, "onnxruntime") as embedder,
        pytest.raises(InputError, match="threads: the model is open already"),
    ):
        embed(folder, embedder, tmp_path / "a.parquet", threads=1)


def test_an_image_of_too_many_pixels_is_left_out_undecoded(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "images", 2)
    large = np.zeros((100, 90, 3), np.uint8)
    (folder / "large.png").write_bytes(cv2.imencode(".png", large)[1].tobytes())
    told: list[str] = []
    result = embed(
        folder,
        tiny_model.path,
        tmp_path / "out",
        max_pixels=8_999,
        on_skip=lambda error: told.append(str(error)),
    )
    assert (result.rows, result.counts.unreadable_images) == (2, 1)
    assert "90x100 pixels, expected at most 0.008999 million" in told[0]
    with pytest.raises(InputError, match=r"sources\.0\.max_pixels was 8999 and is absent"):
        embed(folder, tiny_model.path, tmp_path / "out", resume=True)


def test_what_stands_in_the_place_of_a_model_is_told_first(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"clip\.mp4: no runtime opens '\.mp4'; expected \.onnx"):
        embed(tiny_model.path, clip.video, tmp_path / "a.parquet", detections=clip.detections)


def test_a_folder_of_videos_is_no_folder_of_frames(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    day = tmp_path / "day"
    day.mkdir()
    (day / "clip.mp4").symlink_to(clip.video)
    for boxes in (clip.detections, clip.detections.parent):
        with pytest.raises(InputError, match=r"day: no images below it.*such as .*day/\*\.mp4"):
            embed(day, tiny_model.path, tmp_path / "a.parquet", detections=boxes)
