"""Image files and folders of them; each picture is one person."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    FoundImages,
    has_image_suffix,
    images_below,
)
from sa_runtime.items import Counts, Item, Row
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Image files, whole, one box each.

    Attributes:
        paths: the files, in order.
        others: files of other kinds beside them in their folder.
        unnamed: images there whose names are not UTF-8, which no output could hold.
        strict: makes a file that cannot be decoded an error; else it is left out.
        camera: goes into every row.
        max_pixels: of the largest image that is decoded; larger ones cannot be.
    """

    needs_detections: ClassVar[bool] = False

    paths: tuple[Path, ...]
    others: int = 0
    unnamed: tuple[Path, ...] = ()
    strict: bool = True
    camera: str | None = None
    max_pixels: int = MAX_PIXELS

    @classmethod
    def takes(cls, location: str) -> bool:
        """Folders, and files that end as images do."""
        return Path(location).is_dir() or has_image_suffix(location)

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Self:
        """A folder, or one file, which is given by name and must therefore be whole.

        Raises:
            InputError: no such file, or a folder without images.
        """
        path = Path(location)
        if path.is_dir():
            found = _found(path)
            named = tuple(path for path in found.paths if _is_utf8(path))
            unnamed = tuple(path for path in found.paths if not _is_utf8(path))
            if unnamed and (options.strict or not named):
                raise _not_utf8(unnamed[0])
            return cls(
                paths=named,
                others=found.others,
                unnamed=unnamed,
                strict=options.strict,
                camera=options.camera,
                max_pixels=options.max_pixels,
            )
        if not path.exists():
            raise MissingFileError(
                f"{location}: no such file or folder; expected images, a folder or a video",
                path=path,
            )
        return cls(paths=(path,), camera=options.camera, max_pixels=options.max_pixels)

    def __len__(self) -> int:
        return len(self.paths)

    def identity(self) -> dict[str, Any]:
        """Paths and sizes; the pixels are not read."""
        known = "\n".join(f"{path} {path.stat().st_size}" for path in self.paths)
        digest = hashlib.sha256(known.encode()).hexdigest()[:16]
        limit = {} if self.max_pixels == MAX_PIXELS else {"max_pixels": self.max_pixels}
        return {"images": len(self), "paths_and_sizes": digest, **limit}

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """One item a file.

        Raises:
            InputError: a file that cannot be decoded, where :attr:`strict` is set.
        """
        if not after.done:
            counts.other_files += self.others
            counts.unreadable_images += len(self.unnamed)
            for path in self.unnamed:
                on_skip(_not_utf8(path))
        for done, path in enumerate(self.paths[after.done :], after.done + 1):
            try:
                image = read_image(path, max_pixels=self.max_pixels)
            except InputError as error:
                if self.strict:
                    raise
                counts.unreadable_images += 1
                on_skip(error)
                continue
            counts.images += 1
            height, width = image.shape[:2]
            row = Row(str(path), None, None, None, 0, 0, width, height, None, self.camera)
            yield Item(image, np.array([[0, 0, width, height]], np.float64), [row], done)

    def digest(self, item: Item) -> str:
        """Nothing: the number of a file leads back to it."""
        return ""


def find_images(folder: Path) -> list[Path]:
    """Every image below a folder, sorted by path, as :class:`ImageSource` takes them.

    Raises:
        InputError: there is none.
    """
    return _found(folder).paths


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_utf8(path: Path) -> InputError:
    shown = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    return InputError(
        f"{shown}: a name that is not UTF-8; rename the file or folder, for example with "
        "`convmv -t utf8`",
        path=path,
    )


def _found(folder: Path) -> FoundImages:
    found = images_below(folder)
    if not found.paths:
        videos = f"; videos are named one by one or by a pattern, such as {folder / '*.mp4'}"
        raise InputError(
            f"{folder}: no images below it; expected files that end in "
            f"{', '.join(IMAGE_SUFFIXES)} (files of other kinds: {found.others})"
            f"{videos if found.others else ''}"
        )
    return found
