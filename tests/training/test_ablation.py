"""Rows of a table, what a run is known by, means and spreads."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_runtime.datasets.loading import load_dataset
from sa_runtime.errors import InputError
from sa_training.ablation import Ablation, Run, fingerprint, train_seconds, variants
from sa_training.ablation_compare import compare_runs, comparisons_dict
from sa_training.ablation_table import draw, figure, table, write_csv
from sa_training.classification_data import LabelledImages
from sa_training.loop import Progress, TrainingOptions
from sa_training.tasks import Classification, Reidentification


def run_of(variant: str, seed: int, score: float, other: float = 0.5) -> Run:
    return Run(
        variant=variant,
        seed=seed,
        figures={"mAP": score, "rank1": other},
        steps=10,
        train_seconds=4.0 + seed,
        test_seconds=1.0,
        weights_sha256="0" * 64,
        settings_sha256="1" * 64,
        device="cpu",
        versions={},
    )


def patterns(count: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    return LabelledImages(
        name=f"patterns {seed}",
        images=rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        labels=np.arange(count) % 4,
    )


def test_rows_are_every_recipe_with_every_combination() -> None:
    rows = variants(
        ["tiny", "sa"],
        vary={"network.attention": ["none", "both"], "erase": ["0.25"]},
        changes={"epochs": 3, "network.height": "256"},
    )
    assert [row.name for row in rows] == [
        "tiny@attention=none@erase=0.25",
        "tiny@attention=both@erase=0.25",
        "sa@attention=none@erase=0.25",
        "sa@attention=both@erase=0.25",
    ]
    assert {row.recipe.erase for row in rows} == {0.25}
    assert {(row.recipe.epochs, row.recipe.network.height) for row in rows} == {(3, 256)}
    assert [row.recipe.network.attention for row in rows] == ["none", "both"] * 2


def test_a_field_that_varies_cannot_also_be_set() -> None:
    with pytest.raises(InputError, match=r"recipe field erase: is varied and set; leave one of"):
        variants(["tiny"], vary={"erase": ["0", "0.5"]}, changes={"erase": 0.1})


def test_names_of_rows_are_names_of_folders() -> None:
    (row,) = variants(["tiny"], vary={"pretrained": ["../weights/r 50.pth"]})
    assert row.name == "tiny@pretrained=.._weights_r_50.pth"
    assert row.recipe.pretrained == "../weights/r 50.pth"


def test_mean_and_spread_by_hand() -> None:
    first, second = table(
        [
            *(run_of("a", seed, score) for seed, score in enumerate((0.10, 0.20, 0.30))),
            *(run_of("b", seed, score) for seed, score in enumerate((0.50, 0.50, 0.56))),
        ]
    )
    assert (first.variant, second.variant, second.seeds) == ("a", "b", (0, 1, 2))
    assert first.train_seconds == 5.0
    found = first.figures["mAP"]
    assert (found.mean, found.deviation) == pytest.approx((0.2, 0.1))
    assert (found.difference, found.difference_error) == (0.0, None)
    found = second.figures["mAP"]
    assert (found.mean, found.deviation) == pytest.approx((0.52, math.sqrt(0.0012)))
    assert found.difference == pytest.approx(0.32)
    assert found.difference_error == pytest.approx(math.sqrt(0.01 / 3 + 0.0012 / 3))
    assert second.figures["rank1"].difference == 0.0


def test_one_seed_has_no_spread() -> None:
    _, second = table([run_of("a", 0, 0.4), run_of("b", 0, 0.3)])
    found = second.figures["mAP"]
    assert (found.deviation, found.difference_error) == (None, None)
    assert found.difference == pytest.approx(-0.1)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2))
def test_differences_turn_with_their_sign(a: list[float], b: list[float]) -> None:
    one, other = figure(a, b), figure(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.difference_error == pytest.approx(other.difference_error)
    assert min(a) - 1e-12 <= one.mean <= max(a) + 1e-12
    assert one.deviation == pytest.approx(float(np.std(a, ddof=1)), abs=1e-9)


def test_a_line_for_each_run(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [run_of("a", 0, 0.25), run_of("b", 7, 0.5, 0.75)])
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "recipe,seed,mAP,rank1,steps,train_seconds,weights_sha256",
        f"a,0,0.25,0.5,10,4.0,{'0' * 64}",
        f"b,7,0.5,0.75,10,11.0,{'0' * 64}",
    ]


def test_the_picture_has_a_point_for_each_seed(tmp_path: Path) -> None:
    scores = {"a": (0.1, 0.3, 0.5), "a-much-longer-name@attention=none": (0.2, 0.4, 0.6)}
    runs = [
        run_of(name, seed, score, score / 2)
        for name, values in scores.items()
        for seed, score in enumerate(values)
    ]
    draw(tmp_path / "t.png", table(runs), "a title")
    image = cv2.imread(str(tmp_path / "t.png"))
    assert image is not None
    blue, red = image[..., 0].astype(int), image[..., 2].astype(int)
    # The mean's black line splits no point here: it stands on the middle one of three.
    closed = cv2.morphologyEx(
        (blue - red > 60).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)
    )
    assert cv2.connectedComponents(closed)[0] - 1 == 2 * 2 * 3


def test_seconds_of_an_interrupted_run_are_summed(tmp_path: Path) -> None:
    lines = [{"step": 10, "images_per_s": 40.0}, {"step": 20, "images_per_s": 20.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert train_seconds(tmp_path, 8, None) == 2.0 + 4.0
    last = Progress(
        epoch=3,
        epochs=3,
        step=25,
        steps=25,
        loss=1.0,
        losses={},
        accuracy=0.5,
        lr=0.1,
        images_per_s=10.0,
    )
    assert train_seconds(tmp_path, 8, last) == 2.0 + 4.0 + 4.0


def test_data_are_known_by_their_content(synthetic_root: Path) -> None:
    dataset = load_dataset("synthetic", synthetic_root)
    whole = fingerprint(Reidentification(dataset=dataset))
    assert fingerprint(Reidentification(dataset=dataset)) == whole
    less = dataclasses.replace(dataset, query=dataset.query[1:])
    moved = dataclasses.replace(
        dataset, query=dataset.query[1:], gallery=(dataset.query[0], *dataset.gallery)
    )
    sample = dataset.train[0]
    renamed = dataclasses.replace(sample, person=dataset.train[-1].person)
    other = dataclasses.replace(dataset, train=(renamed, *dataset.train[1:]))
    found = {fingerprint(Reidentification(dataset=d)) for d in (less, moved, other)}
    assert len(found | {whole}) == 4
    a, b = patterns(8, 0), patterns(8, 1)
    assert fingerprint(Classification(train=a, test_images=b)) != fingerprint(
        Classification(train=b, test_images=a)
    )


def test_classifiers_are_compared_too(tmp_path: Path) -> None:
    rows = variants(
        ["cifar100-gap", "cifar100-sa"],
        changes={"batch": 16, "pad": 2, "network.backbone": "resnet10-thin"},
    )
    task = Classification(train=patterns(32, 0), test_images=patterns(16, 1))
    options = TrainingOptions(out=tmp_path, device="cpu", precision="fp32", max_steps=3)
    ablation = Ablation(rows, [3], task, options)
    seen: list[tuple[str, int, int]] = []
    done = list(ablation.run(lambda name, seed, state: seen.append((name, seed, state.step))))
    assert [trained for _, trained in done] == [True, True]
    assert seen == [(row.name, 3, step) for row in rows for step in (1, 2, 3)]
    assert list(done[0][0].figures) == ["top1", "top5"]
    assert done[0][0].weights_sha256 != done[1][0].weights_sha256
    assert [trained for _, trained in ablation.run()] == [False, False]
    assert [run for run, _ in ablation.run()] == [run for run, _ in done]

    other = Classification(train=patterns(32, 2), test_images=patterns(16, 1))
    with pytest.raises(InputError, match=r"cifar100-gap/seed-3: its run had data_sha256 '\w+', t"):
        Ablation(rows, [3], other, options).check()


def test_the_oracle_of_spread_is_the_sample_deviation() -> None:
    """Three seeds: n - 1, not n."""
    found = figure([0.0, 0.0, 0.3]).deviation
    assert found == pytest.approx(statistics.pstdev([0.0, 0.0, 0.3]) * math.sqrt(3 / 2))


def write_queries(out: Path, variant: str, seed: int, lift: float, chance: float) -> Run:
    """40 people of 3 queries, some hard, some easy; ``lift`` helps all of them."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 3)
    precision = np.clip(rng.beta(4, 4, 40)[person] + rng.normal(0, 0.05, 120) + lift + chance, 0, 1)
    columns = {
        "person": person,
        "average_precision": precision,
        "first_rank": np.where(precision > 0.5, 1, 3),
    }
    folder = out / variant / f"seed-{seed}"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "queries.parquet")
    return run_of(variant, seed, float(precision.mean()))


