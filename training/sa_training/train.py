"""From a data set to a checkpoint in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.errors import InputError
from sa_training.checkpoints import Checkpoint
from sa_training.loop import fit
from sa_training.optimisation import decoding_processes
from sa_training.options import Progress, TrainingOptions
from sa_training.overrides import override
from sa_training.recipes import Recipe
from sa_training.recipes import recipe as recipe_by_name
from sa_training.tasks import Task, load_task, split_off


def train_model(
    dataset: ReidDataset | str,
    data_dir: Path | str | None = None,
    *,
    out: Path | str,
    recipe: Recipe | str = "sa",
    changes: Mapping[str, Any] | None = None,
    hold_out: float = 0.0,
    seed: int = 1,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    evaluate_every: int = 0,
    max_steps: int | None = None,
    resume: Path | str | None = None,
    overwrite: bool = False,
    on_step: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Train a network, as ``sa-deploy train`` does.

    ::

        checkpoint = train_model("market", "Market-1501-v15.09.15", out="run", recipe="sa")
        print(checkpoint.path, checkpoint.epoch)

    Leaves ``checkpoint.pt``, the one before it, ``metrics.jsonl`` (a line an epoch), ``steps.csv``
    and, where ``evaluate_every`` is given, ``best.pt`` in the run's folder.

    Args:
        dataset: a name of :data:`sa_runtime.datasets.table.DATASETS`, several joined by commas,
            ``cifar100``, or a data set.
        data_dir: folder of the data set of that name; several folders joined by commas.
        out: folder of the run.
        recipe: a name of :data:`sa_training.recipes.RECIPES`, or a recipe.
        changes: fields of the recipe that are to be different, for example ``{"epochs": 5,
            "network.attention": "stages"}``.
        hold_out: fraction of the training people to pick the best epoch by; they are not trained
            on.
        seed: of weights, order, augmentation and who is held out.
        device: ``auto``, or a torch device.
        precision: ``auto`` (bf16 where the hardware has it), ``fp32``, ``bf16`` or ``fp16``.
        workers: processes that decode; 0 decodes in this process. By default 0 on a processor,
            where they would take the training's cores, and up to 8 beside a GPU.
        evaluate_every: epochs between two evaluations; 0 evaluates never.
        max_steps: stop after this number of steps; ``None`` trains the whole recipe.
        resume: checkpoint of an interrupted run of the same recipe. The run goes on where it was
            written, to the same weights that it would have reached without the interruption.
        overwrite: start over on the run that ``out`` holds, which is refused otherwise.
        on_step: called after every step, in the first process only.

    Returns:
        The last checkpoint, its network in evaluation mode.

    Raises:
        InputError: an unknown data set, recipe, field or device, a value that one cannot hold, or
            a run in ``out`` already.
        DatasetError: another layout than the data set's, or fewer images than one batch.
        CheckpointError: ``resume`` cannot be read, or is of another recipe or other data.
        TrainingError: a loss that is not finite.
    """
    chosen = recipe_by_name(recipe) if isinstance(recipe, str) else recipe
    chosen = override(chosen, changes or {})
    options = TrainingOptions(
        out=Path(out),
        overwrite=overwrite,
        seed=seed,
        workers=decoding_processes(workers, device),
        device=device,
        precision=precision,
        max_steps=max_steps,
        evaluate_every=evaluate_every,
    )
    task = _task(dataset, data_dir, hold_out, seed)
    return fit(
        chosen,
        task.training(chosen, keep=options.workers == 0),
        options,
        resume=None if resume is None else Path(resume),
        on_step=on_step,
        evaluate=task.score,
    )


def _task(
    dataset: ReidDataset | str, data_dir: Path | str | None, hold_out: float, seed: int
) -> Task:
    if isinstance(dataset, ReidDataset):
        return split_off(dataset, hold_out, seed)
    if data_dir is None:
        raise InputError(f"data_dir: expected the folder of the data set {dataset!r}")
    return load_task(dataset, data_dir, hold_out=hold_out, seed=seed)
