"""Detectors in ONNX files, as the usual exporters write them.

How a file's outputs are read is told by their names and shapes:

- ``(1, N, 6)``: Ultralytics end to end: edges, confidence, class. Of its RT-DETR they are centres
  and sizes in parts of a stretched frame, in older versions ``(1, N, 4 + C)``; that is told by what
  the file gives for a grey frame.
- ``(1, 4 + C, N)``: Ultralytics raw: centres and sizes, a score for each class.
- ``(1, N, 5 + C)``: YOLOv5: the same with an objectness; YOLOX where N is the number of the
  cells of its three grids.
- ``(1, N, C)`` and ``(1, N, 4)``: DETR's logits and boxes, in parts of the frame.
- ``labels``, ``boxes``, ``scores``: RT-DETR of its authors, which is told the size of the frame.

Heads that are not end to end go through OpenCV's non-maximum suppression, class by class.

Where a file leaves the size of its input open, the one that Ultralytics has noted in it counts, and
a frame gets no more border than the network's stride asks for, as in Ultralytics' own prediction.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_runtime.arrays import Image
from sa_runtime.detectors.base import Found
from sa_runtime.errors import InputError, MissingFileError, bad_value
from sa_runtime.system.extras import require

_SIDE = 640
"""Height and width of the input where the file neither fixes nor notes them."""
_STRIDE = 32
"""Of Ultralytics' networks where a file does not note it."""
_GREY = 114
_STRIDES = (8, 16, 32)
_STRETCHED = ("detr", "sized", "queries")
"""Kinds whose frame fills the input, and whose boxes are of the frame."""
_MOST_PARTS = 2.0
"""Boxes in parts of the frame stay below it; those in pixels do not."""
MIN_CONFIDENCE = 0.25
PERSON = ("person", "pedestrian", "0")

Boxes = NDArray[np.float64]


class Placed(NamedTuple):
    """How a frame lies in the input: scaled, then moved, in pixels of the input."""

    scale: tuple[float, float]
    offset: tuple[float, float]


