"""ONNX -> engine, with any flavour of TensorRT."""

from __future__ import annotations

import importlib.util
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sa_runtime.errors import BuildError, bad_value
from sa_runtime.system.gpus import Gpu
from sa_runtime.tensorrt.flavour import (
    Flavour,
    Report,
    make_logger,
    make_monitor,
    rtx_obstacle,
)
from sa_runtime.tensorrt.graph import ATTENTION_POOL, OnnxGraph
from sa_runtime.tensorrt.options import BuildOptions
from sa_runtime.tensorrt.plugin import plugin_sha256, register_attention_pool
from sa_runtime.tensorrt.timing import TimingCache

AMPERE = 80
"""What every GPU from Ampere on runs."""
_COMPUTE = ("CONVOLUTION", "MATRIX_MULTIPLY", "EINSUM")


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine and what is known about its making.

    Attributes:
        engine: serialised.
        layers: of the network TensorRT was given, by type.
        compute_types: output types of its convolutions and matrix products, by type.
        plugin_nodes: AttentionPool nodes that became the fused kernel.
        plugin_sha256: of that kernel; empty where there is none.
        seconds: parsing and building.
    """

    engine: bytes
    layers: dict[str, int]
    compute_types: dict[str, int]
    plugin_nodes: int
    plugin_sha256: str
    seconds: float


@dataclass
class _Log:
    """Keeps TensorRT's errors, because its calls only answer yes or no."""

    forward: Callable[[str, str], None]
    errors: list[str] = field(default_factory=list)

    def __call__(self, severity: str, message: str) -> None:
        if severity in ("error", "internal_error"):
            self.errors.append(" ".join(message.split()))
        self.forward(severity, message)

    def last_errors(self) -> str:
        return "; ".join(self.errors[-3:]) or "TensorRT gave no reason"


def engine_from_onnx(
    graph: OnnxGraph,
    flavour: Flavour,
    options: BuildOptions,
    *,
    gpu: Gpu | None,
    timing_cache: TimingCache | None = None,
    report: Report = lambda phase, done, total: None,
    log: Callable[[str, str], None] = lambda severity, message: None,
) -> BuiltEngine:
    """Build an engine.

    Args:
        graph: the ONNX file; its types are the engine's.
        flavour: which TensorRT.
        options: how to build it.
        gpu: the one that builds, ``None`` where there is none.
        timing_cache: measurements of layers, read before and written after.
        report: called with phase, steps done and steps in all.
        log: called with severity and message of TensorRT's own log.

    Raises:
        InputError: an option the flavour does not have.
        BuildError: TensorRT cannot parse the file or build the engine; the message names the node.
        KeyboardInterrupt: the build was cancelled.
    """
    started = time.perf_counter()
    kept = _Log(log)
    _require_gpu(flavour, options, gpu)
    plugin = use_plugin(graph, flavour, options.plugin)
    if plugin:
        capability = AMPERE if options.hardware_compat == "ampere-plus" else _capability(gpu)
        register_attention_pool(flavour.trt, capability)
    logger = make_logger(flavour, kept)
    builder = flavour.builder(logger)
    network = flavour.network(builder, plugin=plugin)
    _parse(graph, flavour, network, logger, kept)
    layers = _layers(flavour, network)
    fused = layers.get("PLUGIN_V3", 0)
    if plugin and fused != graph.attention_pools:
        raise BuildError(
            f"{graph.path}: {fused} of its {graph.attention_pools} AttentionPool nodes became the "
            "fused kernel; export it again with this version, or build with `plugin=False`"
        )
    config = _config(graph, flavour, builder, options)
    monitor = make_monitor(flavour, report)
    config.progress_monitor = monitor
    if timing_cache is not None:
        timing_cache.attach(config)
    serialized = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise KeyboardInterrupt
    if serialized is None:
        raise BuildError(
            f"{graph.path}: TensorRT {flavour.version} cannot build it: {kept.last_errors()}"
        )
    if timing_cache is not None:
        timing_cache.keep(config)
    return BuiltEngine(
        engine=bytes(serialized),
        layers=layers,
        compute_types=_compute_types(flavour, network),
        plugin_nodes=fused,
        plugin_sha256=plugin_sha256() if fused else "",
        seconds=time.perf_counter() - started,
    )


def plugin_obstacle(graph: OnnxGraph, flavour: Flavour) -> str:
    """Why the fused kernel cannot be embedded; empty where it can."""
    if graph.attention_pools == 0:
        return (
            "the ONNX file holds no AttentionPool node (a network whose attention does not reach "
            "the embedding has none)"
        )
    if flavour.rtx:
        # Its parser would take the node and abort the process.
        return "TensorRT-RTX has no plugin layers and runs the node's function body"
    if not hasattr(flavour.trt, "QuickPluginCreationRequest"):
        return f"TensorRT {flavour.version} cannot embed a kernel of a Python plugin, 10.9 can"
    if importlib.util.find_spec("triton") is None:
        return "Triton, which compiles the kernel, is not installed: pip install triton"
    return ""


