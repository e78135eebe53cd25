"""The search for layers to keep in float, on costs that are known."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_export.quantize.search import Choice, Cost, Limits, choose_layers

LIMITS = Limits(max_map_drop=0.5, min_cosine=0.9)


def search(costs: dict[str, float], limits: Limits = LIMITS) -> tuple[Choice, list[set[str]]]:
    """Costs that add up: a network loses the sum of what its int8 layers lose."""
    asked: list[set[str]] = []

    def measure(kept: Collection[str]) -> Cost:
        asked.append(set(kept))
        drop = sum(cost for layer, cost in costs.items() if layer not in kept)
        return Cost(map_drop=drop, mean_cosine=1 - drop / 100, min_cosine=1 - drop / 50)

    return choose_layers(list(costs), measure, limits), asked


def test_a_network_within_the_limit_is_quantised_whole_after_one_trial() -> None:
    choice, asked = search({"a": 0.1, "b": 0.3})
    assert choice.kept == {}
    assert asked == [set()]
    assert choice.chosen == choice.all_quantised


def test_the_dearest_layers_are_kept_and_their_costs_said() -> None:
    choice, _ = search({"a": 0.1, "b": 4.0, "c": 0.2, "d": 2.0, "e": 0.1})
    assert list(choice.kept) == ["b", "d"]
    assert choice.kept["b"].map_drop == pytest.approx(4.0)
    assert choice.all_quantised.map_drop == pytest.approx(6.4)
    assert choice.chosen.map_drop == pytest.approx(0.4)


def test_equal_map_is_told_apart_by_cosine() -> None:
    def measure(kept: Collection[str]) -> Cost:
        drop = 0.0 if kept else 1.0
        return Cost(map_drop=drop, mean_cosine=0.5 if "b" not in kept else 0.9, min_cosine=1.0)

    assert list(choose_layers(["a", "b", "c"], measure, LIMITS).kept) == ["b"]


def test_a_bad_worst_crop_counts_though_map_is_kept() -> None:
    choice, _ = search({"a": 0.2, "b": 0.1}, Limits(max_map_drop=0.5, min_cosine=0.997))
    assert list(choice.kept) == ["a"]


def test_where_nothing_helps_every_layer_is_kept() -> None:
    def measure(kept: Collection[str]) -> Cost:
        return Cost(map_drop=9.0, mean_cosine=0.1, min_cosine=0.1)

    choice = choose_layers(["a", "b", "c"], measure, LIMITS)
    assert set(choice.kept) == {"a", "b", "c"}


@given(st.lists(st.floats(0, 3), min_size=1, max_size=24))
def test_the_fewest_dearest_layers_are_kept(costs: list[float]) -> None:
    named = {f"l{i}": cost for i, cost in enumerate(costs)}
    choice, asked = search(named, Limits(max_map_drop=0.5, min_cosine=0.0))
    ranked = sorted(costs, reverse=True)
    fewest = next(k for k in range(len(costs) + 1) if sum(ranked[k:]) <= 0.5 + 1e-9)
    assert abs(len(choice.kept) - fewest) <= (1 if abs(sum(ranked[fewest:]) - 0.5) < 1e-6 else 0)
    assert choice.trials == len(asked) <= 1 + len(costs) + 2 * len(costs).bit_length() + 1
