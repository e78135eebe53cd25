"""What a benchmark found, as plain values that go into JSON and come back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sa_runtime.errors import InputError, MissingFileError

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One contender at one batch size.

    Attributes:
        batch: crops in a batch.
        streams: batches in flight.
        iterations: batches timed.
        images_per_s: median over the rounds.
        latency_ms: of one batch, by ``p50``, ``p90``, ``p99``, ``max``.
        percent_of_limit: of the processor's matrix products at this precision; ``None`` where
            either is not known.
        rounds_images_per_s: of every round, in order.
        rounds_pace_tflops: how fast the machine was just before and after that round.
    """

    batch: int
    streams: int
    iterations: int
    images_per_s: float
    latency_ms: dict[str, float]
    percent_of_limit: float | None
    rounds_images_per_s: tuple[float, ...]
    rounds_pace_tflops: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContenderResult:
    """A model on a runtime.

    Attributes:
        name: of the contender; unique in a result.
        model: file name.
        runtime, precision, device: of the runner.
        details: further settings of the runner.
        reason: why ``auto`` took this runtime, else empty.
        size_mb: of the file, and of the weights beside it.
        open_s: reading and compiling the model in a fresh process.
        first_s: the first crop, which completes what a runtime compiles late.
        peak_memory_mb: most that its process held, Python and packages included.
        cosine: least and mean, to the reference's vectors; ``None`` for the reference.
        retrieval: ``mAP`` and ``rank1`` as fractions; ``None`` where no labels were given.
        end_to_end: rows a second and seconds by stage; ``None`` for synthetic crops.
        series: by batch size.
        flops: floating point operations an image, 0 where they are not known.
    """

    name: str
    model: str
    runtime: str
    precision: str
    device: str
    details: dict[str, str]
    reason: str
    size_mb: float
    open_s: float
    first_s: float
    peak_memory_mb: float
    cosine: dict[str, float] | None
    retrieval: dict[str, float] | None
    end_to_end: dict[str, float] | None
    series: tuple[Series, ...]
    flops: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A whole run.

    Attributes:
        created: UTC, ISO 8601.
        environment: of :func:`sa_runtime.system.environment.this_environment`, and the load before.
        options: what the run was asked for.
        limits_tflops: of the processor, by precision.
        reference: name of the contender that cosines refer to.
        contenders: in the order of measurement.
        skipped: why a runtime was left out, by name.
        schema: version of this layout.
    """

    created: str
    environment: dict[str, Any]
    options: dict[str, Any]
    limits_tflops: dict[str, float]
    reference: str
    contenders: tuple[ContenderResult, ...]
    skipped: dict[str, str]
    schema: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``docs/bench.schema.json`` describes them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_file(cls, path: Path) -> BenchResult:
        """Read what ``sa-deploy bench --out`` wrote.

        Raises:
            InputError: no such file, or something else in it.
        """
        try:
            fields = json.loads(path.read_text())
            if fields.get("schema") != SCHEMA_VERSION:
                raise InputError(
                    f"{path}: schema {fields.get('schema')!r}, this version reads "
                    f"{SCHEMA_VERSION}; measure the base again with `sa-deploy bench --out`"
                )
            fields.pop("comparison", None)
            contenders = tuple(
                ContenderResult(**{**c, "series": tuple(_series(s) for s in c["series"])})
                for c in fields["contenders"]
            )
            return cls(**{**fields, "contenders": contenders})
        except InputError:
            raise
        except FileNotFoundError as exc:
            raise MissingFileError(
                f"{path}: no such file; expected a result of `sa-deploy bench --out`", path=path
            ) from exc
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InputError(
                f"{path}: not a result of `sa-deploy bench --out` ({exc or type(exc).__name__})"
            ) from exc


def _series(fields: dict[str, Any]) -> Series:
    rounds = ("rounds_images_per_s", "rounds_pace_tflops")
    return Series(**{**fields, **{name: tuple(map(float, fields[name])) for name in rounds}})


def percentiles(latencies_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest, each a value that occurred.

    >>> percentiles([float(n) for n in range(1, 101)])
    {'p50': 50.0, 'p90': 90.0, 'p99': 99.0, 'max': 100.0}
    """
    values = np.asarray(latencies_ms, np.float64)
    chosen = np.percentile(values, [50, 90, 99], method="inverted_cdf")
    named = dict(zip(("p50", "p90", "p99"), chosen.tolist(), strict=True))
    return {**named, "max": float(values.max())}
