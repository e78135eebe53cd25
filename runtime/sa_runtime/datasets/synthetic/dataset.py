"""Writing a synthetic world in the layout of Market-1501."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.datasets.synthetic import shots
from sa_runtime.datasets.synthetic.cameras import camera
from sa_runtime.datasets.synthetic.config import SyntheticConfig, rng
from sa_runtime.datasets.synthetic.video import write_video
from sa_runtime.errors import DatasetError, bad_value
from sa_runtime.system.environment import cores

TRAIN, QUERY, GALLERY, VIDEOS = "bounding_box_train", "query", "bounding_box_test", "videos"
RECORD = "synthetic.json"
_POOL_FROM = 400
"""Crops below which starting worker processes takes longer than drawing."""
_CHUNK = 24

Kind = Literal["person", "distractors", "junk", "video"]


@dataclasses.dataclass(frozen=True)
class DrawingTask:
    """One piece of work: a person, some extra gallery crops, or a video."""

    kind: Kind
    first: int
    last: int = 0
    test: bool = False


def write_synthetic(
    out: Path,
    config: SyntheticConfig,
    *,
    workers: int | None = None,
    force: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write a synthetic data set; a run that is stopped leaves nothing behind.

    Args:
        out: the folder to make.
        config: seed and sizes. Equal ones give equal bytes, whatever the number of workers.
        workers: processes; ``None`` takes one per core, 1 draws in this process.
        force: replace a synthetic data set that stands at ``out``.
        on_progress: called with the number of images and frames finished since the last call, of
            :func:`work` in all.

    Returns:
        Counts: train, query, gallery, distractors, junk (images), videos, frames.

    Raises:
        DatasetError: ``out`` exists and may not be replaced.
        InputError: ``workers`` below 1.
    """
    if workers is not None and workers < 1:
        raise bad_value("workers", workers, "expected at least 1")
    _require_free(out, force=force)
    tell = on_progress or (lambda count: None)
    with _folder_in_place(out) as folder:
        for name in (TRAIN, QUERY, GALLERY, *([VIDEOS] if config.videos else [])):
            (folder / name).mkdir()
        tasks = _tasks(config)
        small = work(config) < _POOL_FROM
        processes = workers or (1 if small else cores())
        if processes == 1:
            for task in tasks:
                tell(_run(folder, config, task))
        else:
            _run_in_pool(folder, config, tasks, processes, tell)
        counts = _counts(folder, config)
        record = {"config": dataclasses.asdict(config), "counts": counts}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return counts


def work(config: SyntheticConfig) -> int:
    """Images and frames that :func:`write_synthetic` will report."""
    crops = config.identities * config.cameras * config.images_per_camera
    return crops + config.distractors + config.junk + config.videos * config.frames


def _require_free(out: Path, *, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise DatasetError(f"{out}: exists and is no folder; choose another name")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / RECORD).is_file():
        raise DatasetError(
            f"{out}: exists and is no synthetic data set (it holds no {RECORD}), so it is not "
            "replaced; choose another name"
        )
    if not force:
        raise DatasetError(
            f"{out}: already holds a synthetic data set; choose another name, or replace it "
            "with `force=True`"
        )


@contextmanager
def _folder_in_place(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place on success and goes on failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    replaced = out.with_name(f".{out.name}.{os.getpid()}.replaced")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            out.rename(replaced)
        try:
            partial.rename(out)
        except OSError:
            if replaced.exists():
                replaced.rename(out)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _tasks(config: SyntheticConfig) -> list[DrawingTask]:
    """All work, the longest pieces first."""
    train, test = config.split()
    tasks = [DrawingTask("video", index) for index in range(config.videos)]
    tasks += [DrawingTask("person", number, test=False) for number in train]
    tasks += [DrawingTask("person", number, test=True) for number in test]
    kinds: tuple[tuple[Kind, int], ...] = (
        ("distractors", config.distractors),
        ("junk", config.junk),
    )
    for kind, count in kinds:
        tasks += [DrawingTask(kind, at, min(at + _CHUNK, count)) for at in range(0, count, _CHUNK)]
    return tasks


def _run_in_pool(
    folder: Path,
    config: SyntheticConfig,
    tasks: list[DrawingTask],
    processes: int,
    tell: Callable[[int], None],
) -> None:
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        try:
            pending: set[Future[int]] = {pool.submit(_run, folder, config, task) for task in tasks}
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    tell(future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run(folder: Path, config: SyntheticConfig, task: DrawingTask) -> int:
    """Do one task; returns the images and frames written."""
    if task.kind == "video":
        return write_video(folder / VIDEOS, config, task.first)
    if task.kind == "person":
        return _write_person(folder, config, task.first, test=task.test)
    for which in range(task.first, task.last):
        index = which % config.cameras
        if task.kind == "distractors":
            image, number = shots.distractor(config, index, which), 0
        else:
            _, test = config.split()
            image, number = (
                shots.junk(config, test[which // config.cameras % len(test)], index, which),
                -1,
            )
        name = _name(number, index, 3, which // 99, which % 99)
        _save(folder / GALLERY / name, image, camera(config, index).quality)
    return task.last - task.first


def _write_person(folder: Path, config: SyntheticConfig, number: int, *, test: bool) -> int:
    for index in range(config.cameras):
        quality = camera(config, index).quality
        moment = int(rng(config.seed, "sequence", number, index).integers(1, 900_000))
        for image in range(config.images_per_camera):
            split = (QUERY if image == 0 else GALLERY) if test else TRAIN
            sequence = 1 + image * 2 // config.images_per_camera
            name = _name(number, index, sequence, moment + 13 * image, image)
            _save(folder / split / name, shots.crop(config, number, index, image), quality)
    return config.cameras * config.images_per_camera


def _name(number: int, index: int, sequence: int, frame: int, box: int) -> str:
    """A Market-1501 name: person, camera and sequence from 1, frame, box from 1."""
    person = "-1" if number < 0 else f"{number:04d}"
    return f"{person}_c{index + 1}s{sequence}_{frame:06d}_{box + 1:02d}.jpg"


def _save(path: Path, image: NDArray[np.uint8], quality: int) -> None:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(encoded.tobytes())


def _counts(folder: Path, config: SyntheticConfig) -> dict[str, int]:
    images = {name: len(list((folder / name).iterdir())) for name in (TRAIN, QUERY, GALLERY)}
    extra = config.distractors + config.junk
    return {
        "train": images[TRAIN],
        "query": images[QUERY],
        "gallery": images[GALLERY] - extra,
        "distractors": config.distractors,
        "junk": config.junk,
        "videos": config.videos,
        "frames": config.videos * config.frames,
    }
