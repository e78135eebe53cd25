"""Folders and tar files whose images are frames with several people in them.

A frame's number is the last number in its file's name where these tell the files apart
(``000123.jpg`` is frame 123), else its place among the files. Where boxes name files, as COCO's do,
the names lead. A sequence of MOTChallenge has its frames in ``img1``, its boxes in ``det`` or
``gt``, and its frame rate in ``seqinfo.ini``.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import hashlib
import logging
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

from sa_runtime.decoding import image_of
from sa_runtime.detections.base import Detections
from sa_runtime.detections.choice import chosen
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.table import read_detections
from sa_runtime.errors import InputError
from sa_runtime.image_files import MAX_PIXELS, images_below
from sa_runtime.items import Counts, Item
from sa_runtime.sources.archive import images_in, is_archive, opened, read
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore
from sa_runtime.sources.people import boxes_by_frame, item_of

_log = logging.getLogger(__name__)

FRAMES = "img1"
_OWN_BOXES = ("det/det.txt", "gt/gt.txt")
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameSource:
    """Frames in files of their own, and the boxes of their people.

    Attributes:
        path: the folder or tar file.
        files: number of a frame -> name of its file below ``path``.
        detections: their boxes.
        fps: frames a second; 0 where that is not known.
        named: whether rows name the file instead of the number of the frame.
        strict: makes an image that cannot be decoded an error; else it is left out.
        camera: goes into every row.
        max_pixels: of the largest image that is decoded.
        boxes: which boxes are used, and how far they are moved out.
    """

    needs_detections: ClassVar[bool] = True

    path: Path
    files: Mapping[int, str]
    detections: Detections
    fps: float = 0.0
    named: bool = False
    strict: bool = False
    camera: str | None = None
    max_pixels: int = MAX_PIXELS
    boxes: BoxOptions = dataclasses.field(default_factory=BoxOptions)

    @classmethod
    def takes(cls, location: str) -> bool:
        """Sequences of MOTChallenge; other folders and tar files where boxes are given for them."""
        path = Path(location)
        return path.is_dir() and (path.name == FRAMES or (path / FRAMES).is_dir())

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Self:
        """Frames and boxes that can be read.

        Raises:
            InputError: no frames, or no boxes for them.
        """
        path = Path(location)
        home = path / FRAMES if (path / FRAMES).is_dir() else path
        sequence = home.parent if home.name == FRAMES else home
        detections = options.detections
        if detections is None:
            detections = _own_boxes(sequence, options.boxes)
        names = _names(home)
        fps = _frame_rate(sequence)
        by_name = detections.image_names
        files = numbered(names) if by_name is None else _found(by_name, names)
        if not files:
            raise InputError(f"{location}: holds none of the images that its boxes are of")
        return cls(
            path=home,
            files=files,
            detections=chosen(
                detections,
                options.boxes,
                fps=fps,
                size=_size(home, files, options) if options.boxes.rates else None,
            ),
            fps=fps,
            named=by_name is not None,
            strict=options.strict,
            camera=options.camera,
            max_pixels=options.max_pixels,
            boxes=options.boxes,
        )

    def __len__(self) -> int:
        return len(self.detections)

    def identity(self) -> dict[str, Any]:
        """Names and boxes; the pixels are not read."""
        known = "\n".join(f"{number} {name}" for number, name in sorted(self.files.items()))
        return {
            "path": str(self.path),
            "files": hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:16],
            "boxes": len(self),
            "detections": self.detections.digest(),
            **self.boxes.identity(),
        }

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """The frames that have boxes; boxes of frames without a file are counted.

        Raises:
            InputError: a file that cannot be decoded, where :attr:`strict` is set.
        """
        detections = self.detections
        if not after.done:
            counts.invalid_boxes += detections.skipped
            counts.filtered_boxes += detections.filtered
        with _opened(self.path) as load:
            for boxes in boxes_by_frame(detections, after.done):
                name = self.files.get(boxes.frame)
                if name is None:
                    counts.beyond_end += len(boxes.ltwh)
                    continue
                place = f"{self.path}/{name}"
                try:
                    image = image_of(load(name), place, max_pixels=self.max_pixels)
                except InputError as error:
                    if self.strict:
                        raise
                    counts.unreadable_images += 1
                    on_skip(error)
                    continue
                counts.frames += 1
                item = item_of(
                    image,
                    boxes,
                    self.boxes,
                    counts,
                    source=place if self.named else str(self.path),
                    timestamp_s=(boxes.frame - 1) / self.fps if self.fps else None,
                    camera=self.camera,
                    normalized=detections.normalized,
                )
                if self.named:
                    rows = [row._replace(frame=None) for row in item.rows]
                    item = item._replace(rows=rows)
                if item.rows:
                    yield item

    def digest(self, item: Item) -> str:
        """Nothing: the number of a frame leads back to it."""
        return ""


def numbered(names: Sequence[str]) -> dict[int, str]:
    """The number of each file, told by its name, or by its place where names do not tell.

    >>> numbered(["a/000007.jpg", "a/000009.jpg"]), numbered(["b.jpg", "c1.jpg"])
    ({7: 'a/000007.jpg', 9: 'a/000009.jpg'}, {1: 'b.jpg', 2: 'c1.jpg'})
    """
    found = [_LAST_NUMBER.search(PurePosixPath(name).stem) for name in names]
    numbers = [int(one[1]) for one in found if one]
    if len(numbers) == len(set(numbers)) == len(names) and 0 not in numbers:
        return dict(zip(numbers, names, strict=True))
    return dict(enumerate(names, 1))


def _found(wanted: Mapping[int, str], names: Sequence[str]) -> dict[int, str]:
    """The files that boxes name: by their whole name, or by its end where one file alone has it."""
    known = {name: name for name in names}
    ends: dict[str, str | None] = {}
    for name in names:
        end = PurePosixPath(name).name
        ends[end] = None if end in ends else name
    found = {}
    for number, name in wanted.items():
        place = known.get(name) or ends.get(PurePosixPath(name).name)
        if place is not None:
            found[number] = place
    return found


def _names(home: Path) -> list[str]:
    if home.is_dir():
        return [path.relative_to(home).as_posix() for path in images_below(home).paths]
    if is_archive(str(home)):
        with opened(home) as archive:
            return [member.name for member in images_in(archive)[0]]
    raise InputError(f"{home}: expected a folder or a tar file of frames")


def _size(home: Path, files: Mapping[int, str], options: SourceOptions) -> tuple[int, int] | None:
    """Width and height of the first frame that can be decoded."""
    with _opened(home) as load:
        for number in sorted(files):
            name = files[number]
            with contextlib.suppress(InputError):
                image = image_of(load(name), name, max_pixels=options.max_pixels)
                return image.shape[1], image.shape[0]
    return None


@contextlib.contextmanager
def _opened(home: Path) -> Iterator[Callable[[str], bytes]]:
    if home.is_dir():
        yield lambda name: (home / name).read_bytes()
        return
    with opened(home) as archive:
        members = {member.name: member for member in images_in(archive)[0]}
        yield lambda name: read(archive, _member(members, name))


def _member(members: Mapping[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
    if name not in members:
        raise InputError(f"{name}: was in the tar file when the run began, and is not any more")
    return members[name]


def _own_boxes(sequence: Path, options: BoxOptions) -> Detections:
    for name in _OWN_BOXES:
        if (sequence / name).is_file():
            _log.info("%s: boxes of %s", sequence, name)
            return read_detections(sequence / name, options=options)
    raise InputError(
        f"{sequence}: frames without boxes; pass `detections=FILE` for them, of a detector or "
        f"tracker (MOTChallenge has them in {' or '.join(_OWN_BOXES)})"
    )


def _frame_rate(sequence: Path) -> float:
    parser = configparser.ConfigParser()
    try:
        parser.read(sequence / "seqinfo.ini")
        return parser.getfloat("Sequence", "frameRate", fallback=0.0)
    except (configparser.Error, ValueError, UnicodeDecodeError):
        return 0.0
