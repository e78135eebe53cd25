"""Losses against slow recomputation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_training.losses import batch_hard_triplet, classification_losses
from sa_training.network import Output


def test_cross_entropy_of_every_classifier_with_label_smoothing() -> None:
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(3, 4)) for _ in range(2)]
    labels = np.array([2, 0, 3])
    output = Output(torch.zeros(3, 1, 1), tuple(torch.tensor(x) for x in logits))
    for smoothing in (0.0, 0.1):
        found = classification_losses(output, torch.tensor(labels), smoothing)
        for loss, x in zip(found, logits, strict=True):
            log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
            truth = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
            assert float(loss) == pytest.approx(-(truth * log_p).sum(axis=1).mean(), rel=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 999), margin=st.sampled_from([0.0, 0.1, 0.3, 1.0]))
def test_triplet_takes_the_hardest_of_each_kind(seed: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(8, 5))
    labels = np.repeat(np.arange(4), 2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected: list[float] = []
    for i in range(8):
        far = max(
            float(np.linalg.norm(unit[i] - unit[j])) for j in range(8) if labels[i] == labels[j]
        )
        near = min(
            float(np.linalg.norm(unit[i] - unit[j])) for j in range(8) if labels[i] != labels[j]
        )
        gap = far - near
        expected.append(np.log1p(np.exp(gap)).item() if margin == 0 else max(gap + margin, 0.0))
    found = batch_hard_triplet(torch.tensor(vectors), torch.tensor(labels), margin)
    assert float(found) == pytest.approx(np.mean(expected), abs=1e-5)


def test_triplet_of_equal_vectors_has_a_finite_gradient() -> None:
    vectors = torch.ones(4, 3, requires_grad=True)
    batch_hard_triplet(vectors, torch.tensor([0, 0, 1, 1]), 0.3).backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
