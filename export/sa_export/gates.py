"""What an artefact must keep of its FP32 network, and whether it does."""

from __future__ import annotations

import dataclasses

from sa_export.parity import Parity
from sa_runtime.artefact.contract import Precision
from sa_runtime.errors import ParityError

_NEAR = 0.99
"""Mean cosine below which a loss is doubted: int8 vectors of 0.97 lost half a point of mAP on 425
crops of Market-1501, and 5.9 on all of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gates:
    """What an artefact must keep to be left under its name.

    Attributes:
        max_map_drop: points of mAP it may lose on labelled crops.
        min_cosine: of the worst crop at any batch size to the FP32 network.
        min_independence: cosine of a crop's vector alone to the same among others.
    """

    max_map_drop: float = 0.5
    min_cosine: float
    min_independence: float


DEFAULT_GATES: dict[Precision, Gates] = {
    "fp32": Gates(min_cosine=0.99999, min_independence=0.99999),
    "fp16": Gates(min_cosine=0.999, min_independence=0.9999),
    "bf16": Gates(min_cosine=0.99, min_independence=0.999),
    "int8": Gates(min_cosine=0.8, min_independence=0.999),
}


def gates_for(
    precision: Precision, *, max_map_drop: float | None = None, min_cosine: float | None = None
) -> Gates:
    """The gates of a precision, with those that are given in their place.

    >>> gates_for("fp32", max_map_drop=0.1).max_map_drop, gates_for("fp16").min_cosine
    (0.1, 0.999)
    """
    given = {"max_map_drop": max_map_drop, "min_cosine": min_cosine}
    changes = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(DEFAULT_GATES[precision], **changes)


def require_parity(parity: Parity, gates: Gates, *, name: str, advice: str = "") -> None:
    """Refuse an artefact that disagrees with its network.

    Args:
        parity: what was measured.
        gates: what must be kept.
        name: of the artefact.
        advice: what the user can do about it, where something can be said.

    Raises:
        ParityError: a gate is not kept; the message names every one, and the worst crop.
    """
    broken = []
    drop = parity.map_drop
    if drop is not None and not drop <= gates.max_map_drop:
        assert parity.network is not None
        assert parity.artefact is not None
        broken.append(
            f"mAP fell from {100 * parity.network.mAP:.2f} to {100 * parity.artefact.mAP:.2f}, "
            f"by more than the {gates.max_map_drop:g} points of `max_map_drop`"
        )
    if not parity.min_cosine >= gates.min_cosine:
        size = min(parity.batches, key=lambda size: parity.batches[size])
        broken.append(
            f"the cosine to the FP32 network is {parity.min_cosine:.6f} on the worst crop (batch "
            f"{size}; over all {next(iter(parity.worst))}), expected at least {gates.min_cosine:g} "
            "(`min_cosine`)"
        )
    least = least_independence(parity, gates)
    if not parity.independence >= least:
        broken.append(
            f"a crop's vector depends on its batch: cosine {parity.independence:.6f} alone and "
            f"among others, expected at least {least:.6g}"
        )
    if broken:
        raise ParityError(
            f"{name}: {'; '.join(broken)}. Measured on {parity.crops} crops ({parity.validation}) "
            f"with {parity.runtime}; no file was left{f'. You can {advice}' if advice else ''}"
        )


def least_independence(parity: Parity, gates: Gates) -> float:
    """How far a crop's vector alone may be from the same among others.

    A runtime sums in another order at another batch size. That changes a float in its last digit,
    which flips some roundings to FP16 or int8, and a flip costs what a rounding costs: two vectors
    of the same crop are then as far apart as two that were rounded independently, twice as far as
    one is from FP32. That distance is taken where the artefact is at its best, so that a fault of
    one batch size does not excuse itself, and never beyond what int8 must keep.

    Args:
        parity: what was measured.
        gates: what must be kept where roundings do not explain more.
    """
    rounding = 1 - max(parity.batches.values())
    return min(
        gates.min_independence, max(1 - 2 * rounding, DEFAULT_GATES["int8"].min_independence)
    )


def doubt(parity: Parity, gates: Gates) -> str | None:
    """What passing the gates does not prove, ``None`` where it proves enough.

    A small gallery hides what a large one shows, and few people leave much to chance.
    """
    if parity.map_drop_interval is None or parity.map_drop is None:
        return None
    high = parity.map_drop_interval[1]
    said = []
    if high > max(gates.max_map_drop, parity.map_drop):
        said.append(f"other people might lose {high:.1f} points of mAP")
    if parity.mean_cosine < _NEAR:
        said.append(
            f"the vectors moved far (mean cosine {parity.mean_cosine:.3f}), which costs more in a "
            "larger gallery"
        )
    if not said:
        return None
    return (
        f"the loss of {parity.map_drop:.2f} points was seen on {parity.crops} crops: "
        f"{'; '.join(said)}; give a larger `validation` and more `validation_crops` to be sure"
    )