def test_a_difference_that_every_seed_shows_is_real_and_one_that_turns_is_noise(
    tmp_path: Path,
) -> None:
    runs = []
    for seed in range(3):
        runs.append(write_queries(tmp_path, "base", seed, 0.0, 0.0))
        runs.append(write_queries(tmp_path, "better", seed, 0.06, 0.004 * (seed - 1)))
        runs.append(write_queries(tmp_path, "lucky", seed, 0.01, 0.04 * (seed - 1)))
    found = compare_runs(tmp_path, runs)
    assert list(found) == ["better", "lucky"]
    better, lucky = found["better"]["mAP"], found["lucky"]["mAP"]
    assert (better.verdict, lucky.verdict) == ("real", "noise")
    assert 0 < better.low < better.value < better.high
    # With three seeds of deviation 0.04 alone: 4.303 * 0.04 / sqrt(3).
    assert lucky.value - lucky.low >= 0.099
    assert comparisons_dict(found)["better"]["mAP"]["verdict"] == "real"


def test_one_seed_or_unknown_queries_are_not_compared(tmp_path: Path) -> None:
    runs = [write_queries(tmp_path, name, 0, 0.0, 0.0) for name in ("base", "other")]
    assert compare_runs(tmp_path, runs) == {}
    assert compare_runs(tmp_path, [*runs, run_of("base", 1, 0.5), run_of("other", 1, 0.5)]) == {}
