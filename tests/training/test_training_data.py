"""Batches: who is in them, that nothing but (seed, epoch, position) decides, and augmentation."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sa_training.data import ArrayImages, BatchSampler, TrainingCrops, augment, training_loader
from sa_training.recipes import Recipe, tiny

PLAIN = dataclasses.replace(tiny(), flip=0.0, pad=0, colour_jitter=0.0, erase=0.0)
Images = NDArray[np.uint8]


def images_of(sampler: BatchSampler) -> list[list[int]]:
    return [[draw.image for draw in batch] for batch in sampler]


def noise(count: int = 1, height: int = 12, width: int = 8) -> Images:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 9), min_size=4, max_size=12),
    identities=st.integers(1, 3),
    k=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_pk_batches_hold_whole_identities(
    counts: list[int], identities: int, k: int, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    sampler = BatchSampler(labels.tolist(), identities * k, k, seed)
    for batch in images_of(sampler):
        groups = labels[batch].reshape(identities, k)
        assert (groups == groups[:, :1]).all()
    assert len(images_of(sampler)) == len(sampler) == len(labels) // (identities * k)


def test_pk_shows_every_identity_and_every_image_alike() -> None:
    labels = np.repeat(np.arange(10), 8).tolist()
    order = BatchSampler(labels, 20, 4, seed=5).order()
    assert Counter(np.asarray(labels)[order].tolist()) == dict.fromkeys(range(10), 8)
    assert sorted(order) == list(range(80))


def test_identities_with_few_images_repeat_them() -> None:
    sampler = BatchSampler([0, 0, 0, 1, 2, 2, 2, 2], 4, 4, seed=0)
    batches = [batch for epoch in range(6) for batch in _epoch(sampler, epoch)]
    assert [3, 3, 3, 3] in batches


def _epoch(sampler: BatchSampler, epoch: int) -> list[list[int]]:
    sampler.epoch = epoch
    return images_of(sampler)


@pytest.mark.parametrize("k", [0, 4])
def test_epochs_and_seeds_differ_and_repeat(k: int) -> None:
    labels = np.repeat(np.arange(8), 8).tolist()

    def order(seed: int, epoch: int) -> list[int]:
        sampler = BatchSampler(labels, 16, k, seed)
        sampler.epoch = epoch
        return sampler.order()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


@pytest.mark.parametrize("k", [0, 2])
def test_processes_share_the_batch_of_one(k: int) -> None:
    labels = np.repeat(np.arange(8), 5).tolist()
    whole = BatchSampler(labels, 12, k, seed=4)
    shares = [BatchSampler(labels, 4, k, seed=4, rank=rank, processes=3) for rank in range(3)]
    together = [[*a, *b, *c] for a, b, c in zip(*map(list, shares), strict=True)]
    assert together == list(whole)


def test_the_middle_of_an_epoch_continues_it() -> None:
    sampler = BatchSampler(list(range(20)), 3, 0, seed=1)
    whole = list(sampler)
    sampler.first = 4
    assert list(sampler) == whole[4:]
    assert len(sampler) == 2


def test_batches_do_not_depend_on_the_workers() -> None:
    images = noise(12, 32, 16)
    recipe = dataclasses.replace(tiny(), erase=0.9)
    crops = TrainingCrops(ArrayImages(images), list(range(12)), recipe, seed=7)

    def epochs(workers: int) -> list[torch.Tensor]:
        sampler = BatchSampler(crops.labels, 4, 0, seed=7)
        loader = training_loader(crops, sampler, workers, pin=False)
        found = []
        for epoch in range(2):
            sampler.epoch = epoch
            found += [batch for batch, _, _ in loader]
        return found

    for alone, shared in zip(epochs(0), epochs(2), strict=True):
        assert torch.equal(alone, shared)


def test_an_image_drawn_twice_is_augmented_twice() -> None:
    crops = TrainingCrops(ArrayImages(noise()), [0], tiny(), seed=1)
    sampler = BatchSampler([0] * 4, 4, 4, seed=1)
    first, second = (draw._replace(image=0) for draw in next(iter(sampler))[:2])
    assert not torch.equal(crops[first][0], crops[second][0])
    assert torch.equal(crops[first][0], crops[first][0])


def augmented(recipe: Recipe, image: Images, seed: int = 0) -> Images:
    return augment(image, recipe, np.random.default_rng(seed))


def test_nothing_asked_for_changes_nothing() -> None:
    image = noise()[0]
    result = augmented(PLAIN, image)
    assert np.array_equal(result, image)
    assert not np.shares_memory(result, image)


def test_flip_mirrors() -> None:
    image = noise()[0]
    assert np.array_equal(augmented(dataclasses.replace(PLAIN, flip=1.0), image), image[:, ::-1])


def test_pad_shifts_within_its_pixels_and_fills_with_black() -> None:
    image = np.full((12, 8, 3), 200, np.uint8)
    recipe = dataclasses.replace(PLAIN, pad=2)
    shifts = set()
    for seed in range(60):
        lit = np.equal(augmented(recipe, image, seed)[..., 0], 200)
        rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
        assert lit[np.ix_(rows, columns)].all()
        down = rows[0] if rows[0] else rows[-1] - 11
        right = columns[0] if columns[0] else columns[-1] - 7
        shifts.add((int(down), int(right)))
    assert {down for down, _ in shifts} == {right for _, right in shifts} == {-2, -1, 0, 1, 2}


def test_shift_moves_the_pixels_it_keeps() -> None:
    image = noise()[0]
    recipe = dataclasses.replace(PLAIN, pad=3)
    for seed in range(20):
        moved = augmented(recipe, image, seed)
        expected = {
            np.roll(image, (d, r), (0, 1))[
                max(d, 0) : 12 + min(d, 0), max(r, 0) : 8 + min(r, 0)
            ].tobytes()
            for d in range(-3, 4)
            for r in range(-3, 4)
        }
        lit: NDArray[np.bool_] = np.any(moved, axis=2)
        rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
        inside = moved[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.tobytes() in expected


def test_colour_jitter_keeps_black_and_scales_each_channel() -> None:
    image = np.zeros((12, 8, 3), np.uint8)
    image[6:] = 100
    result = augmented(dataclasses.replace(PLAIN, colour_jitter=0.5), image)
    assert not result[:6].any()
    assert len({tuple(pixel) for pixel in result[6:].reshape(-1, 3).tolist()}) == 1
    b, g, r = result[11, 0].tolist()
    assert len({b, g, r}) > 1
    assert all(25 <= value <= 225 for value in (b, g, r))


@pytest.mark.parametrize("seed", range(5))
def test_erasing_replaces_one_rectangle_of_the_papers_size(seed: int) -> None:
    image = np.full((64, 32, 3), 255, np.uint8)
    erased = augmented(dataclasses.replace(PLAIN, erase=1.0), image, seed)
    changed: NDArray[np.bool_] = np.any(erased != 255, axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    assert changed.sum() > 0.9 * area
    assert 0.015 < area / changed.size < 0.23


def test_the_colours_of_the_caller_stay() -> None:
    image = noise()[0]
    before = image.copy()
    augmented(dataclasses.replace(tiny(), erase=1.0), image)
    assert np.array_equal(image, before)
