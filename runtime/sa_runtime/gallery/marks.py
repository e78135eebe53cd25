"""Who is who in a gallery, as its user marked it: a CSV file of tracks with names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from sa_runtime.errors import InputError, MissingFileError, shown
from sa_runtime.gallery.calibration import Calibration, Stated, calibrate_pairs
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.rows import Where, names_of
from sa_runtime.retrieval.labels import Labels

COLUMNS = ("source", "track_id", "person")


def read_marks(path: Path) -> dict[tuple[str, int | None], str]:
    """Names of tracks, or of images where ``track_id`` is empty.

    Args:
        path: CSV with the columns ``source``, ``track_id`` and ``person``.

    Raises:
        InputError: a file that is missing, has other columns, or contradicts itself, with the line.
    """
    marks: dict[tuple[str, int | None], str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or not set(COLUMNS) <= set(reader.fieldnames):
                raise InputError(
                    f"{path}: line 1 is {shown(','.join(reader.fieldnames or []))}, expected the "
                    f"columns {','.join(COLUMNS)}",
                    path=path,
                )
            for row in reader:
                source, track, person = ((row[name] or "").strip() for name in COLUMNS)
                if not (source and person and (not track or track.lstrip("-").isdecimal())):
                    raise InputError(
                        f"{path}: line {reader.line_num}: expected a source, a whole number or "
                        "nothing as track_id, and a person",
                        path=path,
                    )
                key = (source, int(track) if track else None)
                if marks.setdefault(key, person) != person:
                    raise InputError(
                        f"{path}: line {reader.line_num}: names {shown(person)} who was "
                        f"{shown(marks[key])} before; a track is one person",
                        path=path,
                    )
    except FileNotFoundError as exc:
        raise MissingFileError(
            f"{path}: no such file; expected a CSV file with the columns {','.join(COLUMNS)}",
            path=path,
        ) from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InputError(f"{path}: not a CSV file that can be read ({exc})", path=path) from exc
    return marks


def calibrate_marked(
    gallery: Gallery,
    marks: dict[tuple[str, int | None], str],
    *,
    origin: str,
    stated: Stated | None = None,
) -> Calibration:
    """Thresholds from the marked rows of a gallery, per pair of cameras where data allows.

    A row without a camera counts as of a camera of its own source.

    Args:
        gallery: that holds the rows.
        marks: what :func:`read_marks` gave.
        origin: what they came from.
        stated: what errors are accepted.

    Raises:
        InputError: marks of which the gallery has no rows, or as ``calibrate_pairs`` says.
    """
    there = set(names_of([segment.rows for segment in gallery.segments], "source"))
    for source, _ in marks:
        if source not in there:
            raise InputError(
                f"{origin}: marks the source {shown(source)}, of which the gallery {gallery.path} "
                "has no row; its sources are listed by `sa-deploy gallery info`"
            )
    stored = gallery.read(Where(source=tuple({source for source, _ in marks})))
    columns = [stored.rows[name].to_pylist() for name in ("source", "track_id", "camera")]
    names, cameras, rows = [], [], []
    for row, (source, track, camera) in enumerate(zip(*columns, strict=True)):
        person = marks.get((source, track))
        if person is not None:
            rows.append(row)
            names.append(person)
            cameras.append(camera if camera is not None else source)
    if not rows:
        raise InputError(
            f"{origin}: marks no row of the gallery {gallery.path}; expected a track_id of its "
            "sources, as `sa-deploy search --json` shows them, or none for images"
        )
    numbers = np.unique(np.array(names), return_inverse=True)[1] + 1
    known, camera_id = np.unique(np.array(cameras), return_inverse=True)
    labels = Labels(person=numbers.astype(np.int64), camera=camera_id.astype(np.int64))
    vectors = stored.vectors[np.array(rows)]
    return calibrate_pairs(
        vectors,
        labels,
        vectors,
        labels,
        cameras={index: str(name) for index, name in enumerate(known)},
        origin=origin,
        stated=stated,
    )
