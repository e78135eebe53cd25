"""Recipes compared query by query: is a difference real, with other people and other seeds?

A difference is uncertain twice: other people would have been sought (resampled, as
:mod:`sa_runtime.retrieval.bootstrap` does, on the mean over seeds of each query's difference), and
other seeds would have been trained (Student's t on the differences of the seeds' means, paired by
seed). The two half widths are added as squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sa_runtime.retrieval.bootstrap import LEVEL, RANKS, intervals
from sa_runtime.retrieval.comparison import Difference
from sa_runtime.system.extras import require
from sa_training.ablation import QUERIES

if TYPE_CHECKING:
    from sa_training.ablation import Run

Compared = dict[str, dict[str, Difference]]
"""By variant, by figure."""


def compare_runs(out: Path, runs: Sequence[Run], *, level: float = LEVEL) -> Compared:
    """Every variant against the first one.

    Args:
        out: folder of the runs.
        runs: finished ones.
        level: share of such intervals that hold the true difference.

    Returns:
        Differences of ``mAP`` and ranks; nothing of a variant that has fewer than two seeds in
        common with the first, or whose queries were not kept (runs of older versions, and
        classification).

    Raises:
        MissingPackageError: scipy is not installed.
    """
    first, *others = dict.fromkeys(run.variant for run in runs)
    seeds = {name: {run.seed for run in runs if run.variant == name} for name in (first, *others)}
    found: Compared = {}
    for variant in others:
        common = sorted(seeds[first] & seeds[variant])
        files = [(_file(out, first, seed), _file(out, variant, seed)) for seed in common]
        if len(common) > 1 and all(path.is_file() for pair in files for path in pair):
            found[variant] = _compared(files, level)
    return found


def comparisons_dict(compared: Compared) -> dict[str, dict[str, dict[str, Any]]]:
    """For JSON: fractions."""
    return {
        variant: {
            name: {
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "verdict": one.verdict,
            }
            for name, one in differences.items()
        }
        for variant, differences in compared.items()
    }


def _file(out: Path, variant: str, seed: int) -> Path:
    return out / variant / f"seed-{seed}" / QUERIES


def _compared(files: Sequence[tuple[Path, Path]], level: float) -> dict[str, Difference]:
    stats = require("scipy.stats", extra="train", purpose="comparing recipes")
    by_seed, person = [], None
    for one, other in files:
        base, person = _figures(one)
        figures, _ = _figures(other)
        by_seed.append({name: figures[name] - base[name] for name in base})
    assert person is not None
    mean = {name: np.mean([seed[name] for seed in by_seed], axis=0) for name in by_seed[0]}
    over_people = intervals(mean, person, level=level)
    student = float(stats.t.ppf((1 + level) / 2, len(files) - 1)) / math.sqrt(len(files))
    found = {}
    for name, interval in over_people.items():
        value = float(np.nanmean(mean[name]))
        of_seeds = student * float(np.std([np.nanmean(seed[name]) for seed in by_seed], ddof=1))
        low = value - math.hypot(value - interval.low, of_seeds)
        high = value + math.hypot(interval.high - value, of_seeds)
        real = low > 0 or high < 0
        found[name] = Difference(
            value=value, low=low, high=high, verdict="real" if real else "noise"
        )
    return found


def _figures(path: Path) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """What each query gave, NaN where it does not count, and whom it shows."""
    table = pq.read_table(path)
    precision = table["average_precision"].to_numpy().astype(np.float64)
    rank = table["first_rank"].to_numpy().astype(np.float64)
    ranks = {f"rank{k}": np.where(np.isnan(rank), np.nan, rank <= k) for k in RANKS}
    return {"mAP": precision, **ranks}, table["person"].to_numpy()
