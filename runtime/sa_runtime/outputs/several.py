"""Several outputs of one run: all hold the same rows, whenever it is stopped.

The first output that lasts leads: a part counts as stored when it says so. The others follow; one
that lags behind after a stop, or was added later, gets what it lacks from the one that has most.
Outputs of one file are then made of the leader's rows when all is embedded; without a leader they
are written as the rows come.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError, bad_value
from sa_runtime.items import Row
from sa_runtime.outputs.base import Lasting, Output, OutputKind, OutputOptions, Progress, Writer
from sa_runtime.outputs.partition import check_partition
from sa_runtime.outputs.remote import open_remote, remote_kind
from sa_runtime.outputs.table import FOLDER, lasts, output_kind
from sa_runtime.outputs.tracks import TrackFile
from sa_runtime.system.remote import address_of


def open_outputs(
    targets: Sequence[str],
    contract: Contract,
    options: OutputOptions,
    *,
    tracks: str | None = None,
) -> Several:
    """Open every output of a run.

    Args:
        targets: files and folders, as :func:`check_outputs` has let them pass.
        contract: of the model.
        options: of all of them.
        tracks: file that gets one row a track, as
            :func:`sa_runtime.outputs.tracks.check_tracks` has let it pass.

    Raises:
        InputError: one that cannot be written to, or not be gone on with.
    """
    kinds = [kind_of(target) for target in targets]
    with ExitStack() as stack:
        opened: list[Output] = []
        # Those that last first: one of them may refuse to go on.
        for target, kind in sorted(
            zip(targets, kinds, strict=True), key=lambda pair: not lasts(pair[1])
        ):
            resume = options.resume and (lasts(kind) or not any(map(lasts, kinds)))
            output = _opened(target, contract, dataclasses.replace(options, resume=resume))
            stack.callback(output.close)
            opened.append(output)
        if tracks is not None:
            given = dataclasses.replace(options, resume=False, tracks=True)
            file = TrackFile(_opened(tracks, contract, given), contract.output.dim)
            stack.callback(file.close)
            opened.append(file)
        group = Several(opened)
        stack.pop_all()
    return group


def _opened(target: str, contract: Contract, options: OutputOptions) -> Output:
    address = address_of(target)
    if address is not None:
        return open_remote(address, contract, options)
    return output_kind(target)(Path(target), contract, options)


def check_outputs(
    targets: Sequence[str], *, resume: bool, partition: Sequence[str] = ()
) -> list[OutputKind]:
    """Refuse at once what opening would refuse.

    Raises:
        InputError: none at all, the same one twice, or one that cannot be written to.
    """
    if not targets:
        raise InputError("`out`: nothing to write to; give at least one file or folder")
    kinds = [kind_of(target) for target in targets]
    places = [address_of(target) or Path(target).resolve() for target in targets]
    for target, place in zip(targets, places, strict=True):
        if places.count(place) > 1:
            raise bad_value("out", target, "given twice; every output needs a place of its own")
    check_partition(partition)
    if partition and output_kind(FOLDER) not in kinds:
        raise bad_value(
            "partition", ",".join(partition), "only folders are divided; give a folder as `out`"
        )
    any_lasts = any(map(lasts, kinds))
    for target, kind in zip(targets, kinds, strict=True):
        goes_on = resume and (lasts(kind) or not any_lasts)
        # What is in a store is looked at when it is opened.
        if address_of(target) is None or (goes_on and not lasts(kind)):
            kind.check(Path(target), resume=goes_on)
    return kinds


def kind_of(target: str) -> OutputKind:
    """The class of an output, in a store too.

    Raises:
        InputError: what nothing here writes.
    """
    address = address_of(target)
    return output_kind(target) if address is None else remote_kind(address)


class Several:
    """The outputs of a run as one; see :class:`sa_runtime.outputs.base.Output`.

    Args:
        outputs: open ones.

    Attributes:
        plan: of the rows, as the leader has it; ``None`` without one.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._lasting = [cast(Lasting, one) for one in outputs if one.part_rows is not None]
        self._single = [one for one in outputs if one.part_rows is None]
        self._progress = Progress()
        self.plan: dict[str, Any] | None = None
        self.part_rows: int | None = None
        if self._lasting:
            self._lasting.sort(key=lambda one: _how_far(one.progress), reverse=True)
            leader = self._lasting[0]
            self.plan, self.part_rows = leader.plan, leader.part_rows
            self._catch_up(leader)
            if leader.progress.complete:
                self._write_single()

    @property
    def progress(self) -> Progress:
        """What is stored in all of them."""
        return self._lasting[0].progress if self._lasting else self._progress

    @contextmanager
    def part(self) -> Iterator[Writer]:
        """A new part of each."""
        with ExitStack() as stack:
            outputs: Sequence[Output] = self._lasting or self._single
            # The leader's is the last to be opened and so the first to be closed.
            yield _Fan([stack.enter_context(one.part()) for one in reversed(outputs)])

    def commit(self, progress: Progress) -> None:
        """Keep how far the run has come, the leader first."""
        self._progress = progress
        for one in self._lasting or self._single:
            one.commit(progress)
        if self._lasting and progress.complete:
            self._write_single()

    def files(self) -> list[Path | str]:
        """The files of all of them."""
        return [path for one in (*self._lasting, *self._single) for path in one.files()]

    def size_bytes(self) -> int:
        """Of all of them."""
        return sum(one.size_bytes() for one in (*self._lasting, *self._single))

    def close(self) -> None:
        """Let go of all of them."""
        with ExitStack() as stack:
            for one in (*self._lasting, *self._single):
                stack.callback(one.close)

    def _catch_up(self, leader: Lasting) -> None:
        sources = leader.plan.get("sources", [])
        for one in self._lasting[1:]:
            if one.progress == Progress():
                one.adopt(leader.plan)
            if one.plan.get("sources", []) != sources:
                raise InputError(
                    "the outputs hold rows of different sources, or in another order; "
                    "give each of them a run of its own"
                )
            if _how_far(one.progress) != _how_far(leader.progress):
                self._copy(leader, one)

    def _write_single(self) -> None:
        for one in self._single:
            self._copy(self._lasting[0], one)

    def _copy(self, leader: Lasting, one: Output) -> None:
        with one.part() as writer:
            for rows, vectors in leader.stored(one.progress.rows):
                writer.write(rows, vectors)
        one.commit(leader.progress)


class _Fan:
    """Gives every row to several writers."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.count = 0
        self._writers = writers

    def write(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        for writer in self._writers:
            writer.write(rows, vectors)
        self.count += len(rows)


def _how_far(progress: Progress) -> tuple[int, int, int, bool]:
    place = progress.position
    return progress.rows, place.source, place.done, progress.complete
