"""How weights and activations are rounded to int8, for each kind of machine.

Shape suffixes: O output channels, I input channels, H and W of a kernel.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sa_export.kinds import FloatType
from sa_runtime.errors import bad_value

Target = Literal["tensorrt", "cpu", "any"]
FP16_SCALE_OPSET = 19
"""The first whose Q/DQ nodes take FP16 scales."""
_LEAST_SCALE = 1e-7
"""About the smallest number of FP16: scales must not vanish in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """How tensors are quantised.

    Attributes:
        unsigned: activations as uint8 with a zero point; otherwise int8, symmetric.
        additions: quantise both inputs of residual additions, also where no convolution reads them.
        int_bias: biases as int32 of the accumulator's scale; otherwise in float.
        pairs: keep the products of two neighbouring input channels within 16 bits.
        rest: type of what is not quantised.
    """

    unsigned: bool
    additions: bool
    int_bias: bool
    pairs: bool
    rest: FloatType

    @property
    def levels(self) -> int:
        """Steps from zero to the largest value."""
        return 255 if self.unsigned else 127


SCHEMES: dict[Target, Scheme] = {
    "tensorrt": Scheme(unsigned=False, additions=False, int_bias=False, pairs=False, rest="fp16"),
    "cpu": Scheme(unsigned=True, additions=True, int_bias=True, pairs=True, rest="fp32"),
    "any": Scheme(unsigned=False, additions=False, int_bias=False, pairs=True, rest="fp32"),
}
"""TensorRT takes symmetric int8 only and no int32 biases, and computes what is left in FP16.
Processors multiply uint8 with int8; there ``cpu`` is 4 times as fast as ``any`` on ONNX Runtime.
Those without VNNI add the products of two neighbouring input channels in 16 bits and saturate
silently: with weights up to 127 a sum was off by half. ``pairs`` keeps it within 16 bits, but for
depthwise convolutions, which need no such care
(:func:`sa_export.quantize.layers.is_depthwise`)."""


def scheme_for(target: str) -> Scheme:
    """The scheme of a target.

    Raises:
        InputError: an unknown target.
    """
    if target not in SCHEMES:
        raise bad_value("target", target, f"unknown; choose from {', '.join(get_args(Target))}")
    return SCHEMES[target]


def quantised_weights(
    weights_OIHW: NDArray[np.float32], *, half: bool = False, pairs: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 weights in -127..127 and the scale of each output channel.

    Args:
        weights_OIHW: to quantise; (O, I) of a product.
        half: round the scales up to FP16 first, as the graph will keep them; down would clip.
        pairs: two neighbouring input channels of one sign sum to 128 at most, so that 255 times
            each of them does not leave 16 bits. A channel keeps all of -127..127 where its largest
            weights have small neighbours.

    >>> values, scale = quantised_weights(np.array([[[[0.5, -1.27]]]], np.float32))
    >>> values.tolist(), [round(float(s), 4) for s in scale]
    ([[[[50, -127]]]], [0.01])
    """
    peak_O = np.abs(weights_OIHW).reshape(len(weights_OIHW), -1).max(axis=1)
    if pairs:
        peak_O = _pair_peak(weights_OIHW)
    scale_O = np.maximum(peak_O / 127, _LEAST_SCALE).astype(np.float32)
    if half:
        half_O = scale_O.astype(np.float16)
        half_O = np.where(half_O < scale_O, np.nextafter(half_O, np.float16(np.inf)), half_O)
        scale_O = half_O.astype(np.float32)
    values = np.round(weights_OIHW / scale_O.reshape(-1, *[1] * (weights_OIHW.ndim - 1)))
    return np.clip(values, -127, 127).astype(np.int8), scale_O


def activation_parameters(
    span: tuple[float, float], scheme: Scheme
) -> tuple[np.float32, NDArray[np.uint8] | NDArray[np.int8]]:
    """Scale and zero point of a range that holds zero."""
    low, high = span
    if scheme.unsigned:
        scale = np.float32(max((high - low) / 255, _LEAST_SCALE))
        return scale, np.array(np.clip(round(-low / float(scale)), 0, 255), np.uint8)
    return np.float32(max(high / 127, -low / 127, _LEAST_SCALE)), np.array(0, np.int8)


def _pair_peak(weights_OIHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest sum of an even input channel and the next, of one sign, for each output channel.

    Rounding both adds one at most. Of an odd number of channels any two may meet.
    """
    outputs, inputs, *kernel = weights_OIHW.shape
    if inputs % 2:
        peak_O = np.abs(weights_OIHW).reshape(outputs, -1).max(axis=1)
        # The only channel meets its neighbours in the kernel.
        return np.asarray(2 * peak_O, np.float32)
    split = weights_OIHW.reshape(outputs, inputs // 2, 2, *kernel)
    up, down = (np.maximum(sign * split, 0).sum(axis=2) for sign in (1, -1))
    return np.asarray(np.maximum(up, down).reshape(outputs, -1).max(axis=1), np.float32)
