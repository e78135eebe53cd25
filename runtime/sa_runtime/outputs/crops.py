"""The people themselves as JPEG files, named so that rows find them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from sa_runtime.arrays import Image
from sa_runtime.crops import clip_boxes
from sa_runtime.errors import InputError
from sa_runtime.items import Item, Row
from sa_runtime.system.locking import owned

QUALITY = 95
_TEMPORARY = ".crop.partial.jpg"
"""One for all: crops are written one after the other."""


class CropFolder:
    """Writes every box that gets a row, in the pixels of its picture.

    The name is ``SOURCE/FRAME-ROW.jpg``, or ``SOURCE/ROW.jpg`` for an image, where ROW is the
    number of the row in the run, so that a run that goes on after a stop writes the same names.

    Args:
        folder: made where it is missing; it may hold the crops of earlier runs.
        first: number of the next row.

    Raises:
        InputError: the folder cannot be written to, or another run does.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.folder = folder
        self._number = first
        self._made: set[str] = set()
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: a file; choose a folder for `crops`", path=folder)
        with ExitStack() as stack:
            stack.enter_context(owned(folder, folder=True))
            (folder / _TEMPORARY).unlink(missing_ok=True)
            self._ownership = stack.pop_all()

    def save(self, item: Item) -> Item:
        """Write the crops of an item, and note their names in its rows.

        Boxes outside the picture get neither a row nor a crop.
        """
        height, width = item.image.shape[:2]
        boxes, valid = clip_boxes(item.boxes, height, width)
        rows = list(item.rows)
        for index in np.flatnonzero(valid).tolist():
            left, top, right, bottom = boxes[index].tolist()
            name = self._name(rows[index])
            self._write(name, item.image[top:bottom, left:right])
            rows[index] = rows[index]._replace(crop=name)
        return item._replace(rows=rows)

    def close(self) -> None:
        """Let the next run own the folder; closing twice is allowed."""
        self._ownership.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _name(self, row: Row) -> str:
        number, self._number = self._number, self._number + 1
        frame = "" if row.frame is None else f"{row.frame:08d}-"
        place = Path(row.source)
        source = place.parent.name if row.frame is None else place.name
        return f"{source.lstrip('.') or 'crops'}/{frame}{number:09d}.jpg"

    def _write(self, name: str, crop: Image) -> None:
        whole, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(crop), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )
        if not whole:
            raise InputError(f"{self.folder / name}: a crop that cannot be written as JPEG")
        temporary = self.folder / _TEMPORARY
        temporary.write_bytes(data.tobytes())
        target = self.folder / name
        if target.parent.name not in self._made:
            target.parent.mkdir(exist_ok=True)
            self._made.add(target.parent.name)
        temporary.replace(target)
