"""What a scenario on the simulated GPU is, and all that there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.tensorrt.simulated_gpu import World

SCENARIOS: dict[str, Callable[[World], None]] = {}


def scenario(function: Callable[[World], None]) -> Callable[[World], None]:
    """Collect a scenario under its name."""
    SCENARIOS[function.__name__] = function
    return function


def expect(kind: type[Exception], pattern: str, call: Callable[..., Any], *arguments: Any) -> None:
    """The call raises ``kind`` with a message that matches."""
    with pytest.raises(kind) as caught:
        call(*arguments)
    told = " ".join(str(caught.value).split())
    assert re.search(pattern, told), told
