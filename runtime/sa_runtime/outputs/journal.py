"""A folder that one run owns, whose manifest says how far its rows have come."""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError
from sa_runtime.outputs.base import OutputOptions, Progress
from sa_runtime.outputs.manifest import MANIFEST, Manifest, differences
from sa_runtime.outputs.sources import joined_sources
from sa_runtime.system.files import remove_leftovers
from sa_runtime.system.locking import owned

_log = logging.getLogger(__name__)


class Journal(ABC):
    """What every output that lasts has: an owner, a manifest, a plan to go on with.

    Args:
        target: the folder; made where it is missing.
        contract: of the model.
        options: see there.

    Attributes:
        path: the folder.
        manifest: the state, as it stands on the disk.
        plan: all that decides the rows.

    Raises:
        InputError: embeddings are there and ``resume`` is false, or they were made from something
            else, or what is stored is gone or damaged.
    """

    def __init__(self, target: Path, contract: Contract, options: OutputOptions) -> None:
        self.check(target, resume=options.resume)
        self.path = target
        self.part_rows: int | None = options.part_rows
        self._contract = contract
        self._dtype = options.dtype
        with ExitStack() as stack:
            stack.enter_context(owned(target, folder=True))
            self.check(target, resume=options.resume)  # another run may have begun it meanwhile
            earlier = self._read_manifest()
            begun = earlier is not None
            self.manifest = earlier or Manifest(plan=options.plan)
            if begun:
                self._join(options.plan)
                files, rows = len(self.manifest.shards), self.manifest.rows
                _log.info("%s: goes on after %d rows in %d files", target, rows, files)
            self.manifest.settings = options.settings
            self._begin(options, begun=begun)
            remove_leftovers(target, Path(MANIFEST).stem, Path(MANIFEST).suffix)
            self._write_manifest()
            self._ownership = stack.pop_all()

    @classmethod
    def check(cls, target: Path, *, resume: bool) -> None:
        """Refuse a folder of others, and one of an earlier run unless it is to go on.

        Raises:
            InputError: it is.
        """
        begun = (target / MANIFEST).exists()
        if begun and not resume:
            raise InputError(
                f"{target}: holds {Manifest.read(target).rows} rows of an earlier run; go on with "
                "it with `resume=True`, or choose another `out`"
            )
        if not begun and target.exists() and (not target.is_dir() or cls._is_of_others(target)):
            raise InputError(
                f"{target}: exists and was not written by `sa-deploy embed --out FOLDER`; "
                "choose another `out`"
            )

    @property
    def plan(self) -> dict[str, Any]:
        """All that decides the rows."""
        return self.manifest.plan

    def adopt(self, plan: dict[str, Any]) -> None:
        """Take the plan of another output, while nothing is stored yet."""
        self.manifest.plan = plan

    @property
    def progress(self) -> Progress:
        """What is stored."""
        return self.manifest.progress

    def commit(self, progress: Progress) -> None:
        """Replace the manifest."""
        self.manifest.position = progress.position
        self.manifest.counts = dataclasses.asdict(progress.counts)
        self.manifest.complete = progress.complete
        self._write_manifest()

    def close(self) -> None:
        """Let the next run own the folder."""
        self._ownership.close()

    @classmethod
    @abstractmethod
    def _is_of_others(cls, target: Path) -> bool:
        """Whether a folder without a manifest holds what must not be mixed with ours."""

    def _read_manifest(self) -> Manifest | None:
        """What an earlier run has left, if there was one."""
        return Manifest.read(self.path) if (self.path / MANIFEST).exists() else None

    def _write_manifest(self) -> None:
        """Write or replace the manifest."""
        self.manifest.write(self.path)

    @abstractmethod
    def _begin(self, options: OutputOptions, *, begun: bool) -> None:
        """Check what is stored, and remove what a stopped run has left behind it.

        Raises:
            InputError: it is gone or damaged.
        """

    def _join(self, plan: dict[str, Any]) -> None:
        """Take new sources behind those of earlier runs, and refuse whatever else differs.

        Raises:
            InputError: what differs, value by value.
        """
        before = self.manifest.plan
        if "device" not in before:  # older versions did not note it
            plan = {key: value for key, value in plan.items() if key != "device"}
        now = {**plan, "sources": []}
        found = [*differences({**before, "sources": []}, now)]
        # What has its end behind it may be gone by now.
        finished = len(before["sources"]) if self._ended() else self.manifest.position.source
        sources, changed = joined_sources(before["sources"], plan["sources"], finished)
        found += changed
        if found:
            raise InputError(
                f"{self.path}: cannot go on with what is there, because {'; '.join(found)}. "
                "Run it as it was begun, or choose another `out`"
            )
        if len(sources) > len(before["sources"]):
            self.manifest.complete = False
        self.manifest.plan = {**before, "sources": sources}

    def _ended(self) -> bool:
        return self.manifest.complete
