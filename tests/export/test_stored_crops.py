"""Calibration crops from what ``sa-deploy embed`` wrote."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sa_export.crop_sets import calibration_crops
from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.crops import crop_batch, resize
from sa_runtime.errors import InputError
from sa_runtime.items import Row
from sa_runtime.outputs.parquet import EmbeddingWriter

CONTRACT = Contract(
    input=InputSpec(height=32, width=16), output=OutputSpec(dim=2), weights_sha256="0", space="s"
)


def stored(path: Path, rows: list[Row]) -> Path:
    with EmbeddingWriter(path, CONTRACT) as writer:
        writer.write(rows, np.tile(np.array([[1, 0]], np.float32), (len(rows), 1)))
    return path


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (40, 20, 3), dtype=np.uint8))
    return paths


def test_images_are_cut_as_they_were_embedded(images: list[Path], tmp_path: Path) -> None:
    rows = [Row(str(p), None, None, None, 0, 0, 20, 40, None, None) for p in images]
    found = calibration_crops(stored(tmp_path / "a.parquet", rows), height=32, width=16)
    assert found.names == tuple(map(str, images))
    assert found.labels is None
    for path, image in zip(images, found.images, strict=True):
        decoded = cv2.imread(str(path))
        assert decoded is not None
        assert (image == resize(np.asarray(decoded, np.uint8), 32, 16)).all()
    assert len(calibration_crops(tmp_path / "a.parquet", height=32, width=16, limit=4)) == 4


def test_boxes_are_cut_from_their_frames(tmp_path: Path) -> None:
    video = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for grey in range(0, 240, 24):
        frame = np.full((48, 64, 3), grey, np.uint8)
        frame[:, :32] = 255 - grey
        writer.write(frame)
    writer.release()
    boxes = [(2, 0.0, 0.0, 20.0, 40.0), (9, 40.0, 4.0, 16.0, 40.0), (2, 40.0, 4.0, 16.0, 40.0)]
    boxes.append((5, 8.0, 8.0, 50.0, 30.0))
    rows = [Row(str(video), n, n / 10, 1, x, y, w, h, 0.9, "c1") for n, x, y, w, h in boxes]
    found = calibration_crops(stored(tmp_path / "v.parquet", rows), height=32, width=16)
    capture = cv2.VideoCapture(str(video))
    frames = [np.asarray(capture.read()[1], np.uint8) for _ in range(10)]
    expected = [
        crop_batch(frames[n - 1], [[x, y, x + w, y + h]], 32, 16)[0]
        for n, x, y, w, h in sorted(boxes, key=lambda box: box[0])
    ]
    assert (found.images == np.stack(expected)).all()
    assert found.names == tuple(f"{video}#{n}" for n in (2, 2, 5, 9))
    too_far = [row._replace(frame=(row.frame or 0) + 40) for row in rows]
    with pytest.raises(InputError, match=r"v\.avi: ends before frame 49"):
        calibration_crops(stored(tmp_path / "far.parquet", too_far), height=32, width=16)


def test_what_cannot_be_cut_again_is_said(images: list[Path], tmp_path: Path) -> None:
    rows = [Row(str(p), None, None, None, 0, 0, 20, 40, None, None) for p in images]
    path = stored(tmp_path / "a.parquet", rows)
    images[3].unlink()
    with pytest.raises(InputError, match=r"3\.png, which is not there; run the export in the"):
        calibration_crops(path, height=32, width=16)
    with pytest.raises(InputError, match="3 rows, expected at least 4"):
        calibration_crops(stored(tmp_path / "b.parquet", rows[:3]), height=32, width=16)
    other = tmp_path / "c.parquet"
    other.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a Parquet file with the columns source, frame"):
        calibration_crops(other, height=32, width=16)
