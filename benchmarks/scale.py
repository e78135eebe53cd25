"""What many cameras take, from measured figures, and a simulation of a service's queue.

Run: ``python benchmarks/scale.py [--measured benchmarks/results/serve.json]``.

With ``--measured``, a result of ``benchmarks/serve.py``: the same clients, queue, batches and
delays are simulated with the seconds of a batch that were measured there, and throughput and
latencies stand beside the measured ones. Without, the table of ``docs/scale.md`` is printed: what a
number of camera-hours a day needs, by the core seconds of
``benchmarks/results/embed_throughput.json``.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).with_name("results")


class Simulated(NamedTuple):
    """What a simulated service did."""

    per_s: float
    refused_per_s: float
    p50_ms: float
    p99_ms: float


def simulate(
    *,
    clients: int,
    rate: float,
    seconds: float,
    batch: int,
    delay_s: float,
    queue: int,
    fixed_s: float,
    crop_s: float,
    own_s: float = 0.0,
) -> Simulated:
    """Clients that each ask for one crop, wait for the answer, and ask again.

    Args:
        clients: at a time.
        rate: of all together, as far as answers let them; 0 without a pause.
        seconds: simulated.
        batch: crops in a batch at most.
        delay_s: that a crop waits for others.
        queue: crops that may wait; more are refused at once.
        fixed_s: of a batch, whatever its size.
        crop_s: of each crop in it.
        own_s: of a request outside the queue: transport, parsing.
    """
    pause = clients / rate if rate else 0.0
    # Client by the time of its next request; they start evenly spread.
    events = [(pause * index / clients, index) for index in range(clients)]
    due = [0.0] * clients
    waiting: deque[tuple[float, int]] = deque()
    free_at, refused = 0.0, 0
    latencies: list[float] = []

    def back(at: float, client: int, asked: float) -> None:
        due[client] = max(due[client] + pause, asked)
        heapq.heappush(events, (max(at, due[client]), client))

    while events or waiting:
        arrival = events[0][0] if events else float("inf")
        if waiting:
            full = len(waiting) >= batch
            start = max(free_at, waiting[batch - 1][0] if full else waiting[0][0] + delay_s)
            if start <= arrival:
                taken = [waiting.popleft() for _ in range(min(batch, len(waiting)))]
                free_at = start + fixed_s + crop_s * len(taken)
                for asked, client in taken:
                    latencies.append(free_at - asked + own_s)
                    if free_at < seconds:
                        back(free_at + own_s, client, asked)
                continue
        at, client = heapq.heappop(events)
        if at >= seconds:
            continue
        if len(waiting) >= queue:
            refused += 1
            back(at + max(own_s, 1e-3), client, at)
        else:
            waiting.append((at, client))
    p50, p99 = np.percentile(np.asarray(latencies) * 1e3, [50, 99]).tolist()
    return Simulated(len(latencies) / seconds, refused / seconds, p50, p99)


def beside(measured: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Figures of a run, measured and simulated."""
    batch, delay_s = measured["batch_size"], measured["max_delay_ms"] / 1e3
    whole = np.median([turn["batch_ms"] for turn in measured["bare"]]) / 1e3
    one = measured["one_ms"] / 1e3
    crop_s = (whole - one) / (batch - 1)
    served = float(np.median([turn["per_s"] for turn in measured["service"]]))
    # What a request costs the cores beside its crop, from the throughput at full load.
    own_s = max(1 / served - whole / batch, 0.0)
    common: dict[str, Any] = {"batch": batch, "delay_s": delay_s, "queue": 2 * batch}
    common |= {"fixed_s": one - crop_s, "crop_s": crop_s + own_s, "own_s": own_s}
    full = simulate(clients=2 * batch, rate=0, seconds=60, **common)
    half = simulate(clients=batch, rate=served / 2, seconds=60, **common)
    over = simulate(clients=10 * batch, rate=5 * served, seconds=60, **common)
    return [
        ("full load, answers/s", served, full.per_s),
        ("full load, p50 ms", _median(measured["service"], "p50"), full.p50_ms),
        ("half load, p50 ms", measured["half_load"]["ms"]["p50"], half.p50_ms),
        ("half load, p99 ms", measured["half_load"]["ms"]["p99"], half.p99_ms),
        ("five times, answers/s", measured["overload"]["per_s"], over.per_s),
        ("five times, p99 ms", measured["overload"]["ms"]["p99"], over.p99_ms),
    ]


def _median(turns: list[dict[str, Any]], point: str) -> float:
    return float(np.median([turn["ms"][point] for turn in turns]))


class Cost(NamedTuple):
    """Core seconds of one frame that is decoded, and of one crop cut, run and written."""

    frame_s: float
    crop_s: float


def costs() -> dict[str, Cost]:
    """As measured, by network and runtime."""
    results = json.loads((RESULTS / "embed_throughput.json").read_text())["results"]
    found: dict[str, Cost] = {}
    for name, run in results.items():
        if "embed_core_s" in run:
            decode_s = run["alone_core_s"]["decode"]
            rest_s = run["embed_core_s"] - decode_s
            found[name] = Cost(decode_s / run["frames"], rest_s / run["crops"])
    return found


def needs(
    camera_hours: float, cost: Cost, *, fps: float, looked_at: float, people: float, dim: int
) -> dict[str, float]:
    """What a number of camera-hours a day needs, spread evenly over it.

    Args:
        camera_hours: a day.
        cost: of frames and crops.
        fps: frames a second of a camera, which are all decoded.
        looked_at: frames a second whose people are embedded.
        people: in such a frame, on average.
        dim: numbers of a vector, stored as float16.
    """
    cameras = camera_hours / 24
    crops_per_s = cameras * looked_at * people
    decode, crop = cameras * fps * cost.frame_s, crops_per_s * cost.crop_s
    return {
        "cameras": cameras,
        "crops_per_s": crops_per_s,
        "cores_decoding": decode,
        "cores_embedding": crop,
        "vectors_tb_a_day": crops_per_s * 86_400 * (2 * dim + OTHER_BYTES) / 1e12,
        "video_gbit_per_s": cameras * VIDEO_MBIT / 1e3,
    }


VIDEO_MBIT = 5.0
"""A second of 1280x720 as the cores were measured on."""
OTHER_BYTES = 40
"""Of a row beside its vector."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path)
    options = parser.parse_args()
    if options.measured:
        for run in json.loads(options.measured.read_text())["runs"]:
            print(f"load average {run['load_average']:.1f}")
            for name, found, simulated in beside(run):
                print(f"  {name:24} measured {found:9.1f}   simulated {simulated:9.1f}")
        return
    for name, cost in costs().items():
        print(f"{name}: {1e3 * cost.frame_s:.2f} ms a frame, {1e3 * cost.crop_s:.1f} ms a crop")
        for hours in (1_000, 1_000_000):
            figures = needs(hours, cost, fps=25, looked_at=1, people=3, dim=1536)
            print(f"  {hours:,} camera-hours:", {k: float(f"{v:.3g}") for k, v in figures.items()})


if __name__ == "__main__":
    main()
