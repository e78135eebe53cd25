"""How boxes are read, and which of them are used."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from sa_runtime.detections.names import ROLES
from sa_runtime.errors import bad_value, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """How detection files are read, and which of their boxes are used.

    It never changes, so that threads may share it.

    Attributes:
        format: a name of :data:`sa_runtime.detections.table.DETECTIONS`; told by suffix and content
            where it is ``None``.
        columns: what a column is (see :data:`sa_runtime.detections.names.ROLES`) -> its name in the
            file, where that is not one of the usual.
        first_frame: the number that files give the first frame of a video.
        normalized: boxes are parts of the frame's width and height, from 0 to 1.
        coco_images: a COCO file whose images the results of another refer to.
        min_confidence: boxes below it are left out.
        classes: names or numbers of the classes whose boxes are used; all where it is empty.
        every: use every so many frames, from the first on.
        fps: use so many frames a second.
        per_track: use so many boxes of each track, the best by
            :func:`sa_runtime.detections.quality.qualities`.
        rated: tell the quality of every box, which those of ``per_track`` have in any case.
        min_size: least width and height in pixels.
        pad: every side of a box is moved out by this part of its width or height, up to the edge of
            the frame; rows keep the box as it was given.

    Raises:
        InputError: a value that cannot be.
    """

    format: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    first_frame: int = 1
    normalized: bool = False
    coco_images: Path | None = None
    min_confidence: float | None = None
    classes: tuple[str, ...] = ()
    every: int | None = None
    fps: float | None = None
    per_track: int | None = None
    rated: bool = False
    min_size: tuple[float, float] = (0.0, 0.0)
    pad: float = 0.0

    def __post_init__(self) -> None:
        unknown = [role for role in self.columns if role not in ROLES]
        if unknown:
            raise bad_value("columns", unknown[0], f"unknown; choose from {', '.join(ROLES)}")
        confidence = self.min_confidence
        check_fields(
            self,
            [
                ("first_frame", self.first_frame >= 0, "0 or more"),
                ("min_confidence", confidence is None or math.isfinite(confidence), "a number"),
                ("min_size", all(0 <= side < math.inf for side in self.min_size), "0 or more"),
                ("every", self.every is None or self.every >= 1, "1 or more"),
                ("fps", self.fps is None or 0 < self.fps < math.inf, "more than 0"),
                ("per_track", self.per_track is None or self.per_track >= 1, "1 or more"),
                ("pad", 0 <= self.pad < math.inf, "0 or more"),
            ],
        )

    @property
    def rates(self) -> bool:
        """Whether the qualities of boxes are told."""
        return self.rated or self.per_track is not None

    def identity(self) -> dict[str, object]:
        """What changes crops or rows beside the boxes themselves, as JSON values."""
        names = ("every", "fps", "per_track")
        found = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.rated and self.per_track is None:
            found["rated"] = True
        if any(self.min_size):
            found["min_size"] = list(self.min_size)
        if self.pad:
            found["pad"] = self.pad
        return found
