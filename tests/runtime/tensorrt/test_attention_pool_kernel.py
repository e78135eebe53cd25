"""The Triton kernel on its interpreter, against the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sa_runtime.attention_pool import NORMALIZATIONS, Normalize, attention_pool
from sa_runtime.tensorrt.tactics import (
    ELEMENTS,
    TACTICS,
    Element,
    Pool,
    Tactic,
    plan,
    suits,
    tactics_for,
)

Interpreted = Callable[
    [NDArray[np.float32], Pool, Tactic], tuple[NDArray[np.float32], NDArray[np.int64]]
]
TYPES: dict[Element, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# Relative to the largest value: the interpreter truncates where a GPU rounds to nearest.
TOLERANCE: dict[Element, float] = {"fp32": 2e-6, "fp16": 2**-10, "bf16": 2**-7}


def rounded(x: NDArray[np.float32], element: Element) -> NDArray[np.float32]:
    """Values that the element type holds."""
    return torch.from_numpy(x).to(TYPES[element]).float().numpy()


def pool_of(x: NDArray[np.float32], parts: int, normalize: Normalize, element: Element) -> Pool:
    _, channels, height, width = x.shape
    return Pool(
        channels=channels,
        height=height,
        width=width,
        parts=parts,
        normalize=normalize,
        element=element,
    )


def agree(got: NDArray[np.float32], x: NDArray[np.float32], pool: Pool) -> None:
    """Compare with the reference, computed from the same rounded input in float32."""
    expected = attention_pool(x, pool.parts, pool.normalize)
    scale = max(float(np.abs(expected).max(initial=0)), 1e-30)
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=TOLERANCE[pool.element])


Case = tuple[NDArray[np.float32], Pool, Tactic]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, c = draw(st.integers(1, 2)), draw(st.integers(1, 20))
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    element = draw(st.sampled_from(ELEMENTS))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    x = rng.random((n, c, h, w), np.float32)
    # What a ReLU leaves: many zeros, sometimes nothing else.
    x *= rng.random(x.shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    x = rounded(x, element)
    pool = pool_of(x, draw(st.integers(1, h)), draw(st.sampled_from(NORMALIZATIONS)), element)
    splits = draw(st.integers(1, 3))
    return x, pool, Tactic(draw(st.sampled_from([16, 128, 2048])), 4, splits)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_the_kernel_equals_the_reference(interpreted: Interpreted, case: Case) -> None:
    x, pool, tactic = case
    agree(interpreted(x, pool, tactic)[0], x, pool)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_one_pixel_pools_to_itself(interpreted: Interpreted, normalize: Normalize) -> None:
    x = np.array([3, 0, 5], np.float32).reshape(1, 3, 1, 1)
    got, _ = interpreted(x, pool_of(x, 1, normalize, "fp16"), Tactic(16, 4, 1))
    assert got.ravel().tolist() == [3.0, 0.0, 5.0]


@pytest.mark.parametrize("normalize", ["sum", "softmax"])
@pytest.mark.parametrize("splits", [1, 2])
def test_an_all_zero_image_is_pooled_evenly_and_spoils_no_other(
    interpreted: Interpreted, normalize: Normalize, splits: int
) -> None:
    x = np.random.default_rng(1).random((2, 8, 4, 4), np.float32)
    x[0] = 0
    pool = pool_of(x, 2, normalize, "fp32")
    got, _ = interpreted(x, pool, Tactic(64, 4, splits))
    assert not got[0].any()
    agree(got, x, pool)


@pytest.mark.parametrize("normalize", ["sum", "softmax"])
def test_channel_sums_beyond_fp16_do_not_overflow(
    interpreted: Interpreted, normalize: Normalize
) -> None:
    x = np.full((1, 4, 2, 2), 60_000, np.float32)
    assert x.sum(axis=1).min() > np.finfo(np.float16).max
    got, _ = interpreted(x, pool_of(x, 1, normalize, "fp16"), Tactic(16, 4, 1))
    np.testing.assert_allclose(got, 60_000, rtol=2**-10)


@pytest.mark.parametrize("tactic", [Tactic(2048, 4, 1), Tactic(16, 4, 2)])
def test_windows_overlap_as_the_authors_cut_them(interpreted: Interpreted, tactic: Tactic) -> None:
    # H = 8 and P = 6: step 1, size 3.
    rows = np.arange(8, dtype=np.float32).reshape(1, 1, 8, 1)
    x = np.ascontiguousarray(np.broadcast_to(rows, (1, 2, 8, 4)))
    got, _ = interpreted(x, pool_of(x, 6, "none", "fp32"), tactic)
    assert got.tolist() == [[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 2]


def test_more_programs_than_work_write_every_window_once(interpreted: Interpreted) -> None:
    # 5 tiles of one channel over 4 programs: the last one has nothing of its own.
    x = np.random.default_rng(2).random((1, 5, 4, 4), np.float32)
    pool = pool_of(x, 4, "sum", "fp32")
    agree(interpreted(x, pool, Tactic(16, 4, 4))[0], x, pool)


@pytest.mark.parametrize(
    ("normalize", "tactic", "reads_each"),
    [
        ("sum", Tactic(32768, 16, 1), 1),  # the image fits: the floor
        ("none", Tactic(64, 4, 4), 1),  # no attention: the floor, however many share it
        ("sum", Tactic(64, 4, 1), 2),  # sums first, then its own share again
        ("softmax", Tactic(64, 4, 4), 5),  # four programs sum, the owner reads again
    ],
)
def test_every_element_is_read_as_often_as_the_plan_says(
    interpreted: Interpreted, normalize: Normalize, tactic: Tactic, reads_each: int
) -> None:
    x = np.random.default_rng(3).random((2, 12, 6, 4), np.float32)
    pool = pool_of(x, 3, normalize, "fp32")
    assert plan(pool, tactic).reads == reads_each
    _, reads = interpreted(x, pool, tactic)
    assert (reads == reads_each).all()


@given(
    channels=st.integers(1, 4096),
    height=st.integers(1, 128),
    width=st.integers(1, 64),
    normalize=st.sampled_from(NORMALIZATIONS),
)
def test_every_map_has_tactics_and_each_covers_every_channel_once(
    channels: int, height: int, width: int, normalize: Normalize
) -> None:
    pool = Pool(
        channels=channels,
        height=height,
        width=width,
        parts=1,
        normalize=normalize,
        element="fp16",
    )
    numbers = tactics_for(pool)
    assert numbers
    for number in numbers:
        cut = plan(pool, TACTICS[number - 1])
        assert all(size & (size - 1) == 0 for size in cut.tile)
        assert cut.tile[1] >= height * width
        tiles = -(-channels // cut.tile[0])
        share = -(-tiles // cut.splits)
        owned = [s * share + j for s in range(cut.splits) for j in range(share)]
        assert sorted(t for t in owned if t < tiles) == list(range(tiles))


def test_the_whole_image_tactic_is_for_images_that_fit() -> None:
    small = Pool(channels=256, height=16, width=8, parts=6, normalize="sum", element="fp16")
    large = Pool(channels=2048, height=24, width=8, parts=6, normalize="sum", element="fp16")
    assert suits(small, TACTICS[0])
    assert plan(small, TACTICS[0]).reads == 1
    assert not suits(large, TACTICS[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"channels": -1}, "channels=-1, expected a fixed size"),
        ({"parts": 9}, "parts=9: expected 1 to 8"),
        ({"normalize": "max"}, "normalize='max', expected one of sum, softmax, none"),
        ({"element": "int8"}, "element='int8', expected one of fp32, fp16, bf16"),
        ({"height": 300, "width": 300}, "at most 65536; build with `plugin=False`"),
    ],
)
def test_pools_out_of_range_are_named(change: dict[str, Any], text: str) -> None:
    fields: dict[str, Any] = {
        "channels": 4,
        "height": 8,
        "width": 4,
        "parts": 2,
        "normalize": "sum",
        "element": "fp16",
    }
    with pytest.raises(ValueError, match=text):
        Pool(**{**fields, **change})
