"""``sa-deploy train``: weights from a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.output import JsonFlag, note

if TYPE_CHECKING:
    from sa_training.recipes import Recipe

_RECIPE, _RUN = "What is learnt", "Where, how fast, how watched"


def train(
    data_dir: Annotated[
        str, typer.Option(help="Folder of the data set; several, separated by commas.")
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "-d",
            "--dataset",
            help="market, duke, cuhk03, msmt17, folder, synthetic, cifar100; several joined: a,b.",
        ),
    ] = "market",
    recipe: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_RECIPE,
            show_default="sa",
            help="sa, paper, authors, strong, cpu, tiny, ablation-..., cifar100-gap, cifar100-sa.",
        ),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("-a", "--arch", rich_help_panel=_RECIPE, help="Backbone.")
    ] = None,
    height: Annotated[int | None, typer.Option(rich_help_panel=_RECIPE, help="Of input.")] = None,
    width: Annotated[int | None, typer.Option(rich_help_panel=_RECIPE, help="Of input.")] = None,
    features: Annotated[
        int | None,
        typer.Option(
            "--features", "--feature", rich_help_panel=_RECIPE, help="Channels a part keeps."
        ),
    ] = None,
    dropout: Annotated[float | None, typer.Option(rich_help_panel=_RECIPE)] = None,
    attention: Annotated[
        str | None, typer.Option(rich_help_panel=_RECIPE, help="stages, backbone, both or none.")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(rich_help_panel=_RECIPE, help="Backbone's start: imagenet, none or a file."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, rich_help_panel=_RECIPE)] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            rich_help_panel=_RECIPE,
            help="Train for 60m, 1h or 90s, evaluation aside, however fast it is here.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "-b", "--batch-size", min=2, rich_help_panel=_RECIPE, help="Images a step and process."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(rich_help_panel=_RECIPE)] = None,
    momentum: Annotated[float | None, typer.Option(rich_help_panel=_RECIPE)] = None,
    weight_decay: Annotated[float | None, typer.Option(rich_help_panel=_RECIPE)] = None,
    step_size: Annotated[
        int | None,
        typer.Option(rich_help_panel=_RECIPE, help="Epochs until the rate falls by ten."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            rich_help_panel=_RECIPE,
            help="Any other field of the recipe, or network.FIELD; may be repeated.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(rich_help_panel=_RECIPE, help="Of weights, order, augmentation.")
    ] = 1,
    hold_out: Annotated[
        float,
        typer.Option(
            rich_help_panel=_RECIPE,
            help="Fraction of the training people to pick the best epoch by, not trained on.",
        ),
    ] = 0.0,
    combine_trainval: Annotated[
        bool,
        typer.Option("--combine-trainval", rich_help_panel=_RECIPE, help="As without it: all."),
    ] = False,
    split: Annotated[
        int | None, typer.Option(rich_help_panel=_RECIPE, help="No effect, as in the authors'.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--logs-dir",
            "--log",
            rich_help_panel=_RUN,
            show_default="runs/train, or the next free runs/train-N",
            help="Folder of the run.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_RUN, help="Checkpoint to go on from, or its folder."),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", rich_help_panel=_RUN, help="Only evaluate what --resume names."),
    ] = False,
    qat: Annotated[
        bool,
        typer.Option("--qat", rich_help_panel=_RUN, help="Fine-tune what --resume names for int8."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=_RUN, help="Say what would be done.")
    ] = False,
    max_steps: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_RUN, help="Stop early, without a test.")
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(min=0, rich_help_panel=_RUN, help="Epochs; 0: only at the end.")
    ] = 10,
    workers: Annotated[
        int | None,
        typer.Option(
            "-j",
            "--workers",
            min=0,
            rich_help_panel=_RUN,
            help="Decoding processes, a core each.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(rich_help_panel=_RUN, help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(rich_help_panel=_RUN, help="auto, fp32, bf16 or fp16.")
    ] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", rich_help_panel=_RUN, help="Through torch.compile.")
    ] = False,
    accumulate: Annotated[
        int, typer.Option(min=1, rich_help_panel=_RUN, help="Chunks of a batch, to save memory.")
    ] = 1,
    checkpoint_steps: Annotated[
        int, typer.Option(min=0, rich_help_panel=_RUN, help="A checkpoint every so many too.")
    ] = 0,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, rich_help_panel=_RUN, help="And when the last is so old.")
    ] = 600.0,
    print_freq: Annotated[
        int, typer.Option(min=1, rich_help_panel=_RUN, help="Steps a row of steps.csv.")
    ] = 10,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", rich_help_panel=_RUN, help="Write its events too.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Train the SA network; the authors' command lines run as they are.

    Leaves checkpoint.pt (and the one before it), best.pt, metrics.jsonl, steps.csv and curves.png
    in the folder of the run, and prints the figures of the best and the last network. On several
    GPUs or processes: torchrun --nproc-per-node N -m sa_deploy train ...
    """
    from sa_deploy.commands.train import run
    from sa_deploy.commands.train.folder import folder_of_run
    from sa_deploy.commands.train.qat import fine_tune, options_of
    from sa_runtime.errors import InputError
    from sa_training.distributed import Processes
    from sa_training.loop import TrainingOptions
    from sa_training.optimisation import decoding_processes
    from sa_training.recipes import override
    from sa_training.recipes import recipe as recipe_by_name
    from sa_training.tasks import load_task
    from sa_training.time_budget import seconds_of

    speaks = Processes.from_environment().first
    if split is not None and speaks:
        note("--split has no effect, here as in the authors' code: the data sets have one split")
    if time_budget is not None and epochs is not None:
        raise InputError("--time-budget: sets the number of epochs; leave --epochs away")
    budget_s = None if time_budget is None else seconds_of(time_budget)
    if combine_trainval and hold_out:
        note(f"--combine-trainval: all people but the --hold-out {hold_out} are trained on")
    task = load_task(dataset, data_dir, hold_out=hold_out, seed=seed)
    if resume is not None and resume.is_dir():
        resume = resume / "checkpoint.pt"
    if evaluate:
        size = (height, width)
        named = None if recipe is None else recipe_by_name(recipe)
        run.evaluate(task, resume, named, size, device, json_output)
        return
    folder = folder_of_run(out, resume, qat=qat, speaks=speaks)
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
    settings = _settings(set_ or [])
    chosen = override(
        recipe_by_name(recipe or "sa"),
        {
            **_given(
                {
                    "network.backbone": arch,
                    "network.height": height,
                    "network.width": width,
                    "network.features": features,
                    "network.dropout": dropout,
                    "network.attention": attention,
                    "pretrained": pretrained,
                    "epochs": epochs,
                    "batch": batch_size,
                    "lr": lr,
                    "momentum": momentum,
                    "weight_decay": weight_decay,
                    "step_size": step_size,
                }
            ),
            **settings,
        },
    )
    options = TrainingOptions(
        out=folder,
        seed=seed,
        workers=decoding_processes(workers, device),
        device=device,
        precision=precision,
        compiler="inductor" if compile_ else None,
        accumulate=accumulate,
        max_steps=max_steps,
        checkpoint_steps=checkpoint_steps,
        checkpoint_seconds=checkpoint_seconds,
        evaluate_every=evaluate_every,
        log_every=print_freq,
        tensorboard=tensorboard,
    )
    if dry_run:
        run.plan(task, chosen, options, json_output)
        if budget_s is not None:
            note(f"--time-budget {time_budget}: sets the epochs once a run has timed its steps")
        return
    begun = None
    if resume is not None and epochs is None and "epochs" not in settings:
        begun = run.as_long_as(chosen, resume, step_size_given=step_size is not None)
        chosen = begun or chosen
    if max_steps is not None and pretrained is None and resume is None:
        chosen = _start_of_a_trial(chosen)
    run.run(task, chosen, options, resume, budget_s, json_output, begun=begun is not None)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _settings(pairs: list[str]) -> dict[str, str]:
    from sa_runtime.errors import InputError

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}: expected FIELD=VALUE, for example --set erase=0.5")
        found[key] = value
    return found


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
