"""``sa-deploy train --qat``: a short fine-tuning of a checkpoint for int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sa_deploy.output import command_line, note, print_json, progress

if TYPE_CHECKING:
    from sa_training.data import TrainingImages
    from sa_training.network import SANetwork
    from sa_training.options import Progress
    from sa_training.qat import QatOptions
    from sa_training.tasks import Task


def fine_tune(task: Task, resume: Path | None, options: QatOptions, json_output: bool) -> None:
    """Fine-tune what ``--resume`` names, and test it in float and in int8, before and after.

    Args:
        task: people; their labels are used for the test only.
        resume: the checkpoint.
        options: how.
        json_output: print the result as JSON.

    Raises:
        InputError: no checkpoint, images to classify, or several processes.
    """
    from sa_deploy.commands.train.run import show_result
    from sa_runtime.errors import InputError
    from sa_training.checkpoints import load_checkpoint
    from sa_training.distributed import Processes
    from sa_training.qat import finetune
    from sa_training.result import TrainingResult
    from sa_training.tasks import Reidentification

    if resume is None:
        raise InputError("--qat: expected --resume FILE, the checkpoint to fine-tune")
    if not isinstance(task, Reidentification):
        raise InputError("--qat: fine-tunes embeddings of people; pass their data set with -d")
    if Processes.from_environment().count > 1:
        raise InputError("--qat: runs in one process; start it without torchrun")
    checkpoint = load_checkpoint(resume)
    training = task.training(checkpoint.recipe, keep=options.workers == 0)
    last: list[Progress] = []
    with progress("fine-tune for int8", None, unit="step") as advance:

        def on_step(state: Progress) -> None:
            last[:] = [state]
            advance(
                total=state.steps,
                completed=state.step,
                description=f"epoch {state.epoch}/{state.epochs} loss {state.loss:.5f}",
            )

        tuned = finetune(checkpoint, training, options, on_step=on_step)
    test: dict[str, dict[str, float]] = {}
    if options.max_steps is None:
        for name, network in (("before", checkpoint.network), ("after", tuned.network)):
            note(f"testing the network {name}, in float and in int8")
            test |= _figures(name, network, task.test, training.images, options)
    result = TrainingResult.of(tuned, last[0], test, steps=last[0].step)
    if json_output:
        print_json(result.to_dict())
        return
    show_result("Fine-tuning", result)
    words = ("export", tuned.path, "--onnx", "--precision", "int8", "--out", options.out)
    note(f"next: {command_line(*words)}")


def _figures(
    name: str,
    network: SANetwork,
    test: Callable[[SANetwork], Mapping[str, float]],
    images: TrainingImages,
    options: QatOptions,
) -> dict[str, dict[str, float]]:
    """Figures in float, and with every convolution of the backbone in int8."""
    from sa_training.optimisation import resolve_device
    from sa_training.qat import in_int8, thresholds_of

    network = network.to(resolve_device(options.device)).eval()
    found = {f"{name}, float": dict(test(network))}
    thresholds = thresholds_of(network, images, options)
    with in_int8(network, thresholds):
        found[f"{name}, int8"] = dict(test(network))
    return found


def options_of(
    *,
    out: Path,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    seed: int,
    workers: int,
    device: str,
    max_steps: int | None,
) -> QatOptions:
    """The options of ``sa-deploy train`` that a fine-tuning takes, with defaults of its own."""
    from sa_training.qat import QatOptions

    given = {"epochs": epochs, "batch": batch, "lr": lr}
    options = QatOptions(out=out, seed=seed, workers=workers, device=device, max_steps=max_steps)
    return dataclasses.replace(
        options,
        **{key: value for key, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
