from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_runtime.bench import limits as limits_module
from sa_runtime.bench import run as schedule
from sa_runtime.bench.client import COMMAND, Client
from sa_runtime.bench.compare import compare, require_no_slower
from sa_runtime.bench.limits import Limits, Pace, read_bandwidth
from sa_runtime.bench.plan import BenchOptions, plan
from sa_runtime.bench.plot import plot_result
from sa_runtime.bench.result import BenchResult, percentiles
from sa_runtime.bench.run import run_bench
from sa_runtime.bench.samples import bench_crops
from sa_runtime.errors import (
    ContractError,
    InputError,
    MissingPackageError,
    RegressionError,
    RunnerError,
)
from sa_runtime.runners.table import RUNNERS

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

SCHEMA = Path(__file__).parents[3] / "docs" / "bench.schema.json"
QUICK = BenchOptions(runtimes=("onnxruntime",), batch_sizes=(1, 3), iterations=10, seconds=0.1)
SLOW = """
import time
from sa_runtime.bench import worker
from sa_runtime.runners.onnxruntime import OnnxRuntimeRunner
quick = OnnxRuntimeRunner._infer
def slow(self, inputs):
    time.sleep(0.03)
    return quick(self, inputs)
OnnxRuntimeRunner._infer = slow
worker.main()
"""


def problems(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """What of a value the schema does not allow; the keywords that ours uses."""
    if "anyOf" in schema:
        choices = [problems(value, choice, at) for choice in schema["anyOf"]]
        return [] if any(not found for found in choices) else choices[0]
    if "const" in schema or "enum" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        return [] if value in allowed else [f"{at}: {value!r} not in {allowed}"]
    kinds: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "number": (int, float), "integer": int,
        "null": type(None),
    }  # fmt: skip
    if not isinstance(value, kinds[schema["type"]]) or isinstance(value, bool):
        return [f"{at}: {value!r} is no {schema['type']}"]
    found: list[str] = []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        rest = schema["additionalProperties"]
        found += [
            f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value
        ]
        for name, item in value.items():
            if name in known:
                found += problems(item, known[name], f"{at}.{name}")
            elif rest is False:
                found.append(f"{at}.{name} is unknown")
            else:
                found += problems(item, rest, f"{at}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += problems(item, schema["items"], f"{at}[{index}]")
    return found


@pytest.fixture(scope="module")
def measured(tiny_model: TinyModel) -> BenchResult:
    options = dataclasses.replace(QUICK, runtimes=())
    return run_bench([tiny_model.path], options)


def test_a_result_holds_every_runtime_at_every_batch_size(measured: BenchResult) -> None:
    names = [contender.name for contender in measured.contenders]
    assert names[0] == "openvino fp32"
    assert names[-1] == "onnxruntime fp32"
    assert measured.reference == "openvino fp32"
    for contender in measured.contenders:
        assert [series.batch for series in contender.series] == [1, 3]
        assert contender.open_s > 0
        assert contender.first_s > 0
        assert 20 < contender.peak_memory_mb < 2000
        assert contender.end_to_end is contender.retrieval is None
        if contender.name != measured.reference:
            assert contender.cosine is not None
            assert 0.99 < contender.cosine["min"] <= contender.cosine["mean"] < 1.001
        for series in contender.series:
            assert series.iterations == 10
            assert len(series.rounds_images_per_s) == len(series.rounds_pace_tflops) == 10
            latency = series.latency_ms
            assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
            assert series.images_per_s <= 1.001e3 * series.batch / min(latency.values()) * 10
            assert series.percent_of_limit is None
    assert measured.limits_tflops["fp32"] > 0.001
    assert measured.environment["cores"] >= 1
    assert "onnxruntime" in measured.environment["versions"]


def test_a_result_fits_its_schema_and_comes_back(measured: BenchResult, tmp_path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    assert problems(measured.to_dict(), schema) == []
    compared = compare(measured, measured, fail_above=0.05).to_dict()
    whole = {**measured.to_dict(), "comparison": json.loads(json.dumps(compared))}
    assert problems(whole, schema) == []
    (tmp_path / "base.json").write_text(json.dumps(whole))
    assert BenchResult.from_file(tmp_path / "base.json") == measured
    del whole["reference"]
    whole["contenders"][0]["speed"] = 1
    assert problems(whole, schema) == [
        "$.reference is missing",
        "$.contenders[0].speed is unknown",
    ]


@pytest.mark.alone
def test_a_build_that_was_made_slower_is_caught(tiny_model: TinyModel) -> None:
    base = run_bench([tiny_model.path], QUICK)
    slow = run_bench([tiny_model.path], QUICK, command=(sys.executable, "-c", SLOW))
    comparison = compare(base, slow, fail_above=0.05)
    assert {change.verdict for change in comparison.changes} == {"slower"}
    with pytest.raises(
        RegressionError,
        match=r"slower than the base: onnxruntime fp32 at batch 1 by [\d.]+ % \(at least .*allowed",
    ) as raised:
        require_no_slower(comparison)
    assert raised.value.exit_code == 3
    assert {change.verdict for change in compare(slow, base, fail_above=0.05).changes} == {"faster"}


@settings(max_examples=100)
@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=300))
def test_percentiles_are_values_that_so_many_stay_below(values: list[float]) -> None:
    found = percentiles(values)
    for key, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        assert found[key] in values
        assert sum(value <= found[key] for value in values) >= share * len(values)
        assert sum(value < found[key] for value in values) < share * len(values)


