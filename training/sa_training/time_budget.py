"""As many epochs as a time budget holds: a few steps are rehearsed and timed, then forgotten.

A run whose budget came to N epochs is the run of ``--epochs N``, bit for bit; only N depends on the
machine. It stands in the checkpoint's recipe, so that a resumed run is not timed again.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator

from sa_runtime.errors import InputError
from sa_training.distributed import Processes, greatest, joined
from sa_training.loop import rehearsal
from sa_training.optimisation import resolve_device
from sa_training.options import TrainingOptions, TrainingSet
from sa_training.recipes import Recipe

MOST = 4
"""A budget gives at most so many times the recipe's epochs."""
WARM_UP, TIMED = 5, 25
"""Steps that are not timed, and that are."""
_SHARE = 0.05
"""Of the budget: what a rehearsal may take, and what is left for checkpoints and hiccups."""
_DURATION = re.compile(r"(?=\d)(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A recipe with the epochs that its budget holds.

    Attributes:
        recipe: with those epochs, and a ``step`` schedule stretched to them.
        epochs: that would fit, before the limits of 1 and :data:`MOST` times the recipe's.
        step_s: seconds a step.
        epoch_steps: steps an epoch.
    """

    recipe: Recipe
    epochs: float
    step_s: float
    epoch_steps: int


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
        raise InputError(
            f"--time-budget {text}: expected a duration, for example 90s, 60m, 1h or 1h30m"
        )
    return seconds


def fit_to_budget(
    recipe: Recipe,
    training: TrainingSet,
    options: TrainingOptions,
    budget_s: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Fitted:
    """Rehearse a training and set its epochs; what is rehearsed leaves no trace.

    Joined processes agree on the slowest one's time.

    Args:
        recipe: whose epochs are to be set.
        training: what it will be trained on.
        options: with which.
        budget_s: seconds for the whole run, this included, evaluation aside.
        clock: seconds from some moment.

    Raises:
        DatasetError: fewer training images than one batch.
        TrainingError: a loss that is not finite.
    """
    processes = Processes.from_environment()
    began = clock()
    with joined(processes, resolve_device(options.device, processes.local)):
        epoch_steps, steps = rehearsal(recipe, training, options)
        step_s = seconds_a_step(steps, budget_s, clock)
        left_s = budget_s * (1 - _SHARE) - greatest(clock() - began)
    fitting = left_s / (step_s * epoch_steps)
    return Fitted(
        recipe=with_epochs(recipe, max(1, min(int(fitting), MOST * recipe.epochs))),
        epochs=max(0.0, fitting),
        step_s=step_s,
        epoch_steps=epoch_steps,
    )


def seconds_a_step(steps: Iterator[None], budget_s: float, clock: Callable[[], float]) -> float:
    """Mean time of a few steps after the first ones, which are slower.

    Args:
        steps: does a step whenever it is advanced.
        budget_s: a small share of it ends the rehearsal early, after one timed step at the least.
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


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """A recipe of another length, its whole schedule stretched or shrunk to it.

    >>> from sa_training.recipes import sa
    >>> shorter = with_epochs(sa(), 10)
    >>> shorter.epochs, shorter.step_size
    (10, 4)
    """
    step_size = max(1, round(recipe.step_size * epochs / recipe.epochs))
    return dataclasses.replace(recipe, epochs=epochs, step_size=step_size)
