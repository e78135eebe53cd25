"""Tar files of images, such as the shards of WebDataset; nothing is unpacked to the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from sa_runtime.decoding import image_of
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import IMAGE_SUFFIXES, MAX_PIXELS, is_image
from sa_runtime.items import Counts, Item, Row
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore

_READ_BYTES = 2**20
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(location: str) -> bool:
    """Whether a name ends as those of tar files do."""
    return location.lower().endswith(SUFFIXES)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """An archive, whose faults are told as ours.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is no whole tar file.
    """
    try:
        with tarfile.open(path) as archive:
            yield archive
    except FileNotFoundError as exc:
        raise MissingFileError(f"{path}: no such file; expected a tar file", path=path) from exc
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise InputError(
            f"{path}: cannot be read as a tar file ({exc}); copy it again, or pack it again",
            path=path,
        ) from exc


def images_in(archive: tarfile.TarFile) -> tuple[list[tarfile.TarInfo], int]:
    """The images of an archive, in its order, and the number of other files.

    Raises:
        tarfile.TarError: what follows the last file that is found is not the end of an archive;
            Python's own reader takes a damaged header for it.
    """
    files = [member for member in archive.getmembers() if member.isfile()]
    _require_end(archive, len(files))
    kept = [member for member in files if is_image(Path(member.name).name)]
    return kept, len(files) - len(kept)


def _require_end(archive: tarfile.TarFile, files: int) -> None:
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    mark = file.read(tarfile.BLOCKSIZE)
    if mark.strip(b"\0") or len(mark) < tarfile.BLOCKSIZE:
        found = "something else" if mark.strip(b"\0") else "nothing"
        raise tarfile.ReadError(f"{found} where the archive's end should be, after {files} files")
    if not isinstance(file, io.BufferedReader):
        while file.read(_READ_BYTES):  # up to the checksum of what is compressed
            pass


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a file in an archive."""
    file = archive.extractfile(member)
    return file.read() if file is not None else b""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarSource:
    """The images of a tar file, whole, one person each.

    Attributes:
        path: the tar file.
        names: of the images, in the order of the file.
        others: number of files of other kinds.
        strict: makes an image that cannot be decoded an error; else it is left out.
        camera: goes into every row.
        max_pixels: of the largest image that is decoded.
    """

    needs_detections: ClassVar[bool] = False

    path: Path
    names: tuple[str, ...]
    others: int = 0
    strict: bool = False
    camera: str | None = None
    max_pixels: int = MAX_PIXELS

    @classmethod
    def takes(cls, location: str) -> bool:
        """Files that end as tar files do."""
        return is_archive(location) and not Path(location).is_dir()

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Self:
        """A tar file with images.

        Raises:
            InputError: no such file, no tar file, or one without images.
        """
        path = Path(location)
        with opened(path) as archive:
            found, others = images_in(archive)
        if not found:
            raise InputError(
                f"{path}: no images in it; expected files that end in {', '.join(IMAGE_SUFFIXES)} "
                f"(files of other kinds: {others})"
            )
        return cls(
            path=path,
            names=tuple(member.name for member in found),
            others=others,
            strict=options.strict,
            camera=options.camera,
            max_pixels=options.max_pixels,
        )

    def __len__(self) -> int:
        return len(self.names)

    def identity(self) -> dict[str, Any]:
        """Path and size."""
        return {"path": str(self.path), "size_bytes": self.path.stat().st_size, "images": len(self)}

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """One item an image.

        Raises:
            InputError: an image that cannot be decoded, where :attr:`strict` is set.
        """
        if not after.done:
            counts.other_files += self.others
        with opened(self.path) as archive:
            members, _ = images_in(archive)
            for done, member in enumerate(members[after.done :], after.done + 1):
                name = f"{self.path}/{member.name}"
                data = read(archive, member)
                try:
                    image = image_of(data, name, max_pixels=self.max_pixels)
                except InputError as error:
                    if self.strict:
                        raise
                    counts.unreadable_images += 1
                    on_skip(error)
                    continue
                counts.images += 1
                height, width = image.shape[:2]
                row = Row(name, None, None, None, 0, 0, width, height, None, self.camera)
                yield Item(image, np.array([[0, 0, width, height]], np.float64), [row], done)

    def digest(self, item: Item) -> str:
        """Nothing: the number of a file leads back to it."""
        return ""
