"""The loop: what it learns, leaves, resumes and refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sa_runtime.errors import CheckpointError, DatasetError, InputError, TrainingError
from sa_runtime.system.locking import owned
from sa_training.checkpoints import load_checkpoint
from sa_training.data import ArrayImages
from sa_training.loop import Progress, TrainingOptions, TrainingSet, fit
from sa_training.network import SANetwork
from sa_training.pixels import network_input
from sa_training.recipes import Recipe, tiny
from sa_training.watch import read_epochs

IMAGES, PEOPLE, BATCH = 48, 6, 8
EPOCH = IMAGES // BATCH


def small(**changes: object) -> Recipe:
    """Six steps an epoch of a ten-layer network at 32x16."""
    network = dataclasses.replace(
        tiny().network, height=32, width=16, parts=2, features=16, dropout=0.2
    )
    recipe = dataclasses.replace(
        tiny(),
        network=network,
        batch=BATCH,
        images_per_identity=2,
        epochs=3,
        lr=2e-3,
        pad=2,
        erase=0.3,
    )
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def people() -> TrainingSet:
    """Six people, each a pattern of their own under noise."""
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(PEOPLE), IMAGES // PEOPLE)
    patterns = rng.integers(40, 216, (PEOPLE, 8, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    images = patterns[labels] + rng.normal(0, 20, (IMAGES, 32, 16, 3))
    crops = np.clip(images, 0, 255).astype(np.uint8)
    return TrainingSet(name="patterns", images=ArrayImages(crops), labels=labels.tolist())


def options(out: Path, **changes: object) -> TrainingOptions:
    given = {"precision": "fp32", "device": "cpu", **changes}
    return TrainingOptions(out=out, **given)  # type: ignore[arg-type]


def state_of(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_checkpoint(path).network.state_dict()
    return found


def assert_equal(first: Path, second: Path) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_losses_of_the_first_twenty_steps(people: TrainingSet, tmp_path: Path) -> None:
    """A golden: a change of loss, order, augmentation or initialisation shows here."""
    losses: list[float] = []
    recipe = small(epochs=4, network=dataclasses.replace(small().network, dropout=0.0))
    fit(
        recipe,
        people,
        options(tmp_path, max_steps=20),
        on_step=lambda state: losses.append(state.loss),
    )
    assert losses[::5] == pytest.approx([12.508, 12.278, 12.541, 11.495], rel=0.01)


def test_it_learns(people: TrainingSet, tmp_path: Path) -> None:
    recipe = small(epochs=8, colour_jitter=0.0, erase=0.0, pad=0)
    fit(recipe, people, options(tmp_path))
    first, *_, last = read_epochs(tmp_path)
    assert last["loss"] < 0.8 * first["loss"]
    assert first["accuracy"] < 0.5 < last["accuracy"]


def test_what_a_run_says_and_leaves(people: TrainingSet, tmp_path: Path) -> None:
    seen: list[Progress] = []
    scores = iter((0.2, 0.6, 0.4))
    checkpoint = fit(
        small(),
        people,
        options(tmp_path, log_every=4, evaluate_every=1),
        on_step=seen.append,
        evaluate=lambda network: {"mAP": next(scores)},
    )
    assert [state.step for state in seen] == list(range(1, 3 * EPOCH + 1))
    assert seen[-1].steps == 3 * EPOCH
    assert [state.epoch for state in seen[::EPOCH]] == [1, 2, 3]
    assert tuple(seen[0].losses) == (
        *("part0", "part1", "global", "stage1", "stage2", "stage3", "triplet"),
    )
    assert seen[0].loss == pytest.approx(sum(seen[0].losses.values()))
    assert checkpoint.epoch == 3
    assert checkpoint.recipe.network.classes == PEOPLE
    assert not checkpoint.network.training
    epochs = read_epochs(tmp_path)
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert epochs[1]["loss"] == pytest.approx(
        np.mean([state.loss for state in seen[EPOCH : 2 * EPOCH]])
    )
    assert [line["mAP"] for line in epochs] == [0.2, 0.6, 0.4]
    with (tmp_path / "steps.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["step"]) for row in rows] == [4, 8, 12, 16, 18]
    assert float(rows[0]["loss_global"]) == pytest.approx(seen[3].losses["global"], rel=1e-5)
    assert load_checkpoint(tmp_path / "best.pt").epoch == 2
    assert load_checkpoint(tmp_path / "checkpoint.previous.pt").epoch == 2


@pytest.mark.parametrize(
    ("stop", "ema"), [(1, 0.0), (EPOCH - 1, 0.9), (EPOCH, 0.0), (EPOCH + 3, 0.9)]
)
def test_a_resumed_run_ends_with_the_same_bits(
    people: TrainingSet, tmp_path: Path, stop: int, ema: float
) -> None:
    recipe = small(epochs=2, ema=ema)
    fit(recipe, people, options(tmp_path / "whole", log_every=1))
    fit(recipe, people, options(tmp_path / "cut", max_steps=stop, log_every=1))
    half = tmp_path / "cut" / "checkpoint.pt"
    assert load_checkpoint(half).training["step"] == stop
    fit(recipe, people, options(tmp_path / "cut", log_every=1), resume=half)
    assert_equal(tmp_path / "whole" / "checkpoint.pt", half)
    for name in ("steps.csv", "metrics.jsonl"):
        kinds = [
            [
                {k: v for k, v in row.items() if k not in ("images_per_s", "waiting_for_data")}
                for row in rows_of(tmp_path / run / name)
            ]
            for run in ("whole", "cut")
        ]
        assert kinds[0] == kinds[1]


def rows_of(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as lines:
        return [dict(row) for row in csv.DictReader(lines)]


def test_sgd_with_bf16_and_chunks_resumes_too(people: TrainingSet, tmp_path: Path) -> None:
    recipe = small(epochs=2, optimizer="sgd", lr=0.01, schedule="step", step_size=1)
    chosen = {"precision": "bf16", "accumulate": 2}
    fit(recipe, people, options(tmp_path / "whole", **chosen))
    fit(recipe, people, options(tmp_path / "cut", max_steps=7, **chosen))
    half = tmp_path / "cut" / "checkpoint.pt"
    fit(recipe, people, options(tmp_path / "cut", **chosen), resume=half)
    assert_equal(tmp_path / "whole" / "checkpoint.pt", half)


def test_lines_beyond_the_checkpoint_are_taken_back(people: TrainingSet, tmp_path: Path) -> None:
    """A kill leaves a checkpoint behind the table's end, and a line cut short."""
    fit(small(), people, options(tmp_path, max_steps=2 * EPOCH, log_every=1))
    early = tmp_path / "early.pt"
    shutil.copy(tmp_path / "checkpoint.previous.pt", early)
    for name in ("steps.csv", "metrics.jsonl"):
        with (tmp_path / name).open("a") as lines:
            lines.write("13,3,7.")
    fit(small(), people, options(tmp_path, log_every=1), resume=early)
    assert [int(str(r["step"])) for r in rows_of(tmp_path / "steps.csv")] == list(range(1, 19))
    assert [line["epoch"] for line in read_epochs(tmp_path)] == [1, 2, 3]


