"""Videos and images in object stores, copied here one after the other as their turn comes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

import numpy as np

from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.image_files import has_image_suffix, is_image
from sa_runtime.items import Counts, Item, Row
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore
from sa_runtime.sources.reader import frame_digest
from sa_runtime.sources.video import VideoSource
from sa_runtime.system.remote import Entry, Remote, address_of, workspace

_TOGETHER = 32
"""Images that are copied at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteVideo:
    """A video in a store and its boxes.

    Attributes:
        path: its address.
        size_bytes: of it.
        options: its boxes, and how it is opened.
    """

    needs_detections: ClassVar[bool] = True

    path: str
    size_bytes: int
    options: SourceOptions

    @classmethod
    def takes(cls, location: str) -> bool:
        """Every other address of a store."""
        return address_of(location) is not None

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Self:
        """A video that is there; whether it can be decoded is seen when its turn comes.

        Raises:
            MissingFileError: no such file.
            InputError: no boxes for it, or the store does not answer.
        """
        address = _address(location)
        entry = Remote(address).entry(address)
        if entry is None:
            raise MissingFileError(f"{address}: no such file in the store; expected a video")
        if options.detections is None:
            raise InputError(
                f"{address}: a video without boxes; pass `detections=FILE` for it, of a detector "
                "or tracker, or the folder in which such a file has its name"
            )
        return cls(path=address, size_bytes=entry.size_bytes, options=options)

    def __len__(self) -> int:
        return len(self.options.detections or ())

    def identity(self) -> dict[str, Any]:
        """Address, size and boxes."""
        boxes = self.options.detections
        return {
            "video": self.path,
            "size_bytes": self.size_bytes,
            "boxes": len(self),
            "detections": "" if boxes is None else boxes.digest(),
            **self.options.boxes.identity(),
        }

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """As those of the video were it a file here, but for the name of their source.

        Raises:
            VideoError: it cannot be decoded.
        """
        with workspace() as folder:
            copy = folder / PurePosixPath(self.path).name
            Remote(self.path).fetch([self.path], [copy])
            told = len(counts.truncated_videos)
            for item in VideoSource.open(str(copy), self.options).items(
                counts, after=after, on_skip=on_skip
            ):
                yield item._replace(rows=[row._replace(source=self.path) for row in item.rows])
            counts.truncated_videos[told:] = [
                text.replace(str(copy), self.path) for text in counts.truncated_videos[told:]
            ]

    def digest(self, item: Item) -> str:
        """As of a video here."""
        seconds = item.rows[0].timestamp_s
        return "" if seconds is None else frame_digest(item.image, seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteImages:
    """Images in a store, whole, one box each.

    Attributes:
        path: address of the image, or of the folder they are in.
        entries: the images, in order.
        others: files of other kinds beside them.
        options: how they are opened.
        strict: makes one that cannot be decoded an error; else it is left out.
    """

    needs_detections: ClassVar[bool] = False

    path: str
    entries: tuple[Entry, ...]
    others: int
    options: SourceOptions
    strict: bool

    @classmethod
    def takes(cls, location: str) -> bool:
        """Addresses that end as images do, and folders, which end in a slash."""
        return address_of(location) is not None and (
            location.endswith("/") or has_image_suffix(location)
        )

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Self:
        """Images that are there.

        Raises:
            InputError: no such image, a folder without any, or the store does not answer.
        """
        address = _address(location)
        remote = Remote(address)
        if not location.endswith("/"):
            entry = remote.entry(address)
            if entry is None:
                raise MissingFileError(f"{address}: no such file in the store; expected an image")
            return cls(path=address, entries=(entry,), others=0, options=options, strict=True)
        found = remote.entries()
        images = tuple(one for one in found if is_image(one.address))
        if not images:
            raise InputError(
                f"{address}: no images below it (files of other kinds: {len(found)}); videos are "
                f"named one by one or by a pattern, such as {address}*.mp4"
            )
        others = len(found) - len(images)
        return cls(
            path=address, entries=images, others=others, options=options, strict=options.strict
        )

    def __len__(self) -> int:
        return len(self.entries)

    def identity(self) -> dict[str, Any]:
        """Addresses and sizes."""
        known = "\n".join(f"{one.address} {one.size_bytes}" for one in self.entries)
        digest = hashlib.sha256(known.encode()).hexdigest()[:16]
        return {"path": self.path, "images": len(self), "paths_and_sizes": digest}

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """One item an image.

        Raises:
            InputError: one that cannot be decoded, where :attr:`strict` is set.
        """
        if not after.done:
            counts.other_files += self.others
        with workspace() as folder:
            for start in range(after.done, len(self.entries), _TOGETHER):
                some = self.entries[start : start + _TOGETHER]
                copies = [folder / f"{start + index}" for index in range(len(some))]
                Remote(self.path).fetch([one.address for one in some], copies)
                for done, (entry, copy) in enumerate(zip(some, copies, strict=True), start + 1):
                    item = self._item(entry.address, copy, done, counts, on_skip)
                    copy.unlink()
                    if item is not None:
                        yield item

    def digest(self, item: Item) -> str:
        """Nothing: the number of an image leads back to it."""
        return ""

    def _item(
        self, address: str, copy: Path, done: int, counts: Counts, on_skip: OnSkip
    ) -> Item | None:
        try:
            image = read_image(copy, max_pixels=self.options.max_pixels)
        except InputError as error:
            named = InputError(str(error).replace(str(copy), address))
            if self.strict:
                raise named from error
            counts.unreadable_images += 1
            on_skip(named)
            return None
        counts.images += 1
        height, width = image.shape[:2]
        row = Row(address, None, None, None, 0, 0, width, height, None, self.options.camera)
        return Item(image, np.array([[0, 0, width, height]], np.float64), [row], done)


def expanded(given: Sequence[Any]) -> list[Any]:
    """Patterns in addresses as the files that they find, by name; all else as it is.

    Raises:
        MissingFileError: a pattern that finds none.
    """
    found: list[Any] = []
    for one in given:
        address = address_of(one)
        if address is None or not any(mark in address for mark in "*?["):
            found.append(one)
            continue
        entries = Remote(address.partition("*")[0].rpartition("/")[0]).entries(address)
        if not entries:
            raise MissingFileError(f"{address}: finds no file in the store")
        found += [entry.address for entry in entries]
    return found


def brought(given: Sequence[Any], folder: Path) -> list[Any]:
    """Detection files and folders of them in stores as copies here; all else as it is.

    Raises:
        MissingFileError: one that is not there.
    """
    found: list[Any] = []
    for index, one in enumerate(given):
        address = address_of(one)
        if address is None:
            found.append(one)
            continue
        remote, place = Remote(address), folder / f"boxes-{index}"
        entry = remote.entry(address)
        entries = remote.entries() if entry is None else [entry]
        entries = [one for one in entries if not _is_media(one.address)]
        if not entries:
            raise MissingFileError(f"{address}: no such file or folder in the store")
        above = address.rstrip("/") if entry is None else address.rpartition("/")[0]
        copies = [place / one.address.removeprefix(f"{above}/") for one in entries]
        for copy in copies:
            copy.parent.mkdir(parents=True, exist_ok=True)
        remote.fetch([one.address for one in entries], copies)
        found.append(place if entry is None else copies[0])
    return found


def _is_media(address: str) -> bool:
    """Whether a file beside detection files is what they are of."""
    suffix = PurePosixPath(address).suffix.lower()
    return suffix not in (".txt", ".csv", ".tsv", ".json", ".parquet", ".pq")


def _address(location: str) -> str:
    address = address_of(location)
    assert address is not None
    return address
