"""``sa-deploy train``: weights from a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.commands.train import options as opt
from sa_deploy.commands.train.given import budget, recipe_changes
from sa_deploy.options import DataDirs, JsonOutput, TrainingDataset
from sa_deploy.output import note

if TYPE_CHECKING:
    from sa_training.recipes import Recipe


def train(
    data_dir: DataDirs,
    dataset: TrainingDataset = "auto",
    recipe: opt.RecipeName = None,
    arch: opt.Arch = None,
    height: opt.Height = None,
    width: opt.Width = None,
    features: opt.Features = None,
    dropout: opt.Dropout = None,
    attention: opt.Attention = None,
    pretrained: opt.Pretrained = None,
    teacher: opt.Teacher = None,
    epochs: opt.Epochs = None,
    time_budget: opt.TimeBudget = None,
    batch_size: opt.TrainingBatch = None,
    lr: opt.Lr = None,
    momentum: opt.Momentum = None,
    weight_decay: opt.WeightDecay = None,
    step_size: opt.StepSize = None,
    fields: opt.Fields = None,
    seed: opt.TrainingSeed = 1,
    hold_out: opt.HoldOut = 0.0,
    combine_trainval: opt.CombineTrainval = False,
    split: opt.SplitIndex = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--logs-dir",
            "--log",
            metavar="FOLDER",
            rich_help_panel=opt.RUN,
            help="Folder of the run; runs/train by default, or the next free runs/train-N.",
        ),
    ] = None,
    resume: opt.Resume = None,
    evaluate: opt.Evaluate = False,
    qat: opt.Qat = False,
    dry_run: opt.DryRun = False,
    max_steps: opt.MaxSteps = None,
    evaluate_every: opt.EvaluateEvery = 10,
    workers: opt.Workers = None,
    device: opt.TorchDevice = "auto",
    precision: opt.Precision = "auto",
    compile_network: opt.Compile = False,
    accumulate: opt.Accumulate = 1,
    checkpoint_steps: opt.CheckpointSteps = 0,
    checkpoint_seconds: opt.CheckpointSeconds = 600.0,
    print_freq: opt.PrintFreq = 10,
    tensorboard: opt.Tensorboard = False,
    json_output: JsonOutput = False,
) -> None:
    """Train the SA network; the authors' command lines run as they are.

    Leaves checkpoint.pt (and the one before it), best.pt, metrics.jsonl, steps.csv and curves.png
    in the folder of the run, and prints the figures of the best and the last network. On several
    GPUs or processes: torchrun --nproc-per-node N -m sa_deploy train ...

    Examples:
        sa-deploy train -d market --data-dir Market-1501 --out runs/market
        sa-deploy train -d synthetic --data-dir world --recipe tiny --time-budget 5m
    """
    given = locals()
    from sa_deploy.commands.train import run
    from sa_deploy.commands.train.folder import folder_of_run
    from sa_deploy.commands.train.qat import fine_tune, options_of
    from sa_training.loop import TrainingOptions
    from sa_training.optimisation import decoding_processes
    from sa_training.overrides import override
    from sa_training.recipes import recipe as recipe_by_name
    from sa_training.tasks import load_task

    is_main = run.is_first()
    if is_main:
        _say_what_has_no_effect(split, hold_out if combine_trainval else 0.0)
    budget_s = budget(time_budget, epochs)
    task = load_task(dataset, data_dir, hold_out=hold_out, seed=seed)
    resume = _checkpoint(resume)
    if evaluate:
        named = None if recipe is None else recipe_by_name(recipe)
        run.evaluate(task, resume, named, (height, width), device, json_output)
        return
    folder = folder_of_run(out, resume, qat=qat, is_main=is_main)
    if qat:
        fine_tuning = options_of(
            out=folder,
            epochs=epochs,
            batch=batch_size,
            lr=lr,
            seed=seed,
            workers=decoding_processes(workers, device),
            device=device,
            max_steps=max_steps,
        )
        fine_tune(task, resume, fine_tuning, json_output)
        return
    changes = recipe_changes(given, fields)
    recipe = recipe or run.default_recipe(task, budget_s, device, pretrained, resume)
    chosen = override(recipe_by_name(recipe), changes)
    options = TrainingOptions(
        out=folder,
        seed=seed,
        workers=decoding_processes(workers, device),
        device=device,
        precision=precision,
        compiler="inductor" if compile_network else None,
        accumulate=accumulate,
        max_steps=max_steps,
        checkpoint_steps=checkpoint_steps,
        checkpoint_seconds=checkpoint_seconds,
        evaluate_every=evaluate_every,
        log_every=print_freq,
        tensorboard=tensorboard,
    )
    if dry_run:
        run.plan(task, chosen, options, json_output, time_budget)
        return
    begun = None
    if resume is not None and "epochs" not in changes:
        begun = run.as_long_as(chosen, resume, step_size_given=step_size is not None)
        chosen = begun or chosen
    if max_steps is not None and pretrained is None and resume is None:
        chosen = _start_of_a_trial(chosen)
    lasts = begun is not None
    run.run(task, chosen, options, resume, budget_s, json_output, teacher, begun=lasts)


def _say_what_has_no_effect(split: int | None, held_out: float) -> None:
    if split is not None:
        note("--split has no effect, here as in the authors' code: the data sets have one split")
    if held_out:
        note(f"--combine-trainval: all people but the --hold-out {held_out} are trained on")


def _checkpoint(resume: Path | None) -> Path | None:
    """The file of ``--resume``, which may name the folder of its run."""
    return resume / "checkpoint.pt" if resume is not None and resume.is_dir() else resume


def _start_of_a_trial(recipe: Recipe) -> Recipe:
    """A few steps to try things out need no ImageNet weights, a training does."""
    import dataclasses

    from sa_runtime.errors import CheckpointError
    from sa_training.pretrained import imagenet_weights

    if recipe.pretrained != "imagenet":
        return recipe
    try:
        imagenet_weights(recipe.network.backbone)
    except CheckpointError as missing:
        note(f"{missing}\nA trial of --max-steps goes on from random weights.")
        return dataclasses.replace(recipe, pretrained="none")
    return recipe