def test_the_average_is_what_is_kept(people: TrainingSet, tmp_path: Path) -> None:
    plain = fit(small(), people, options(tmp_path / "plain")).network
    averaged = fit(small(ema=0.9), people, options(tmp_path / "ema"))
    inside = averaged.training["weights"]
    for name, value in plain.state_dict().items():
        assert torch.equal(value, inside[name])
    kept = averaged.network.state_dict()
    assert not torch.equal(kept["base.conv1.weight"], inside["base.conv1.weight"])


def test_chunks_have_the_gradient_of_their_mean(people: TrainingSet, tmp_path: Path) -> None:
    """Without batch statistics and triplets a batch in chunks is the batch."""

    def first_losses(accumulate: int) -> list[float]:
        losses: list[float] = []
        recipe = small(
            epochs=1,
            triplet_weight=0.0,
            network=dataclasses.replace(small().network, dropout=0.0),
        )
        fit(
            recipe,
            people,
            options(tmp_path / str(accumulate), accumulate=accumulate, max_steps=1),
            on_step=lambda state: losses.append(state.loss),
        )
        return losses

    assert first_losses(4) == pytest.approx(first_losses(1), rel=0.05)


def test_chunks_must_hold_whole_identities(people: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"accumulate=3: a batch of 8 does not split .* identities \(2 images"
    ):
        fit(small(), people, options(tmp_path, accumulate=3))


class NamedImages(ArrayImages):
    """As if they were files."""

    def name(self, index: int) -> str:
        return f"bounding_box_train/{index:04}.jpg"


