"""The schedule: who is measured, in which turns, and what comes out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sa_runtime.artefact.contract import RAW, Contract, require_same_space
from sa_runtime.artefact.formats import files_of
from sa_runtime.bench.client import COMMAND, Client
from sa_runtime.bench.plan import BenchOptions, Planned, check_inputs, plan
from sa_runtime.bench.result import BenchResult, ContenderResult, Series, percentiles
from sa_runtime.bench.samples import bench_crops
from sa_runtime.errors import InputError, RunnerError
from sa_runtime.system.environment import this_environment

ROUNDS = 20
LEAST_ROUNDS = 5
PACE_S = 0.01
LIMIT_S = 0.5
"""The longest time that the roofline is measured for at each precision, before and after the
rounds; the better measurement counts."""

Progress = Callable[[int, int, str], None]
"""Told of (done, total, what comes next)."""


@dataclasses.dataclass(kw_only=True)
class _Contender:
    planned: Planned
    client: Client
    opened: dict[str, Any]
    contract: Contract
    name: str
    rounds: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    latencies: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    pace: dict[int, list[float]] = dataclasses.field(default_factory=dict)


def run_bench(
    models: Sequence[Path],
    options: BenchOptions,
    *,
    on_progress: Progress | None = None,
    command: Sequence[str] = COMMAND,
) -> BenchResult:
    """Measure models side by side; they take turns, so that a busy moment hits all of them.

    Args:
        models: artefacts, those of raw files among them.
        options: what to measure.
        on_progress: called with a sentence about where the run is.
        command: what starts a measuring process.

    Raises:
        InputError: options that do not fit, or models of different input sizes.
        ContractError: vectors of different feature spaces.
        MissingPackageError: a runtime that was asked for is not installed.
        RunnerError: no contender could be opened.
    """
    tell = on_progress or (lambda done, total, text: None)
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        planned, skipped = plan(models, options)
        check_inputs(options)
        contenders = _opened(planned, skipped, stack, command, tell)
        limiter = stack.enter_context(Client(command))
        limit_s = min(LIMIT_S, options.seconds / 2)
        limits = limiter.ask("limits", seconds=limit_s)["tflops"]
        size = contenders[0].contract.input
        crops = bench_crops(options.source, size.height, size.width, folder, options.detections)
        np.save(folder / "crops.npy", crops)
        for contender in contenders:
            contender.client.ask("load", images=str(folder / "crops.npy"))
        _rounds(contenders, limiter, options, tell)
        reference, cosines = _cosines(contenders, options, folder, command)
        again = limiter.ask("limits", seconds=limit_s)["tflops"]
        limits = {precision: max(value, again[precision]) for precision, value in limits.items()}
        results = []
        for number, contender in enumerate(contenders):
            tell(number, len(contenders), f"{contender.name}: retrieval, end to end, memory")
            results.append(
                _result(contender, options, limits, cosines.get(contender.name), len(models) > 1)
            )
    return BenchResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=_plain(
            {**dataclasses.asdict(this_environment(commit=True)), "load_before": round(load, 2)}
        ),
        options={
            field.name: _plain(getattr(options, field.name))
            for field in dataclasses.fields(options)
        },
        limits_tflops={precision: round(value, 4) for precision, value in limits.items()},
        reference=reference,
        contenders=tuple(results),
        skipped=skipped,
    )


def _opened(
    planned: Sequence[Planned],
    skipped: dict[str, str],
    stack: contextlib.ExitStack,
    command: Sequence[str],
    tell: Progress,
) -> list[_Contender]:
    contenders: list[_Contender] = []
    several = len({p.model for p in planned}) > 1
    for number, entry in enumerate(planned):
        tell(number, len(planned), f"open {entry.model.name} on {entry.runtime}")
        client = stack.enter_context(Client(command))
        try:
            opened = client.ask(
                "open", model=str(entry.model), runtime=entry.runtime, options=entry.options
            )
        except RunnerError as exc:
            skipped[f"{entry.model.name} {entry.runtime}"] = str(exc).splitlines()[0]
            continue
        name = ("auto: " if entry.runtime == "auto" else "") + opened["label"]
        if several:
            name = f"{entry.model.name} {name}"
        contract = Contract.from_json(opened["contract"], source=str(entry.model))
        contenders.append(
            _Contender(planned=entry, client=client, opened=opened, contract=contract, name=name)
        )
    if not contenders:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise RunnerError(f"no contender could be opened: {reasons}")
    first = contenders[0]
    for other in contenders[1:]:
        mine, its = first.contract.input, other.contract.input
        if (mine.height, mine.width) != (its.height, its.width):
            raise InputError(
                f"{other.planned.model.name} takes {its.height}x{its.width} pixels and "
                f"{first.planned.model.name} {mine.height}x{mine.width}: measure them apart"
            )
        spaces = first.contract.space, other.contract.space
        if RAW not in spaces:
            require_same_space(*spaces, names=(first.name, other.name))
    return contenders


def _rounds(
    contenders: Sequence[_Contender], limiter: Client, options: BenchOptions, tell: Progress
) -> None:
    """Every contender at every batch size, in bursts that take turns."""
    entries = [
        (contender, batch, _bursts(contender, batch, options))
        for contender in contenders
        for batch in options.batch_sizes
    ]
    most = max(bursts for _, _, bursts in entries)
    for number in range(most):
        tell(number, most, f"round {number + 1} of {most}")
        for contender, batch, bursts in entries:
            # A slow one needs fewer bursts than there are rounds: they are spread evenly.
            if (number + 1) * bursts // most > number * bursts // most:
                before = limiter.ask("pace", seconds=PACE_S)["tflops"]
                _burst(contender, batch, bursts, options)
                after = limiter.ask("pace", seconds=PACE_S)["tflops"]
                contender.pace.setdefault(batch, []).append((before + after) / 2)


def _bursts(contender: _Contender, batch: int, options: BenchOptions) -> int:
    if options.iterations:
        return min(ROUNDS, options.iterations)
    asked = contender.client.ask("run", batch=batch, streams=1, seconds=0, iterations=1)
    fitting = int(options.seconds / max(asked["wall_s"], 1e-9))
    return min(max(fitting, LEAST_ROUNDS), ROUNDS)


def _burst(contender: _Contender, batch: int, bursts: int, options: BenchOptions) -> None:
    done = len(contender.rounds.setdefault(batch, []))
    share = options.iterations * (done + 1) // bursts - options.iterations * done // bursts
    answer = contender.client.ask(
        "run",
        batch=batch,
        streams=options.streams,
        seconds=0 if options.iterations else options.seconds / bursts,
        iterations=max(1, share),
    )
    count = len(answer["latencies_ms"])
    contender.rounds[batch].append(count * batch / answer["wall_s"])
    contender.latencies.setdefault(batch, []).extend(answer["latencies_ms"])


def _cosines(
    contenders: Sequence[_Contender],
    options: BenchOptions,
    folder: Path,
    command: Sequence[str],
) -> tuple[str, dict[str, dict[str, float]]]:
    """Name of the reference, and cosines of the others to its vectors of the crops."""
    crops = str(folder / "crops.npy")

    def vectors(client: Client) -> np.ndarray[Any, np.dtype[np.float64]]:
        client.ask("embed", images=crops, out=str(folder / "vectors.npy"), batch=16)
        found = np.load(folder / "vectors.npy").astype(np.float64)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)  # others' are of any length
        unit: np.ndarray[Any, np.dtype[np.float64]] = found / np.maximum(lengths, 1e-12)
        return unit

    with contextlib.ExitStack() as stack:
        if options.reference is None:
            chosen = next((c for c in contenders if c.opened["precision"] == "fp32"), contenders[0])
            name, expected = chosen.name, vectors(chosen.client)
        else:
            client = stack.enter_context(Client(command))
            opened = client.ask(
                "open", model=str(options.reference), runtime="auto", options={"calibrate": False}
            )
            name = f"{options.reference.name} {opened['label']}"
            space = Contract.from_json(opened["contract"], source=name).space
            mine = contenders[0]
            if RAW not in (mine.contract.space, space):
                require_same_space(mine.contract.space, space, names=(mine.name, name))
            expected = vectors(client)
        cosines = {}
        for contender in contenders:
            if contender.name == name:
                continue
            cosine = np.einsum("nd,nd->n", vectors(contender.client), expected)
            cosines[contender.name] = {"min": float(cosine.min()), "mean": float(cosine.mean())}
    return name, cosines


def _result(
    contender: _Contender,
    options: BenchOptions,
    limits: dict[str, float],
    cosine: dict[str, float] | None,
    several: bool,
) -> ContenderResult:
    client, opened, model = contender.client, contender.opened, contender.planned.model
    retrieval = None
    if options.data_dir is not None and contender.contract.space != RAW:
        retrieval = client.ask(
            "evaluate", dataset=options.dataset, data_dir=str(options.data_dir), batch=32
        )
    end_to_end = _end_to_end(client, options) if options.source != "synthetic" else None
    return ContenderResult(
        name=contender.name,
        model=model.name,
        runtime=opened["runtime"],
        precision=opened["precision"],
        device=opened["device"],
        details=opened["details"],
        reason=opened["reason"] if contender.planned.runtime == "auto" else "",
        size_mb=round(sum(file.stat().st_size for file in files_of(model)) / 1e6, 3),
        open_s=round(opened["open_s"], 4),
        first_s=round(opened["first_s"], 4),
        cosine=cosine,
        retrieval=retrieval,
        end_to_end=end_to_end,
        peak_memory_mb=round(client.ask("memory")["peak_mb"], 1),
        flops=contender.contract.flops,
        series=tuple(_series(contender, batch, options, limits) for batch in options.batch_sizes),
    )


def _series(
    contender: _Contender, batch: int, options: BenchOptions, limits: dict[str, float]
) -> Series:
    speed = median(contender.rounds[batch])
    precision = contender.opened["precision"].partition("+")[0]
    limit = limits.get({"fp16": "bf16"}.get(precision, precision))
    percent = None
    if limit and contender.contract.flops and contender.opened["device"].startswith("cpu"):
        percent = round(100 * speed * contender.contract.flops / (limit * 1e12), 1)
    return Series(
        batch=batch,
        streams=options.streams,
        iterations=len(contender.latencies[batch]),
        images_per_s=round(speed, 3),
        latency_ms={k: round(v, 4) for k, v in percentiles(contender.latencies[batch]).items()},
        percent_of_limit=percent,
        rounds_images_per_s=tuple(round(value, 3) for value in contender.rounds[batch]),
        rounds_pace_tflops=tuple(round(value, 5) for value in contender.pace[batch]),
    )


def _end_to_end(client: Client, options: BenchOptions) -> dict[str, float]:
    found = client.ask(
        "end_to_end",
        source=options.source,
        detections=None if options.detections is None else str(options.detections),
        batch=max(options.batch_sizes),
        seconds=2 * options.seconds,
    )
    stages = ("decode_s", "crop_s", "inference_s", "write_s", "wall_s")
    return {
        "batch": max(options.batch_sizes),
        "rows": found["rows"],
        "rows_per_s": round(found["rows"] / found["wall_s"], 3),
        **{stage: round(found[stage], 4) for stage in stages},
    }


def _plain(value: Any) -> Any:
    """The value as JSON gives it back: lists and text for tuples and paths."""
    return json.loads(json.dumps(value, default=str))
