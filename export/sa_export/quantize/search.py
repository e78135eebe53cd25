"""Which layers stay in float: ranked by what quantising each alone costs in retrieval."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What quantisation costs against the FP32 network.

    Attributes:
        map_drop: points of mAP; 0 where the crops have no labels.
        mean_cosine: to the network; it tells layers of equal mAP apart.
        min_cosine: of the worst crop.
    """

    map_drop: float
    mean_cosine: float
    min_cosine: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What quantisation may cost."""

    max_map_drop: float
    min_cosine: float

    def hold(self, cost: Cost) -> bool:
        """Whether a cost is within them."""
        return cost.map_drop <= self.max_map_drop and cost.min_cosine >= self.min_cosine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Which layers stay in float, and why.

    Attributes:
        kept: layer -> what quantising it alone costs; the dearest first.
        all_quantised: cost with every layer quantised.
        chosen: cost of this choice.
        trials: networks that were measured.
    """

    kept: dict[str, Cost]
    all_quantised: Cost
    chosen: Cost
    trials: int


def choose_layers(
    layers: Sequence[str],
    measure: Callable[[Collection[str]], Cost],
    limits: Limits,
    on_trial: Callable[[str], None] = lambda text: None,
) -> Choice:
    """Keep as few layers in float as the limits allow.

    Everything is quantised first. Where that costs too much, each layer is quantised alone, and the
    dearest are kept: their number is doubled until the limits hold, then bisected. Where they
    never hold, all layers are kept.

    Args:
        layers: all of them.
        measure: cost of a network with some layers in float.
        limits: of the cost.
        on_trial: called with what was measured.
    """
    trials = 0

    def cost(kept: Collection[str], text: str) -> Cost:
        nonlocal trials
        trials += 1
        found = measure(kept)
        on_trial(
            f"{text}: {found.map_drop:+.2f} points of mAP lost, cosine {found.mean_cosine:.5f}"
        )
        return found

    everything = cost((), f"all {len(layers)} layers in int8")
    if limits.hold(everything):
        return Choice(kept={}, all_quantised=everything, chosen=everything, trials=trials)
    alone = {
        layer: cost([other for other in layers if other != layer], f"{layer} alone in int8")
        for layer in layers
    }
    ranked = sorted(layers, key=lambda layer: (-alone[layer].map_drop, alone[layer].mean_cosine))
    measured: dict[int, Cost] = {}

    def enough(count: int) -> bool:
        if count not in measured:
            measured[count] = cost(ranked[:count], f"the {count} dearest layers in float")
        return limits.hold(measured[count])

    low, high = 0, 1
    while not enough(high) and high < len(ranked):
        low, high = high, min(2 * high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return Choice(
        kept={layer: alone[layer] for layer in ranked[:high]},
        all_quantised=everything,
        chosen=measured[high],
        trials=trials,
    )
