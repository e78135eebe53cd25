"""A time budget before its run begins: a few steps are timed in a trial that is thrown away.

The first plan comes from there. It is looked at again while the run goes on, see
:mod:`sa_training.pace`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from sa_runtime.errors import bad_value
from sa_training.distributed import Processes, greatest, joined
from sa_training.loop import timing_run
from sa_training.optimisation import resolve_device
from sa_training.options import TrainingOptions, TrainingSet
from sa_training.pace import Pace
from sa_training.recipes import Recipe
from sa_training.teacher import Teacher

WARM_UP, TIMED = 5, 25
"""Steps that are not timed, and that are."""
_SHARE = 0.05
"""The share of the budget that the trial may take."""
_DURATION = re.compile(r"(?=\d)(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?")


def seconds_of(text: str) -> float:
    """Seconds of a duration.

    Raises:
        InputError: no duration, or none at all.

    >>> seconds_of("90s"), seconds_of("60m"), seconds_of("1h30m")
    (90.0, 3600.0, 5400.0)
    """
    match = _DURATION.fullmatch(text.strip().lower())
    try:
        parts = [float(part or 0) for part in match.groups()] if match else []
    except ValueError:
        parts = []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise bad_value(
            "time_budget", text, "expected a duration, for example 90s, 60m, 1h or 1h30m"
        )
    return seconds


def pace_from_trial(
    recipe: Recipe,
    training: TrainingSet,
    options: TrainingOptions,
    budget_s: float,
    *,
    teacher: Teacher | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Pace, float]:
    """Time a few steps of a training and make the first plan of its time; no other trace is left.

    Joined processes agree on the slowest one's time.

    Args:
        recipe: how it will be trained.
        training: what on.
        options: where and how fast it will be trained.
        budget_s: seconds for the whole run, this included, evaluation aside.
        teacher: as :func:`sa_training.loop.fit` takes it.
        clock: seconds from some moment.

    Returns:
        The pace of the run, whose time goes by from now on, and the epochs that would fit.

    Raises:
        DatasetError: fewer training images than one batch.
        TrainingError: a loss that is not finite.
    """
    processes = Processes.from_environment()
    pace = Pace(budget_s, clock=clock, agree=greatest)
    with joined(processes, resolve_device(options.device, processes.local)):
        epoch_steps, steps = timing_run(recipe, training, options, teacher)
        step_s = seconds_a_step(steps, budget_s, clock)
        return pace, pace.begin(recipe, epoch_steps, step_s)


def seconds_a_step(steps: Iterator[None], budget_s: float, clock: Callable[[], float]) -> float:
    """Mean time of a few steps after the first ones, which are slower.

    Args:
        steps: does a step whenever it is advanced.
        budget_s: a small share of it ends the trial early, after one timed step at the least.
        clock: seconds from some moment.
    """
    began = clock()
    end = _SHARE * budget_s
    for _ in range(WARM_UP):
        next(steps)
        if greatest(clock() - began) > end:
            break
    warm, timed = clock(), 0
    while timed < TIMED:
        next(steps)
        timed += 1
        if greatest(clock() - began) > end:
            break
    return greatest(clock() - warm) / timed
