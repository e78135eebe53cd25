"""The fused attention pool on a GPU, against the unfused chain and the floor.

The last map of the SA ResNet-50 at 384x128. The fused kernel is the PTX that an engine embeds,
launched with the plugin's grid; the chain is the operator in plain torch, one kernel an operation,
and what ``torch.compile`` makes of it. Every variant is recorded as a CUDA graph that takes one
map after the other, so that launching costs none of them anything; the graphs take turns, medians
count. ``memory``: more maps than the caches hold; ``cache``: one map again and again, as a layer
finds it that has just been computed. The floor is one read of the map and one write of the answer
at the rate of this GPU's own large copy::

    python -m benchmarks.attention_pool_gpu [--compile] [--out FILE.json]

Needs an NVIDIA GPU, torch, Triton and cuda-bindings.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import record
from sa_runtime.system.gpus import probe
from sa_runtime.tensorrt.ptx import kernel_from_pool
from sa_runtime.tensorrt.tactics import TACTICS, Element, Pool, tactics_for

OUT = Path(__file__).parent / "results" / "attention_pool_gpu.json"
CHANNELS, HEIGHT, WIDTH, PARTS = 2048, 24, 8, 6
ELEMENTS: tuple[Element, ...] = ("fp16", "fp32")
BATCHES = (1, 8, 32, 64)
BEYOND_CACHE = 256 << 20  # bytes of maps in turn; the L2 of an H100 holds 50 MB


def fused(pool: Pool, tactic: int) -> Callable[[Any, Any], None]:
    """``launch(x, y)`` of an embedded kernel into torch's current stream."""
    import torch
    from cuda.bindings import driver

    compute_capability = 10 * torch.cuda.get_device_capability()[0]
    compute_capability += torch.cuda.get_device_capability()[1]
    kernel = kernel_from_pool(pool, tactic, compute_capability)

    def call(name: str, *arguments: Any) -> Any:
        status, *results = getattr(driver, name)(*arguments)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{name}: {status}")
        return results[0] if results else None

    module = call("cuModuleLoadData", kernel.ptx.encode() + b"\0")
    function = call("cuModuleGetFunction", module, kernel.name.encode())

    def launch(x: Any, y: Any) -> None:
        arguments = ((x.data_ptr(), y.data_ptr()), (ctypes.c_void_p, ctypes.c_void_p))
        grid = (len(x), TACTICS[tactic - 1].splits, 1)
        block = (kernel.threads, 1, 1)
        stream = torch.cuda.current_stream().cuda_stream
        call("cuLaunchKernel", function, *grid, *block, kernel.shared_bytes, stream, arguments, 0)

    return launch


def chain(how: Callable[..., Any]) -> Callable[[Any, Any], None]:
    """``launch(x, y)`` of the operator in torch operations."""

    def launch(x: Any, y: Any) -> None:
        y.copy_(how(x, PARTS, "sum"))

    return launch


def recorded(launch: Callable[[Any, Any], None], maps: list[Any], y: Any) -> Any:
    """A graph that takes every map once."""
    import torch

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        for _ in range(2):
            launch(maps[0], y)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for x in maps:
            launch(x, y)
    return graph


def in_turns(graphs: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of one replay of each graph, round by round."""
    import torch

    event: Any = torch.cuda.Event
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for round_ in range(3 + rounds):
        for name, graph in graphs.items():
            start, end = event(enable_timing=True), event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            if round_ >= 3:
                times[name].append(start.elapsed_time(end))
    return times


def copy_gb_s(rounds: int) -> float:
    """Bytes read and written a second by a copy within the device, 10^9."""
    import torch

    source = torch.rand(1 << 28, device="cuda")
    target = torch.empty_like(source)
    graph = recorded(lambda x, y: y.copy_(x), [source], target)
    median_ms = statistics.median(in_turns({"copy": graph}, rounds)["copy"])
    return 2 * source.numel() * 4 / median_ms / 1e6


def measure(
    element: Element, batch: int, where: str, chains: dict[str, Any], rounds: int
) -> list[dict[str, Any]]:
    """One row a variant for a type and a batch; the answers are compared first."""
    import torch

    from sa_runtime.attention_pool import attention_pool

    kind = {"fp16": torch.float16, "fp32": torch.float32}[element]
    pool = Pool(
        channels=CHANNELS,
        height=HEIGHT,
        width=WIDTH,
        parts=PARTS,
        normalize="sum",
        element=element,
    )
    size = batch * CHANNELS * HEIGHT * WIDTH * kind.itemsize
    count = max(8, -(-BEYOND_CACHE // size))
    shape = (batch, CHANNELS, HEIGHT, WIDTH)
    generator = torch.Generator("cuda").manual_seed(0)
    maps = [torch.rand(shape, device="cuda", generator=generator).to(kind) for _ in range(count)]
    if where == "cache":
        maps = maps[:1] * count
    variants = {f"fused, tactic {number}": fused(pool, number) for number in tactics_for(pool)}
    variants |= {name: chain(how) for name, how in chains.items()}
    y = torch.empty((batch, CHANNELS, PARTS), device="cuda", dtype=kind)
    wanted = torch.from_numpy(attention_pool(maps[-1][:2].float().cpu().numpy(), PARTS))
    for name, launch in variants.items():
        y.fill_(float("nan"))
        launch(maps[-1], y)
        if not torch.allclose(y[:2].float().cpu(), wanted, rtol=2e-3, atol=2e-3):
            raise RuntimeError(f"{name}: not the answer of the reference")
        if not bool(torch.isfinite(y).all()):
            raise RuntimeError(f"{name}: not every value was written")
    graphs = {name: recorded(launch, maps, y) for name, launch in variants.items()}
    times = in_turns(graphs, rounds)
    return [
        {
            "type": element,
            "batch": batch,
            "map": where,
            "how": name,
            "bytes": size + y.numel() * kind.itemsize,
            "median_us": round(statistics.median(values) / count * 1e3, 3),
            "p90_us": round(statistics.quantiles(values, n=10)[-1] / count * 1e3, 3),
            "n": rounds,
            "maps_a_replay": count,
        }
        for name, values in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--compile", action="store_true", help="torch.compile's chain as well")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--commit", default="", help="stamp, where there is no git")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    machine = probe()
    if not machine.gpus:
        raise SystemExit(f"skipped: this measures an NVIDIA GPU: {machine.problem}")
    import torch
    import triton

    from sa_training.attention_pool import attention_pool_reference

    bandwidth = copy_gb_s(arguments.rounds)
    rows: list[dict[str, Any]] = []
    for element in ELEMENTS:
        for batch in BATCHES:
            chains: dict[str, Any] = {"chain": attention_pool_reference}
            if arguments.compile:
                torch.compiler.reset()
                chains["chain, torch.compile"] = torch.compile(attention_pool_reference)
            for where in ("memory", "cache"):
                rows += measure(element, batch, where, chains, arguments.rounds)
    for row in rows:
        row["floor_us"] = round(row["bytes"] / bandwidth / 1e3, 3)
        row["times_the_floor"] = round(row["median_us"] / row["floor_us"], 2)
        print(*(f"{key}={value}" for key, value in row.items()))
    found = {
        "cuda_of_driver": machine.cuda_version,
        "triton": triton.__version__,
        "shape": [CHANNELS, HEIGHT, WIDTH, PARTS],
        "copy_gb_s": round(bandwidth, 1),
        "rows": rows,
    }
    record("attention-pool-gpu/1", found, arguments.out, commit=arguments.commit)


if __name__ == "__main__":
    main()
