"""What the options of a training ask for: fields of the recipe, a time budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_RECIPE_FIELDS = {
    "arch": "network.backbone",
    "height": "network.height",
    "width": "network.width",
    "features": "network.features",
    "dropout": "network.dropout",
    "attention": "network.attention",
    "pretrained": "pretrained",
    "epochs": "epochs",
    "batch_size": "batch",
    "lr": "lr",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "step_size": "step_size",
}
"""Parameter of a command -> field of the recipe that it sets."""


def recipe_changes(given: Mapping[str, Any], fields: Sequence[str] | None) -> dict[str, Any]:
    """What is to be changed of a recipe.

    Args:
        given: a command's parameters by name; those that are ``None`` change nothing.
        fields: the values of ``--set``, which go before them.

    >>> recipe_changes({"lr": 0.1, "epochs": None}, ["erase=0.5"])
    {'lr': 0.1, 'erase': '0.5'}
    """
    named = {field: given.get(name) for name, field in _RECIPE_FIELDS.items()}
    own = {field: value for field, value in named.items() if value is not None}
    return {**own, **pairs("--set", fields, "erase=0.5")}


def pairs(option: str, texts: Sequence[str] | None, example: str) -> dict[str, str]:
    """The values of an option that takes ``FIELD=VALUE`` and may be repeated.

    Raises:
        InputError: another form, or a field twice.
    """
    from sa_runtime.errors import InputError

    found: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or key in found:
            raise InputError(
                f"{option} {text}: expected FIELD=VALUE, each field once, for example "
                f"{option} {example}"
            )
        found[key] = value
    return found


def budget(time_budget: str | None, epochs: int | None) -> float | None:
    """Seconds of ``--time-budget``.

    Raises:
        InputError: no duration, or ``--epochs`` beside it.
    """
    from sa_runtime.errors import InputError
    from sa_training.time_budget import seconds_of

    if time_budget is None:
        return None
    if epochs is not None:
        raise InputError("--time-budget: sets the number of epochs; leave --epochs away")
    return seconds_of(time_budget)
