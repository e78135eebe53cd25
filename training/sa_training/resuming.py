"""Whether a run may go on from a checkpoint, and in what time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sa_runtime.errors import CheckpointError
from sa_training.checkpoints import Checkpoint
from sa_training.distributed import greatest
from sa_training.pace import Pace
from sa_training.recipes import Recipe

_MAY_CHANGE = {
    *("name", "network", "batch", "images_per_identity"),
    *("epochs", "step_size", "pretrained"),
}
"""Fields of the recipe in which a resumed run may differ, or that are compared otherwise."""


def refuse_another_run(
    path: Path, checkpoint: Checkpoint, recipe: Recipe, order: Mapping[str, int | str]
) -> None:
    """Refuse a checkpoint whose run was trained otherwise, or saw its images in another order.

    Args:
        path: of the checkpoint, for the message.
        checkpoint: with the state of a run.
        recipe: of the run that would go on.
        order: what decides which images a step of it sees.

    Raises:
        CheckpointError: names what differs.
    """
    if checkpoint.recipe.network != recipe.network:
        raise CheckpointError(
            f"{path}: trained with recipe {checkpoint.recipe.name!r} and another network; "
            f"pass `recipe={checkpoint.recipe.name!r}` and the same data to resume it"
        )
    then, now = checkpoint.recipe.to_dict(), recipe.to_dict()
    before = checkpoint.training["order"]
    same = {field: (then[field], now[field]) for field in now if field not in _MAY_CHANGE}
    same |= {field: (before.get(field), order.get(field)) for field in sorted({*before, *order})}
    for field, (had, has) in same.items():
        if had != has:
            raise CheckpointError(
                f"{path}: its run had {field} {had}, this one {has}; "
                "resume with the same data and options, or start a new run"
            )


def pace_to_keep(
    path: Path, checkpoint: Checkpoint, recipe: Recipe, steps: int, wanted: Pace | None
) -> Pace | None:
    """The pace of a resumed run: the time budget it was begun with, unless its length is another.

    Args:
        path: of the checkpoint, for the message.
        checkpoint: with the state of a run.
        recipe: of the run that goes on.
        steps: of an epoch.
        wanted: another time budget.

    Raises:
        CheckpointError: a time budget for a run that was begun without.
    """
    begun = checkpoint.training.get("pace")
    if begun is None:
        if wanted is not None:
            raise CheckpointError(
                f"{path}: its run was begun without `time_budget`; leave it out, or pass `epochs`"
            )
        return None
    same_length = checkpoint.recipe.epochs == recipe.epochs
    pace = Pace(begun["budget_s"], agree=greatest) if wanted is None and same_length else wanted
    if pace is not None:
        pace.resume(begun, recipe, steps)
    return pace
