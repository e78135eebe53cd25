"""Where a run puts what it makes: its rows and vectors, its crops, its tracks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from sa_runtime.errors import bad_value
from sa_runtime.outputs.several import check_outputs, kind_of
from sa_runtime.outputs.tracks import check_tracks
from sa_runtime.sources.pairing import Location
from sa_runtime.system.files import refuse_inputs
from sa_runtime.system.remote import address_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """The places that one call of :func:`sa_runtime.pipeline.embed.embed` writes to.

    Attributes:
        outs: files, folders and addresses; all of them get the same rows.
        crops: folder of the JPEG files, if any.
        tracks: file or address of one vector a track, if any.
    """

    outs: tuple[str, ...]
    crops: str | None = None
    tracks: str | None = None

    @classmethod
    def of(
        cls, out: Location | Sequence[Location], crops: Location | None, tracks: Location | None
    ) -> Targets:
        """What a caller gave, one place or several, as text."""
        outs = [out] if isinstance(out, (str, os.PathLike)) else out
        return cls(
            outs=tuple(os.fspath(one) for one in outs),
            crops=None if crops is None else os.fspath(crops),
            tracks=None if tracks is None else os.fspath(tracks),
        )

    def check(self, inputs: Sequence[Location], *, resume: bool, partition: Sequence[str]) -> None:
        """Refuse at once, before anything is computed, what could not be written.

        Args:
            inputs: files and folders that the run reads.
            resume: whether outputs may hold rows of an earlier run.
            partition: what the files of folders are divided by.

        Raises:
            InputError: a place that nothing here writes, that is read, or that is given twice.
        """
        for out in self.outs:
            kind_of(out)
            if address_of(out) is None:
                refuse_inputs(Path(out), inputs)
        if self.crops is not None:
            if address_of(self.crops) is not None:
                raise bad_value("crops", self.crops, "expected a folder of this machine")
            refuse_inputs(Path(self.crops), inputs, parameter="crops")
        check_outputs(self.outs, resume=resume, partition=partition)
        if self.tracks is not None:
            check_tracks(self.tracks, self.outs)
            refuse_inputs(Path(self.tracks), inputs, parameter="tracks")


def place_of(target: str) -> Path | str:
    """A target as results name it: the address of a store, or a path of this machine."""
    return address_of(target) or Path(target)
