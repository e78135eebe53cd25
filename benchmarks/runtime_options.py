"""What the options of the processor runtimes are worth: why the defaults are what they are.

Run: ``python -m benchmarks.runtime_options MODEL.onnx [--out FILE.json]`` on a quiet machine.

Options are measured in turns, each in a process of its own; binding ONNX Runtime's outputs to our
memory, which is no option of the runner, in turns within one session.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.record import record
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.bench.client import Client
from sa_runtime.bench.samples import bench_crops

OUT = Path(__file__).parent / "results" / "runtime_options.json"
CASES: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("onnxruntime", {}, 1),
    ("onnxruntime", {"graph": "extended"}, 1),
    ("onnxruntime", {"graph": "basic"}, 1),
    ("onnxruntime", {"arena": False}, 1),
    ("onnxruntime", {"spin": False}, 1),
    ("openvino", {}, 1),
    ("openvino", {"pinning": False}, 1),
    ("openvino", {}, 2),
    ("openvino", {"hint": "throughput"}, 2),
    ("openvino", {"hint": "throughput"}, 1),
    ("openvino", {"precision": "bf16"}, 1),
    ("openvino", {"precision": "bf16"}, 2),
    ("openvino", {"precision": "bf16", "hint": "throughput"}, 2),
)
"""Runtime, its options, batches in flight."""
BATCHES = (1, 8, 32)
ROUNDS = 9


def options_in_turns(model: Path, crops: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        clients = []
        for runtime, options, streams in CASES:
            client = stack.enter_context(Client())
            client.ask("open", model=str(model), runtime=runtime, options=options)
            client.ask("load", images=str(crops))
            clients.append(client)
            rows.append({"runtime": runtime, "options": options, "streams": streams, "rounds": {}})
        for _ in range(ROUNDS):
            for client, row in zip(clients, rows, strict=True):
                for batch in BATCHES:
                    found = client.ask(
                        "run", batch=batch, streams=row["streams"], seconds=0.5, iterations=2
                    )
                    speed = len(found["latencies_ms"]) * batch / found["wall_s"]
                    row["rounds"].setdefault(str(batch), []).append(round(speed, 2))
    for row in rows:
        row["images_per_s"] = {batch: median(speeds) for batch, speeds in row["rounds"].items()}
    return rows


def binding(model: Path, images: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, Any]:
    """Images a second of plain ``run`` and of outputs bound to one array of ours."""
    import onnxruntime as ort

    contract = read_contract(model)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    result: dict[str, Any] = {}
    for batch in BATCHES:
        crops = np.resize(images, (batch, *images.shape[1:]))
        out = np.empty((batch, contract.output.dim), np.float32)
        bound = session.io_binding()
        bound.bind_cpu_input(contract.input.name, crops)
        bound.bind_output(contract.output.name, "cpu", 0, np.float32, out.shape, out.ctypes.data)

        def plain(crops: Any = crops) -> None:
            session.run([contract.output.name], {contract.input.name: crops})

        def with_binding(bound: Any = bound) -> None:
            session.run_with_iobinding(bound)

        speeds: dict[str, list[float]] = {"run": [], "io binding": []}
        for _ in range(ROUNDS):
            for name, call in (("run", plain), ("io binding", with_binding)):
                call()
                start, count = time.perf_counter(), 0
                while time.perf_counter() - start < 0.5:
                    call()
                    count += 1
                speeds[name].append(count * batch / (time.perf_counter() - start))
        result[str(batch)] = {name: round(median(values), 2) for name, values in speeds.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    spec = read_contract(args.model).input
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = bench_crops("synthetic", spec.height, spec.width, folder, None)
        np.save(folder / "crops.npy", images)
        rows = options_in_turns(args.model, folder / "crops.npy")
    bound = binding(args.model, images)
    for row in rows:
        print(row["runtime"], row["options"], f"x{row['streams']}", row["images_per_s"])
    print("onnxruntime output", bound)
    found = {
        "load_before": round(load, 2),
        "model": args.model.name,
        "network": read_contract(args.model).network,
        "options": rows,
        "onnxruntime_binding": bound,
    }
    record("runtime-options/1", found, args.out)


if __name__ == "__main__":
    main()