def test_options_that_cannot_be_are_named() -> None:
    for options, message in (
        ({"batch_sizes": ()}, r"batch_sizes=\(\): expected at least one"),
        ({"batch_sizes": (1, 0)}, r"batch_sizes=\(1, 0\): expected 1 or more"),
        ({"seconds": 0.0}, r"seconds=0\.0: expected more than 0"),
        ({"iterations": -1}, "iterations=-1: expected 0 or more"),
        ({"streams": 0}, "streams=0: expected 1 or more"),
        ({"threads": -2}, "threads=-2: expected 0 or more"),
    ):
        with pytest.raises(InputError, match=message):
            BenchOptions(**options)


def test_the_plan_takes_what_fits_and_says_what_does_not(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    model = tiny_model.path
    planned, skipped = plan([model], BenchOptions(threads=1, streams=2))
    assert {(p.runtime, p.options.get("streams"), p.options["threads"]) for p in planned} == {
        ("openvino", 2, 1),
        ("onnxruntime", None, 1),
    }
    assert skipped == {}
    (auto,), _ = plan([model], BenchOptions(runtimes=("auto",)))
    assert (auto.runtime, auto.options) == ("auto", {})
    with pytest.raises(InputError, match="runtime='tensor': unknown; choose from auto, "):
        plan([model], BenchOptions(runtimes=("tensor",)))
    with pytest.raises(
        InputError, match=r"nothing to measure it with \(.* torchscript: it does not open \.onnx"
    ):
        plan([model], BenchOptions(runtimes=("torchscript",)))
    monkeypatch.setitem(RUNNERS, "openvino", "sa_runtime.runners.absent:Nothing")
    planned, skipped = plan([model], BenchOptions())
    assert [p.runtime for p in planned] == ["onnxruntime"]
    assert skipped == {f"{model.name} openvino": "not installed"}
    with pytest.raises(MissingPackageError, match="runtime openvino needs"):
        plan([model], BenchOptions(runtimes=("openvino",)))


def test_models_that_do_not_go_together_are_refused(
    make_tiny_model: Callable[..., TinyModel],
) -> None:
    small, large = make_tiny_model(), make_tiny_model(height=48)
    other = make_tiny_model(seed=5)
    with pytest.raises(InputError, match=r"takes 48x16 pixels and .* 32x16: measure them apart"):
        run_bench([small.path, large.path], QUICK)
    with pytest.raises(ContractError, match="they do not compare"):
        run_bench([small.path, other.path], QUICK)


def test_inputs_are_looked_at_before_anything_is_measured(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "Client", None)
    for options, message in (
        ({"source": str(tmp_path / "gone")}, "gone: no such file or folder"),
        ({"source": str(tmp_path)}, "no images below it"),
        ({"detections": tmp_path / "d.txt"}, r"d\.txt': expected a video as `source`"),
        ({"data_dir": tmp_path, "dataset": "nosuch"}, "nosuch"),
        ({"reference": tmp_path / "gone.pt"}, r"gone\.pt: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            run_bench([tiny_model.path], dataclasses.replace(QUICK, **options))


def test_a_worker_that_dies_and_errors_in_it_are_told(tmp_path: Path) -> None:
    with (
        Client((sys.executable, "-c", "import os; os._exit(7)")) as dead,
        pytest.raises(RunnerError, match="process ended with code 7 during 'memory'; its own"),
    ):
        dead.ask("memory")
    with Client(COMMAND) as client:
        with pytest.raises(InputError, match=r"gone\.onnx: no such file"):
            client.ask("open", model=str(tmp_path / "gone.onnx"), runtime="auto", options={})
        assert client.ask("memory")["peak_mb"] > 1


def test_peak_memory_is_of_the_measuring_process_alone() -> None:
    held = np.ones(2**27)  # 1 GiB, all of it touched
    with Client(COMMAND) as client:
        peak_mb = client.ask("memory")["peak_mb"]
    assert held[-1] == 1
    assert 20 < peak_mb < 500


def test_crops_of_a_folder_are_measured_end_to_end_and_by_retrieval(
    tiny_model: TinyModel, synthetic_root: Path
) -> None:
    options = dataclasses.replace(
        QUICK,
        batch_sizes=(4,),
        iterations=0,
        source=str(synthetic_root / "query"),
        dataset="synthetic",
        data_dir=synthetic_root,
        reference=tiny_model.path,
    )
    (contender,) = run_bench([tiny_model.path], options).contenders
    whole = contender.end_to_end
    assert whole is not None
    assert whole["rows"] >= 4
    assert whole["rows_per_s"] == pytest.approx(whole["rows"] / whole["wall_s"], rel=0.01)
    assert all(whole[f"{stage}_s"] > 0 for stage in ("decode", "crop", "inference", "write"))
    assert contender.retrieval is not None
    assert all(0 < contender.retrieval[key] <= 1 for key in ("mAP", "rank1"))
    assert contender.cosine is not None
    assert contender.cosine["min"] > 0.99999


def test_a_video_gives_the_crops_of_its_boxes(synthetic_root: Path, tmp_path: Path) -> None:
    (video,) = (synthetic_root / "videos").glob("*.mp4")
    detections = next((synthetic_root / "videos").glob("*.txt"))
    found = bench_crops(str(video), 32, 16, tmp_path, detections)
    assert found.shape[1:] == (32, 16, 3)
    assert 8 < len(found) <= 64
    with pytest.raises(InputError, match="a video without boxes"):
        bench_crops(str(video), 32, 16, tmp_path, None)


def test_batches_in_flight_are_measured_too(tiny_model: TinyModel) -> None:
    options = dataclasses.replace(QUICK, runtimes=("openvino",), streams=2, batch_sizes=(2,))
    result = run_bench([tiny_model.path], options)
    for contender in result.contenders:
        assert contender.details["num_streams"] == "2"
        (series,) = contender.series
        assert series.streams == 2
        assert series.iterations >= 10


def test_limits_are_plausible() -> None:
    limits = Limits().measure(0.02)
    assert set(limits) <= {"fp32", "bf16", "int8"}
    assert all(0.001 < value < 1000 for value in limits.values())
    assert 0.001 < Pace().measure(0.0) < 1000
    assert 0.1 < read_bandwidth(0.01, size_bytes=2**22) < 10_000


def test_limits_are_computed_in_the_precision_they_are_named_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    named = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
    expected = {precision for precision, name in named.items() if name in capable}
    assert {"fp32", "int8"} <= expected
    assert set(Limits().measure(0.0)) == expected
    monkeypatch.setitem(limits_module._TYPES, "int8", ("i4",))
    assert set(Limits().measure(0.0)) == expected - {"int8"}


def test_the_plot_is_a_picture(measured: BenchResult, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_result(measured, tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 500
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    with pytest.raises(InputError, match=r"plot\.jpeg': expected a name that ends in \.png"):
        plot_result(measured, tmp_path / "plot.jpeg")
