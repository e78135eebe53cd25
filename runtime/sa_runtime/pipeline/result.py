"""What a run of embedding tells: while it goes on, and at its end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sa_runtime.artefact.contract import Contract
from sa_runtime.items import Counts
from sa_runtime.outputs.base import StoredType
from sa_runtime.pipeline.stages import PipelineResult
from sa_runtime.runners.base import Runner


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedProgress:
    """How far a run is.

    Attributes:
        rows: embedded so far, those of earlier runs included.
        rows_at_most: the largest number of rows that the sources can give.
        runner: the open model.
        source: number of the source that is being read, from 1; earlier runs' count.
        sources: how many there are.
        pictures: images and video frames decoded so far.
        left_out: boxes and images that were left out so far.
        rows_per_s: of this run.
    """

    rows: int
    rows_at_most: int
    runner: Runner
    source: int = 0
    sources: int = 0
    pictures: int = 0
    left_out: int = 0
    rows_per_s: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedResult:
    """What a run has made.

    It never changes, so that threads may share it.

    Attributes:
        model: the artefact.
        runtime: name of what ran it.
        contract: what its vectors mean.
        dtype: of the stored vectors.
        out: file, folder or address; the first, where there are several.
        outs: all of them.
        crops: folder of the JPEG files, if any.
        tracks: file of one vector a track, if any.
        size_bytes: of all outputs, without the crops.
        files: those that hold the rows.
        rows: number of rows stored, those of earlier runs included.
        resumed_rows: number of rows of earlier runs.
        sources: number of sources embedded, those of earlier runs included.
        counts: what was met in the sources, by earlier runs too.
        timing: of this run, stage by stage.
    """

    model: str
    runtime: str
    contract: Contract
    dtype: StoredType
    out: Path | str
    outs: tuple[Path | str, ...]
    crops: Path | None
    tracks: Path | str | None
    size_bytes: int
    files: tuple[Path | str, ...]
    rows: int
    resumed_rows: int
    sources: int
    counts: Counts
    timing: PipelineResult

    @property
    def rows_per_s(self) -> float:
        """Rows of this run in a second of it."""
        return self.timing.rows / self.timing.wall_s if self.timing.wall_s else 0.0

    @property
    def doubt(self) -> str:
        """Why the boxes may mean something else than they were read as; empty where they fit."""
        counts = self.counts
        # Of the rows, those of whole images fit.
        boxes = self.rows - counts.images + counts.outside
        amiss = counts.clipped + counts.outside
        if not amiss or 2 * amiss < boxes:
            return ""
        return (
            f"{amiss} of {boxes} boxes reach out of their frame and lost area: are they "
            "x1,y1,x2,y2? A first line of names, frame,id,x1,y1,x2,y2,conf, says so; or do they "
            "belong to a video of another size?"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        counts, timing = self.counts, self.timing
        return {
            "model": self.model,
            "runtime": self.runtime,
            "embedding": self.contract.output.embedding,
            "space": self.contract.space,
            "dim": self.contract.output.dim,
            "dtype": self.dtype,
            "out": str(self.out),
            "outs": [str(out) for out in self.outs],
            "crops": None if self.crops is None else str(self.crops),
            "tracks": None if self.tracks is None else str(self.tracks),
            "size_bytes": self.size_bytes,
            "files": len(self.files),
            "rows": self.rows,
            "resumed_rows": self.resumed_rows,
            "sources": self.sources,
            "images": counts.images,
            "frames": counts.frames,
            "seconds": round(timing.wall_s, 3),
            "rows_per_s": round(self.rows_per_s, 1),
            "busy_s": {
                "decode": round(timing.decode_s, 3),
                "crop": round(timing.crop_s, 3),
                "inference": round(timing.inference_s, 3),
                "write": round(timing.write_s, 3),
            },
            **what_was_met(counts),
        }


def what_was_met(counts: Counts) -> dict[str, Any]:
    """What was left out or cut, as JSON values."""
    return {
        "dropped_frames": counts.dropped_frames,
        "reconnects": counts.reconnects,
        "skipped": {
            "boxes_outside": counts.outside,
            "boxes_without_size": counts.invalid_boxes,
            "boxes_filtered": counts.filtered_boxes,
            "boxes_beyond_end": counts.beyond_end,
            "unreadable_images": counts.unreadable_images,
        },
        "boxes_clipped": counts.clipped,
        "other_files": counts.other_files,
        "truncated_videos": counts.truncated_videos,
    }
