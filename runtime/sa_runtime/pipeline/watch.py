"""A folder that is watched: what arrives is embedded, each file exactly once over restarts.

What was embedded stands in the manifest of the output, by name; nothing else is remembered.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError, MissingFileError, bad_value
from sa_runtime.image_files import is_image
from sa_runtime.outputs.journal import Journal
from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.several import kind_of
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.result import EmbedResult
from sa_runtime.runners.base import Runner
from sa_runtime.sources.base import OnSkip, Source, SourceOptions, ignore
from sa_runtime.sources.images import ImageSource
from sa_runtime.sources.pairing import Location, file_for
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.table import find_sources
from sa_runtime.system.remote import address_of

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ts", ".mts"),
    *(".mpg", ".mpeg", ".h264", ".264", ".hevc", ".265"),
)
_IMAGES = 1000
"""Images that become one source at most."""
_State = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrivedImages(ImageSource):
    """Images that arrived together; their names stand in the manifest."""

    def identity(self) -> dict[str, Any]:
        """As of images, with the path of each."""
        paths = [str(path) for path in self.paths]
        return {"path": paths[0], "arrived": paths, **super().identity()}


def watch(
    folder: Path | str,
    model: Embedder | Runner,
    out: Location | Sequence[Location],
    *,
    detections: Path | str | None = None,
    poll_s: float = 1.0,
    settle_s: float = 2.0,
    options: SourceOptions | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_skip: OnSkip = ignore,
    **given: Any,
) -> Iterator[EmbedResult]:
    """Embed what is in a folder, and what arrives in it; a result for each time that something did.

    A file counts as arrived when it has not changed for ``settle_s`` and from one look to the next.
    Hidden files are passed over. A video is waited for until its detection file has arrived too.
    One whose size changes after it was embedded is told of; what is new in it is not embedded.

    Args:
        folder: searched below, without links.
        model: an open model.
        out: as for :func:`sa_runtime.pipeline.embed.embed`; the first must be one that goes on.
        detections: folder of the detection files; by default they lie beside the videos.
        poll_s: seconds between two looks.
        settle_s: seconds for which a file must be at rest.
        options: how sources are opened.
        stop: asked before each look; ends the watch.
        on_skip: is given what is wrong with a file that is left out.
        given: further options of :func:`sa_runtime.pipeline.embed.embed`.

    Raises:
        InputError: no such folder, or an output that cannot go on.
    """
    home, boxes = Path(folder), Path(detections or folder)
    if not home.is_dir():
        raise MissingFileError(f"{home}: no such folder; expected one to watch", path=home)
    targets = [out] if isinstance(out, (str, os.PathLike)) else list(out)
    first = Path(targets[0])
    kind = kind_of(os.fspath(targets[0]))
    if address_of(first) is not None or not isinstance(kind, type) or not issubclass(kind, Journal):
        raise bad_value(
            "out", os.fspath(first), "what is watched needs a folder or database here, as the first"
        )
    last: dict[Path, _State] = {}
    refused: dict[Path, _State] = {}
    changed: set[str] = set()
    shared = options or SourceOptions()
    while not stop():
        now = dict(_files(home, boxes))
        done, begun = _known(first)
        at_rest = {path for path, state in now.items() if last.get(path) == state}
        at_rest = {path for path in at_rest if time.time_ns() - now[path][1] >= settle_s * 1e9}
        last = now
        if not _can_go_on(begun, boxes, now, at_rest, first):
            time.sleep(poll_s)
            continue
        for error in _changed(done, now, at_rest, changed):
            on_skip(error)
        fresh = (path for path in at_rest if path.is_relative_to(home) and str(path) not in done)
        waiting = sorted(path for path in fresh if refused.get(path) != now[path])
        # What a stopped run was in the middle of comes first, as it was then.
        sources = list(_again(begun, boxes, at_rest, shared))
        for path, source in _arrived(waiting, boxes, at_rest, shared):
            if isinstance(source, InputError):
                refused[path] = now[path]
                on_skip(source)
            else:
                sources.append(source)
        if sources:
            yield embed(
                sources, model, targets, resume=True, allow_empty=True, on_skip=on_skip, **given
            )
        else:
            time.sleep(poll_s)


def _files(*folders: Path) -> Iterator[tuple[Path, _State]]:
    """Files that are not hidden, with size and time of their last change."""
    for folder in dict.fromkeys(folders):
        for root, inner, names in os.walk(folder):
            inner[:] = [name for name in inner if not name.startswith(".")]
            for name in names:
                if name.startswith("."):
                    continue
                path = Path(root) / name
                try:
                    status = path.stat()
                except OSError:  # it went away meanwhile
                    continue
                yield path, (status.st_size, status.st_mtime_ns)


def _known(out: Path) -> tuple[dict[str, int | None], list[dict[str, Any]]]:
    """Paths of all that is in the manifest, of videos with sizes, and what is not finished."""
    if not (out / MANIFEST).exists():
        return {}, []
    manifest = Manifest.read(out)
    sources = manifest.plan.get("sources", [])
    begun = [] if manifest.complete else sources[manifest.position.source :]
    paths: dict[str, int | None] = {}
    for one in sources:
        paths |= dict.fromkeys(one.get("arrived", ()))
        if "video" in one:
            paths[one["video"]] = one.get("size_bytes")
    return paths, begun


def _changed(
    done: Mapping[str, int | None],
    now: Mapping[Path, _State],
    at_rest: set[Path],
    told: set[str],
) -> Iterator[InputError]:
    """What is wrong with videos that are not as they were embedded; of each once."""
    for name, size in done.items():
        path = Path(name)
        if size is None or name in told or path not in at_rest or now[path][0] == size:
            continue
        told.add(name)
        yield InputError(
            f"{name}: has changed since it was embedded, from {size} to {now[path][0]} bytes, and "
            "is not embedded again; move it into the folder once it is whole, under another name",
            path=path,
        )


def _can_go_on(
    begun: Iterable[dict[str, Any]],
    boxes: Path,
    now: dict[Path, _State],
    at_rest: set[Path],
    out: Path,
) -> bool:
    """Whether the files that a stopped run was in the middle of are at rest.

    Raises:
        MissingFileError: one is not there any more.
    """
    needed: list[Path] = []
    for one in begun:
        if "arrived" in one:
            needed += map(Path, one["arrived"])
        else:
            file = file_for(one["video"], boxes)
            needed += [Path(one["video"]), *([] if file is None else [file])]
    for path in needed:
        if path not in now:
            raise MissingFileError(
                f"{path}: was begun, and is gone; put it back, or watch with another `out` than "
                f"{out}",
                path=path,
            )
    return at_rest.issuperset(needed)


def _again(
    begun: Iterable[dict[str, Any]], boxes: Path, at_rest: set[Path], options: SourceOptions
) -> Iterator[Source]:
    for one in begun:
        if "arrived" in one:
            yield _images([Path(path) for path in one["arrived"]], options)
        else:
            file = _boxes_of(Path(one["video"]), boxes, at_rest)
            yield from find_sources([one["video"]], [] if file is None else [file], options)


def _arrived(
    waiting: Sequence[Path], boxes: Path, at_rest: set[Path], options: SourceOptions
) -> Iterator[tuple[Path, Source | InputError]]:
    images = [path for path in waiting if is_image(path)]
    for start in range(0, len(images), _IMAGES):
        some = images[start : start + _IMAGES]
        yield some[0], _images(some, options)
    for path in waiting:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        try:
            file = _boxes_of(path, boxes, at_rest)
            if file is not None:
                with quiet_opencv():
                    (source,) = find_sources([path], [file], options)
                yield path, source
        except InputError as error:
            yield path, error


def _images(paths: Sequence[Path], options: SourceOptions) -> ArrivedImages:
    return ArrivedImages(
        paths=tuple(paths),
        strict=options.strict,
        camera=options.camera,
        max_pixels=options.max_pixels,
    )


def _boxes_of(video: Path, folder: Path, at_rest: set[Path]) -> Path | None:
    """The detection file of a video, once it is at rest."""
    found = file_for(str(video), folder)
    return found if found in at_rest else None
