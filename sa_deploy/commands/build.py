"""``sa-deploy build``: a TensorRT engine from an ONNX artefact."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sa_deploy import logs
from sa_deploy.options import JsonOutput
from sa_deploy.output import command_line, note, print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from sa_runtime.tensorrt.flavour import Flavour
    from sa_runtime.tensorrt.graph import OnnxGraph
    from sa_runtime.tensorrt.sidecar import BuiltEngine

_log = logging.getLogger("sa_runtime.tensorrt.builder")
"""Of what TensorRT itself says while it builds."""


def build(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="ONNX file of `sa-deploy export`.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--saveEngine",
            metavar="FILE",
            help="Engine that is written; MODEL.engine beside the model by default.",
        ),
    ] = None,
    flavour: Annotated[
        Literal["auto", "tensorrt", "tensorrt-rtx"],
        typer.Option(
            help="Builder to use; auto takes TensorRT where there is a GPU, and TensorRT-RTX "
            "elsewhere."
        ),
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option(
            help="Refuse a graph of another precision; by default any is built, as the graph "
            "decides what is computed."
        ),
    ] = None,
    min_batch: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="CROPS", help="Smallest batch that the engine runs; 1 by default."
        ),
    ] = None,
    opt_batch: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="CROPS", help="Batch at which the engine is fastest; 16 by default."
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="CROPS", help="Largest batch that the engine runs; 32 by default."
        ),
    ] = None,
    min_shapes: Annotated[
        str | None,
        typer.Option(
            "--minShapes",
            metavar="SHAPE",
            help="The same as --min-batch, as trtexec says it: images:1xHxWx3.",
        ),
    ] = None,
    opt_shapes: Annotated[
        str | None,
        typer.Option(
            "--optShapes",
            metavar="SHAPE",
            help="The same as --opt-batch, as trtexec says it: images:16xHxWx3.",
        ),
    ] = None,
    max_shapes: Annotated[
        str | None,
        typer.Option(
            "--maxShapes",
            metavar="SHAPE",
            help="The same as --max-batch, as trtexec says it: images:32xHxWx3.",
        ),
    ] = None,
    workspace: Annotated[
        float | None,
        typer.Option(
            metavar="GIB",
            help="Scratch memory that a layer may use, in GiB; all that is free by default.",
        ),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            "--optimization-level",
            "--builderOptimizationLevel",
            metavar="LEVEL",
            help="Effort of the builder, from 0 (fast build) to 5 (fast engine); TensorRT's own "
            "choice by default.",
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            "--timing-cache",
            "--timingCacheFile",
            metavar="FILE",
            help="Times of layers that builds share; a file in the user's cache by default.",
        ),
    ] = None,
    hardware_compat: Annotated[
        Literal["none", "ampere-plus", "same-cc"],
        typer.Option(
            help="Other GPUs that the engine runs on: none, Ampere and later, or those of the same "
            "compute capability."
        ),
    ] = "none",
    version_compat: Annotated[
        bool,
        typer.Option(
            "--version-compat",
            "--versionCompatible",
            help="Let later versions of TensorRT run the engine as well.",
        ),
    ] = False,
    strip: Annotated[
        bool,
        typer.Option(
            "--strip", help="Leave the weights out; the engine then needs the ONNX file beside it."
        ),
    ] = False,
    plugin: Annotated[
        bool | None,
        typer.Option(
            "--plugin/--no-plugin",
            help="Pool with the fused kernel or without; by default with it where it can be had.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that keeps the engine, which is built only where it is missing or old; "
            "without it the engine is written to --out.",
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Build a TensorRT engine, with the fused attention pooling inside.

    The pooling is fused where there is a GPU; elsewhere its plain graph goes in. With -v
    TensorRT's log goes to stderr, and the engine keeps the names of its layers.

    Examples:
        sa-deploy build model.onnx
        sa-deploy build model.fp16.onnx --max-batch 64 --out reid.engine
    """
    from sa_runtime.system.gpus import probe
    from sa_runtime.tensorrt.engines import BuildContext as Shop
    from sa_runtime.tensorrt.engines import build_engine, cached_engine, default_timing_cache
    from sa_runtime.tensorrt.flavour import choose_flavour, load_flavour, rtx_obstacle
    from sa_runtime.tensorrt.graph import check_precision, read_graph
    from sa_runtime.tensorrt.options import BuildOptions, profile_for
    from sa_runtime.tensorrt.sidecar import BuiltEngine

    _check_cache(cache, out, strip)
    machine = probe()
    graph = read_graph(model)
    smallest, best, largest = (
        _batch(graph, *size)
        for size in (
            ("min", min_batch, min_shapes),
            ("opt", opt_batch, opt_shapes),
            ("max", max_batch, max_shapes),
        )
    )
    check_precision(graph, precision)
    chosen = load_flavour(
        choose_flavour(has_gpu=bool(machine.gpus)) if flavour == "auto" else flavour
    )
    options = BuildOptions(
        profile=profile_for(graph.contract, min_batch=smallest, opt_batch=best, max_batch=largest),
        workspace_gib=workspace,
        optimization_level=optimization_level,
        hardware_compat=hardware_compat,
        version_compat=version_compat,
        strip=strip,
        plugin=plugin,
        debug_layers=logs.current().verbose > 0,
    )
    _say_without_plugin(graph, chosen, plugin)
    with progress("Building engine", total=None) as advance:
        shop = Shop(
            flavour=chosen,
            machine=machine,
            timing_cache=timing_cache or default_timing_cache(chosen, machine),
            report=_phases(advance),
            log=lambda severity, message: _log.info("%s: %s", severity, message),
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
    _show(BuiltEngine(path=engine, info=info, min_cosine=cosine), json_output)


def _check_cache(cache: Path | None, out: Path | None, strip: bool) -> None:
    from sa_runtime.errors import InputError

    if cache is not None and out is not None:
        raise InputError("--cache and --out: the cache names its engines itself; give one of them")
    if cache is not None and strip:
        raise InputError(
            "--cache and --strip: a stripped engine takes its weights from the ONNX file beside "
            "it, and the cache holds engines only; give one of them"
        )


def _batch(graph: OnnxGraph, size: str, batch: int | None, shapes: str | None) -> int | None:
    """A batch size of the profile, as this command or as ``trtexec`` says it."""
    from sa_runtime.errors import InputError
    from sa_runtime.tensorrt.options import batch_from_shape

    if shapes is None:
        return batch
    if batch is not None:
        raise InputError(f"--{size}-batch and --{size}Shapes say the same; give one")
    return batch_from_shape(f"--{size}Shapes", shapes, graph.contract)


def _say_without_plugin(graph: OnnxGraph, flavour: Flavour, plugin: bool | None) -> None:
    from sa_runtime.tensorrt.build import plugin_obstacle

    if plugin is None and graph.attention_pools and (obstacle := plugin_obstacle(graph, flavour)):
        note(f"without the fused kernel: {obstacle}")


def _phases(advance: Callable[..., None]) -> Callable[[str, int, int], None]:
    def report(phase: str, done: int, total: int) -> None:
        # Phases nest; the outermost has the only bar that never goes back.
        if phase == "Building engine":
            advance(completed=done, total=total, description=phase)
        else:
            advance(0, description=phase)

    return report


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


def _show(built: BuiltEngine, json_output: bool) -> None:
    if json_output:
        print_json(built.to_dict())
        return
    info, cosine = built.info, built.min_cosine
    profile = info.options.profile
    types = ", ".join(f"{count} layers {kind}" for kind, count in info.compute_types.items())
    rows = [
        ("size", f"{built.path.stat().st_size / 1e6:.1f} MB"),
        ("built by", f"{info.flavour} {info.tensorrt_version} on {info.gpu or 'no GPU'}"),
        ("precision", f"{info.precision} ({types})"),
        ("batch", f"{profile.min} to {profile.max}, fastest at {profile.opt}"),
        ("fused attention pool", f"{info.plugin_nodes} nodes" if info.plugin_nodes else "no"),
        ("build", f"{info.build_seconds:.1f} s"),
        ("against the ONNX file", "not compared" if cosine is None else f"cosine {cosine:.5f}"),
    ]
    print_table(str(built.path), ("what", "value"), rows, figures=False)
    words = ("embed", built.path, "IMAGES", "--out", "embeddings.parquet")
    note(f"next: {command_line(*words)}")
