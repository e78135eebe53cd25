"""The training loop: steps over batches, checkpoints to go on from, metrics, evaluation."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sa_runtime.errors import TrainingError
from sa_runtime.system.locking import owned
from sa_training.checkpoints import (
    BEST,
    CHECKPOINT,
    Checkpoint,
    load_checkpoint,
    refuse_older_run,
    remove_partial,
    save_checkpoint,
)
from sa_training.data import BatchSampler, TrainingCrops, training_loader
from sa_training.distributed import Processes, joined, same_everywhere, wait_for_all
from sa_training.growth import Phase, phase_at
from sa_training.network import SANetwork
from sa_training.optimisation import lr_factor, resolve_device
from sa_training.options import Progress, TrainingOptions, TrainingSet
from sa_training.pace import Pace
from sa_training.recipes import Recipe
from sa_training.resuming import pace_to_keep, refuse_another_run
from sa_training.step import Trainer, trainer_for
from sa_training.teacher import Teacher
from sa_training.watch import Metrics, not_finite
from sa_training.weights import load_weights

_log = logging.getLogger(__name__)

__all__ = ["Evaluate", "Progress", "TrainingOptions", "TrainingSet", "fit"]

Evaluate = Callable[[SANetwork], Mapping[str, float]]
"""Figures of a network, the one that makes it the best first."""


def fit(
    recipe: Recipe,
    training: TrainingSet,
    options: TrainingOptions,
    *,
    resume: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
    evaluate: Evaluate | None = None,
    pace: Pace | None = None,
    teacher: Teacher | None = None,
) -> Checkpoint:
    """Train a network on labelled images; see :func:`sa_training.train.train_model`.

    Args:
        recipe: how; the class count comes from the data.
        training: images and labels.
        options: where and how fast.
        resume: checkpoint of an interrupted run of the same recipe.
        on_step: called after every step, in the first process only.
        evaluate: called every ``options.evaluate_every`` epochs; must give the same in every
            process.
        pace: of a run with a time budget, as :func:`sa_training.time_budget.pace_from_trial` gives
            it. A resumed run keeps the budget it was begun with; another one replaces it.
        teacher: whose vectors are learnt beside the identities.

    Returns:
        The last checkpoint, its network in evaluation mode.

    Raises:
        InputError: ``options.out`` holds a run already, or a device that is not there.
        DatasetError: fewer training images than one batch.
        CheckpointError: ``resume`` cannot be read, or is of another recipe or other data.
        TrainingError: a loss that is not finite.
    """
    if not options.overwrite:
        refuse_older_run(options.out, resume)
    processes = Processes.from_environment()
    with joined(processes, resolve_device(options.device, processes.local)):
        trainer = trainer_for(
            recipe, training, options, resumed=resume is not None, teacher=teacher
        )
        run = _Run(trainer, training, options, on_step, evaluate, pace, teacher)
        if resume is not None:
            run.resume(resume)
        with _one_writer(options, resume, processes):
            run.train()
        wait_for_all()
    return load_checkpoint(options.out / CHECKPOINT)


@contextmanager
def _one_writer(
    options: TrainingOptions, resume: Path | None, processes: Processes
) -> Iterator[None]:
    """Nobody else trains into the folder; nobody has while this run was set up."""
    if not processes.first:
        yield
        return
    with owned(options.out, folder=True):
        if not options.overwrite:
            refuse_older_run(options.out, resume)
        yield


def timing_run(
    recipe: Recipe,
    training: TrainingSet,
    options: TrainingOptions,
    teacher: Teacher | None = None,
) -> tuple[int, Iterator[None]]:
    """A training that leaves nothing, to be timed.

    Returns:
        Steps of an epoch, and what does one step whenever it is advanced, without end.

    Raises:
        DatasetError, TrainingError: as :func:`fit`; of the steps, when they are done.
    """
    trainer = trainer_for(recipe, training, options, resumed=False, teacher=teacher)
    run = _Run(trainer, training, options, teacher=teacher)
    return run.sampler.steps, run.trial_steps()


class _Run:
    """The state of a run: the trainer and the place in the data."""

    def __init__(
        self,
        trainer: Trainer,
        training: TrainingSet,
        options: TrainingOptions,
        on_step: Callable[[Progress], None] | None = None,
        evaluate: Evaluate | None = None,
        pace: Pace | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.teacher = teacher
        self.trainer, self.training, self.options = trainer, training, options
        self.pace = pace
        self.recipe, self.processes = trainer.recipe, trainer.processes
        self.on_step, self.evaluate = on_step, evaluate
        self.sampler = BatchSampler(
            training.labels,
            self.recipe.batch,
            self.recipe.images_per_identity,
            options.seed,
            rank=self.processes.rank,
            processes=self.processes.count,
        )
        crops = TrainingCrops(training.images, training.labels, self.recipe, options.seed)
        pin = trainer.device.type == "cuda"
        self.loader: DataLoader[tuple[Tensor, int, int]] = training_loader(
            crops, self.sampler, options.workers, pin=pin
        )
        self.step = 0
        self.sums = np.zeros(len(trainer.names) + 1)
        self.best: float | None = None
        self.saved = time.monotonic()

    @property
    def planned(self) -> int:
        """Steps of the whole recipe, or as many as its time is planned for."""
        return self.recipe.epochs * self.sampler.steps if self.pace is None else self.pace.steps

    @property
    def steps(self) -> int:
        """Steps of this run."""
        return min(self.planned, self.options.max_steps or self.planned)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of ours, or take the weights of one of the authors'."""
        checkpoint = load_checkpoint(path, self.recipe, classifiers=True)
        state = checkpoint.training
        if state:
            refuse_another_run(path, checkpoint, self.recipe, self._order())
        kept = checkpoint.network.state_dict()
        load_weights(self.trainer.network, kept, source=str(path))
        if not state:
            if self.pace is None:
                self.step = min(checkpoint.epoch, self.recipe.epochs) * self.sampler.steps
            return
        self.pace = pace_to_keep(path, checkpoint, self.recipe, self.sampler.steps, self.pace)
        self.trainer.load(kept, state)
        self.step = state["step"]
        self.sums = np.array(state["sums"])
        self.best = state["best"]
        _log.info("%s: goes on after step %d of %d", path, self.step, self.steps)

    def train(self) -> None:
        """Run to the last step and leave the checkpoint of it."""
        options = self.options
        if self.processes.first:
            remove_partial(options.out)
        with Metrics.opened(
            options.out if self.processes.first else None,
            names=self.trainer.names,
            step=self.step,
            tensorboard=options.tensorboard,
        ) as metrics:
            if self.step >= self.steps:
                self.save()
            while self.step < self.steps:
                self._epoch(metrics)

    def trial_steps(self) -> Iterator[None]:
        """Steps at the rate's beginning, epoch after epoch, that write nothing."""
        self.trainer.network.train()
        while True:
            for images, labels, indices, _ in self._batches():
                self._step(images, labels, indices)
                self.step = 0
                yield
            self.sampler.epoch += 1

    def save(self) -> None:
        """Write ``checkpoint.pt``."""
        self.saved = time.monotonic()
        if self.processes.first:
            save_checkpoint(
                self.options.out / CHECKPOINT,
                self.trainer.kept_weights(),
                self.recipe,
                self.step // self.sampler.steps,
                {
                    **self.trainer.state(),
                    "step": self.step,
                    "sums": self.sums.tolist(),
                    "best": self.best,
                    "order": self._order(),
                    **({} if self.pace is None else {"pace": self.pace.state()}),
                },
                keep_previous=True,
            )
            _log.debug("%s: written after step %d", self.options.out / CHECKPOINT, self.step)

    def _order(self) -> dict[str, int | str]:
        """What decides which images a step sees, and who teaches it what to see in them."""
        return {
            **({} if self.teacher is None else {"teacher": self.teacher.sha256}),
            "training images": len(self.training.labels),
            "batch size": self.recipe.batch * self.processes.count,
            "images of an identity": self.recipe.images_per_identity,
            "seed": self.options.seed,
        }

    def _epoch(self, metrics: Metrics) -> None:
        """The rest of an epoch."""
        options, sampler = self.options, self.sampler
        sampler.epoch, sampler.first = divmod(self.step, sampler.steps)
        self.trainer.network.train()
        began, done, waited = time.perf_counter(), 0, 0.0
        for images, labels, indices, seconds in self._batches():
            progress = self._step(images, labels, indices)
            if self.pace is not None:
                self.pace.review(self.step)
                progress = dataclasses.replace(progress, steps=self.steps)
            done, waited = done + 1, waited + seconds
            took = time.perf_counter() - began
            rate = done * self.recipe.batch * self.processes.count / took
            progress = dataclasses.replace(progress, images_per_s=rate)
            if self.step % options.log_every == 0 or self.step == self.steps:
                metrics.step(progress)
            if self.on_step is not None and self.processes.first:
                self.on_step(progress)
            if self.step % sampler.steps and (
                self.step == self.steps
                or (options.checkpoint_steps and self.step % options.checkpoint_steps == 0)
                or 0 < options.checkpoint_seconds < time.monotonic() - self.saved
            ):
                self.save()
        if self.step % sampler.steps == 0:
            self._end_epoch(metrics, progress, waited / took)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """Batches on the device, and the seconds spent waiting for each."""
        device = self.trainer.device
        batches = iter(self.loader)
        for _ in range(len(self.sampler)):
            if self.step >= self.steps:
                return
            began = time.perf_counter()
            images, labels, indices = next(batches)
            waited = time.perf_counter() - began
            yield (
                images.to(device, non_blocking=True),
                labels.to(device, non_blocking=True),
                indices,
                waited,
            )

    def _step(self, images: Tensor, labels: Tensor, indices: Tensor) -> Progress:
        if self.pace is None:
            factor = lr_factor(self.recipe, self.step, self.planned, self.sampler.steps)
        else:
            factor = self.pace.factor(self.recipe, self.step)
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        teacher_NE = None if self.teacher is None else self.teacher.of(indices, images.device)
        losses, accuracy = self.trainer.step(images, labels, self.step, self._phase(), teacher_NE)
        if not np.isfinite(losses).all():
            raise self._not_finite(losses, indices)
        self.step += 1
        self.sums += [*losses, accuracy]
        return Progress(
            epoch=self.sampler.epoch + 1,
            epochs=math.ceil(self.planned / self.sampler.steps),
            step=self.step,
            steps=self.steps,
            loss=sum(losses),
            losses=dict(zip(self.trainer.names, losses, strict=True)),
            accuracy=accuracy,
            lr=self.recipe.lr * factor,
            images_per_s=0.0,
        )

    def _phase(self) -> Phase:
        """The size of this step's input."""
        if self.pace is None:
            return phase_at(self.recipe.phases, self.step / self.planned)
        return phase_at(self.recipe.phases, self.pace.done(self.step))

    def _not_finite(self, losses: list[float], indices: Tensor) -> TrainingError:
        return not_finite(
            dict(zip(self.trainer.names, losses, strict=True)),
            [self.training.images.name(index) for index in indices.tolist()],
            self.options.out,
            where=f"step {self.step + 1} (epoch {self.sampler.epoch + 1})",
            rank=self.processes.rank,
        )

    def _end_epoch(self, metrics: Metrics, progress: Progress, waiting: float) -> None:
        """Evaluate where it is due, write the epoch's line and its checkpoint."""
        epoch = self.step // self.sampler.steps
        means = self.sums / self.sampler.steps
        self.sums = np.zeros_like(self.sums)
        every = self.options.evaluate_every
        figures: dict[str, float] = {}
        if self.evaluate is not None and every and epoch % every == 0:
            with self.pace.paused() if self.pace is not None else nullcontext():
                figures = dict(self.evaluate(self._evaluated()))
            said = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            _log.info("epoch %d: %s", epoch, said, extra={"epoch": epoch, **figures})
            score = next(iter(figures.values()))
            if self.best is None or score > self.best:
                self.best = score
                if self.processes.first:
                    path = self.options.out / BEST
                    save_checkpoint(path, self.trainer.kept_weights(), self.recipe, epoch, {})
        metrics.epoch(
            {
                "epoch": epoch,
                "step": self.step,
                "loss": float(means[:-1].sum()),
                "losses": dict(zip(self.trainer.names, means[:-1].tolist(), strict=True)),
                "accuracy": float(means[-1]),
                "lr": progress.lr,
                "images_per_s": progress.images_per_s,
                "waiting_for_data": waiting,
                **figures,
            }
        )
        self.save()

    def _evaluated(self) -> SANetwork:
        """The network that a checkpoint would keep, in evaluation mode."""
        network = SANetwork(self.recipe.network).to(self.trainer.device)
        network.load_state_dict(self.trainer.kept_weights())
        same_everywhere(network.state_dict())
        return network.to(memory_format=torch.channels_last).eval()
