"""Figures over time: every evaluation a line in a file, shown as a table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sa_runtime.errors import InputError, bad_value
from sa_runtime.retrieval.evaluation import RetrievalReport
from sa_runtime.system.files import atomic_path, remove_leftovers
from sa_runtime.system.locking import locked


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One evaluation.

    Attributes:
        time: when, in UTC (ISO 8601).
        model, dataset: what was evaluated on what.
        runtime, precision: what ran it.
        dim: numbers in a vector.
        reranked, expanded: how it was ranked.
        mAP, rank1, rank5, rank10, mINP: fractions.
        mAP_low, mAP_high: interval of mAP over people; ``None`` where there is none.
    """

    time: str
    model: str
    dataset: str
    runtime: str
    precision: str
    dim: int
    reranked: bool
    expanded: bool
    mAP: float
    rank1: float
    rank5: float
    rank10: float
    mINP: float
    mAP_low: float | None
    mAP_high: float | None

    def alike(self, other: Entry) -> bool:
        """Whether two entries compare: the same data set, ranked alike."""
        return (self.dataset, self.reranked, self.expanded) == (
            other.dataset,
            other.reranked,
            other.expanded,
        )


def entry_of(report: RetrievalReport) -> Entry:
    """An evaluation of now."""
    interval = report.intervals().get("mAP")
    return Entry(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        model=report.name,
        dataset=report.dataset,
        runtime=report.runtime,
        precision=report.precision,
        dim=int(report.query.shape[1]),
        reranked=report.reranked is not None,
        expanded=report.expanded is not None,
        mAP_low=None if interval is None else interval.low,
        mAP_high=None if interval is None else interval.high,
        **report.figures(),
    )


def check_history(path: Path) -> None:
    """Refuse another suffix than ``.jsonl``, and a file of something else.

    Raises:
        InputError: either.
    """
    if path.suffix.lower() != ".jsonl":
        raise bad_value("history", str(path), "is written as lines of JSON; expected NAME.jsonl")
    read_history(path)


def append_history(path: Path, entries: Sequence[Entry]) -> list[Entry]:
    """Add evaluations to a file, in turn with other processes; a stopped run leaves it whole.

    Returns:
        Everything in it.

    Raises:
        InputError: a line that is none of this project's.
    """
    with locked(path):
        remove_leftovers(path.parent, re.escape(path.stem), path.suffix)
        found = [*read_history(path), *entries]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in found))
    return found


def read_history(path: Path) -> list[Entry]:
    """All evaluations in a file, oldest first; none where there is no file.

    Raises:
        InputError: a line that is none of this project's, named.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            found.append(_entry(json.loads(line)))
        except (ValueError, TypeError, KeyError) as exc:
            raise InputError(
                f"{path}: line {number} is no evaluation ({exc}); expected a file of "
                "`sa-deploy evaluate --history`, or one that is not there yet",
                path=path,
            ) from exc
    return found


def _entry(content: dict[str, Any]) -> Entry:
    """Lines of later versions may hold more."""
    return Entry(**{field.name: content[field.name] for field in fields(Entry)})
