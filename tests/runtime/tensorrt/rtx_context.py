"""Building with TensorRT-RTX where no GPU is."""

from __future__ import annotations

import dataclasses

from sa_runtime.system.gpus import Machine
from sa_runtime.tensorrt.engines import BuildContext
from sa_runtime.tensorrt.flavour import load_flavour
from sa_runtime.tensorrt.options import BuildOptions, Profile

NO_GPU = Machine(cuda_version=None, gpus=(), problem="none")


def context(**changes: object) -> BuildContext:
    base = BuildContext(flavour=load_flavour("tensorrt-rtx"), machine=NO_GPU)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def options(*, sizes: tuple[int, int, int] = (1, 4, 8), **changes: object) -> BuildOptions:
    low, best, high = sizes
    profile = Profile(min=low, opt=best, max=high)
    return BuildOptions(profile=profile, **changes)  # type: ignore[arg-type]
