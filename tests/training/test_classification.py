"""The classification experiment: the generated problem, the ResNets, training and accuracy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from sa_runtime.attention_pool import Normalize, attention_pool
from sa_runtime.errors import CheckpointError, DatasetError, InputError
from sa_training.backbones import backbone
from sa_training.classification import (
    accuracy_of,
    hits,
    train_classifier,
)
from sa_training.classification_data import (
    CLASSES,
    LabelledImages,
    synthetic_classification,
)
from sa_training.loop import TrainingOptions
from sa_training.network import NetworkConfig, SANetwork
from sa_training.pixels import network_input
from sa_training.recipes import Recipe, recipe
from sa_training.resnets_32 import ResNet32


def small(name: str = "cifar100-sa", **changes: object) -> Recipe:
    """A recipe of CIFAR-100 with ResNet-14 and small batches."""
    chosen = recipe(name)
    network = dataclasses.replace(chosen.network, backbone="resnet14-32")
    return dataclasses.replace(
        chosen,
        **{"network": network, "batch": 16, "epochs": 2, **changes},  # type: ignore[arg-type]
    )


def options(out: Path, **changes: object) -> TrainingOptions:
    return TrainingOptions(
        out=out,
        **{"device": "cpu", "precision": "fp32", **changes},  # type: ignore[arg-type]
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for one another's threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def problem() -> tuple[LabelledImages, LabelledImages]:
    return synthetic_classification(4, 16, seed=0), synthetic_classification(4, 5, seed=1)


def test_the_generated_problem_repeats_itself_and_only_itself() -> None:
    first, again = (synthetic_classification(5, 3, seed=2) for _ in range(2))
    assert first.images.shape == (15, 32, 32, 3)
    assert first.images.dtype == np.uint8
    np.testing.assert_array_equal(first.images, again.images)
    assert first.labels.tolist() == sorted([0, 1, 2, 3, 4] * 3)
    other = synthetic_classification(5, 3, seed=3)
    assert (first.images != other.images).any(axis=(1, 2, 3)).all()
    distinct = {image.tobytes() for image in (*first.images, *other.images)}
    assert len(distinct) == 30


def test_the_object_stands_anywhere() -> None:
    """The mean image of a class shows no place: every pixel varies about as much as any other."""
    images = synthetic_classification(2, 150, seed=0).images[:150].astype(np.float64)
    spread = images.std(axis=0).mean(axis=2)
    assert spread.min() > 0.6 * spread.max()
    assert images.mean(axis=0).std() < 0.25 * images.std()


@pytest.mark.parametrize(("classes", "count"), [(1, 5), (CLASSES + 1, 5), (4, 0)])
def test_a_problem_that_cannot_be_is_refused(classes: int, count: int) -> None:
    with pytest.raises(InputError, match=f"{classes} classes of {count} images: expected 2 to 36"):
        synthetic_classification(classes, count, seed=0)


@pytest.mark.parametrize(("depth", "published"), [(20, 0.27e6), (56, 0.85e6)])
def test_resnets_have_the_published_sizes(depth: int, published: float) -> None:
    """He et al., table 6, whose shortcuts have no weights; counted by hand with ours."""
    n = (depth - 2) // 6
    by_hand = 3 * 9 * 16 + 2 * 16
    for inside, outside in ((16, 16), (16, 32), (32, 64)):
        first = 9 * inside * outside + 9 * outside * outside + 4 * outside
        projection = 0 if inside == outside else inside * outside + 2 * outside
        by_hand += first + projection + (n - 1) * (18 * outside * outside + 4 * outside)
    base = backbone(f"resnet{depth}-32")
    assert sum(parameter.numel() for parameter in base.parameters()) == by_hand
    assert by_hand + 64 * 10 + 10 == pytest.approx(published, rel=0.02)
    assert [tuple(stage.shape[1:]) for stage in base(torch.zeros(1, 3, 32, 32))] == [
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
        (64, 8, 8),
    ]


@pytest.mark.parametrize("depth", [8, 18, 21])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth={depth}: expected 6n \+ 2 with n at least 2"):
        ResNet32(depth)


@pytest.mark.parametrize("normalize", ["none", "sum", "softmax"])
def test_the_classifier_reads_the_attention_weighted_mean(normalize: Normalize) -> None:
    config = NetworkConfig(
        backbone="resnet14-32",
        height=32,
        width=32,
        classes=5,
        parts=1,
        attention="none" if normalize == "none" else "backbone",
        normalize="sum" if normalize == "none" else normalize,
        deep_supervision=False,
        head="linear",
    )
    torch.manual_seed(0)
    network = SANetwork(config).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        (logits,) = network(x).logits
        pooled = attention_pool(network.base(x)[-1].numpy(), 1, normalize)[:, :, 0]
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    expected = pooled @ weights["instance1.weight"].T + weights["instance1.bias"]
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-6)


LOGITS = arrays.arrays(np.float32, (6, 7), elements=st.floats(-9, 9, width=32), unique=True)


@settings(max_examples=40)
@given(logits=LOGITS, labels=st.lists(st.integers(0, 6), min_size=6, max_size=6))
def test_hits_are_those_of_a_sorted_list(logits: NDArray[np.float32], labels: list[int]) -> None:
    for k in (1, 5):
        expected = sum(
            label in sorted(range(7), key=lambda i: -row[i])[:k]
            for row, label in zip(logits.tolist(), labels, strict=True)
        )
        assert hits(torch.from_numpy(logits), torch.tensor(labels), k) == expected


def test_equal_and_undefined_logits_are_no_hits() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [torch.nan, 0.0, 0.0]])
    for labels in ([0, 0], [1, 1]):
        assert hits(logits, torch.tensor(labels), 1) == 0
    assert hits(logits[:1], torch.tensor([1]), 2) == 1


def test_accuracy_is_that_of_the_networks_logits() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(small().network, classes=9)
    network = SANetwork(config).eval()
    test = synthetic_classification(9, 60, seed=4)
    with torch.inference_mode():
        logits = network(network_input(torch.from_numpy(test.images))).logits[0].numpy()
    order = np.argsort(-logits, axis=1)
    found = accuracy_of(network, test)
    assert found.top1 == pytest.approx((order[:, 0] == test.labels).mean(), abs=1e-9)
    assert found.top5 == pytest.approx((order[:, :5] == test.labels[:, None]).any(1).mean())
    assert 0 < found.top1 < found.top5 < 1


def test_training_leaves_a_network_that_has_learnt(
    problem: tuple[LabelledImages, LabelledImages], tmp_path: Path
) -> None:
    train, _ = problem
    chosen = small(epochs=14, pad=0, flip=0.0)
    run = train_classifier(chosen, train, train, options(tmp_path, evaluate_every=14))
    assert run.accuracy.top1 > 0.6, "four classes, its own training images"
    assert run.checkpoint.network.config.classes == 4
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (line["epoch"], line["top1"]) == (14, run.accuracy.top1)
    assert (tmp_path / "best.pt").is_file()


def test_an_interrupted_training_ends_with_the_same_weights(
    problem: tuple[LabelledImages, LabelledImages], tmp_path: Path
) -> None:
    whole = train_classifier(small(), *problem, options(tmp_path / "whole"))
    train_classifier(small(), *problem, options(tmp_path / "cut", max_steps=5))
    resumed = train_classifier(
        small(), *problem, options(tmp_path / "cut"), resume=tmp_path / "cut" / "checkpoint.pt"
    )
    assert resumed.accuracy == whole.accuracy
    expected = whole.checkpoint.network.state_dict()
    for name, value in resumed.checkpoint.network.state_dict().items():
        assert torch.equal(value, expected[name]), name
    with pytest.raises(CheckpointError, match="another network; pass `recipe="):
        train_classifier(
            small("cifar100-gap"),
            *problem,
            options(tmp_path / "cut"),
            resume=tmp_path / "cut" / "checkpoint.pt",
        )


def test_gap_and_attention_start_from_the_same_weights() -> None:
    states = []
    for name in ("cifar100-gap", "cifar100-sa"):
        torch.manual_seed(3)
        states.append(SANetwork(small(name).network).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_data_and_recipes_that_do_not_fit_are_refused(
    problem: tuple[LabelledImages, LabelledImages], tmp_path: Path
) -> None:
    train, test = problem
    few, large = train._replace(images=train.images[:3]), train.images.repeat(2, axis=1)
    mistakes = [
        (
            (recipe("tiny"), train, test),
            InputError,
            "recipe tiny: finds people again, and 4 synthetic",
        ),
        ((small(), few, test), InputError, r"\(3, 32, 32, 3\) with 64 labels; expected \(N, 32"),
        ((small(), train, test._replace(images=large)), InputError, r"uint8 \(64, 64, 32, 3\)"),
        ((small(batch=65), train, test), DatasetError, "64 training images, expected at least one"),
        (
            (small(), test, test._replace(labels=test.labels + 1)),
            InputError,
            "has class 4; expected the classes 0 to 3 of 4 synthetic classes of 5 images",
        ),
    ]
    for arguments, error, text in mistakes:
        with pytest.raises(error, match=text):
            train_classifier(*arguments, options(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
