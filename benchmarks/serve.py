"""What a service costs over bare inference, what it does under too much load, and another server.

Run: ``python benchmarks/serve.py MODEL.onnx [--out FILE.json] [--litserve PYTHON]`` with `hey
<https://github.com/rakyll/hey>`_ on the path; about two minutes on two cores.

In one run, in turns: the runner by itself over full batches, ``sa-deploy serve`` of the same file
over loopback, asked by ``hey`` for ``--people`` crops a request in binary, and then for five times
as many as it answered, with a queue of a batch for each lane and one more. What comes before a full
queue is worked off once does not count: as long a burst may last. Then, at half of the first rate,
how long answers take.

All connections of a ``hey`` that is given a rate ask at the same moments. Several of them, begun
one after the other, ask evenly, as many clients that know nothing of each other do; with
``--waves 1`` all ask at once.

Clients and service share the processor's cores, and what either takes of them is noted. With
``--apart`` the service and the bare runner, of as many threads, have the first core and the clients
the others, so that what the load costs whoever makes it is taken from neither.

Bare is the better of two: one batch at a time on all cores, and as many at a time as the service
has lanes, each with its threads.

``--litserve`` names the Python of an environment that has LitServe: the same ONNX file there, in
batches of the same size and delay, by as many workers with as many threads, asked in the same way.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import dataclasses
import io
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from sa_runtime.runners.base import BaseRunner
from sa_runtime.runners.opening import open_runner
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

SCHEMA = "sa-deploy.benchmarks.serve/1"
TURNS = 3
JSON = "application/json"
LITSERVE = Path(__file__).with_name("peer_workers") / "litserve_onnx.py"


def bare(runner: BaseRunner, batch: int, seconds: float, lanes: int = 1) -> dict[str, float]:
    """Crops a second in full batches, so many at a time, and milliseconds of one."""
    spec = runner.contract.input
    shape = (batch, spec.height, spec.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    runner.run(images)
    until = time.perf_counter() + seconds

    def lane(_: int) -> list[float]:
        times: list[float] = []
        while time.perf_counter() < until or len(times) < 3:
            before = time.perf_counter()
            runner.run(images)
            times.append(time.perf_counter() - before)
        return times

    start = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        times = [one for found in pool.map(lane, range(lanes)) for one in found]
    took = time.perf_counter() - start
    return {"crops_per_s": batch * len(times) / took, "batch_ms": 1e3 * float(np.median(times))}


def cpu_s(process: int) -> float:
    """Seconds of all cores that a process has taken; Linux alone says so."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hey(
    url: str,
    body: Path,
    headers: Sequence[str],
    *,
    clients: int,
    seconds: float,
    rate: float = 0,
    kind: str = "application/octet-stream",
    skip_s: float = 0.0,
    cores: set[int] | None = None,
    waves: int = 1,
) -> dict[str, Any]:
    """Requests for some seconds, as fast as answers come or at a rate; what came back.

    The first ``skip_s``, beyond these seconds, do not count. At a rate, connections ask in so many
    ``waves``, evenly one after the other.
    """
    seconds += skip_s
    waves = min(waves, clients) if rate else 1
    words = ["-z", f"{seconds:g}s", "-m", "POST", "-D", str(body), "-T", kind, "-t", "30"]
    words += ["-o", "csv", *(word for header in headers for word in ("-H", header))]
    words += ["-q", f"{rate / clients:.6f}"] if rate else []
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()

    def wave(number: int) -> list[dict[str, str]]:
        if number:
            time.sleep(number / waves * clients / rate)
        later_s = time.perf_counter() - begun
        some = clients // waves + (number < clients % waves)
        command = [*pinned, "hey", "-c", str(some), *words, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = list(csv.DictReader(io.StringIO(done.stdout)))
        return [{**row, "offset": f"{float(row['offset']) + later_s}"} for row in found]

    with ThreadPoolExecutor(waves) as pool:
        rows = [row for found in pool.map(wave, range(waves)) for row in found]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    answered = [row for row in rows if row["status-code"] == "200"]
    ends = [float(row["offset"]) + float(row["response-time"]) for row in answered]
    within = [end for end in ends if skip_s <= end <= seconds]
    rows = [row for row in rows if skip_s <= float(row["offset"]) <= seconds]
    counted_s = seconds - skip_s
    found: dict[str, Any] = {
        "answers": dict(Counter(row["status-code"] for row in rows)),
        "per_s": len(within) / counted_s,
        "client_cores": took_s / seconds,
    }
    for name, status in (("ms", "200"), ("refused_ms", "429")):
        times = [1e3 * float(row["response-time"]) for row in rows if row["status-code"] == status]
        if times:
            points = np.percentile(times, [50, 90, 99], method="inverted_cdf")
            found[name] = dict(zip(("p50", "p90", "p99"), map(float, points), strict=True))
    return found


@contextlib.contextmanager
def service(model: Path, *words: object) -> Iterator[tuple[str, int]]:
    """``sa-deploy serve`` in a process of its own: its address, and its id."""
    command = [sys.executable, "-m", "sa_deploy", "serve", f"model={model}", "--port", "0"]
    command += ["--json", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("}"):
                break
        try:
            yield json.loads(said)["url"], process.pid
        finally:
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def litserve(
    python: str, model: Path, batch: int, delay_ms: float, lanes: int, threads: int
) -> Iterator[str]:
    """The same ONNX file behind LitServe: its address."""
    port = 8765
    given = (model, batch, delay_ms / 1000, port, lanes, threads)
    command = [python, str(LITSERVE), *map(str, given)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 40
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def crop_request(runner: BaseRunner, people: int, folder: Path) -> tuple[Path, list[str], Path]:
    """The body of a request for crops by the protocol, its headers, and a crop in base64."""
    spec = runner.contract.input
    shape = [people, spec.height, spec.width, 3]
    crop = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    tensor = {
        "name": spec.name,
        "shape": shape,
        "datatype": "UINT8",
        "parameters": {"binary_data_size": crop.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body, plain = folder / "request.bin", folder / "crop.json"
    body.write_bytes(head + crop.tobytes())
    plain.write_text(json.dumps({"crop": base64.b64encode(crop[0].tobytes()).decode()}))
    return body, [f"Inference-Header-Content-Length: {len(head)}"], plain


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The whole run."""
    batch, delay_ms, seconds = options.batch_size, options.max_delay_ms, options.seconds
    lanes, threads, people = options.lanes, options.threads, options.people
    queue = (lanes + 1) * batch
    words = ["--runtime", options.runtime, "--batch-size", batch, "--max-delay-ms", delay_ms]
    words += ["--lanes", lanes, "--threads", threads, "--max-images", batch]
    words += ["--queue-crops", queue, "--timeout-ms", 30_000, "--max-requests", 1000]
    every = os.sched_getaffinity(0)
    if options.apart:
        os.sched_setaffinity(0, {min(every)})  # this process, and the service that it starts
    theirs: dict[str, Any] = {"cores": every - {min(every)} if options.apart else every}
    theirs["waves"] = options.waves
    with (
        tempfile.TemporaryDirectory() as name,
        open_runner(options.model, options.runtime) as runner,
        open_runner(options.model, options.runtime, threads=threads) as laned,
        service(options.model, *words) as (url, process),
    ):
        body, headers, plain = crop_request(runner, people, Path(name))
        ask = f"{url}/v2/models/model/infer"
        # As many as are being run and as many behind them: when a batch is taken, none is refused.
        clients = max(2 * lanes * batch // people, 1)
        many = min(5 * clients, 500)
        some = max(batch // people, 1)
        rate = hey(ask, body, headers, clients=clients, seconds=2, **theirs)["per_s"]
        alone: list[dict[str, float]] = []
        in_lanes: list[dict[str, float]] = []
        singles: list[float] = []
        served: list[dict[str, Any]] = []
        over: list[dict[str, Any]] = []
        for _ in range(TURNS):
            alone.append(bare(laned if options.apart else runner, batch, seconds))
            if not options.apart:
                in_lanes.append(bare(laned, batch, seconds, lanes))
            singles.append(bare(laned if options.apart else runner, 1, 1.0)["batch_ms"])
            for found, given in (
                (served, {"clients": clients}),
                (over, {"clients": many, "rate": 5 * rate, "skip_s": 1 + queue / (people * rate)}),
            ):
                before = cpu_s(process)
                found.append(hey(ask, body, headers, seconds=seconds, **given, **theirs))
                took_s = seconds + given.get("skip_s", 0.0)
                found[-1]["service_cores"] = (cpu_s(process) - before) / took_s
            rate = served[-1]["per_s"]
        rate = statistics.median(turn["per_s"] for turn in served)
        batch_ms = statistics.median(turn["batch_ms"] for turn in alone)
        half = hey(ask, body, headers, clients=some, seconds=3 * seconds, rate=rate / 2, **theirs)
        peer: dict[str, Any] = {}
        if options.litserve:
            there = (options.litserve, options.model, batch, delay_ms, lanes, threads)
            with litserve(*there) as other:
                ask = f"{other}/predict"
                hey(ask, plain, [], clients=clients, seconds=2, kind=JSON)
                peer = hey(ask, plain, [], clients=clients, seconds=seconds, kind=JSON)
    bound = delay_ms + 2 * batch_ms
    best = max(
        statistics.median(turn["crops_per_s"] for turn in turns)
        for turns in (alone, in_lanes)
        if turns
    )
    return {
        "runner": runner.label,
        "batch_size": batch,
        "max_delay_ms": delay_ms,
        "lanes": lanes,
        "threads": threads,
        "people": people,
        "apart": options.apart,
        "waves": options.waves,
        "queue_crops": queue,
        "clients": clients,
        "bare": alone,
        "bare_in_lanes": in_lanes,
        "one_ms": statistics.median(singles),
        "service": served,
        "ratio": people * rate / best,
        "half_load": {**half, "bound_ms": bound},
        "overload": beside(over, served),
        "litserve": peer,
    }


def beside(over: list[dict[str, Any]], full: list[dict[str, Any]]) -> dict[str, Any]:
    """Five times the load, beside full load of the same turn: medians over the turns."""

    def median(turns: list[dict[str, Any]], *names: str) -> float:
        found = []
        for turn in turns:
            value: Any = turn
            for name in names:
                value = value.get(name, {})
            found.append(value or 0.0)
        return float(statistics.median(found))

    points = ("p50", "p90", "p99")
    ratios = [o["per_s"] / f["per_s"] for o, f in zip(over, full, strict=True)]
    grown = [o["ms"]["p99"] / f["ms"]["p99"] for o, f in zip(over, full, strict=True)]
    return {
        "turns": over,
        "answers": dict(sum((Counter(turn["answers"]) for turn in over), Counter())),
        "per_s": median(over, "per_s"),
        "ms": {point: median(over, "ms", point) for point in points},
        "refused_ms": {point: median(over, "refused_ms", point) for point in points},
        "asked_per_s": 5 * median(full, "per_s"),
        "throughput_ratio": statistics.median(ratios),
        "full_load_p99_ms": median(full, "ms", "p99"),
        "p99_ratio": statistics.median(grown),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-delay-ms", type=float, default=20.0)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of a lane")
    parser.add_argument("--people", type=int, default=1, help="crops in a request")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--apart", action="store_true", help="clients have cores of their own")
    parser.add_argument("--waves", type=int, default=8, help="in which connections ask")
    parser.add_argument("--litserve", help="Python of an environment that has LitServe")
    parser.add_argument("--out", type=Path, help="file that the run is added to")
    options = parser.parse_args()
    run = {
        "model": options.model.name,
        "load_average": os.getloadavg()[0],
        **measure(options),
        "environment": dataclasses.asdict(this_environment(commit=True)),
    }
    result: dict[str, Any] = {"schema": SCHEMA, "runs": []}
    if options.out and options.out.exists():
        result = json.loads(options.out.read_text())
    result["runs"].append(run)
    print(json.dumps(run, indent=1))
    if options.out:
        with atomic_path(options.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
