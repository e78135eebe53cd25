"""The pace of a run with a time budget: how many steps are planned, looked at again and again.

A schedule is a function of the fraction that is done. When the plan changes at some step, what was
done stays done and what is left of the schedule is spread over the steps that are left: the
learning rate has no jump, and reaches its end when the time does. A plan that never changes is the
run of that number of steps, bit for bit. What was planned when, and how long steps took, stands
in the checkpoint: a resumed run decides by it as the run that was interrupted would have.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sa_training.growth import Phase, cost_at, mean_cost
from sa_training.optimisation import lr_factor
from sa_training.recipes import Recipe

_log = logging.getLogger(__name__)

MOST = 4
"""The most that a budget multiplies the recipe's epochs by."""
FIRST_REVIEW = 100
"""Steps after which the plan is looked at in any case, as it is after every epoch."""
_RESERVE = 0.02
"""The share of the budget that is left for the last checkpoint and for hiccups."""
_REVIEW = 0.01
"""The share of the budget between two looks at the plan: a machine that slows down five times in
between overruns by at most four such shares."""
_WINDOW = 0.03
"""The share of the budget over which the time of a step is averaged."""
_TOLERANCE, _TOLERANCE_LEFT = 0.02, 0.1
"""A plan holds as long as it errs by less of the budget, or of the time that is left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """What was planned at some step.

    Attributes:
        step: the one from which on it holds.
        position: where the schedule stood there, in steps of the first plan.
        steps: of the whole run.
        elapsed_s: seconds of the budget that were gone.
        step_s: seconds that a step took; of the first size, where inputs grow.
    """

    step: int
    position: float
    steps: int
    elapsed_s: float
    step_s: float


class Pace:
    """Seconds that a run may take, and the steps that they are planned for.

    Args:
        budget_s: seconds of the whole run, evaluation aside, from now on.
        clock: seconds from some moment.
        agree: the greatest of joined processes' values; all of them call it alike.

    Attributes:
        plans: what was planned when, the first one from step 0.
        epoch_steps: steps an epoch.
    """

    def __init__(
        self,
        budget_s: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        agree: Callable[[float], float] = float,
    ) -> None:
        self.budget_s = budget_s
        self.plans: list[Planned] = []
        self._clock, self._agree = clock, agree
        self._zero = clock()
        self._marks: list[tuple[float, float]] = []
        """Steps done, those of greater inputs counted as what they cost, and seconds gone."""
        self._work = 0.0
        self._phases: tuple[Phase, ...] = ()
        self._next = 0
        self._most = self.epoch_steps = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds of the budget that are gone."""
        return self._clock() - self._zero

    @property
    def steps(self) -> int:
        """Steps of the whole run, as planned now."""
        return self.plans[-1].steps

    def begin(self, recipe: Recipe, epoch_steps: int, step_s: float) -> float:
        """Make the first plan; the epochs that would fit.

        Args:
            recipe: :data:`MOST` times its epochs are never exceeded.
            epoch_steps: steps an epoch.
            step_s: seconds that a step is thought to take.
        """
        self._sized(recipe, epoch_steps)
        elapsed_s = self._agree(self.elapsed_s)
        fitting = self._left_s(elapsed_s) / (step_s * mean_cost(self._phases, 0.0))
        steps = max(1, min(int(fitting), self._most))
        self._plan(0, 0.0, steps, elapsed_s, step_s)
        return max(0.0, fitting) / epoch_steps

    def review(self, step: int) -> None:
        """Look at the plan where it is due; every process calls it after every step."""
        self._work += cost_at(self._phases, self.done(step - 1))
        if step < self._next and step != FIRST_REVIEW and step % self.epoch_steps:
            return
        elapsed_s = self._agree(self.elapsed_s)
        self._marks.append((self._work, elapsed_s))
        while len(self._marks) > 2 and elapsed_s - self._marks[1][1] >= _WINDOW * self.budget_s:
            del self._marks[0]
        (first, began_s), *_ = self._marks
        # A clock that stands still has measured nothing.
        step_s = (elapsed_s - began_s) / (self._work - first) or self.plans[-1].step_s
        left_s = self._left_s(elapsed_s)
        rest_s = step_s * mean_cost(self._phases, self.done(step))
        steps = max(step, min(step + int(max(0.0, left_s) / rest_s), self._most))
        errs_s = abs(steps - self.steps) * rest_s
        if errs_s > max(_TOLERANCE * self.budget_s, _TOLERANCE_LEFT * left_s) or left_s <= 0:
            self._plan(step, self.position(step), steps, elapsed_s, step_s)
        self._next = step + self._interval(step_s)

    def position(self, step: int) -> float:
        """Where a step, from 0, stands in the schedule, in steps of the first plan."""
        plan = self.plans[-1]
        if len(self.plans) == 1:
            return step
        left = self.plans[0].steps - plan.position
        return plan.position + left * (step - plan.step) / max(1, plan.steps - plan.step)

    def done(self, step: int) -> float:
        """The fraction of the schedule that is done before a step."""
        return self.position(step) / max(1, self.plans[0].steps)

    def factor(self, recipe: Recipe, step: int) -> float:
        """What the learning rate is multiplied with: the recipe's schedule at its position."""
        steps = self.plans[0].steps
        return lr_factor(recipe, self.position(step), steps, steps / recipe.epochs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it no time of the budget goes by."""
        began = self._clock()
        try:
            yield
        finally:
            self._zero += self._clock() - began

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as plain values."""
        return {
            "budget_s": self.budget_s,
            "elapsed_s": self.elapsed_s,
            "plans": [dataclasses.asdict(plan) for plan in self.plans],
            "work": self._work,
            "marks": [list(mark) for mark in self._marks],
            "next": self._next,
        }

    def resume(self, state: dict[str, Any], recipe: Recipe, epoch_steps: int) -> None:
        """Go on from what :meth:`state` gave; where the budget is another one, look at once."""
        self._sized(recipe, epoch_steps)
        self._zero = self._clock() - state["elapsed_s"]
        self.plans = [Planned(**plan) for plan in state["plans"]]
        self._marks = [(work, elapsed_s) for work, elapsed_s in state["marks"]]
        self._work = state.get("work", self._marks[-1][0])
        self._next = state["next"] if state["budget_s"] == self.budget_s else 0

    def _sized(self, recipe: Recipe, epoch_steps: int) -> None:
        self._phases = recipe.phases
        self.epoch_steps, self._most = epoch_steps, MOST * recipe.epochs * epoch_steps

    def _left_s(self, elapsed_s: float) -> float:
        return self.budget_s * (1 - _RESERVE) - elapsed_s

    def _interval(self, step_s: float) -> int:
        return max(1, int(_REVIEW * self.budget_s / step_s))

    def _plan(
        self, step: int, position: float, steps: int, elapsed_s: float, step_s: float
    ) -> None:
        self.plans.append(
            Planned(step=step, position=position, steps=steps, elapsed_s=elapsed_s, step_s=step_s)
        )
        fields = {"step": step, "steps": steps, "step_s": round(step_s, 6)}
        said = "planned at step %d: %d steps of %.0f ms"
        _log.info(said, step, steps, 1000 * step_s, extra=fields)
        if not self._marks:
            self._marks.append((self._work, elapsed_s))
            self._next = step + self._interval(step_s)
