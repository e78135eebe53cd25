"""What an ablation shows: means and spreads over seeds, as values, JSON, CSV and a picture."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa_runtime.system.extras import require
from sa_runtime.system.files import atomic_path

if TYPE_CHECKING:
    from sa_training.ablation import Run

JSON, CSV, PICTURE = "ablation.json", "ablation.csv", "ablation.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a row, over its seeds, as fractions.

    Attributes:
        values: by seed, in the runs' order.
        mean: of them.
        deviation: their sample standard deviation (n - 1); ``None`` for one seed.
        difference: of the mean from the first row's.
        difference_error: standard error of that, from both deviations; ``None`` where one of them
            is, and in the first row.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    difference: float
    difference_error: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        variant: its name.
        seeds: in the runs' order.
        figures: by name, the most telling one first.
        train_seconds: of a run, their mean.
    """

    variant: str
    seeds: tuple[int, ...]
    figures: dict[str, Figure]
    train_seconds: float


def table(runs: Sequence[Run]) -> tuple[Row, ...]:
    """Rows in the order in which their names come first in ``runs``.

    Args:
        runs: at least one; each variant with figures of the same names.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.variant, []).append(run)
    first = next(iter(found.values()))
    return tuple(
        Row(
            variant=name,
            seeds=tuple(run.seed for run in group),
            figures={
                key: figure([r.figures[key] for r in group], [r.figures[key] for r in first])
                if group is not first
                else figure([r.figures[key] for r in group])
                for key in first[0].figures
            },
            train_seconds=statistics.fmean(run.train_seconds for run in group),
        )
        for name, group in found.items()
    )


def figure(values: Sequence[float], first: Sequence[float] | None = None) -> Figure:
    """Mean and spread of values, and their difference from those of the first row.

    Args:
        values: by seed.
        first: of the first row; ``None`` if these are.

    >>> found = figure([0.5, 0.7], [0.4, 0.4])
    >>> [round(x, 3) for x in (found.mean, found.deviation, found.difference)]
    [0.6, 0.141, 0.2]
    """
    mean, deviation = statistics.fmean(values), _deviation(values)
    error = None
    if first is not None:
        base = _deviation(first)
        if deviation is not None and base is not None:
            error = math.sqrt(deviation**2 / len(values) + base**2 / len(first))
    return Figure(
        values=tuple(values),
        mean=mean,
        deviation=deviation,
        difference=0.0 if first is None else mean - statistics.fmean(first),
        difference_error=error,
    )


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def to_dict(dataset: str, rows: Sequence[Row], runs: Sequence[Run]) -> dict[str, Any]:
    """The table with every run, as plain values for JSON."""
    return {
        "dataset": dataset,
        "recipes": [dataclasses.asdict(row) for row in rows],
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The table with every run, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """A line for each run, figures as fractions, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as lines:
        names = list(runs[0].figures)
        columns = ["recipe", "seed", *names, "steps", "train_seconds", "weights_sha256"]
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        for run in runs:
            figures = [run.figures[name] for name in names]
            rest = [run.steps, f"{run.train_seconds:.1f}", run.weights_sha256]
            writer.writerow([run.variant, run.seed, *figures, *rest])


def draw(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw a point for each seed and a line for each mean, a panel for each of two figures.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    require("matplotlib", extra="train", purpose=path.name)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    names = list(rows[0].figures)[:2]
    picture = Picture(figsize=(10, 1.6 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = range(len(rows))
    for axes, name in zip(panels, names, strict=True):
        figures = [row.figures[name] for row in rows]
        axes.axvline(100 * figures[0].mean, color="0.7", linestyle="--", linewidth=1, zorder=0)
        for place, found in zip(places, figures, strict=True):
            values = [100 * value for value in found.values]
            axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.55, ms=6)
            axes.plot([100 * found.mean], [place], "|", color="black", ms=20, mew=2)
        axes.set_xlabel(f"{name} %")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(list(places), [row.variant for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    picture.suptitle(title, fontsize="medium")
    with atomic_path(path) as temporary:
        picture.savefig(temporary, dpi=130)
