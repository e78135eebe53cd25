from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sa_runtime import crops
from sa_runtime.errors import InputError
from sa_runtime.gallery.contact_sheet import check_sheet, contact_sheet
from sa_runtime.retrieval.sheet import INK, Sheet, drawable
from tests.clip import Clip

BOX = {"left": 20.0, "top": 30.0, "width": 60.0, "height": 120.0}


def row(source: Path, frame: int | None, **more: Any) -> dict[str, Any]:
    return {"source": str(source), "frame": frame, "track_id": 1, "distance": 0.5, **BOX, **more}


def test_every_picture_is_of_its_own_frame(clip: Clip, tmp_path: Path) -> None:
    numbers = (3, 30, 17)
    query, *found = (row(clip.video, number) for number in numbers)
    out = tmp_path / "sheet.png"
    assert contact_sheet([{"query": "q", "from": query, "found": found}], out) == 0
    sheet: Any = cv2.imread(str(out))
    reader = cv2.VideoCapture(str(clip.video))
    frames: dict[int, Any] = {}
    for number in range(1, 31):
        _, frames[number] = reader.read()
    for column, number in enumerate(numbers):
        x = 28 + column * 102 + (34 if column else 0)
        cut = np.ascontiguousarray(frames[number][30:150, 20:80])
        assert (sheet[60:236, x : x + 88] == crops.resize(cut, 176, 88)).all()


def test_a_crop_comes_before_its_source_and_never_from_outside(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    for name, shade in (("crops/a.png", 50), ("secret.png", 90)):
        cv2.imwrite(str(tmp_path / name), np.full((40, 20, 3), shade, np.uint8))
    places = [row(tmp_path / "none.mp4", 1, crop=name) for name in ("a.png", "../secret.png")]
    out = tmp_path / "sheet.png"
    result = [{"query": "q", "from": places[0], "found": [places[1]]}]
    assert contact_sheet(result, out, crop_folder=tmp_path / "crops") == 1
    sheet: Any = cv2.imread(str(out))
    assert (sheet[80:200, 40:100] == 50).all()
    assert not (sheet == 90).all(axis=2).any()


def test_a_sheet_is_a_png_outside_the_gallery(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.png"):
        check_sheet(tmp_path / "a.jpg", tmp_path / "g")
    (tmp_path / "g").mkdir()
    with pytest.raises(InputError, match="is read; write elsewhere"):
        check_sheet(tmp_path / "g" / "a.png", tmp_path / "g")


def written(text: str, *, limit: float = np.inf) -> Any:
    sheet = Sheet(40, 600)
    sheet.text(text, 10, 30, height=12, colour=INK, limit=limit)
    return sheet.finish()


@pytest.mark.parametrize("name", ["Ádám Őry-Łukasz", "入口カメラ", "вход", "είσοδος", "입구"])
def test_names_of_other_scripts_are_written(name: str) -> None:
    if not hasattr(cv2, "FontFace"):
        pytest.skip("OpenCV 4 has strokes for ASCII only")
    drawn = written(name)
    for other in ("?" * len(name), name[::-1], drawable(name, outlines=False)):
        assert (drawn != written(other)).any()


def test_a_long_caption_stays_readable_and_keeps_its_end() -> None:
    name = "camera-of-the-northern-entrance_2026-05-01_08-00-00_part_{}.mp4, track {}"
    drawn = written(name.format(3, 17), limit=120)
    ink = np.argwhere((drawn < 200).any(axis=2))
    assert ink[:, 1].max() <= 10 + 120 + 2
    assert np.ptp(ink[:, 0]) >= 0.6 * 12
    assert (drawn != written(name.format(3, 18), limit=120)).any()
