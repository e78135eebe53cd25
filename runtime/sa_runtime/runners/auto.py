"""``--runtime auto``: the fastest runtime that opens an artefact here and keeps its vectors.

Every installed runtime, and every precision that the machine may lower it to, is timed for about a
second on single crops and on small batches. What was found is remembered for this artefact, machine
and set of package versions, so that only the first opening pays for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.canary import Canary, canary_of, least_cosine
from sa_runtime.artefact.formats import ARTEFACTS, files_of
from sa_runtime.errors import InputError, MissingPackageError, RunnerError
from sa_runtime.runners.base import BaseRunner, Options
from sa_runtime.runners.table import open_on, option_names, runner_class, runtimes_for
from sa_runtime.system.cache import cache_dir
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

_log = logging.getLogger(__name__)

CALIBRATE_VARIABLE = "SA_DEPLOY_CALIBRATE"
"""``0`` in the environment: nothing is measured, the first installed runtime is taken."""
LOWERED_COSINE = 0.999
"""Least cosine, on the worst canary crop, of a precision that the runtime lowered."""
OWN_COSINE = 0.99
"""Least cosine at the artefact's own precision: below it the runtime computes something else."""
BATCHES = (1, 4)
"""Timed: one crop, where latency counts, and a batch large enough to fill a processor."""
BUDGET_S = 1.0
TURNS = 2
RUNS = 2
MARGIN = 1.02
"""How much faster a candidate must be than those before it: noise must not decide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A runtime with options; ``lowered`` where its precision is below the artefact's own."""

    runtime: str
    options: Options
    lowered: bool = False


@dataclasses.dataclass(kw_only=True)
class Choice:
    """What was found.

    Attributes:
        runtime: name of the one taken.
        options: what it is opened with.
        measured: images a second by the runner's identity.
        cosine: to the artefact's own precision by identity, of those that lower it.
        skipped: why others were not taken, by identity.
        when: date of the measurement.
    """

    runtime: str
    options: Options
    measured: dict[str, float]
    cosine: dict[str, float]
    skipped: dict[str, str]
    when: str

    def reason(self, label: str) -> str:
        """Why it was taken, as one line."""
        others = [
            f"{name} {speed:.1f}"
            for name, speed in sorted(self.measured.items(), key=lambda item: -item[1])
            if name != label
        ]
        sizes = " and ".join(map(str, BATCHES))
        text = f"{label}: {self.measured[label]:.1f} images/s in batches of {sizes}"
        text += f" ({', '.join(others)})" if others else ""
        if label in self.cosine:
            text += f", cosine {self.cosine[label]:.5f} on the canary crops"
        text += "".join(f"; {name} not taken: {why}" for name, why in self.skipped.items())
        return f"{text}; measured {self.when}"


