"""Recipes with other values, as ``--set`` gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sa_runtime.errors import InputError
from sa_training.recipes import Recipe


def override(chosen: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with other values; fields of the network are written ``network.FIELD``.

    Texts become what the field holds: numbers, ``true`` and ``false``.

    Raises:
        InputError: no such field, or a value that it cannot hold.

    >>> from sa_training.recipes import tiny
    >>> override(tiny(), {"lr": "0.01", "network.parts": 4}).network.parts
    4
    """
    top: dict[str, Any] = {}
    network: dict[str, Any] = {}
    for key, value in changes.items():
        inner = key.startswith("network.")
        owner: Any = chosen.network if inner else chosen
        field = key.removeprefix("network.")
        if field not in {f.name for f in dataclasses.fields(owner)} - {"network"}:
            names = [f.name for f in dataclasses.fields(chosen) if f.name != "network"]
            names += [f"network.{f.name}" for f in dataclasses.fields(chosen.network)]
            raise InputError(f"recipe field {key!r}: unknown; choose from {', '.join(names)}")
        (network if inner else top)[field] = _converted(key, value, getattr(owner, field))
    changed = dataclasses.replace(chosen.network, **network)
    return dataclasses.replace(chosen, network=changed, **top)


def _converted(key: str, value: Any, present: Any) -> Any:
    if not isinstance(value, str) or isinstance(present, str):
        return value
    if present is None:  # the one field that may be: a number
        present = 0.0
    if isinstance(present, bool):
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
    else:
        try:
            return type(present)(value)
        except ValueError:
            pass
    raise InputError(f"recipe field {key}={value!r}: expected a value like {present!r}")
