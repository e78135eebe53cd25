"""What an MP4 or MOV file shows of the frames it holds.

A clip that is cut without encoding it again keeps the frames from the last key frame on, and those
up to the end of a group; an edit list says which part of them is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LARGEST_MOOV = 2**28
_OUTER = (b"trak", b"mdia", b"edts")


def shown_frames(path: Path, frames: int) -> int:
    """How many of a file's frames its edit list shows; ``frames`` where there is none.

    Args:
        path: any file.
        frames: that it holds.
    """
    movie = _movie(path)
    if movie is None:
        return frames
    boxes = list(_boxes(movie))
    scale = _number(dict(boxes).get(b"mvhd", b""), 12, 20)
    for track in (content for kind, content in boxes if kind == b"trak"):
        inner = dict(_inside(track))
        if inner.get(b"hdlr", b"")[8:12] == b"vide":
            shown = _shown(inner.get(b"elst", b""))
            header = inner.get(b"mdhd", b"")
            held_scale, held = _number(header, 12, 20), _number(header, 16, 24, wide=True)
            if scale and shown and held:
                return min(frames, round(frames * shown / scale * held_scale / held))
    return frames


def _movie(path: Path) -> bytes | None:
    """The content of the box ``moov``; ``None`` for any other file."""
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return None
        start = 0
        while True:
            file.seek(start)
            head = file.read(16)
            size, begin = int.from_bytes(head[:4], "big"), 8
            if size == 1:
                size, begin = int.from_bytes(head[8:], "big"), 16
            if size < begin:
                return None
            if head[4:8] == b"moov":
                file.seek(start + begin)
                return file.read(size - begin) if size < _LARGEST_MOOV else None
            start += size


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes that lie one after the other."""
    start = 0
    while (size := int.from_bytes(data[start : start + 4], "big")) >= 8:
        yield data[start + 4 : start + 8], data[start + 8 : start + size]
        start += size


def _inside(box: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes within a track, at any depth."""
    for kind, content in _boxes(box):
        yield kind, content
        if kind in _OUTER:
            yield from _inside(content)


def _number(box: bytes, at: int, at_wide: int, *, wide: bool = False) -> int:
    """A number at its place in a box of version 0, or of version 1, where some are wider."""
    if box[:1] == b"\1":
        return int.from_bytes(box[at_wide : at_wide + (8 if wide else 4)], "big")
    return int.from_bytes(box[at : at + 4], "big")


def _shown(edits: bytes) -> int:
    """Duration of all edits that show something, in units of the movie."""
    size, width = (20, 8) if edits[:1] == b"\1" else (12, 4)
    total = 0
    for index in range(int.from_bytes(edits[4:8], "big")):
        entry = edits[8 + size * index : 8 + size * (index + 1)]
        if int.from_bytes(entry[width : 2 * width], "big", signed=True) >= 0:
            total += int.from_bytes(entry[:width], "big")
    return total