def use_plugin(graph: OnnxGraph, flavour: Flavour, wanted: bool | None) -> bool:
    """Whether the fused kernel is to be embedded.

    Args:
        graph: the ONNX file.
        flavour: which TensorRT.
        wanted: whether it was asked for; ``None`` embeds it wherever that is possible.

    Raises:
        InputError: it was asked for and cannot be embedded.
    """
    obstacle = "" if wanted is False else plugin_obstacle(graph, flavour)
    if wanted and obstacle:
        raise bad_value("plugin", True, f"{obstacle}; build with `plugin=False`")
    return wanted is not False and not obstacle


def _require_gpu(flavour: Flavour, options: BuildOptions, gpu: Gpu | None) -> None:
    """Refuse what even TensorRT-RTX compiles on a GPU only."""
    asked = {
        "strip": options.strip,
        "hardware_compat": options.hardware_compat == "same-cc",
    }
    for name, wanted in asked.items():
        value = getattr(options, name)
        if wanted and flavour.rtx and gpu is None:
            raise bad_value(
                name,
                value,
                "TensorRT-RTX needs an NVIDIA GPU for it and none is visible; build without it, or "
                "on the machine that will run it",
            )
        if wanted and flavour.rtx and gpu is not None and (reason := rtx_obstacle(gpu)):
            rule = f"{reason}; build without it, or on the machine that will run it"
            raise bad_value(name, value, rule)


def _capability(gpu: Gpu | None) -> int:
    if gpu is None:
        raise BuildError(
            "no NVIDIA GPU is visible (see `sa-deploy doctor`), expected the one to build for; "
            "`flavour='tensorrt-rtx'` builds without"
        )
    return gpu.compute_capability


def _parse(graph: OnnxGraph, flavour: Flavour, network: Any, logger: Any, log: _Log) -> None:
    parser = flavour.trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(graph.path)) and network.num_outputs:
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not errors:
        raise BuildError(
            f"{graph.path}: TensorRT {flavour.version} cannot read it: {log.last_errors()}"
        )
    raise BuildError(
        f"{graph.path}: TensorRT {flavour.version} cannot read it: "
        + "; ".join(_described(graph, error) for error in errors)
    )


def _described(graph: OnnxGraph, error: Any) -> str:
    """One parser error as a sentence: node, operator, what TensorRT said, what to do."""
    name, operator = graph.node(error.node())
    name, operator = error.node_name() or name, error.node_operator() or operator
    said = error.desc().strip().rstrip(".")
    if not operator:
        return f"{said}. The file is not a whole ONNX model; export it again"
    code = error.code().name
    if operator == ATTENTION_POOL[1]:
        mend = "export the file again, so that the node carries its function body"
    elif "UNSUPPORTED" in code or "Plugin not found" in said:
        mend = (
            f"TensorRT has no layer for {operator}; export with another opset, or run the file "
            "on another runtime (`runtime='onnxruntime'`)"
        )
    else:
        mend = "export the file again, or run it on another runtime (`runtime='onnxruntime'`)"
    return f"node {name!r} (operator {operator}, {code}): {said}. {mend}"


def _config(graph: OnnxGraph, flavour: Flavour, builder: Any, options: BuildOptions) -> Any:
    trt = flavour.trt
    config = builder.create_builder_config()
    if options.workspace_gib is not None:
        limit = int(options.workspace_gib * 2**30)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    flavour.set_hardware_compat(config, options.hardware_compat)
    if options.version_compat:
        flavour.set_version_compat(config)
    if options.strip:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    if options.debug_layers:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    batch, *tail = graph.input_shape()
    if batch is None:
        profile = builder.create_optimization_profile()
        sizes = options.profile
        shapes = [(n, *tail) for n in (sizes.min, sizes.opt, sizes.max)]
        profile.set_shape(graph.contract.input.name, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(
                f"{graph.path}: TensorRT {flavour.version} refuses batches of {sizes.min} to "
                f"{sizes.max}, fastest at {sizes.opt}"
            )
    return config


def _layers(flavour: Flavour, network: Any) -> dict[str, int]:
    kinds = Counter(network.get_layer(i).type.name for i in range(network.num_layers))
    return dict(sorted(kinds.items()))


def _compute_types(flavour: Flavour, network: Any) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in _COMPUTE:
            counts[layer.get_output(0).dtype.name] += 1
    return dict(sorted(counts.items()))
