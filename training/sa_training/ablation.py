"""Ablations: several recipes trained with several seeds each, resumed where they stopped.

The folder of a run, ``OUT/NAME/seed-N``, holds what :mod:`sa_training.loop` leaves there, the
settings (``settings.json``, written before the first step), what each query gave
(``queries.parquet``), and the figures (``result.json``, written last: a run that has it is
finished).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sa_runtime.errors import InputError
from sa_runtime.system.files import atomic_path
from sa_training.checkpoints import CHECKPOINT, weights_sha256
from sa_training.distributed import Processes
from sa_training.loop import Progress, TrainingOptions, fit
from sa_training.optimisation import autocast_type, resolve_device
from sa_training.overrides import override
from sa_training.recipes import Recipe, recipe
from sa_training.tasks import Classification, Reidentification, Task
from sa_training.time_budget import pace_from_trial
from sa_training.watch import read_epochs

SETTINGS = "settings.json"
RESULT = "result.json"
QUERIES = "queries.parquet"
_UNSAFE = re.compile(r"[^\w.,=@+-]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of the table.

    Attributes:
        name: of the row and of its folder: the recipe's, with ``@FIELD=VALUE`` where one varies.
        recipe: with every override applied.
    """

    name: str
    recipe: Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training.

    Attributes:
        variant: name of the row.
        seed: of weights, order and augmentation.
        figures: of the last network on the test images, as fractions, the most telling one first.
        steps: trained.
        train_seconds: of the steps alone, over all sittings if the run was interrupted.
        test_seconds: of the evaluation.
        weights_sha256: of the network.
        settings_sha256: of what the run was made with, see ``settings.json``.
        device: what it was trained on.
        versions: of sa-deploy and torch.
    """

    variant: str
    seed: int
    figures: Mapping[str, float]
    steps: int
    train_seconds: float
    test_seconds: float
    weights_sha256: str
    settings_sha256: str
    device: str
    versions: Mapping[str, str]


def variants(
    names: Sequence[str],
    *,
    vary: Mapping[str, Sequence[str]] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> tuple[Variant, ...]:
    """The rows of a table: every recipe with every combination of the values that vary.

    Args:
        names: of recipes.
        vary: fields, as :func:`sa_training.recipes.override` names them, and their values.
        changes: fields that get the same value in every row.

    Raises:
        InputError: an unknown recipe or field, a value that it cannot hold, a field that
            is varied and changed, or two equal rows.

    >>> [one.name for one in variants(["tiny"], vary={"network.attention": ["none", "both"]})]
    ['tiny@attention=none', 'tiny@attention=both']
    """
    vary, changes = vary or {}, changes or {}
    for key in vary:
        if key in changes:
            raise InputError(f"recipe field {key}: is varied and set; leave one of the two out")
    found: dict[str, Variant] = {}
    for name in names:
        for values in itertools.product(*vary.values()):
            chosen = dict(zip(vary, values, strict=True))
            row = name + "".join(
                f"@{key.removeprefix('network.')}={value}" for key, value in chosen.items()
            )
            row = _UNSAFE.sub("_", row)
            if row in found:
                raise InputError(f"recipe {row}: listed twice; leave one out")
            found[row] = Variant(name=row, recipe=override(recipe(name), {**changes, **chosen}))
    return tuple(found.values())


class Ablation:
    """Trains variants with seeds in turn; what is finished is read, not trained again.

    Args:
        rows: variants.
        seeds: of each.
        task: the data and what is measured.
        options: where and how fast; ``out`` is the folder of all runs, ``seed`` is not used.
        budget_s: seconds of each run; ``None`` trains the recipes' epochs.
    """

    def __init__(
        self,
        rows: Sequence[Variant],
        seeds: Sequence[int],
        task: Task,
        options: TrainingOptions,
        budget_s: float | None = None,
    ) -> None:
        self._budget_s = budget_s
        self.rows, self.seeds = tuple(rows), tuple(seeds)
        self._task, self._options = task, options
        device = resolve_device(options.device)
        self._common = {
            "data": dict(task.counts()),
            "data_sha256": fingerprint(task),
            "max_steps": options.max_steps,
            "accumulate": options.accumulate,
            "precision": str(autocast_type(options.precision, device) or "float32"),
            **({} if budget_s is None else {"budget_s": budget_s}),
        }

    @property
    def count(self) -> int:
        """Runs, finished or not."""
        return len(self.rows) * len(self.seeds)

    def check(self) -> None:
        """Refuse before anything is trained.

        Raises:
            InputError: a folder that holds a run with other settings, or several processes.
        """
        if Processes.from_environment().count > 1:
            raise InputError(
                "ablate: trains one run at a time in one process; start it without torchrun, or "
                "train each recipe with `torchrun ... -m sa_deploy train`"
            )
        for variant, seed in self._order():
            folder = self._folder(variant, seed)
            path = folder / SETTINGS
            if path.is_file():
                _compare(folder, _read(path), self._settings(variant))

    def run(
        self, on_step: Callable[[str, int, Progress], None] | None = None
    ) -> Iterator[tuple[Run, bool]]:
        """Runs in turn, seed by seed, and whether each was trained now.

        Args:
            on_step: called with variant's name, seed and state after every step.

        Raises:
            InputError: as :meth:`check`.
            CheckpointError: the checkpoint of an interrupted run cannot be read.
            DatasetError: fewer training images than one batch.
            TrainingError: a loss that is not finite.
        """
        self.check()
        for variant, seed in self._order():
            path = self._folder(variant, seed) / RESULT
            if path.is_file():
                yield Run(**_read(path)), False
            else:
                yield self._train(variant, seed, on_step), True

    def _order(self) -> Iterator[tuple[Variant, int]]:
        """Seed by seed, so that every row has a figure as early as can be."""
        return ((variant, seed) for seed in self.seeds for variant in self.rows)

    def _folder(self, variant: Variant, seed: int) -> Path:
        return self._options.out / variant.name / f"seed-{seed}"

    def _settings(self, variant: Variant) -> dict[str, Any]:
        fields = variant.recipe.to_dict()
        network = {f"network.{key}": value for key, value in fields.pop("network").items()}
        return {**fields, **network, **self._common}

    def _train(
        self,
        variant: Variant,
        seed: int,
        on_step: Callable[[str, int, Progress], None] | None,
    ) -> Run:
        folder, settings = self._folder(variant, seed), self._settings(variant)
        options = dataclasses.replace(self._options, out=folder, seed=seed)
        _write(folder / SETTINGS, settings)
        last: list[Progress] = []

        def watch(state: Progress) -> None:
            last[:] = [state]
            if on_step is not None:
                on_step(variant.name, seed, state)

        interrupted = folder / CHECKPOINT
        resume = interrupted if interrupted.is_file() else None
        training = self._task.training(variant.recipe, keep=options.workers == 0)
        pace = None
        if self._budget_s is not None and resume is None:
            pace, _ = pace_from_trial(variant.recipe, training, options, self._budget_s)
        checkpoint = fit(variant.recipe, training, options, resume=resume, on_step=watch, pace=pace)
        device = resolve_device(options.device)
        began = time.perf_counter()
        examined = self._task.examine(checkpoint.network.to(device))
        if examined.queries is not None:
            with atomic_path(folder / QUERIES) as temporary:
                pq.write_table(examined.queries, temporary)
        run = Run(
            variant=variant.name,
            seed=seed,
            figures=dict(examined.figures),
            steps=checkpoint.training["step"],
            train_seconds=train_seconds(folder, variant.recipe.batch, last[0] if last else None),
            test_seconds=time.perf_counter() - began,
            weights_sha256=weights_sha256(checkpoint.network.cpu()),
            settings_sha256=_sha256(settings),
            device=str(device),
            versions={name: version(name) for name in ("sa-deploy", "torch")},
        )
        _write(folder / RESULT, dataclasses.asdict(run))
        return run


def fingerprint(task: Task) -> str:
    """Hash of a data set: labels with files' names and sizes, or with the images themselves."""
    digest = hashlib.sha256()
    if isinstance(task, Reidentification):
        for split in (task.dataset.train, task.dataset.query, task.dataset.gallery):
            for sample in split:
                size = sample.path.stat().st_size
                digest.update(f"{sample.path.name} {size} {sample.person} ".encode())
            digest.update(b"\n")
    elif isinstance(task, Classification):
        for images in (task.train, task.test_images):
            digest.update(images.images.tobytes() + images.labels.tobytes())
    return digest.hexdigest()


def train_seconds(folder: Path, batch: int, last: Progress | None) -> float:
    """Seconds of the steps of a run, whatever it was interrupted by, from its epochs' rates.

    Args:
        folder: of the run.
        batch: images of a step.
        last: state after the last step, for an epoch that was not finished.
    """
    seconds, step = 0.0, 0
    for epoch in read_epochs(folder):
        seconds += (epoch["step"] - step) * batch / epoch["images_per_s"]
        step = epoch["step"]
    if last is not None and last.step > step:
        seconds += (last.step - step) * batch / last.images_per_s
    return seconds


def _compare(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for field in now:
        if then.get(field) != now[field]:
            raise InputError(
                f"{folder}: its run had {field} {then.get(field)!r}, this one {now[field]!r}; pass "
                "the options of then, another `out`, or remove the folder to train it again"
            )


def _sha256(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
