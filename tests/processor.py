"""What the processor of the machine that runs the tests can do."""

from __future__ import annotations

import pytest

from sa_runtime.system.environment import this_environment

HAS_BF16 = bool({"avx512_bf16", "amx_bf16"} & set(this_environment().flags))
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bf16 instructions")
