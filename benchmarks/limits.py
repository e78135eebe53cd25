"""The ceilings of this machine: matrix products at each precision, and memory.

Run: ``python -m benchmarks.limits [--seconds 3] [--out FILE.json]`` on a quiet machine.

``openvino`` is what ``sa-deploy bench`` measures itself against: a chain of 1x1 convolutions.
torch's matrix products of 2048 x 2048 stand beside it, as a second opinion by another library. Each
library runs in a process of its own; the best of all repetitions counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path

from benchmarks.record import record
from sa_runtime.bench.limits import Limits, fastest_s, read_bandwidth

OUT = Path(__file__).parent / "results" / "limits.json"
SIZE = 2048


def openvino_tflops(seconds: float) -> dict[str, float]:
    return Limits().measure(seconds)


def torch_tflops(seconds: float) -> dict[str, float]:
    import torch

    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
        out = torch.empty(SIZE, SIZE, dtype=dtype)
        call = lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # noqa: E731
        found[name] = 2 * SIZE**3 / fastest_s(call, seconds) / 1e12
    return found


def torch_read_gb_s(seconds: float) -> dict[str, float]:
    """Reading with all cores."""
    import torch

    values = torch.ones(2**26)
    return {"all cores": values.numel() * 4 / fastest_s(values.sum, seconds) / 1e9}


def numpy_read_gb_s(seconds: float) -> dict[str, float]:
    return {"one core": read_bandwidth(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each product")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    cases = {
        "openvino_tflops": openvino_tflops,
        "torch_tflops": torch_tflops,
        "read_gb_s_numpy": numpy_read_gb_s,
        "read_gb_s_torch": torch_read_gb_s,
    }
    context = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, float]] = {}
    for name, case in cases.items():
        with context.Pool(1) as pool:
            found[name] = pool.apply(case, (args.seconds,))
        print(name, {key: round(value, 3) for key, value in found[name].items()}, flush=True)
    record("limits/1", {"load_before": round(load, 2), **found}, args.out)


if __name__ == "__main__":
    main()
