"""Slips that only the vectors show: a model that sees nothing, logits taken for an embedding."""

from __future__ import annotations

import numpy as np

from sa_export.crop_set import CropSet, spread
from sa_export.foreign import ForeignModel, reference_vectors
from sa_export.preprocessing import PRESETS, Preprocessing
from sa_runtime.arrays import Embeddings
from sa_runtime.errors import InputError

BLIND = 0.999
"""Mean cosine between different crops from which a model is suspected of seeing nothing."""
_SAME = 1e-7
"""Mean distance (1 less the cosine) that is nothing but rounding."""
_WIDER = 20.0
"""How much farther apart the crops are under another preprocessing where the given one is wrong."""
_NARROW = 3.0
"""How much smaller the scale of the pixels is than usual where it is suspected."""
_TRIED = 16
KNOWN_CLASSES = {
    751: "Market-1501",
    702: "DukeMTMC-reID",
    767: "CUHK03",
    1367: "CUHK03",
    1041: "MSMT17",
    4101: "MSMT17 as a whole",
    575: "VeRi-776",
    576: "VeRi-776",
    13164: "VehicleID",
    1000: "ImageNet",
    21841: "ImageNet-21k",
}
"""Numbers of identities, or classes, of known training sets."""


def check_vectors(
    vectors: Embeddings, foreign: ForeignModel, preprocessing: Preprocessing, crops: CropSet
) -> list[str]:
    """Warnings about a foreign model's vectors of some crops, of unit length.

    Raises:
        InputError: vectors that are not finite; or that are about the same for every crop, where
            another preprocessing tells the crops apart, or nothing does.
    """
    if not np.isfinite(vectors).all():
        raise InputError(f"{foreign.path}: gives numbers that are not finite on {crops.source}")
    warnings = list(foreign.network.notes) if foreign.network is not None else []
    warnings += _blindness(vectors, foreign, preprocessing, crops)
    classes = foreign.network.classes if foreign.network is not None else 0
    if foreign.dim in KNOWN_CLASSES or (classes and foreign.dim == classes):
        known = KNOWN_CLASSES.get(foreign.dim, "its training set")
        warnings.append(
            f"{foreign.output!r} has {foreign.dim} numbers, as many as {known} has classes: "
            "probably logits, which retrieve worse than the features before them; choose another "
            "`output` if there is one"
        )
    if foreign.width > foreign.height:
        warnings.append(
            f"crops of {foreign.height}x{foreign.width} are wider than high, but people stand; "
            "are `height` and `width` in each other's place?"
        )
    return warnings


def _blindness(
    vectors: Embeddings, foreign: ForeignModel, preprocessing: Preprocessing, crops: CropSet
) -> list[str]:
    """A warning where different crops have about one vector, as random weights give them."""
    cosine = mean_cosine(vectors)
    if cosine <= BLIND:
        return []
    text = f"{len(vectors)} different crops have a mean cosine of {cosine:.6f}"
    some = crops.images[spread(range(len(crops)), _TRIED)]
    apart = 1 - mean_cosine(reference_vectors(foreign, some, preprocessing))
    usual = PRESETS["imagenet"]
    if max(preprocessing.line()[0]) * _NARROW < min(usual.line()[0]):
        other = 1 - mean_cosine(reference_vectors(foreign, some, usual))
        if other > _WIDER * max(apart, _SAME):
            raise InputError(
                f"{foreign.path}: sees nothing: {text}, while pixels prepared as 'imagenet' tell "
                f"them apart {other / max(apart, _SAME):.0f} times better. Check `divisor`, `mean` "
                "and `std`, or name them by `preprocessing`"
            )
    if apart < _SAME:
        raise InputError(f"{foreign.path}: sees nothing: {text}, whatever the preprocessing")
    return [f"{text}: it hardly tells people apart; are its weights trained?"]


def mean_cosine(vectors: Embeddings) -> float:
    """Mean cosine between the vectors of different crops; (N, D) of unit length.

    >>> mean_cosine(np.eye(3, dtype=np.float32))
    0.0
    """
    count = len(vectors)
    total = np.square(vectors.astype(np.float64).sum(axis=0)).sum()
    return float((total - count) / max(count * (count - 1), 1))
