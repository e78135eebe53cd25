"""The torch operator against the NumPy reference, its shape rule and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sa_runtime import attention_pool as numpy_form
from sa_runtime.attention_pool import NORMALIZATIONS, Normalize
from sa_training.attention_pool import attention_pool, attention_pool_reference, lowered_to

maps = st.tuples(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 2**16),
)


def feature_map(shape: tuple[int, int, int, int], seed: int) -> np.ndarray:
    """Post-ReLU features: non-negative with zeros."""
    values = np.random.default_rng(seed).standard_normal(shape).clip(0)
    return values.astype(np.float32)


@given(maps, st.integers(1, 6), st.sampled_from(NORMALIZATIONS))
def test_operator_equals_the_numpy_reference(
    drawn: tuple[int, int, int, int, int], parts: int, normalize: Normalize
) -> None:
    n, c, h, w, seed = drawn
    parts = min(parts, h)
    x = feature_map((n, c, h, w), seed)
    expected = numpy_form.attention_pool(x, parts, normalize)
    got = attention_pool(torch.from_numpy(x), parts, normalize).numpy()
    assert got.shape == (n, c, parts)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_gradient_equals_autograd_through_the_plain_formula(normalize: Normalize) -> None:
    x = torch.rand(2, 3, 8, 4, requires_grad=True)
    y = attention_pool(x, 6, normalize)
    upstream = torch.randn_like(y)
    (got,) = torch.autograd.grad(y, x, upstream)
    plain = attention_pool_reference(x, 6, normalize)
    (expected,) = torch.autograd.grad(plain, x, upstream)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck reads it itself
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_operator_keeps_the_rules_of_torch_library(normalize: Normalize) -> None:
    x = torch.rand(2, 3, 6, 4, requires_grad=True)
    operator = torch.ops.sa_deploy.attention_pool.default
    torch.library.opcheck(operator, (x, 3, normalize))


def test_an_all_zero_map_attends_uniformly_and_passes_a_finite_gradient() -> None:
    x = torch.zeros(2, 3, 6, 4, requires_grad=True)
    for normalize in NORMALIZATIONS:
        y = attention_pool(x, 2, normalize)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(y, torch.zeros(2, 3, 2))
        assert torch.isfinite(gradient).all()


def test_half_precision_sums_are_taken_in_float32() -> None:
    x = torch.full((1, 64, 4, 4), 2000.0, dtype=torch.float16)  # a channel sum of 128,000 overflows
    assert torch.equal(attention_pool(x, 1, "sum"), torch.full((1, 64, 1), 2000.0).half())


def test_unknown_normalization_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="expected one of sum, softmax, none"):
        attention_pool_reference(torch.rand(1, 1, 2, 2), 1, "max")


def test_lowering_replaces_the_operator_only_within_its_context() -> None:
    x = torch.rand(1, 2, 4, 3)
    with lowered_to(lambda x_NCHW, parts, normalize: x_NCHW[:, :, :parts, 0] * 0 + 7):
        assert torch.equal(attention_pool(x, 2), torch.full((1, 2, 2), 7.0))
    assert not torch.equal(attention_pool(x, 2), torch.full((1, 2, 2), 7.0))
