"""``sa-deploy build``: a TensorRT engine from an ONNX artefact."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sa_deploy import logs
from sa_deploy.output import JsonFlag, note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_runtime.tensorrt.sidecar import EngineInfo

_log = logging.getLogger("sa_runtime.tensorrt.builder")
"""Of what TensorRT itself says while it builds."""


def build(
    model: Annotated[Path, typer.Argument(help="An ONNX file of `sa-deploy export`.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", "--saveEngine", help="MODEL.engine beside it by default."),
    ] = None,
    flavour: Annotated[
        Literal["auto", "tensorrt", "tensorrt-rtx"],
        typer.Option(help="auto: TensorRT where a GPU is, TensorRT-RTX otherwise."),
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option(help="Refuse a graph of another one; the graph decides what is computed."),
    ] = None,
    min_batch: Annotated[int | None, typer.Option(min=1, help="Smallest batch (1).")] = None,
    opt_batch: Annotated[int | None, typer.Option(min=1, help="Fastest batch (16).")] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Largest batch (32).")] = None,
    min_shapes: Annotated[
        str | None, typer.Option("--minShapes", help="The same as trtexec says it: images:1xHxWx3.")
    ] = None,
    opt_shapes: Annotated[str | None, typer.Option("--optShapes", help="Likewise.")] = None,
    max_shapes: Annotated[str | None, typer.Option("--maxShapes", help="Likewise.")] = None,
    workspace: Annotated[
        float | None, typer.Option(help="GiB that a layer may use as scratch; all by default.")
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            "--optimization-level",
            "--builderOptimizationLevel",
            help="0 (fast build) to 5 (fast engine); TensorRT's own by default.",
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            "--timing-cache",
            "--timingCacheFile",
            help="File of measured layers that builds share; one in the user's cache by default.",
        ),
    ] = None,
    hardware_compat: Annotated[
        Literal["none", "ampere-plus", "same-cc"],
        typer.Option(help="GPUs it shall run on besides this one."),
    ] = "none",
    version_compat: Annotated[
        bool,
        typer.Option(
            "--version-compat", "--versionCompatible", help="Later TensorRT versions run it."
        ),
    ] = False,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave the weights out; the ONNX file stays beside it.")
    ] = False,
    plugin: Annotated[
        bool | None,
        typer.Option("--plugin/--no-plugin", help="The fused kernel; where it can be had."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep the engine in this folder and build only what is missing or old."),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Build a TensorRT engine, with the fused attention pooling inside.

    The pooling is fused where there is a GPU; elsewhere its plain graph goes in. With -v
    TensorRT's log goes to stderr, and the engine keeps the names of its layers.
    """
    from sa_runtime.errors import InputError
    from sa_runtime.system.gpus import probe
    from sa_runtime.tensorrt.build import plugin_obstacle
    from sa_runtime.tensorrt.engines import Workshop as Shop
    from sa_runtime.tensorrt.engines import build_engine, cached_engine, default_timing_cache
    from sa_runtime.tensorrt.flavour import choose_flavour, load_flavour, rtx_obstacle
    from sa_runtime.tensorrt.graph import check_precision, read_graph
    from sa_runtime.tensorrt.options import BuildOptions, batch_from_shape, profile_for

    if cache is not None and out is not None:
        raise InputError("--cache and --out: the cache names its engines itself; give one of them")
    if cache is not None and strip:
        raise InputError(
            "--cache and --strip: a stripped engine takes its weights from the ONNX file beside "
            "it, and the cache holds engines only; give one of them"
        )
    machine = probe()
    graph = read_graph(model)
    asked = {"min": min_batch, "opt": opt_batch, "max": max_batch}
    for size, text in (("min", min_shapes), ("opt", opt_shapes), ("max", max_shapes)):
        if text is not None:
            if asked[size] is not None:
                raise InputError(f"--{size}-batch and --{size}Shapes say the same; give one")
            asked[size] = batch_from_shape(f"--{size}Shapes", text, graph.contract)
    check_precision(graph, precision)
    chosen = load_flavour(
        choose_flavour(has_gpu=bool(machine.gpus)) if flavour == "auto" else flavour
    )
    options = BuildOptions(
        profile=profile_for(
            graph.contract, min_batch=asked["min"], opt_batch=asked["opt"], max_batch=asked["max"]
        ),
        workspace_gib=workspace,
        optimization_level=optimization_level,
        hardware_compat=hardware_compat,
        version_compat=version_compat,
        strip=strip,
        plugin=plugin,
        debug_layers=logs.current().verbose > 0,
    )
    if plugin is None and graph.attention_pools and (obstacle := plugin_obstacle(graph, chosen)):
        note(f"without the fused kernel: {obstacle}")

    def log(severity: str, message: str) -> None:
        _log.info("%s: %s", severity, message)

    with progress("Building engine", total=None) as advance:

        def report(phase: str, done: int, total: int) -> None:
            # Phases nest; the outermost has the only bar that never goes back.
            if phase == "Building engine":
                advance(completed=done, total=total, description=phase)
            else:
                advance(0, description=phase)

        shop = Shop(
            flavour=chosen,
            machine=machine,
            timing_cache=timing_cache or default_timing_cache(chosen, machine),
            report=report,
            log=log,
            note=note,
        )
        if cache is not None:
            engine, info = cached_engine(graph, cache, options, shop)
        else:
            engine = out or model.with_suffix(".engine")
            info = build_engine(graph, engine, options, shop, precision=precision)
    elsewhere = rtx_obstacle(machine.gpus[0]) if machine.gpus and chosen.rtx else ""
    if elsewhere:
        note(f"the engine is for another machine and was not tried: {elsewhere}")
    tried = machine.gpus and not strip and not elsewhere
    cosine = _proven(model, engine) if tried else None
    _show(engine, info, cosine, json_output)


