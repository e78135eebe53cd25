"""Names of what goes in and of what is computed with, which need no torch."""

from __future__ import annotations

from typing import Literal

InputKind = Literal["uint8-nhwc", "nchw-float"]
FloatType = Literal["fp32", "fp16", "bf16"]
