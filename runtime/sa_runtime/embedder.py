"""Embedder: crops of any size, or a frame and boxes, to unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Image, Images, check_image
from sa_runtime.artefact.contract import Contract
from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError, bad_value
from sa_runtime.runners.base import Runner, fitting_batch_size
from sa_runtime.runners.calls import Calls
from sa_runtime.runners.opening import open_runner

Invalid = Literal["raise", "nan", "nearest"]
"""What :meth:`Embedder.embed_boxes` does with a box that holds no pixel of the frame."""


class Embedder:
    """A model that turns people into vectors.

    ::

        with Embedder("model.onnx") as embedder:
            vectors = embedder.embed_boxes(frame, boxes)   # (N, D) float32, rows of unit length

    Any thread may call it at any time. :meth:`close` waits for the calls that other threads are in;
    later ones raise RunnerError. So does every call in a process that was forked from the one that
    opened it: open the model in each process.

    Args:
        model: an artefact that ``sa-deploy export`` wrote, or an open runner, which
            :meth:`close` closes.
        runtime: a name of :data:`sa_runtime.runners.table.RUNNERS`, or ``auto``; says nothing
            where ``model`` is a runner.
        batch_size: largest batch given to the runtime.
        options: passed to the runner.

    Raises:
        InputError: no such model, an unknown runtime, or a batch size below 1.
        MissingPackageError: the runtime is not installed.
        ContractError: the model carries no readable contract.
    """

    def __init__(
        self,
        model: Path | str | Runner,
        runtime: str = "auto",
        *,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        if batch_size < 1:  # before a model is opened for nothing
            raise bad_value("batch_size", batch_size, "expected at least 1")
        if isinstance(model, (Path, str)):
            model = open_runner(model, runtime, **options)
        self.runner = model
        self.batch_size = fitting_batch_size(model, batch_size)
        self._calls = Calls("the embedder")

    @classmethod
    def from_runner(cls, runner: Runner, *, batch_size: int = 32) -> Self:
        """An embedder on an open runner, which it closes in :meth:`close`."""
        return cls(runner, batch_size=batch_size)

    @property
    def contract(self) -> Contract:
        """What the model expects and what its vectors mean."""
        return self.runner.contract

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        return self.contract.output.dim

    @property
    def space(self) -> str:
        """Id of the feature space; vectors compare only where it is equal."""
        return self.contract.space

    def embed(self, images: Sequence[Image] | Image) -> Embeddings:
        """Embed crops.

        Args:
            images: (H, W, 3) uint8 BGR arrays, each of its own size, or one (N, H, W, 3) array.

        Returns:
            (N, D) float32, rows of unit length; row i is crop i.

        Raises:
            InputError: a crop of another type or shape, named with its index and the fix.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3 and len(images):
            raise InputError(
                f"one image of shape {images.shape}, expected a sequence of crops; pass [image]"
            )
        for index, image in enumerate(images):
            check_image(image, f"crop {index}")

        def fill(index: int, out: Image) -> None:
            crops.resize(images[index], out.shape[0], out.shape[1], out)

        return self._embed(len(images), fill)

    def embed_boxes(
        self, frame: Image, boxes_xyxy: ArrayLike, *, invalid: Invalid = "raise"
    ) -> Embeddings:
        """Embed the boxes of one frame.

        Args:
            frame: (H, W, 3) uint8 BGR.
            boxes_xyxy: (N, 4) ``x0, y0, x1, y1`` in pixels; rounded to pixels and clipped to the
                frame as :func:`sa_runtime.crops.clip_boxes` does.
            invalid: what to do with a box that holds no pixel of the frame, as trackers predict
                them: ``raise`` an InputError that names it; ``nan`` fills its row; ``nearest``
                embeds the strip of pixels nearest to it, so that every row is a unit vector.

        Returns:
            (N, D) float32, rows of unit length; row i is always box i.

        Raises:
            InputError: an invalid box under ``raise``; a box that is not finite under ``nearest``;
                or a frame or boxes of another type or shape.
        """
        if invalid not in get_args(Invalid):
            raise bad_value("invalid", invalid, f"expected one of {', '.join(get_args(Invalid))}")
        check_image(frame, "frame")
        height, width = frame.shape[:2]
        boxes, valid = crops.clip_boxes(boxes_xyxy, height, width)
        if invalid == "raise" and not valid.all():
            index = int(np.flatnonzero(~valid)[0])
            raise InputError(
                f"box {index} of {len(boxes)} ({crops.describe_box(boxes_xyxy, index)}) holds no "
                f"pixel of the frame of {width}x{height}; leave it out, or pass invalid='nan' or "
                "invalid='nearest'"
            )
        if invalid == "nearest":
            _check_finite(boxes_xyxy)
            boxes = _nearest_pixels(boxes, height, width)
            valid = np.ones(len(boxes), np.bool_)
        chosen = boxes[valid]

        def fill(index: int, out: Image) -> None:
            crops.cut_into(frame, chosen[index : index + 1], out[None])

        found = self._embed(len(chosen), fill)
        if len(chosen) == len(boxes):
            return found
        vectors = np.full((len(boxes), self.dim), np.nan, np.float32)
        vectors[valid] = found
        return vectors

    def embed_paths(self, paths: Sequence[Path | str]) -> Embeddings:
        """Embed image files; row i is file i.

        Raises:
            InputError: a file that is missing or not a whole image, named.
        """

        def fill(index: int, out: Image) -> None:
            crops.resize(read_image(paths[index]), out.shape[0], out.shape[1], out)

        return self._embed(len(paths), fill)

    def close(self) -> None:
        """Close the runner when the calls in flight are done; closing twice is allowed.

        Raises:
            RunnerError: called inside a call of the same thread, as a signal handler may.
        """
        self._calls.close(self.runner.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _embed(self, count: int, fill: Callable[[int, Image], None]) -> Embeddings:
        vectors = np.empty((count, self.dim), np.float32)
        done = 0
        with self._calls:
            for part in self.runner.run_stream(self._batches(count, fill)):
                vectors[done : done + len(part)] = part
                done += len(part)
        return vectors

    def _batches(self, count: int, fill: Callable[[int, Image], None]) -> Iterator[Images]:
        spec = self.contract.input
        for start in range(0, count, self.batch_size):
            stop = min(start + self.batch_size, count)
            # A new array each time: a runner that overlaps batches still reads the last ones.
            batch = np.empty((stop - start, spec.height, spec.width, 3), np.uint8)
            for row in range(stop - start):
                fill(start + row, batch[row])
            yield batch


def _check_finite(boxes_xyxy: ArrayLike) -> None:
    for index, box in enumerate(np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)):
        if not np.isfinite(box).all():
            raise InputError(
                f"box {index} ({crops.describe_box(boxes_xyxy, index)}) is not finite and has no "
                "nearest pixels; leave it out, or pass invalid='nan'"
            )


def _nearest_pixels(
    boxes: NDArray[np.int64], frame_height: int, frame_width: int
) -> NDArray[np.int64]:
    """Clipped boxes, the empty ones grown to the row or column of the frame they touch."""
    low = np.minimum(boxes[:, :2], [frame_width - 1, frame_height - 1])
    return np.concatenate([low, np.maximum(boxes[:, 2:], low + 1)], axis=1)