def _proven(model: Path, engine: Path) -> float | None:
    """Run the engine on the crops that the ONNX file carries with their vectors.

    Returns:
        The cosine of the worst crop; ``None`` where the file carries none.

    Raises:
        ParityError: the engine gives other vectors.
    """
    from sa_runtime.artefact.canary import canary_of, least_cosine
    from sa_runtime.errors import ParityError
    from sa_runtime.runners.auto import OWN_COSINE
    from sa_runtime.runners.tensorrt import TensorRTRunner

    canary = canary_of(model)
    if canary is None:
        return None
    with TensorRTRunner(engine) as runner:
        cosine = least_cosine(runner.run(canary.images), canary.vectors)
    if cosine < OWN_COSINE:
        raise ParityError(
            f"{engine}: on the {len(canary.images)} crops that {model.name} carries the engine's "
            f"vectors keep a cosine of {cosine:.4f}, expected at least {OWN_COSINE}; build with "
            "--no-plugin, or export a higher precision"
        )
    return cosine


def _show(engine: Path, info: EngineInfo, cosine: float | None, json_output: bool) -> None:
    size = engine.stat().st_size
    profile = info.options.profile
    fused = f"{info.plugin_nodes} nodes" if info.plugin_nodes else "no"
    result = {
        "engine": str(engine),
        "size_bytes": size,
        "flavour": info.flavour,
        "tensorrt_version": info.tensorrt_version,
        "gpu": info.gpu,
        "precision": info.precision,
        "batch": {"min": profile.min, "opt": profile.opt, "max": profile.max},
        "plugin_nodes": info.plugin_nodes,
        "layers": sum(info.layers.values()),
        "compute_types": info.compute_types,
        "build_seconds": info.build_seconds,
        "min_cosine": cosine,
        "space": info.contract.space,
    }
    if json_output:
        print_json(result)
        return
    rows = [
        ("size", f"{size / 1e6:.1f} MB"),
        ("built by", f"{info.flavour} {info.tensorrt_version} on {info.gpu or 'no GPU'}"),
        ("precision", f"{info.precision} ({_types(info)})"),
        ("batch", f"{profile.min} to {profile.max}, fastest at {profile.opt}"),
        ("fused attention pool", fused),
        ("build", f"{info.build_seconds:.1f} s"),
        ("against the ONNX file", "not compared" if cosine is None else f"cosine {cosine:.5f}"),
    ]
    print_table(str(engine), ("what", "value"), rows, figures=False)
    note(f"next: sa-deploy embed {engine} IMAGES --out embeddings.parquet")


def _types(info: EngineInfo) -> str:
    return ", ".join(f"{count} layers {kind}" for kind, count in info.compute_types.items())
