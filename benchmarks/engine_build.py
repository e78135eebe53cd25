"""How long TensorRT takes to build engines, and how large they are.

The models take turns, so that a busy moment does not hit one alone; medians are printed. No GPU
is needed with TensorRT-RTX, and no timing cache is used::

    python -m benchmarks.engine_build run/model.onnx run/model.fp16.onnx run/model.int8.onnx
    python -m benchmarks.engine_build run/model.onnx --repeats 5 --json out.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import record
from sa_runtime.system.gpus import probe
from sa_runtime.tensorrt.engines import BuildContext, build_engine
from sa_runtime.tensorrt.flavour import FLAVOURS, choose_flavour, load_flavour
from sa_runtime.tensorrt.graph import read_graph
from sa_runtime.tensorrt.options import BuildOptions, profile_for


def measure(models: list[Path], context: BuildContext, repeats: int) -> list[dict[str, Any]]:
    """Seconds of parsing and building, and the engine's bytes, for each model."""
    graphs = [read_graph(model) for model in models]
    seconds: list[list[float]] = [[] for _ in graphs]
    sizes = [0] * len(graphs)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "model.engine")
        for _ in range(repeats):
            for index, graph in enumerate(graphs):
                options = BuildOptions(profile=profile_for(graph.contract))
                info = build_engine(graph, out, options, context)
                seconds[index].append(info.build_seconds)
                sizes[index] = out.stat().st_size
    return [
        {
            "model": graph.path.name,
            "precision": graph.precision,
            "height": graph.contract.input.height,
            "width": graph.contract.input.width,
            "median_s": round(statistics.median(times), 3),
            "seconds": times,
            "size_bytes": size,
        }
        for graph, times, size in zip(graphs, seconds, sizes, strict=True)
    ]


def main() -> None:
    """Print the medians, or write everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="ONNX files of sa-deploy export")
    parser.add_argument("--repeats", type=int, default=5, help="builds of each model")
    parser.add_argument("--flavour", choices=FLAVOURS, help="what the machine has by default")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    options = parser.parse_args()
    machine = probe()
    flavour = load_flavour(options.flavour or choose_flavour(has_gpu=bool(machine.gpus)))
    rows = measure(options.models, BuildContext(flavour=flavour, machine=machine), options.repeats)
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:.0f} MB"
        print(f"{row['model']}: {row['precision']}, {row['median_s']:.2f} s, {size}")
    if options.json:
        found = {
            "tensorrt": f"{flavour.name} {flavour.version}",
            "repeats": options.repeats,
            "rows": rows,
        }
        record("engine-build/1", found, options.json)


if __name__ == "__main__":
    main()
