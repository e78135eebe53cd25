"""Building with TensorRT 11: its real bindings, with recording doubles where a GPU is needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sa_runtime.errors import BuildError, InputError
from sa_runtime.system.gpus import Gpu, Machine
from sa_runtime.tensorrt import build as build_module
from sa_runtime.tensorrt import engines
from sa_runtime.tensorrt.build import BuiltEngine, engine_from_onnx
from sa_runtime.tensorrt.engines import BuildContext, build_engine, stale
from sa_runtime.tensorrt.flavour import Flavour, load_flavour, make_logger, make_monitor
from sa_runtime.tensorrt.graph import OnnxGraph, read_graph
from sa_runtime.tensorrt.options import BuildOptions, Profile
from sa_runtime.tensorrt.timing import TimingCache
from tests.runtime.tensorrt.doubles import double

H100 = Gpu(index=0, name="NVIDIA H100", compute_capability=90, memory_bytes=80 << 30)
PROFILE = Profile(min=1, opt=4, max=8)


class Site:
    """Doubles of everything between ``trt.Builder`` and a serialised engine."""

    def __init__(self, trt: ModuleType, monkeypatch: pytest.MonkeyPatch, pools: int) -> None:
        self.trt = trt
        self.builder = double(trt.Builder)
        self.network = double(trt.INetworkDefinition)
        self.config = double(trt.IBuilderConfig)
        self.profile = double(trt.IOptimizationProfile)
        self.parser = double(trt.OnnxParser)
        self.timing = double(trt.ITimingCache)
        self.pools, self.registered = pools, False
        self.builder.create_network.return_value = self.network
        self.builder.create_builder_config.return_value = self.config
        self.builder.create_optimization_profile.return_value = self.profile
        self.builder.build_serialized_network.side_effect = self._serialize
        self.config.add_optimization_profile.return_value = 0
        self.config.create_timing_cache.return_value = self.timing
        self.config.get_timing_cache.return_value = self.timing
        self.config.set_timing_cache.return_value = True
        self.timing.serialize.side_effect = lambda: b"measured"
        self.parser.parse_from_file.side_effect = self._parse
        self.parser.num_errors = 0
        monkeypatch.setattr(trt, "Builder", lambda logger: self.builder)
        monkeypatch.setattr(trt, "OnnxParser", lambda network, logger: self.parser)
        monkeypatch.setattr(build_module, "register_attention_pool", self._register)
        self.architecture: int | None = None

    def flags(self, *names: str) -> int:
        """The creation flags of those names; TensorRT 11 knows no other typing than strong."""
        known = self.trt.NetworkDefinitionCreationFlag.__members__
        if not self.trt.__version__.startswith("10."):
            names = tuple(name for name in names if name != "STRONGLY_TYPED")
        return sum(1 << int(known[name]) for name in names)

    def _register(self, trt: ModuleType, compute_capability: int) -> None:
        assert trt is self.trt
        self.registered, self.architecture = True, compute_capability

    def _parse(self, path: str) -> bool:
        kinds = self.trt.LayerType
        fused = [kinds.PLUGIN_V3] * self.pools if self.registered else [kinds.REDUCE] * 9
        layers = [self._layer(kind) for kind in (kinds.CONVOLUTION, *fused)]
        self.network.num_layers, self.network.num_outputs = len(layers), 1
        self.network.get_layer.side_effect = layers.__getitem__
        return True

    def _layer(self, kind: Any) -> Any:
        layer = double(self.trt.ILayer)
        layer.type = kind
        tensor = double(self.trt.ITensor)
        tensor.dtype = self.trt.DataType.HALF
        layer.get_output.side_effect = lambda index: tensor
        return layer

    def _serialize(self, network: Any, config: Any) -> bytes:
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        assert monitor.step_complete("Building engine", 0)
        monitor.phase_finish("Building engine")
        return b"an engine"


@pytest.fixture
def graph(exported_models: dict[str, Path]) -> OnnxGraph:
    return read_graph(exported_models["fp16"])


@pytest.fixture
def site(stub_tensorrt: ModuleType, monkeypatch: pytest.MonkeyPatch, graph: OnnxGraph) -> Site:
    return Site(stub_tensorrt, monkeypatch, graph.attention_pools)


def built(graph: OnnxGraph, gpu: Gpu | None = H100, **changes: Any) -> BuiltEngine:
    options = BuildOptions(profile=PROFILE, **changes)
    return engine_from_onnx(graph, load_flavour("tensorrt"), options, gpu=gpu)


def test_the_plugin_is_registered_before_parsing_and_taken(site: Site, graph: OnnxGraph) -> None:
    result = built(graph)
    assert (result.engine, result.plugin_nodes) == (b"an engine", 2)
    assert len(result.plugin_sha256) == 64
    assert site.architecture == 90
    site.builder.create_network.assert_called_once_with(
        site.flags("STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS")
    )
    site.profile.set_shape.assert_called_once_with(
        "images", (1, 128, 64, 3), (4, 128, 64, 3), (8, 128, 64, 3)
    )


def test_without_the_plugin_nothing_is_registered(site: Site, graph: OnnxGraph) -> None:
    result = built(graph, plugin=False)
    assert not site.registered
    assert result.plugin_nodes == 0
    assert result.plugin_sha256 == ""
    site.builder.create_network.assert_called_once_with(site.flags("STRONGLY_TYPED"))


def test_a_node_that_was_not_fused_is_an_error(site: Site, graph: OnnxGraph) -> None:
    site.pools = 1
    with pytest.raises(BuildError, match=r"1 of its 2 AttentionPool nodes became the fused ker"):
        built(graph)


def test_an_engine_for_every_gpu_from_ampere_gets_a_kernel_for_all(
    site: Site, graph: OnnxGraph
) -> None:
    built(graph, hardware_compat="ampere-plus")
    assert site.architecture == 80
    levels = site.trt.HardwareCompatibilityLevel
    assert site.config.hardware_compatibility_level == levels.AMPERE_PLUS


def test_every_option_reaches_the_builder(site: Site, graph: OnnxGraph) -> None:
    trt = site.trt
    built(
        graph,
        workspace_gib=2.5,
        optimization_level=5,
        hardware_compat="same-cc",
        version_compat=True,
        strip=True,
        debug_layers=True,
    )
    config = site.config
    config.set_memory_pool_limit.assert_called_once_with(
        trt.MemoryPoolType.WORKSPACE, 2_684_354_560
    )
    assert config.builder_optimization_level == 5
    assert (
        config.hardware_compatibility_level
        == trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    )
    flags = [call.args[0] for call in config.set_flag.call_args_list]
    assert flags == [trt.BuilderFlag.VERSION_COMPATIBLE, trt.BuilderFlag.STRIP_PLAN]
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED


def test_tensorrt_10_is_asked_for_strong_typing(
    site: Site, graph: OnnxGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.trt, "__version__", "10.13.3.9")
    built(graph, plugin=False)
    site.builder.create_network.assert_called_once_with(site.flags("STRONGLY_TYPED"))
    assert site.flags("STRONGLY_TYPED") != 0


def test_a_level_this_version_does_not_have_is_named(site: Site) -> None:
    class Older:
        __members__ = {"NONE": 0, "AMPERE_PLUS": 1}  # noqa: RUF012 (as an enum has it)

    trt = ModuleType("tensorrt")
    trt.HardwareCompatibilityLevel = Older  # type: ignore[attr-defined]
    flavour = Flavour(name="tensorrt", trt=trt, version="10.0.1")
    with pytest.raises(InputError, match=r"TensorRT 10\.0\.1 knows none, ampere-plus"):
        flavour.set_hardware_compat(site.config, "same-cc")


def test_without_a_gpu_the_builder_says_what_is_missing(
    stub_tensorrt: ModuleType, graph: OnnxGraph
) -> None:
    # The stub libraries answer as TensorRT does where there is no driver: with nothing.
    with pytest.raises(BuildError, match=r"cannot start a builder: .* `flavour='tensorrt-rtx'`"):
        built(graph, gpu=None, plugin=False)
    with pytest.raises(BuildError, match=r"no NVIDIA GPU is visible .*`flavour='tensorrt-rtx'`"):
        built(graph, gpu=None)


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("triton", "Triton, which compiles the kernel, is not installed"),
        ("QuickPluginCreationRequest", r"cannot embed a kernel of a Python plugin, 10\.9 can"),
    ],
)
def test_where_the_plugin_cannot_be_had_the_body_is_built(
    site: Site, graph: OnnxGraph, monkeypatch: pytest.MonkeyPatch, missing: str, text: str
) -> None:
    if missing == "triton":
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: None if name == "triton" else name
        )
    else:
        monkeypatch.delattr(site.trt, missing)
    assert built(graph).plugin_nodes == 0
    with pytest.raises(InputError, match=f"plugin=True: .*{text}.*build with `plugin=False`"):
        built(graph, plugin=True)


def test_a_cached_engine_follows_the_fused_kernel(
    site: Site, graph: OnnxGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(cuda_version=13000, gpus=(H100,), problem="")
    context = BuildContext(flavour=load_flavour("tensorrt"), machine=machine)
    options, engine = BuildOptions(profile=PROFILE), tmp_path / "m.engine"

    def why() -> str:
        return stale(engine, graph, options, context)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "plugin_obstacle", lambda graph, flavour: "no Triton")
        build_engine(graph, engine, options, context)
        assert why() == ""
    assert why() == "the fused kernel can be embedded now"
    build_engine(graph, engine, options, context)
    assert why() == ""
    monkeypatch.setattr(engines, "plugin_sha256", lambda: "another")
    assert why() == "the fused kernel has changed since the engine was built"
    # Without Triton the kernel that is inside is as good as ever.
    monkeypatch.setattr(build_module, "plugin_obstacle", lambda graph, flavour: "no Triton")
    assert why() == ""


def test_measurements_are_shared_through_a_file(
    site: Site, graph: OnnxGraph, tmp_path: Path
) -> None:
    machine = Machine(cuda_version=13000, gpus=(H100,), problem="")
    cache = tmp_path / "timing.cache"
    context = BuildContext(flavour=load_flavour("tensorrt"), machine=machine, timing_cache=cache)
    options = BuildOptions(profile=PROFILE)
    info = build_engine(graph, tmp_path / "m.engine", options, context)
    assert (info.gpu, info.compute_capability, info.cuda_version) == ("NVIDIA H100", 90, 13000)
    assert cache.read_bytes() == b"measured"
    assert site.config.create_timing_cache.call_args_list[0].args == (b"",)
    assert site.timing.combine.call_count == 0
    build_engine(graph, tmp_path / "m.engine", options, context)
    # Read before the build, and what stands there afterwards is not lost.
    assert site.config.create_timing_cache.call_args_list[1].args == (b"measured",)
    assert site.timing.combine.call_count == 1


def test_measurements_of_another_gpu_are_left_aside(site: Site, tmp_path: Path) -> None:
    cache = TimingCache(tmp_path / "timing.cache")
    cache.path.write_bytes(b"other")
    site.config.set_timing_cache.side_effect = [False, True]
    cache.attach(site.config)
    given = [call.args[0] for call in site.config.create_timing_cache.call_args_list]
    assert given == [b"other", b""]


def test_the_log_and_the_monitor_are_the_real_interfaces(stub_tensorrt: ModuleType) -> None:
    flavour = load_flavour("tensorrt")
    told: list[tuple[str, str]] = []
    logger = make_logger(flavour, lambda severity, message: told.append((severity, message)))
    assert isinstance(logger, stub_tensorrt.ILogger)
    logger.log(stub_tensorrt.Logger.WARNING, "text")
    assert told == [("warning", "text")]
    seen: list[tuple[str, int, int]] = []
    monitor = make_monitor(flavour, lambda *step: seen.append(step))
    assert isinstance(monitor, stub_tensorrt.IProgressMonitor)
    monitor.phase_start("phase", "parent", 3)
    assert monitor.step_complete("phase", 0)
    monitor.phase_finish("phase")
    assert seen == [("phase", 0, 3), ("phase", 1, 3), ("phase", 3, 3)]


def test_the_doubles_refuse_what_the_classes_do_not_take(stub_tensorrt: ModuleType) -> None:
    config = double(stub_tensorrt.IBuilderConfig)
    with pytest.raises(TypeError, match="set_memory_pool_limit"):
        config.set_memory_pool_limit(1)
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(TypeError, match="execute_async_v3"):
        double(stub_tensorrt.IExecutionContext).execute_async_v3(stream=1)


def test_options_out_of_range_are_named() -> None:
    for change, text in (
        ({"workspace_gib": 0}, "workspace_gib=0: expected GiB, more than 0"),
        ({"optimization_level": 6}, "optimization_level=6: expected 0 to 5"),
        ({"hardware_compat": "all"}, "hardware_compat='all': unknown; choose from none, ampere"),
    ):
        with pytest.raises(InputError, match=text):
            BuildOptions(profile=PROFILE, **change)
    assert dataclasses.asdict(BuildOptions(profile=PROFILE))["plugin"] is None