def open_fastest(
    path: Path,
    *,
    calibrate: bool | None = None,
    lower_precision: bool = True,
    **options: Any,
) -> BaseRunner:
    """Open an artefact on the fastest runtime; its ``reason`` says which and why.

    A precision lower than the artefact's own is taken only where the artefact carries canary crops
    (:mod:`sa_runtime.artefact.canary`) and their vectors keep a cosine of :data:`LOWERED_COSINE`.

    Args:
        path: the artefact.
        calibrate: measure, or use what was measured before; ``None`` does so unless
            :data:`CALIBRATE_VARIABLE` is ``0``. Without it the first installed runtime is taken at
            the artefact's own precision.
        lower_precision: whether a lower precision may be taken at all.
        options: for the runners; runtimes that do not know one are left out.

    Raises:
        InputError: a file or an option that no runtime takes.
        MissingPackageError: none of the runtimes is installed.
        RunnerError: none of them opens the file, or all give other vectors than the artefact says.
    """
    candidates, skipped = _candidates(path, options)
    if not lower_precision:
        candidates = [candidate for candidate in candidates if not candidate.lowered]
    if calibrate is None:
        calibrate = os.environ.get(CALIBRATE_VARIABLE, "1") != "0"
    first = candidates[0]
    if len(candidates) == 1 or not calibrate:
        runner = open_on(first.runtime, path, **first.options)
        why = "nothing was measured" if len(candidates) > 1 else "nothing else fits"
        left_out = "".join(f"; {name} not taken: {text}" for name, text in skipped.items())
        runner.reason = f"{runner.identity}: first choice for {path.suffix}, {why}{left_out}"
        return runner
    memory = _memory(path, candidates)
    choice = _remembered(memory)
    if choice is not None:
        with contextlib.suppress(RunnerError, InputError):
            runner = _opened(path, choice)
            _log.info("%s: the choice of %s is read from %s", path, choice.when, memory)
            return runner
    _log.info("%s: measuring %d ways to run it", path, len(candidates))
    choice = _calibrated(path, candidates, skipped)
    for name, speed in choice.measured.items():
        _log.info("%s: %s runs %.1f images/s", path, name, speed, extra={"images_per_s": speed})
    for name, why in choice.skipped.items():
        _log.info("%s: %s is left out: %s", path, name, why)
    with contextlib.suppress(OSError), atomic_path(memory) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(choice), indent=2) + "\n")
    return _opened(path, choice)


def _opened(path: Path, choice: Choice) -> BaseRunner:
    runner = open_on(choice.runtime, path, **choice.options)
    if runner.identity not in choice.measured:  # of a version with other names, or edited
        runner.close()
        raise RunnerError(f"{path}: {runner.identity} was never measured")
    runner.reason = choice.reason(runner.identity)
    return runner


def _candidates(path: Path, options: Options) -> tuple[list[Candidate], dict[str, str]]:
    """Installed runtimes with their variants, in the table's order, and why others are left out."""
    found: list[Candidate] = []
    skipped: dict[str, str] = {}
    missing: MissingPackageError | None = None
    known: set[str] = set()
    for runtime in runtimes_for(path):
        try:
            kind = runner_class(runtime)
            variants = kind.variants(path)
        except MissingPackageError as exc:
            missing = missing or exc
            skipped[runtime] = "not installed"
            continue
        names = option_names(kind)
        known |= set(names)
        if unknown := [name for name in options if name not in names]:
            skipped[runtime] = f"it has no option {', '.join(unknown)}"
            continue
        for variant in variants:
            merged = {**variant, **options}
            lowered = "precision" not in options and variant.get("precision") != variants[0].get(
                "precision"
            )
            candidate = Candidate(runtime=runtime, options=merged, lowered=lowered)
            if all(other.options != merged for other in found if other.runtime == runtime):
                found.append(candidate)
    if not found and missing is not None and not known:
        raise missing
    if not found:
        raise InputError(
            f"{path}: no runtime of {path.suffix} files takes the options {', '.join(options)}; "
            f"expected some of {', '.join(sorted(known))}"
        )
    return found, skipped


def _memory(path: Path, candidates: Sequence[Candidate]) -> Path:
    """Where the choice for this artefact, machine and set of candidates is remembered."""
    digest = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    digest.update(this_environment().fingerprint.encode())
    digest.update(repr([dataclasses.astuple(candidate) for candidate in candidates]).encode())
    return cache_dir() / "auto" / f"{digest.hexdigest()[:32]}.json"


