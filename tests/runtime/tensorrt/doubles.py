"""Recording doubles of TensorRT's C++ objects, held to the real bindings' signatures.

``create_autospec`` knows which attributes a pybind11 class has, but not what its methods
take: that stands in the first lines of their docstrings, which are read here.
"""

from __future__ import annotations

import functools
import re
from typing import Any
from unittest.mock import MagicMock, create_autospec


def signatures(method: Any) -> list[list[tuple[str, bool]]]:
    """Overloads of a pybind11 method: name of every argument after ``self``, and if it may be left.

    >>> def f(): pass
    >>> f.__doc__ = "f(self: T, name: str, shape: Tuple[int, int] = (1, 2)) -> bool"
    >>> signatures(f)
    [[('name', False), ('shape', True)]]
    """
    found = []
    for line in (method.__doc__ or "").splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{method.__name__}\((self.*)\) -> ", line)
        if match is None:
            continue
        arguments = _split(match[1])[1:]
        found.append([(text.split(":")[0].strip(" *"), "=" in text) for text in arguments])
    return found


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside every bracket."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{<") - (char in ")]}>")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def accepts(overload: list[tuple[str, bool]], args: tuple[Any, ...], named: set[str]) -> bool:
    """Whether a call fits an overload by count and by name."""
    names = [name for name, _ in overload]
    if len(args) > len(names) or not named <= set(names[len(args) :]):
        return False
    return all(optional or name in named for name, optional in overload[len(args) :])


class Checked(MagicMock):
    """A method that refuses calls which no overload takes."""

    overloads: list[list[tuple[str, bool]]]

    def __call__(self, *args: Any, **named: Any) -> Any:
        if not any(accepts(overload, args, set(named)) for overload in self.overloads):
            raise TypeError(f"{self._mock_name}{args}{named}: expected one of {self.overloads}")
        return super().__call__(*args, **named)


def double(real: type) -> Any:
    """A double of a class of the bindings; refuses attributes and calls the class does not take."""
    made = create_autospec(real, instance=True, spec_set=True)
    for name, overloads in _methods(real).items():
        method = Checked(name=f"{real.__name__}.{name}")
        method.overloads = overloads
        setattr(made, name, method)
    return made


@functools.cache
def _methods(real: type) -> dict[str, list[list[tuple[str, bool]]]]:
    names = [name for name in dir(real) if not name.startswith("_")]
    methods = {name: getattr(real, name) for name in names}
    found = {
        name: signatures(method)
        for name, method in methods.items()
        if getattr(method, "__name__", None) == name
    }
    return {name: overloads for name, overloads in found.items() if overloads}