@pytest.mark.parametrize("resume", [False, True])
def test_a_loss_that_is_not_finite_stops_and_names_the_files(
    people: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    assert isinstance(people.images, ArrayImages)
    named = dataclasses.replace(people, images=NamedImages(people.images.images))
    calls = []

    def overflow(images: Tensor) -> Tensor:
        calls.append(1)
        return network_input(images) * (float("inf") if len(calls) == 4 else 1.0)

    monkeypatch.setattr("sa_training.step.network_input", overflow)
    with pytest.raises(
        TrainingError,
        match=r"step 4 \(epoch 1\): loss is not finite \(part0 nan.*\) on bounding_box_train/00.*"
        r"lower `lr`, or pass `precision='fp32'`; the last checkpoint, .*checkpoint.pt, is good",
    ):
        fit(small(), named, options(tmp_path, checkpoint_steps=1))
    files = (tmp_path / "not_finite_0.txt").read_text().splitlines()
    assert len(files) == BATCH
    kept = load_checkpoint(tmp_path / "checkpoint.pt")
    assert kept.training["step"] == 3
    assert all(torch.isfinite(v).all() for v in kept.network.state_dict().values())
    if resume:
        done = fit(small(), named, options(tmp_path), resume=kept.path)
        assert done.epoch == 3


def test_other_data_or_options_are_not_resumed(people: TrainingSet, tmp_path: Path) -> None:
    fit(small(), people, options(tmp_path, max_steps=2))
    path = tmp_path / "checkpoint.pt"
    cases: list[tuple[Callable[[], object], str]] = [
        (
            lambda: fit(small(), people, options(tmp_path, seed=5), resume=path),
            r"its run had seed 1, this one 5; resume with the same data and options",
        ),
        (
            lambda: fit(small(batch=4), people, options(tmp_path), resume=path),
            r"its run had batch size 8, this one 4",
        ),
        (
            lambda: fit(small(lr=0.5), people, options(tmp_path), resume=path),
            r"its run had lr .*, this one 0.5; resume with the same data and options",
        ),
        (
            lambda: fit(
                small(network=dataclasses.replace(small().network, attention="none")),
                people,
                options(tmp_path),
                resume=path,
            ),
            r"trained with recipe 'tiny' and another network",
        ),
    ]
    for attempt, message in cases:
        with pytest.raises(CheckpointError, match=message):
            attempt()


def test_a_longer_recipe_goes_on_where_a_finished_one_ended(
    people: TrainingSet, tmp_path: Path
) -> None:
    fit(small(epochs=1), people, options(tmp_path))
    path = tmp_path / "checkpoint.pt"
    assert fit(small(epochs=2), people, options(tmp_path), resume=path).epoch == 2
    assert fit(small(epochs=2), people, options(tmp_path), resume=path).training["step"] == 12


def test_a_run_is_not_overwritten_unless_asked(people: TrainingSet, tmp_path: Path) -> None:
    fit(small(), people, options(tmp_path, max_steps=2))
    with pytest.raises(InputError, match=r"out=.*: holds the weights of an earlier run"):
        fit(small(), people, options(tmp_path, max_steps=1))
    done = fit(small(), people, options(tmp_path, max_steps=1, overwrite=True))
    assert done.training["step"] == 1


def test_two_runs_do_not_share_a_folder(people: TrainingSet, tmp_path: Path) -> None:
    with owned(tmp_path, folder=True), pytest.raises(InputError, match=r"is being written by"):
        fit(small(), people, options(tmp_path, max_steps=1))
    assert list(tmp_path.iterdir()) == []


def test_too_few_images(people: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="48 training images, expected at least one batch of 64"):
        fit(small(batch=64), people, options(tmp_path))


def test_options_name_field_value_and_rule(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"accumulate=0: expected at least 1"):
        TrainingOptions(out=tmp_path, accumulate=0)


def test_compiled_and_half_precision_train_alike(people: TrainingSet, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    recipe = small(epochs=1, network=dataclasses.replace(small().network, dropout=0.0))
    for name, changes in {
        "plain": {},
        "compiled": {"compiler": "aot_eager"},
        "bf16": {"precision": "bf16"},
        "fp16": {"precision": "fp16"},
    }.items():
        losses[name] = []
        fit(
            recipe,
            people,
            options(tmp_path / name, **changes),
            on_step=lambda state, name=name: losses[name].append(state.loss),  # type: ignore[misc]
        )
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=0.02)
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.05)
    assert losses["fp16"] == pytest.approx(losses["plain"], rel=0.05)


def test_the_evaluated_network_is_the_one_that_is_kept(people: TrainingSet, tmp_path: Path) -> None:
    found: list[SANetwork] = []

    def evaluate(network: SANetwork) -> dict[str, float]:
        found.append(network)
        return {"mAP": 1.0}

    checkpoint = fit(
        small(epochs=1, ema=0.9), people, options(tmp_path, evaluate_every=1), evaluate=evaluate
    )
    assert not found[0].training
    for name, value in checkpoint.network.state_dict().items():
        assert torch.equal(value, found[0].state_dict()[name])
