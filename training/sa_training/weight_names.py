"""A backbone's weights under the names of whoever trained them.

Files of torchvision, timm and torchreid name the same tensors differently, or put them below
another name, with a classifier behind. Where names differ but every tensor of a network has its
counterpart in the same order, with the same shape and the same kind (weight, bias, running mean,
...), the order says which is which.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

_PREFIXES = ("base.", "backbone.", "model.", "encoder.", "feature_extractor.", "body.")
"""Names that networks are kept below in larger ones."""
_HEAD = re.compile(
    r"^(fc|classifiers?|heads?|head_dist|last_linear|logits|bottleneck|bnneck|feature|embedding"
    r"|instance\d+|(instance|local_conv)_layer\d+|local_conv|feat_bn2d|fusion_conv)\."
)
"""What stands behind a backbone and is no part of it."""
_UNCOUNTED = "num_batches_tracked"


def backbone_weights(
    given: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    own_name: Callable[[str], str] = str,
) -> dict[str, Tensor]:
    """Weights under a backbone's own names, as far as they can be told.

    Args:
        given: of a file.
        expected: the backbone's state dict.
        own_name: a name in the backbone, of the one in the files of its network.

    Returns:
        The weights without classifiers; under their own names where nothing fits better, so that
        whoever loads them can say what is missing and what is unknown.

    >>> from torch import zeros
    >>> given = {"model.conv.0.weight": zeros(2, 3), "model.fc.weight": zeros(9, 2)}
    >>> list(backbone_weights(given, {"stem.0.weight": zeros(2, 3)}))
    ['stem.0.weight']
    """
    plain = _without_prefix(given)
    plain = {name: value for name, value in plain.items() if not _HEAD.match(name)}
    needed = [name for name in expected if not name.endswith(_UNCOUNTED)]
    named = {own_name(name): value for name, value in plain.items()}
    if all(name in named for name in needed):
        return named
    counted = [name for name in plain if not name.endswith(_UNCOUNTED)]
    if len(counted) == len(needed) and all(
        _kind(a) == _kind(b) and plain[a].shape == expected[b].shape
        for a, b in zip(counted, needed, strict=True)
    ):
        return {b: plain[a] for a, b in zip(counted, needed, strict=True)}
    return named


def _without_prefix(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below the first prefix that is there, or all of them."""
    for prefix in _PREFIXES:
        below = {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}
        if below:
            return below
    return dict(given)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
