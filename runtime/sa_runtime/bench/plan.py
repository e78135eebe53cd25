"""What is to be measured: options, and the contenders that follow from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from sa_runtime.datasets.loading import load_dataset
from sa_runtime.errors import InputError, MissingPackageError, bad_value, check_fields
from sa_runtime.runners.base import Options
from sa_runtime.runners.table import option_names, runner_class, runtimes_for
from sa_runtime.sources.table import find_sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure.

    Attributes:
        runtimes: names, or ``auto``; empty for all that open the models here.
        batch_sizes: crops in a batch.
        seconds: of every contender at every batch size, split over the rounds.
        iterations: batches instead of ``seconds``; 0 measures by time.
        streams: batches in flight.
        threads: of every runtime, 0 for one per core.
        device: of every runtime that has a choice; its own by default.
        source: ``synthetic``, a folder of crops, or a video.
        detections: boxes of the video.
        dataset, data_dir: labelled people for mAP; none where ``data_dir`` is ``None``.
        reference: model that cosines refer to; the first contender at fp32 by default.
    """

    runtimes: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    seconds: float = 3.0
    iterations: int = 0
    streams: int = 1
    threads: int = 0
    device: str | None = None
    source: str = "synthetic"
    detections: Path | None = None
    dataset: str = "auto"
    data_dir: Path | None = None
    reference: Path | None = None

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        rules = (
            ("batch_sizes", bool(self.batch_sizes), "at least one"),
            ("batch_sizes", all(size >= 1 for size in self.batch_sizes), "1 or more"),
            ("seconds", 0 < self.seconds < math.inf, "more than 0"),
            ("iterations", self.iterations >= 0, "0 or more"),
            ("streams", self.streams >= 1, "1 or more"),
            ("threads", self.threads >= 0, "0 or more"),
        )
        check_fields(self, rules)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A contender before it is opened."""

    model: Path
    runtime: str
    options: Options


def plan(models: Sequence[Path], options: BenchOptions) -> tuple[list[Planned], dict[str, str]]:
    """Contenders of some models, and why runtimes are left out.

    Every runtime that is installed and opens the model, at its own precision and at the lower ones
    that it offers on this machine; or those that the options name.

    Raises:
        InputError: a model that no runtime opens, or an unknown runtime.
        MissingPackageError: a named runtime, or all of a model's runtimes, are not installed.
    """
    planned: list[Planned] = []
    skipped: dict[str, str] = {}
    for model in models:
        fitting = runtimes_for(model)
        before = len(planned)
        for runtime in options.runtimes or fitting:
            if runtime == "auto":
                planned.append(Planned(model=model, runtime=runtime, options=_common(options)))
                continue
            try:
                kind = runner_class(runtime)
                if runtime not in fitting:
                    skipped[f"{model.name} {runtime}"] = f"it does not open {model.suffix} files"
                    continue
                variants = kind.variants(model)
            except MissingPackageError:
                if options.runtimes:
                    raise
                skipped[f"{model.name} {runtime}"] = "not installed"
                continue
            known = option_names(kind)
            common = {k: v for k, v in _common(options).items() if k in known}
            if options.streams > 1 and {"hint", "streams"} <= set(known):
                common |= {"hint": "throughput", "streams": options.streams}
            planned += [
                Planned(model=model, runtime=runtime, options={**v, **common}) for v in variants
            ]
        if len(planned) == before:
            reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
            raise InputError(f"{model}: nothing to measure it with ({reasons})")
    return planned, skipped


def _common(options: BenchOptions) -> Options:
    given = {"threads": options.threads or None, "device": options.device}
    return {name: value for name, value in given.items() if value is not None}


def check_inputs(options: BenchOptions) -> None:
    """Raise what a source, data set or reference will raise, before anything is measured."""
    if options.source != "synthetic":
        find_sources([Path(options.source)], [options.detections] if options.detections else [])
    elif options.detections is not None:
        raise bad_value("detections", str(options.detections), "expected a video as `source`")
    if options.data_dir is not None:
        load_dataset(options.dataset, options.data_dir)
    if options.reference is not None:
        runtimes_for(options.reference)
