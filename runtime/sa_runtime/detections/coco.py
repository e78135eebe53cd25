"""COCO JSON: results of a detector, and annotations with their images.

An image is a frame. Its number is what ``frame_id`` (or ``frame_index``, ``frame_number``) says,
else the last number in its file's name where these tell the images of a folder apart, else its
place among them. Its video is that of ``video_id``, else the folder of its file. In results without
images its number is that of the frame; a name such as ``lobby_000123`` is video and frame.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from sa_runtime.detections.collect import Chunk, Labels
from sa_runtime.detections.json_stream import JsonStream
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.rows import chunk_of
from sa_runtime.errors import DetectionError, InputError, MissingFileError, shown

_CHUNK_BOXES = 2**16
_FRAME_KEYS = ("frame_id", "frame_index", "frame_number", "frame")
_TRACK_KEYS = ("track_id", "instance_id", "tracker_id")
_FRAME_FOLDERS = ("img1", "images", "frames")
_MOST_REASON = 200
_LAST_NUMBER = re.compile(r"^(.*?)[_\-. ]?(\d+)\D*$")


class Images(NamedTuple):
    """The images of a file.

    Attributes:
        frames: id of an image -> its video, and the number of its frame as the file counts.
        names: video -> number of a frame as the file counts -> its file; none where frames have
            numbers of their own.
        classes: id of a category -> what it is called.
    """

    frames: dict[int | str, tuple[str, int]]
    names: dict[str, dict[int, str]]
    classes: Mapping[int, tuple[str, ...]]


def read_coco(path: Path, options: BoxOptions) -> Iterator[Chunk]:
    """Read a COCO file.

    Args:
        path: results or annotations.
        options: how it is read; ``coco_images`` has the images that results refer to.

    Raises:
        MissingFileError: there is no such file.
        DetectionError: a file that is no COCO JSON, or a box that cannot be read, named.
    """
    images = images_of(path, options)
    wanted = ("", "annotations")
    pending: list[dict[str, Any]] = []
    number = 0
    with _members(path) as members:
        for values in (values for key, values in members if key in wanted):
            for value in values:
                pending.append(value)
                if len(pending) == _CHUNK_BOXES:
                    yield _chunk(pending, images, path, number, options)
                    number += len(pending)
                    pending = []
    yield _chunk(pending, images, path, number, options)


def image_names(path: Path, options: BoxOptions) -> dict[str, dict[int, str]]:
    """Video -> number of a frame, from 1 -> the file that the COCO file names for it."""
    names = images_of(path, options).names
    shift = options.first_frame - 1
    return {
        video: {number - shift: name for number, name in frames.items()}
        for video, frames in names.items()
    }


def images_of(path: Path, options: BoxOptions) -> Images:
    """The images and categories of a file, or of the one that its results refer to.

    Raises:
        MissingFileError: there is no such file.
        DetectionError: a file that is no COCO JSON.
    """
    source = path if options.coco_images is None else options.coco_images
    listed: dict[str, list[dict[str, Any]]] = {"images": [], "videos": [], "categories": []}
    with _members(source) as members:
        for key, values in members:
            if key in listed:
                listed[key] = list(values)
            elif key == "":
                break  # results: nothing but boxes
    try:
        videos = {int(one["id"]): str(one.get("name", one["id"])) for one in listed["videos"]}
        classes = {
            int(one["id"]): (str(one.get("name", one["id"])), str(one["id"]))
            for one in listed["categories"]
        }
        return Images(*_frames(listed["images"], videos, options.first_frame), classes)
    except (KeyError, TypeError, ValueError) as exc:
        raise DetectionError(
            f"{source}: an image, video or category without {exc}; expected COCO's JSON"
        ) from exc


def _frames(
    images: Sequence[Mapping[str, Any]], videos: Mapping[int, str], first: int
) -> tuple[dict[int | str, tuple[str, int]], dict[str, dict[int, str]]]:
    key = next((key for key in _FRAME_KEYS if images and all(key in one for one in images)), None)
    homes = [_home(one, videos) for one in images]
    if key is not None:
        numbers = [int(one[key]) for one in images]
        return _by_id(images, homes, numbers), {}
    files = [str(one.get("file_name", one["id"])) for one in images]
    named = [_numbered(PurePosixPath(file).stem)[1] for file in files]
    places = Counter(zip(homes, named, strict=True))
    if all(count == 1 and number is not None for (_, number), count in places.items()):
        numbers = [number or 0 for number in named]
    else:
        seen: Counter[str] = Counter()
        numbers = []
        for home in homes:
            numbers.append(first + seen[home])
            seen[home] += 1
    names: dict[str, dict[int, str]] = {}
    for home, number, file in zip(homes, numbers, files, strict=True):
        names.setdefault(home, {})[number] = file
    return _by_id(images, homes, numbers), names


def _by_id(
    images: Sequence[Mapping[str, Any]], homes: Sequence[str], numbers: Sequence[int]
) -> dict[int | str, tuple[str, int]]:
    return {
        one["id"]: (home, number) for one, home, number in zip(images, homes, numbers, strict=True)
    }


def _home(image: Mapping[str, Any], videos: Mapping[int, str]) -> str:
    """The video of an image: its own, or the folder of its file."""
    if "video_id" in image:
        return videos.get(int(image["video_id"]), str(image["video_id"]))
    folder = PurePosixPath(str(image.get("file_name", "")).replace("\\", "/")).parent
    if folder.name in _FRAME_FOLDERS:
        folder = folder.parent
    return "" if str(folder) == "." else str(folder)


def _numbered(stem: str) -> tuple[str, int | None]:
    """What stands before the last number of a name, and that number.

    >>> _numbered("lobby_000123"), _numbered("still")
    (('lobby', 123), ('still', None))
    """
    found = _LAST_NUMBER.match(stem)
    return (found[1], int(found[2])) if found else (stem, None)


def _chunk(
    values: Sequence[Any], images: Images, path: Path, number: int, options: BoxOptions
) -> Chunk:
    count = len(values)
    columns = {
        name: np.full(count, np.nan)
        for name in ("frame", "id", "left", "top", "width", "height", "confidence")
    }
    homes: dict[str, int] = {}
    home_codes, label_codes = np.zeros(count, np.int64), np.zeros(count, np.int64)
    labels: dict[tuple[str, ...], int] = {}
    rows = np.empty((count, 7))
    for index, value in enumerate(values):
        try:
            home, frame = _place(value["image_id"], images)
            track = next((value[key] for key in _TRACK_KEYS if value.get(key) is not None), -1)
            left, top, width, height = value["bbox"]
            score = value.get("score")
            rows[index] = (
                *(frame, track, left, top, width, height),
                1.0 if score is None else score,
            )
            category = value.get("category_id")
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise DetectionError(
                f"{path}: box {number + index + 1}, {shown(str(value))}: {_reason(exc)}; expected "
                "image_id and bbox [left, top, width, height], as COCO's results and annotations "
                "have them"
            ) from exc
        home_codes[index] = homes.setdefault(home, len(homes))
        label = images.classes.get(category, (str(category),))
        label_codes[index] = labels.setdefault(label, len(labels))
    columns = dict(zip(columns, rows.T, strict=True))
    return chunk_of(
        columns,
        lambda index: f"{path}: box {number + index + 1}",
        first_frame=options.first_frame,
        classes=Labels(label_codes, list(labels)),
        videos=Labels(home_codes, [(home,) for home in homes]),
    )


def _place(image: Any, images: Images) -> tuple[str, int]:
    """Video and frame of an image's id."""
    if images.frames:
        if image not in images.frames:
            stated = shown(image) if isinstance(image, str) else image
            raise ValueError(f"no image has the id {stated}")
        return images.frames[image]
    if isinstance(image, str):
        home, number = _numbered(PurePosixPath(image).stem)
        if number is None:
            raise ValueError(
                f"the image {shown(image)} has no number; pass `coco_images=FILE`, the file of "
                "images"
            )
        return home, number
    return "", int(image)


def _reason(error: Exception) -> str:
    text = f"no {error}" if isinstance(error, KeyError) else str(error)
    # Python quotes the whole value that is no number.
    return text if len(text) <= _MOST_REASON else text[: _MOST_REASON - 1] + "…"


@contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[str, Iterator[Any]]]]:
    """The members of a file; what goes wrong while they are read names it."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield JsonStream(file).members()
    except InputError:
        raise
    except FileNotFoundError as exc:
        raise MissingFileError(f"{path}: no such file", path=path) from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise DetectionError(
            f"{path}: cannot be read as JSON ({exc}); expected COCO's results or annotations",
            path=path,
        ) from exc
