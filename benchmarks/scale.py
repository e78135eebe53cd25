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
    crop_s: float,
    lanes: int = 1,
    fixed_s: float = 0.0,
    own_s: float = 0.0,
    refuse_s: float = 0.0,
    few: int | None = None,
    waves: int = 1,
    skip_s: float = 0.0,
) -> Simulated:
    """Clients that each ask for one crop, wait for the answer, and ask again.

    Args:
        clients: at a time.
        rate: of all together, as far as answers let them; 0 without a pause.
        seconds: simulated.
        batch: crops in a batch at most.
        delay_s: that a crop waits for others.
        queue: crops that may wait; more are refused at once.
        crop_s: of each crop in a batch.
        lanes: batches that are run at a time; those that are free share what waits.
        fixed_s: of a batch, whatever its size.
        own_s: of a request outside the queue: transport, parsing.
        refuse_s: that a refusal takes from a lane.
        few: crops that may wait after somebody was refused, until a lane has had nothing to do for
            half a batch; the whole queue by default.
        waves: in which clients ask, evenly one after the other; all at the same moments by default.
        skip_s: of these seconds, that do not count.
    """
    pause = clients / rate if rate else 0.0
    # Client by the time of its next request.
    due = [pause * (index % waves) / waves for index in range(clients)]
    events = [(at, index) for index, at in enumerate(due)]
    waiting: deque[tuple[float, int]] = deque()
    free_at, refused, shared_at, short = [0.0] * lanes, 0, float("inf"), False
    latencies: list[float] = []
    answered = 0

    def back(at: float, client: int, asked: float) -> None:
        due[client] = max(due[client] + pause, asked)
        heapq.heappush(events, (max(at, due[client]), client))

    while events or waiting:
        arrival = events[0][0] if events else float("inf")
        if waiting:
            full = len(waiting) >= batch
            ready = waiting[batch - 1][0] if full else waiting[0][0] + delay_s
            start = max(min(free_at), min(ready, shared_at))
            if start <= arrival:
                idle = sum(at <= start for at in free_at)
                share = min(batch, -(-len(waiting) // idle))
                shared_at = start if share < min(batch, len(waiting)) else float("inf")
                taken = [waiting.popleft() for _ in range(share)]
                done = start + fixed_s + crop_s * len(taken)
                free_at[free_at.index(min(free_at))] = done
                answered += len(taken) * (skip_s <= done <= seconds)
                for asked, client in taken:
                    if asked >= skip_s:
                        latencies.append(done - asked + own_s)
                    if done < seconds:
                        back(done + own_s, client, asked)
                continue
        at, client = heapq.heappop(events)
        if at >= seconds:
            continue
        if not waiting and at - min(free_at) > batch * crop_s / 2:
            short = False
        if len(waiting) >= (few if short and few else queue):
            refused += at >= skip_s
            short = True
            busy = min(free_at)
            free_at[free_at.index(busy)] = max(busy, at) + refuse_s
            back(at + max(own_s, 1e-3), client, at)
        else:
            waiting.append((at, client))
    p50, p99 = np.percentile(np.asarray(latencies) * 1e3, [50, 99]).tolist()
    counted_s = seconds - skip_s
    return Simulated(answered / counted_s, refused / counted_s, p50, p99)


REFUSAL, OF_BOTH = 0.3, 0.4
"""What a refusal costs, as a share of what an answer costs beside its crop: of the thread that
reads requests, at five times and at full load; and with the clients, on the same cores."""


def beside(measured: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Figures of a run with one crop a request, measured and simulated."""
    batch, delay_s = measured["batch_size"], measured["max_delay_ms"] / 1e3
    lanes = measured["lanes"]
    apart = measured.get("apart", False)
    turns = measured["bare_in_lanes"] or measured["bare"]
    bare = float(np.median([turn["crops_per_s"] for turn in turns]))
    served = float(np.median([turn["per_s"] for turn in measured["service"]]))
    # What a request takes from a lane beside its crop, from the throughput at full load.
    own_s = max(lanes / served - lanes / bare, 0.0)
    queue, clients = measured["queue_crops"], measured["clients"]
    common: dict[str, Any] = {"batch": batch, "delay_s": delay_s, "queue": queue, "lanes": lanes}
    common |= {"crop_s": lanes / bare + own_s, "own_s": own_s}
    common["refuse_s"] = (REFUSAL if apart else OF_BOTH) * own_s
    common |= {"few": lanes * batch, "waves": measured["waves"]}
    full = simulate(clients=clients, rate=0, seconds=60, **common)
    half = simulate(clients=batch, rate=served / 2, seconds=60, **common)
    many = min(5 * clients, 500)
    over = simulate(clients=many, rate=5 * served, seconds=60, skip_s=1 + queue / served, **common)
    return [
        ("full load, answers/s", served, full.per_s),
        ("full load, p50 ms", _median(measured["service"], "p50"), full.p50_ms),
        ("half load, p50 ms", measured["half_load"]["ms"]["p50"], half.p50_ms),
        ("half load, p99 ms", measured["half_load"]["ms"]["p99"], half.p99_ms),
        ("five times, answers/s", measured["overload"]["per_s"], over.per_s),
        ("five times, p50 ms", measured["overload"]["ms"]["p50"], over.p50_ms),
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
            if run["people"] != 1:
                continue
            print(f"{run['model']}, load average {run['load_average']:.1f}")
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
