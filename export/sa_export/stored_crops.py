"""Crops of the rows that ``sa-deploy embed`` wrote, cut again from their images and videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sa_export.crop_set import CropSet, spread
from sa_runtime.arrays import Images
from sa_runtime.crops import crop_batch
from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import has_image_suffix
from sa_runtime.outputs.manifest import Manifest
from sa_runtime.sources.reader import VideoReader

_BOX = ("left", "top", "width", "height")
_COLUMNS = ["source", "frame", *_BOX]
_LEAST = 4
_Row = dict[str, Any]


def crops_of_rows(path: Path, *, height: int, width: int, limit: int) -> CropSet:
    """Boxes of a Parquet file at a network's size, as they were when they were embedded.

    Args:
        path: a file of ``sa-deploy embed``, or a folder of its shards.
        height: of the crops.
        width: of the crops.
        limit: the largest number of crops, evenly spread over the rows.

    Raises:
        InputError: not such a file, fewer than four rows, or an image or video that is no longer
            where it was embedded.
    """
    table = _rows(path)
    if len(table) < _LEAST:
        raise InputError(f"{path}: {len(table)} rows, expected at least {_LEAST}")
    rows = table.take(spread(range(len(table)), limit)).to_pylist()
    rows.sort(key=lambda row: (row["source"], row["frame"] or 0))
    images: list[Images] = []
    for source, group in groupby(rows, key=lambda row: str(row["source"])):
        file = Path(source)
        if not file.is_file():
            raise MissingFileError(
                f"{path}: its crops came from {source}, which is not there; run the export in the "
                "folder that `sa-deploy embed` ran in, or pass a folder of crops",
                path=source,
            )
        images += _cut(file, list(group), height, width)
    return CropSet(
        source=str(path),
        images=np.concatenate(images),
        names=tuple(
            row["source"] + ("" if row["frame"] is None else f"#{row['frame']}") for row in rows
        ),
        queries=len(rows) // 4,
    )


def _rows(path: Path) -> pa.Table:
    """Sources, frames and boxes, without the vectors."""
    files = [path]
    if path.is_dir():
        files = [path / shard.file for shard in Manifest.read(path).shards]
    try:
        return pa.concat_tables([pq.read_table(file, columns=_COLUMNS) for file in files])
    except (OSError, KeyError, pa.ArrowException) as exc:
        raise InputError(
            f"{path}: not a Parquet file with the columns {', '.join(_COLUMNS)} ({exc}); expected "
            "one that `sa-deploy embed` wrote, or a folder of crops"
        ) from exc


def _cut(source: Path, rows: Sequence[_Row], height: int, width: int) -> Iterator[Images]:
    """(n, height, width, 3) for each image or frame, in the order of the rows."""
    if has_image_suffix(source):
        yield crop_batch(read_image(source), [_xyxy(row) for row in rows], height, width)
        return
    frames = {
        number: [_xyxy(row) for row in group]
        for number, group in groupby(rows, key=lambda row: int(row["frame"] or 0))
    }
    with VideoReader(source) as video:
        found = 0
        for frame in video.frames(sorted(frames)):
            found += 1
            yield crop_batch(frame.image, frames[frame.number], height, width)
    if found < len(frames):
        raise InputError(f"{source}: ends before frame {max(frames)}, which was embedded from it")


def _xyxy(row: _Row) -> list[float]:
    left, top, width, height = (float(row[name]) for name in _BOX)
    return [left, top, left + width, top + height]
