"""Which boxes belong to which video."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from sa_runtime.detections.base import Detections
from sa_runtime.detections.collect import BoxesByVideo
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.table import read_boxes
from sa_runtime.detections.ultralytics import is_label_folder
from sa_runtime.errors import InputError, MissingFileError, shown

_log = logging.getLogger(__name__)

Location = str | os.PathLike[str]
"""A path, or an address such as ``rtsp://camera/1``."""
Boxes = Location | Detections
"""A detection file, a folder of them, or what one holds."""

_BOX_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".parquet", ".pq")
_MOT_FILES = ("det/det.txt", "gt/gt.txt")


def pair(videos: Sequence[str], given: Sequence[Boxes], options: BoxOptions) -> list[Detections]:
    """The boxes of each video.

    As many files as videos go by their order. Fewer are searched by the names of the videos: in a
    folder the name of a file tells, in a file of several videos what it says of each box.

    Args:
        videos: paths or addresses.
        given: files, folders, or boxes.
        options: how files are read.

    Raises:
        InputError: a video for which there are no boxes, or more files than videos.
        DetectionError: a file that cannot be read.
    """
    if len(given) > len(videos):
        raise InputError(
            f"{len(videos)} videos and {len(given)} files of `detections`: expected one for each "
            "video, in the same order; or a folder, or one file that names the video of each box"
        )
    if len(given) == len(videos) and not any(map(_is_folder_of_files, given)):
        return [_of_one(boxes, video, options) for video, boxes in zip(videos, given, strict=True)]
    if not given:
        return []
    loose = next((one for one in given if isinstance(one, Detections)), None)
    if loose is not None:
        raise InputError(
            f"{len(videos)} videos and boxes for {len(given)}: expected boxes for each video, in "
            "the same order"
        )
    places = [Path(one) for one in given if not isinstance(one, Detections)]
    shared = {
        place: read_boxes(place, options) for place in places if not _is_folder_of_files(place)
    }
    for place, found in shared.items():
        if "" in found and len(videos) > 1:
            raise InputError(
                f"{place}: does not say which of {len(videos)} videos its boxes belong to; pass "
                "`detections` once for each video, or name the column with `columns`"
            )
    return [_by_name(video, places, shared, options) for video in videos]


def _of_one(boxes: Boxes, video: str, options: BoxOptions) -> Detections:
    """The boxes of a video in the file given for it."""
    if isinstance(boxes, Detections):
        return boxes
    found = read_boxes(Path(boxes), options)
    if len(found) == 1:
        return next(iter(found.values()))
    name = matching(video, list(found))
    if name is None:
        raise InputError(_not_among(video, Path(boxes), found))
    return found[name]


def _by_name(
    video: str,
    places: Sequence[Path],
    shared: dict[Path, BoxesByVideo],
    options: BoxOptions,
) -> Detections:
    """The boxes of a video, wherever its name is found."""
    for place in places:
        if place in shared:
            name = matching(video, list(shared[place]))
            if name is not None:
                return shared[place][name]
        elif (file := file_for(video, place)) is not None:
            return _of_one(file, video, options)
    if shared:
        # A detector that saw nobody in a video wrote nothing of it.
        place = next(iter(shared))
        _log.warning("%s", _not_among(video, place, shared[place]))
        return _nobody()
    stem = PurePath(video).stem
    raise MissingFileError(
        f"{places[0]}: no boxes for {video} in it; expected a file {stem}.txt, {stem}.csv, "
        f"{stem}.json or {stem}.parquet",
        path=places[0],
    )


def matching(video: str, names: Sequence[str]) -> str | None:
    """The name that stands for a video: the end of its path, with or without its suffix.

    Raises:
        InputError: two of the names do.

    >>> matching("day/c1/a.mp4", ["c2/a", "c1/a"]), matching("a.mp4", ["b.mp4"])
    ('c1/a', None)
    """
    parts = PurePath(video).parts
    fits = []
    for name in names:
        named = PurePath(name.replace("\\", "/")).parts
        count = min(len(named), len(parts))
        ends = [_plain(one) for one in (named[-count:], parts[-count:])]
        if count and ends[0] == ends[1]:
            fits.append((count, name))
    if not fits:
        return None
    best = max(count for count, _ in fits)
    longest = [name for count, name in fits if count == best]
    if len(longest) > 1:
        raise InputError(f"{video}: boxes of {' and of '.join(longest[:2])} may be meant; name one")
    return longest[0]


def _plain(parts: Sequence[str]) -> tuple[str, ...]:
    return (*parts[:-1], PurePath(parts[-1]).stem)


def file_for(video: str, folder: Path) -> Path | None:
    """The detection file of a video in a folder, or in one below it that is named as the video's.

    Raises:
        InputError: two files may be meant.
    """
    parts = PurePath(video).parts
    stem = PurePath(video).stem
    for depth in range(min(len(parts), 3), 0, -1):
        home = folder.joinpath(*[part for part in parts[-depth:-1] if part not in ("..", "/")])
        if not home.is_dir():
            continue
        fits = sorted(
            file
            for file in home.iterdir()
            if file.name.startswith(f"{stem}.")
            and file.suffix.lower() in _BOX_SUFFIXES
            and file.is_file()
        )
        fits += [home / stem / name for name in _MOT_FILES if (home / stem / name).is_file()]
        if len(fits) > 1:
            exact = [file for file in fits if file.stem == stem]
            if len(exact) != 1:
                raise InputError(
                    f"{fits[0]} and {fits[1].name}: both may hold the boxes of {video}; pass one "
                    "of them as `detections`"
                )
            fits = exact
        if fits:
            return fits[0]
    return None


def _is_folder_of_files(given: Boxes) -> bool:
    """Whether it is a folder with a file for each video, not one with a file for each frame."""
    if isinstance(given, Detections):
        return False
    folder = Path(given)
    return folder.is_dir() and not is_label_folder(folder)


def _not_among(video: str, place: Path, found: BoxesByVideo) -> str:
    names = shown(", ".join(found))
    return f"{place}: no boxes of {video}; it names {len(found)} videos: {names}"


def _nobody() -> Detections:
    return Detections(
        frames=np.empty(0, np.int64),
        track_ids=np.empty(0, np.int64),
        ltwh=np.empty((0, 4)),
        confidences=np.empty(0),
    )
