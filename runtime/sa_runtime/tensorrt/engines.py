"""From an ONNX file to an engine on disk, built once and again only when something changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sa_runtime.artefact.contract import Precision
from sa_runtime.errors import ContractError
from sa_runtime.system.cache import cache_dir
from sa_runtime.system.files import refuse_inputs
from sa_runtime.system.gpus import Gpu, Machine
from sa_runtime.system.locking import locked
from sa_runtime.tensorrt.build import engine_from_onnx, use_plugin
from sa_runtime.tensorrt.flavour import Flavour, Report
from sa_runtime.tensorrt.graph import OnnxGraph, check_precision
from sa_runtime.tensorrt.options import BuildOptions
from sa_runtime.tensorrt.plugin import plugin_sha256
from sa_runtime.tensorrt.sidecar import (
    EngineInfo,
    engine_sha256,
    gpu_obstacle,
    read_sidecar,
    version_obstacle,
    write_engine,
)
from sa_runtime.tensorrt.timing import TimingCache

_log = logging.getLogger(__name__)

Note = Callable[[str], None]
Log = Callable[[str, str], None]


def _no_report(phase: str, done: int, total: int) -> None:
    """The default of ``report``: progress is not shown."""


def _no_log(severity: str, message: str) -> None:
    """The default of ``log``: TensorRT's log is dropped."""


def _no_note(text: str) -> None:
    """The default of ``note``: nothing is said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildContext:
    """What builds engines, and who hears of it.

    Attributes:
        flavour: the TensorRT that builds.
        machine: as :func:`sa_runtime.system.gpus.probe` sees it.
        timing_cache: file of measurements shared by builds, ``None`` for none.
        report: called with phase, steps done and steps in all.
        log: called with severity and message of TensorRT's log.
        note: called with a sentence for people.
    """

    flavour: Flavour
    machine: Machine
    timing_cache: Path | None = None
    report: Report = _no_report
    log: Log = _no_log
    note: Note = _no_note

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that builds, CUDA's first."""
        return self.machine.gpus[0] if self.machine.gpus else None


def build_engine(
    graph: OnnxGraph,
    out: Path,
    options: BuildOptions,
    context: BuildContext,
    *,
    precision: Precision | None = None,
) -> EngineInfo:
    """Build an engine and write it with its sidecar.

    Args:
        graph: the ONNX file.
        out: the ``.engine`` file.
        options: how to build it.
        context: what builds it.
        precision: refused unless the graph is in it; ``None`` takes the graph's.

    Raises:
        InputError: a precision or an option that cannot be had, or ``out`` is the ONNX file.
        BuildError: TensorRT cannot parse or build it.
    """
    refuse_inputs(out, [graph.path])
    check_precision(graph, precision)
    flavour, gpu = context.flavour, context.gpu
    # TensorRT-RTX measures no layers.
    timings = None if flavour.rtx else context.timing_cache
    built = engine_from_onnx(
        graph,
        flavour,
        options,
        gpu=gpu,
        timing_cache=TimingCache(timings) if timings else None,
        report=context.report,
        log=context.log,
    )
    contract = dataclasses.replace(
        graph.contract, max_batch=options.profile.max, fixed_batch=options.profile.fixed
    )
    info = EngineInfo(
        contract=contract,
        flavour=flavour.name,
        tensorrt_version=flavour.version,
        gpu=gpu.name if gpu else "",
        compute_capability=gpu.compute_capability if gpu else None,
        cuda_version=context.machine.cuda_version,
        options=options,
        precision=graph.precision,
        plugin_nodes=built.plugin_nodes,
        plugin_sha256=built.plugin_sha256,
        onnx_sha256=graph.sha256,
        engine_sha256=engine_sha256(built.engine),
        layers=built.layers,
        compute_types=built.compute_types,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        build_seconds=round(built.seconds, 3),
    )
    write_engine(out, built.engine, info)
    _log.info("%s: built in %.1f s", out, built.seconds, extra={"seconds": info.build_seconds})
    return info


def cached_engine(
    graph: OnnxGraph, folder: Path, options: BuildOptions, context: BuildContext
) -> tuple[Path, EngineInfo]:
    """The engine of an ONNX file in ``folder``, built only where there is none that fits.

    However many processes ask at once, one builds and the others wait for it.

    Args:
        graph: the ONNX file.
        folder: of the cache; engines of other GPUs and options live beside each other in it.
        options: how to build it.
        context: what builds it.

    Returns:
        The engine's path and its sidecar.
    """
    engine = folder / cache_name(graph, options, context)
    waited = f"{engine}: another process is building it, waiting"
    with locked(engine, on_wait=lambda: context.note(waited)):
        reason = stale(engine, graph, options, context)
        if not reason:
            _log.info("%s: read from the cache", engine)
            return engine, read_sidecar(engine)
        context.note(f"{engine}: {reason}; building it")
        return engine, build_engine(graph, engine, options, context)


def default_timing_cache(flavour: Flavour, machine: Machine) -> Path:
    """Where builds share their measurements: one file for each TensorRT version and GPU."""
    return cache_dir() / "tensorrt" / f"{_gpu_slug(machine)}.{flavour.version}.timing"


def cache_name(graph: OnnxGraph, options: BuildOptions, context: BuildContext) -> str:
    """File name of a model's engine: one per model name, flavour, GPU and options.

    What else matters (the model's content, versions, the kernel) makes the engine stale instead, so
    that an update rebuilds in place and leaves no old engines behind.
    """
    asked = json.dumps(options.to_dict(), sort_keys=True)
    gpu = _gpu_slug(context.machine)
    key = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return f"{graph.path.stem}.{context.flavour.name}.{gpu}.{key}.engine"


def _gpu_slug(machine: Machine) -> str:
    """Name of the GPU that builds, fit for a file name."""
    if not machine.gpus:
        return "any"
    return re.sub(r"[^a-z0-9]+", "-", machine.gpus[0].name.lower()).strip("-")


def stale(engine: Path, graph: OnnxGraph, options: BuildOptions, context: BuildContext) -> str:
    """Why a cached engine does not serve, empty where it does."""
    if not engine.is_file():
        return "there is no engine yet"
    try:
        info = read_sidecar(engine)
    except ContractError as exc:
        return str(exc)
    if engine_sha256(engine.read_bytes()) != info.engine_sha256:
        return "the engine is not the one its sidecar describes"
    if info.onnx_sha256 != graph.sha256:
        return f"{graph.path.name} has changed since the engine was built"
    if info.options != options:
        return "other options were asked for"
    # Where the kernel cannot be compiled any more an engine that holds it is as good as ever.
    if use_plugin(graph, context.flavour, options.plugin):
        if not info.plugin_nodes:
            return "the fused kernel can be embedded now"
        if info.plugin_sha256 != plugin_sha256():
            return "the fused kernel has changed since the engine was built"
    if reason := version_obstacle(info, context.flavour.version):
        return reason
    return gpu_obstacle(info, context.gpu) if context.gpu else ""