class OnnxDetector:
    """Finds people in frames.

    Args:
        path: the ONNX file.
        min_confidence: boxes below it are not found.
        classes: names or numbers of the classes that are; people by default.
        max_overlap: of two boxes of a class that overlap more, the surer one is kept.
        threads: of ONNX Runtime; its own choice by default.

    Raises:
        MissingFileError: there is no such file.
        MissingPackageError: ONNX Runtime is not installed.
        InputError: a file that is not ONNX, or whose outputs are of no known kind.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        min_confidence: float | None = None,
        classes: tuple[str, ...] = (),
        max_overlap: float = 0.7,
        threads: int | None = None,
    ) -> None:
        if not 0 < max_overlap <= 1:
            raise bad_value("max_overlap", max_overlap, "expected more than 0, up to 1")
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingFileError(f"{path}: no such file; expected a detector in ONNX", path=path)
        ort = require("onnxruntime", extra="cpu", purpose="a detector in ONNX")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = [
            one
            for one in ("CUDAExecutionProvider", "CPUExecutionProvider")
            if one in ort.get_available_providers()
        ]
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as exc:
            raise InputError(
                f"{path}: not an ONNX file that ONNX Runtime opens ({exc})", path=path
            ) from exc
        self._min_confidence = MIN_CONFIDENCE if min_confidence is None else min_confidence
        self._max_overlap = max_overlap
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._names = _names(metadata)
        self._wanted = tuple(one.lower() for one in classes or PERSON)
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._outputs = [one.name for one in self._session.get_outputs()]
        first = self._session.get_inputs()[0]
        if len(first.shape) != 4:
            raise InputError(f"{path}: input {first.name!r} of shape {first.shape}, expected NCHW")
        noted = _noted_size(metadata)
        self._height, self._width = (
            side if isinstance(side, int) else known
            for side, known in zip(first.shape[2:], noted or (_SIDE, _SIDE), strict=True)
        )
        is_open = noted is not None and not any(isinstance(side, int) for side in first.shape[2:])
        self._step = _noted(metadata, "stride", _STRIDE) if is_open else None
        self._type = np.float16 if "float16" in first.type else np.float32
        shapes = [one.shape for one in self._session.get_outputs()]
        if len(self._inputs) == 1 and not all(isinstance(side, int) for side in shapes[0][1:]):
            shapes = [list(one.shape) for one in self._given_grey()]
        self._kind = _kind(self._outputs, shapes, self._grid_cells())
        if self._kind == "":
            raise InputError(
                f"{path}: outputs {', '.join(self._outputs)} of shapes {shapes} are of no known "
                "detector; export it by Ultralytics, YOLOX or RT-DETR"
            )
        parts = self._kind in ("end-to-end", "objectness", "queries") and self._gives_parts()
        if self._kind == "queries" and not parts:
            raise InputError(
                f"{path}: output of shape {shapes[0]}, four numbers of a box and one score, with "
                "boxes in pixels: whether they are edges or centres is not known; export it by "
                "Ultralytics, YOLOX or RT-DETR"
            )
        if parts:
            self._kind = "queries"

    def __call__(self, frame: Image) -> Found:
        """The people in a frame.

        Args:
            frame: (H, W, 3) uint8 BGR.
        """
        images, placed = self._prepared(frame)
        feed: dict[str, Any] = {self._inputs[0]: images}
        if self._kind == "sized":
            feed[self._inputs[1]] = np.array([[frame.shape[1], frame.shape[0]]], np.int64)
        outputs = [np.asarray(one) for one in self._session.run(None, feed)]
        boxes, scores, labels = self._read(outputs, frame)
        kept = (scores >= self._min_confidence) & self._of_wanted(labels)
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if self._kind in ("raw", "objectness", "grid") and len(boxes):
            best = _suppressed(boxes, scores, labels, self._min_confidence, self._max_overlap)
            boxes, scores, labels = boxes[best], scores[best], labels[best]
        if self._kind not in _STRETCHED:
            boxes = (boxes - np.tile(placed.offset, 2)) / np.tile(placed.scale, 2)
        size = np.tile([frame.shape[1], frame.shape[0]], 2)
        return Found(
            np.clip(boxes, 0, size),
            scores,
            np.full(len(boxes), -1, np.int64),
        )

    def close(self) -> None:
        """Nothing is held but memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prepared(self, frame: Image) -> tuple[NDArray[np.floating], Placed]:
        height, width = frame.shape[:2]
        if self._kind in _STRETCHED:
            image = cv2.resize(frame, (self._width, self._height))
            placed = Placed((self._width / width, self._height / height), (0, 0))
        else:
            scale = min(self._width / width, self._height / height)
            new_width, new_height = round(width * scale), round(height * scale)
            room_x, room_y = self._width - new_width, self._height - new_height
            if self._step is not None:
                room_x, room_y = room_x % self._step, room_y % self._step
            # Ultralytics puts the frame into the middle, YOLOX into the corner.
            left = 0 if self._kind == "grid" else round(room_x / 2 - 0.1)
            top = 0 if self._kind == "grid" else round(room_y / 2 - 0.1)
            image = np.full((new_height + room_y, new_width + room_x, 3), _GREY, np.uint8)
            image[top : top + new_height, left : left + new_width] = cv2.resize(
                frame, (new_width, new_height)
            )
            placed = Placed((scale, scale), (left, top))
        if self._kind == "grid":  # YOLOX takes BGR from 0 to 255
            pixels = image.astype(self._type)
        else:
            pixels = (image[..., ::-1].astype(np.float32) / 255).astype(self._type)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), placed

    def _read(
        self, outputs: list[NDArray[Any]], frame: Image
    ) -> tuple[Boxes, NDArray[np.float64], NDArray[np.int64]]:
        """Edges, scores and classes; edges in pixels of the input, or of the frame for DETR's."""
        height, width = frame.shape[:2]
        if self._kind == "sized":
            named = dict(zip(self._outputs, outputs, strict=True))
            boxes = named["boxes"][0].astype(np.float64)
            return boxes, named["scores"][0].astype(np.float64), named["labels"][0].astype(np.int64)
        if self._kind == "detr":
            logits = next(one for one in outputs if one.shape[-1] != 4)[0].astype(np.float64)
            parts = next(one for one in outputs if one.shape[-1] == 4)[0].astype(np.float64)
            scores = 1 / (1 + np.exp(-logits))
            return (
                _edges(parts * np.tile([width, height], 2)),
                scores.max(axis=1),
                scores.argmax(axis=1),
            )
        rows = outputs[0][0].astype(np.float64)
        if self._kind == "queries":
            boxes, rest = _edges(rows[:, :4] * np.tile([width, height], 2)), rows[:, 4:]
            if rest.shape[1] == 2 and (rest[:, 1] == np.floor(rest[:, 1])).all():
                return boxes, rest[:, 0], rest[:, 1].astype(np.int64)
            return boxes, rest.max(axis=1), rest.argmax(axis=1)
        if self._kind == "end-to-end":
            return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)
        if self._kind == "raw":
            rows = rows.T
            scores = rows[:, 4:]
        else:
            scores = rows[:, 4:5] * rows[:, 5:]
            if self._kind == "grid":
                rows = self._from_grid(rows)
        return _edges(rows[:, :4]), scores.max(axis=1), scores.argmax(axis=1)

    def _gives_parts(self) -> bool:
        """Whether boxes of a grey frame are parts of it, as those of every query are."""
        rows = self._given_grey()[0]
        return 0 < float(rows[..., :4].max(initial=0)) <= _MOST_PARTS

    def _given_grey(self) -> list[NDArray[Any]]:
        """The outputs for a grey frame, whose shapes a file may leave open."""
        grey = np.full((1, 3, self._height, self._width), _GREY / 255, self._type)
        return [np.asarray(one) for one in self._session.run(None, {self._inputs[0]: grey})]

    def _grid_cells(self) -> int:
        return sum((self._height // one) * (self._width // one) for one in _STRIDES)

    def _from_grid(self, rows: Boxes) -> Boxes:
        """Centres and sizes that YOLOX gives relative to its cells."""
        places, strides = [], []
        for stride in _STRIDES:
            ys, xs = np.mgrid[: self._height // stride, : self._width // stride]
            places.append(np.stack([xs.ravel(), ys.ravel()], axis=1))
            strides.append(np.full((xs.size, 1), stride))
        stride_of = np.concatenate(strides)
        centres = (rows[:, :2] + np.concatenate(places)) * stride_of
        return np.concatenate([centres, np.exp(rows[:, 2:4]) * stride_of], axis=1)

    def _of_wanted(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        fits = {
            int(label): str(int(label)) in self._wanted
            or self._names.get(int(label), "").lower() in self._wanted
            for label in np.unique(labels)
        }
        return np.array([fits[int(label)] for label in labels], np.bool_)


def _kind(names: list[str], shapes: list[Any], cells: int) -> str:
    """How outputs are read; empty where nothing is known of them."""
    if {"labels", "boxes", "scores"} <= set(names):
        return "sized"
    if len(shapes) >= 2 and any(shape[-1] == 4 for shape in shapes[:2]):
        return "detr"
    shape = shapes[0]
    if len(shape) != 3:
        return ""
    rows, columns = shape[1:]
    if columns == 6 and (not isinstance(rows, int) or rows <= 1000):
        return "end-to-end"
    if columns == 5:
        return "queries"
    if isinstance(rows, int) and (not isinstance(columns, int) or 4 < rows < columns):
        return "raw"
    if isinstance(columns, int) and columns > 5:
        return "grid" if rows == cells else "objectness"
    return ""


def _noted(metadata: dict[str, str], name: str, otherwise: Any) -> Any:
    """What Ultralytics notes in a file, as Python writes it."""
    try:
        return ast.literal_eval(metadata[name])
    except (KeyError, ValueError, SyntaxError):
        return otherwise


def _names(metadata: dict[str, str]) -> dict[int, str]:
    """The classes of a file, by number."""
    try:
        return {int(key): str(name) for key, name in dict(_noted(metadata, "names", {})).items()}
    except (ValueError, TypeError):
        return {}


def _noted_size(metadata: dict[str, str]) -> tuple[int, int] | None:
    """Height and width of the input that a file was exported with."""
    size = _noted(metadata, "imgsz", None)
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2:
        return None
    height, width = sides
    right = all(isinstance(side, int) and side > 0 for side in sides)
    return (height, width) if right else None


def _edges(rows: Boxes) -> Boxes:
    """``x0, y0, x1, y1`` of centres and sizes."""
    half = rows[:, 2:4] / 2
    return np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)


def _suppressed(
    boxes: Boxes,
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    min_confidence: float,
    max_overlap: float,
) -> NDArray[np.int64]:
    ltwh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxesBatched(
        ltwh.tolist(), scores.tolist(), labels.tolist(), min_confidence, max_overlap
    )
    return np.asarray(kept, np.int64).reshape(-1)