def _remembered(memory: Path) -> Choice | None:
    try:
        choice = Choice(**json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    tables = (choice.options, choice.measured, choice.cosine, choice.skipped)
    whole = all(isinstance(table, dict) for table in tables) and choice.measured
    speeds = (*choice.measured.values(), *choice.cosine.values()) if whole else ()
    return choice if speeds and all(isinstance(speed, float) for speed in speeds) else None


def _calibrated(path: Path, candidates: Sequence[Candidate], skipped: dict[str, str]) -> Choice:
    """Time the candidates in turn; those that fail or give other vectors are left out."""
    canary = canary_of(path) if path.suffix in ARTEFACTS else None
    skipped = dict(skipped)
    cosine: dict[str, float] = {}
    own: dict[str, Embeddings] = {}
    entries: list[tuple[Candidate, BaseRunner]] = []
    with contextlib.ExitStack() as stack:
        for candidate in candidates:
            try:
                runner = stack.enter_context(open_on(candidate.runtime, path, **candidate.options))
                problem = _problem(runner, candidate, canary, own, cosine)
            except (RunnerError, InputError) as exc:  # InputError: a device it does not know
                where = str(candidate.options.get("device", "cpu"))
                on = "" if where.lower() == "cpu" else f" on {where}"
                skipped[candidate.runtime + on] = str(exc).splitlines()[0]
                continue
            if problem:
                skipped[runner.identity] = problem
            else:
                entries.append((candidate, runner))
        if not entries:
            whys = "; ".join(f"{name}: {why}" for name, why in skipped.items())
            raise RunnerError(f"{path}: no runtime can be taken: {whys}")
        speeds = _speeds([runner for _, runner in entries], canary)
        best = 0
        for index, speed in enumerate(speeds):
            if speed > MARGIN * speeds[best]:
                best = index
        measured = {runner.identity: s for (_, runner), s in zip(entries, speeds, strict=True)}
    return Choice(
        runtime=entries[best][0].runtime,
        options=entries[best][0].options,
        measured=measured,
        cosine=cosine,
        skipped=skipped,
        when=time.strftime("%Y-%m-%d"),
    )


def _problem(
    runner: BaseRunner,
    candidate: Candidate,
    canary: Canary | None,
    own: dict[str, Embeddings],
    cosine: dict[str, float],
) -> str:
    """Why a runner may not be taken, judged by the canary crops; empty where it may."""
    if canary is None:
        return "the artefact carries no canary crops to judge it by" if candidate.lowered else ""
    vectors = runner.run(canary.images)
    if candidate.lowered:
        if candidate.runtime not in own:
            return "its own precision could not be run"
        cosine[runner.identity] = least_cosine(vectors, own[candidate.runtime])
        if cosine[runner.identity] <= LOWERED_COSINE:
            return f"cosine {cosine[runner.identity]:.5f} on the canary crops"
        return ""
    if vectors.shape == canary.vectors.shape:
        found = least_cosine(vectors, canary.vectors)
        if found <= OWN_COSINE:
            return f"cosine {found:.5f} to the vectors in the artefact"
    own[candidate.runtime] = vectors
    return ""


def _speeds(runners: Sequence[BaseRunner], canary: Canary | None) -> list[float]:
    """Images a second of each at its fastest: other work on the machine only slows one down.

    They take turns, so that a busy moment does not hit one alone. The first run of a turn is not
    counted: the threads of the runtime before it may still be spinning.
    """
    batches = [[_batch(runner, canary, size) for size in BATCHES] for runner in runners]
    seconds = [[float("inf")] * len(BATCHES) for _ in runners]
    start, turns = time.perf_counter(), 0
    while turns < TURNS or time.perf_counter() - start < BUDGET_S:
        for runner, sizes, fastest in zip(runners, batches, seconds, strict=True):
            for index, batch in enumerate(sizes):
                runner.run(batch)
                for _ in range(RUNS):
                    before = time.perf_counter()
                    runner.run(batch)
                    fastest[index] = min(fastest[index], time.perf_counter() - before)
        turns += 1
    return [
        sum(map(len, sizes)) / sum(fastest) for sizes, fastest in zip(batches, seconds, strict=True)
    ]


def _batch(runner: BaseRunner, canary: Canary | None, size: int) -> Images:
    size = min(size, runner.max_batch or size)
    if canary is not None:
        return np.resize(canary.images, (size, *canary.images.shape[1:]))
    spec = runner.contract.input
    shape = (size, spec.height, spec.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
