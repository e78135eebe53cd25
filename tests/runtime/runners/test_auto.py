from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.canary import (
    CANARY_KEY,
    MAX_CROPS,
    canary_of,
    least_cosine,
    make_canary,
    read_canary,
)
from sa_runtime.errors import ContractError, InputError, MissingPackageError, RunnerError
from sa_runtime.runners import auto
from sa_runtime.runners.onnxruntime import OnnxRuntimeRunner
from sa_runtime.runners.opening import open_runner
from sa_runtime.runners.openvino import OpenVinoRunner
from sa_runtime.runners.table import RUNNERS
from sa_runtime.system.cache import cache_dir
from tests.processor import HAS_BF16, needs_bf16

if TYPE_CHECKING:
    from tests.tiny_artefacts import TinyArtefacts

pytest_plugins = ("tests.tiny_artefacts",)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and runtimes timed for a moment only."""
    monkeypatch.setenv("SA_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SA_DEPLOY_CALIBRATE", "1")
    monkeypatch.setattr(auto, "BUDGET_S", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Images a second by label instead of a measurement, which a busy machine would upset."""
    table = {"onnxruntime fp32": 30.0, "openvino fp32": 31.0, "openvino bf16": 60.0}
    monkeypatch.setattr(
        auto, "_speeds", lambda runners, canary: [table[runner.label] for runner in runners]
    )
    return table


def test_without_calibration_the_first_runtime_is_taken_at_the_artefacts_precision(
    tiny_artefacts: TinyArtefacts,
) -> None:
    with open_runner(tiny_artefacts.files["canary"]) as runner:
        assert runner.label == "openvino fp32"
        assert runner.reason == "openvino fp32: first choice for .onnx, nothing was measured"
    with open_runner(tiny_artefacts.files["bf16"], calibrate=False) as runner:
        assert runner.label == ("openvino bf16" if HAS_BF16 else "openvino fp32")


def test_a_measurement_decides_and_is_remembered(
    tiny_artefacts: TinyArtefacts,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "sa_runtime.runners.auto")
    with open_runner(tiny_artefacts.files["onnx"]) as runner:
        first = runner.reason
        np.testing.assert_allclose(
            runner.run(tiny_artefacts.crops(3)),
            tiny_artefacts.embed(tiny_artefacts.crops(3)),
            atol=2e-5,
        )
    (stored,) = (cache / "auto").glob("*.json")
    kept = json.loads(stored.read_text())
    assert set(kept["measured"]) == {"openvino fp32", "onnxruntime fp32"}
    assert all(speed > 0 for speed in kept["measured"].values())
    assert re.match(
        r"(openvino|onnxruntime) fp32: [\d.]+ images/s in batches of 1 and 4 "
        r"\((openvino|onnxruntime) fp32 [\d.]+\).*; measured \d{4}-\d\d-\d\d$",
        first,
    )

    def measured_again(*_: object) -> list[float]:
        raise AssertionError("measured a second time")

    monkeypatch.setattr(auto, "_speeds", measured_again)
    with open_runner(tiny_artefacts.files["onnx"]) as runner:
        assert runner.reason == first
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert re.fullmatch(r"measuring \d ways to run it", said[0])
    assert re.fullmatch(r"(openvino|onnxruntime) fp32 runs [\d.]+ images/s", said[1])
    assert re.fullmatch(rf"the choice of \d{{4}}-\d\d-\d\d is read from {stored}", said[-1])
    with pytest.raises(AssertionError, match="second time"):
        open_runner(tiny_artefacts.files["onnx"], threads=1)
    monkeypatch.setattr("sa_runtime.system.environment._versions", lambda: {"openvino": "2099.1"})
    with pytest.raises(AssertionError, match="second time"):
        open_runner(tiny_artefacts.files["onnx"])


TABLES = {"runtime": "openvino", "options": {}, "cosine": {}, "skipped": {}, "when": ""}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "{}",
        '{"runtime": "openvino"}',
        "[1]",
        json.dumps({**TABLES, "measured": {"another": 1.0}}),
        json.dumps({**TABLES, "measured": 2, "options": 1}),
        json.dumps({**TABLES, "measured": {"openvino fp32": "fast"}}),
    ],
)
def test_a_damaged_memory_is_measured_anew(
    tiny_artefacts: TinyArtefacts, cache: Path, speeds: dict[str, float], content: str
) -> None:
    open_runner(tiny_artefacts.files["onnx"]).close()
    (stored,) = (cache / "auto").glob("*.json")
    whole = stored.read_text()
    stored.write_text(content)
    open_runner(tiny_artefacts.files["onnx"]).close()
    assert stored.read_text() == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"measured": {"another label": 1.0}},
        {"measured": {}},
        {"measured": [1.0]},
        {"measured": {"openvino fp32": "fast"}},
        {"options": {"device": "GPU.7"}},
        {"options": None},
        {"runtime": "no such"},
        {"skipped": "nothing"},
    ],
)
def test_a_memory_that_was_edited_is_measured_anew(
    tiny_artefacts: TinyArtefacts, cache: Path, speeds: dict[str, float], changes: dict[str, Any]
) -> None:
    open_runner(tiny_artefacts.files["onnx"]).close()
    (stored,) = (cache / "auto").glob("*.json")
    whole = json.loads(stored.read_text())
    stored.write_text(json.dumps({**whole, **changes}))
    open_runner(tiny_artefacts.files["onnx"]).close()
    assert json.loads(stored.read_text()) == whole


def test_a_cache_that_cannot_be_written_is_no_error(
    tiny_artefacts: TinyArtefacts, cache: Path, speeds: dict[str, float]
) -> None:
    cache.write_text("a file where the folder should be")
    open_runner(tiny_artefacts.files["onnx"]).close()


@needs_bf16
def test_a_lower_precision_is_taken_where_the_canary_crops_agree(
    tiny_artefacts: TinyArtefacts, cache: Path, speeds: dict[str, float]
) -> None:
    with open_runner(tiny_artefacts.files["canary"]) as runner:
        assert runner.label == "openvino bf16"
        found = re.fullmatch(
            r"openvino bf16: 60\.0 images/s in batches of 1 and 4 \(openvino fp32 31\.0, "
            r"onnxruntime fp32 30\.0\), cosine (0\.999\d+|1\.0+) on the canary crops; "
            r"measured [\d-]+",
            runner.reason,
        )
        assert found, runner.reason
        images = tiny_artefacts.crops(3, seed=7)
        assert least_cosine(runner.run(images), tiny_artefacts.embed(images)) > 0.999
    with open_runner(tiny_artefacts.files["canary"], lower_precision=False) as runner:
        assert runner.precision == "fp32"
    with open_runner(tiny_artefacts.files["canary"], precision="bf16") as runner:
        assert runner.label == "openvino bf16"
        assert "onnxruntime not taken: it has no option precision" in runner.reason


@needs_bf16
def test_a_lower_precision_is_not_taken_where_they_disagree_or_are_missing(
    tiny_artefacts: TinyArtefacts,
    cache: Path,
    speeds: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_runner(tiny_artefacts.files["onnx"]) as runner:
        assert runner.label == "openvino fp32"
        assert "bf16 not taken: the artefact carries no canary crops" in runner.reason
    monkeypatch.setattr(auto, "LOWERED_COSINE", 1.1)
    with open_runner(tiny_artefacts.files["canary"]) as runner:
        assert runner.label == "openvino fp32"
        assert re.search(r"openvino bf16 not taken: cosine [01]\.\d+ on the canary", runner.reason)


def test_two_devices_of_one_runtime_are_told_apart(
    tiny_artefacts: TinyArtefacts, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OnnxRuntimeRunner.__init__

    def on(self: OnnxRuntimeRunner, path: Path, *, device: str = "cpu") -> None:
        opened(self, path)
        self.device = device

    monkeypatch.setattr(OnnxRuntimeRunner, "__init__", on)
    monkeypatch.setattr(
        OnnxRuntimeRunner, "variants", lambda path: ({"device": "cuda:1"}, {"device": "cpu"})
    )
    monkeypatch.setitem(RUNNERS, "openvino", "sa_runtime.runners.absent:Nothing")
    monkeypatch.setattr(auto, "_speeds", lambda runners, canary: [300.0, 20.0])
    for _ in range(2):  # measured, and remembered
        with open_runner(tiny_artefacts.files["onnx"]) as runner:
            assert (runner.label, runner.identity) == (
                "onnxruntime fp32",
                "onnxruntime fp32 on cuda",
            )
            assert runner.reason.startswith(
                "onnxruntime fp32 on cuda: 300.0 images/s in batches of 1 and 4 "
                "(onnxruntime fp32 20.0)"
            )
    # The memory of an older version, which had one name for both.
    (stored,) = (cache / "auto").glob("*.json")
    kept = json.loads(stored.read_text())
    stored.write_text(json.dumps({**kept, "measured": {"onnxruntime fp32": 20.0}}))
    with open_runner(tiny_artefacts.files["onnx"]) as runner:
        assert "on cuda: 300.0 images/s" in runner.reason
    assert json.loads(stored.read_text())["measured"] == kept["measured"]


def test_a_small_advantage_does_not_decide(
    tiny_artefacts: TinyArtefacts, cache: Path, speeds: dict[str, float]
) -> None:
    speeds["onnxruntime fp32"] = 31.5
    with open_runner(tiny_artefacts.files["onnx"]) as runner:
        assert runner.label == "openvino fp32"
    shutil.rmtree(cache)
    speeds["onnxruntime fp32"] = 33.0
    with open_runner(tiny_artefacts.files["onnx"]) as runner:
        assert runner.label == "onnxruntime fp32"


def test_latency_of_one_crop_counts_beside_batches(
    tiny_artefacts: TinyArtefacts, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OpenVinoRunner.run

    def slow_to_start(self: OpenVinoRunner, images: Images) -> Embeddings:
        if len(images) == 1:
            time.sleep(0.3)
        return right(self, images)

    monkeypatch.setattr(OpenVinoRunner, "run", slow_to_start)
    with open_runner(tiny_artefacts.files["onnx"]) as runner:
        assert runner.label == "onnxruntime fp32"


def test_a_runtime_that_gives_other_vectors_is_left_out(
    tiny_artefacts: TinyArtefacts,
    cache: Path,
    speeds: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = OpenVinoRunner.run

    def mirrored(self: OpenVinoRunner, images: Images) -> Embeddings:
        return right(self, np.ascontiguousarray(images[..., ::-1]))

    monkeypatch.setattr(OpenVinoRunner, "run", mirrored)
    with open_runner(tiny_artefacts.files["canary"]) as runner:
        assert runner.label == "onnxruntime fp32"
        assert re.search(
            r"openvino fp32 not taken: cosine 0\.\d+ to the vectors in the artefact", runner.reason
        )
    shutil.rmtree(cache)
    monkeypatch.setattr(OnnxRuntimeRunner, "run", mirrored)
    with pytest.raises(RunnerError, match="no runtime can be taken: openvino fp32: cosine 0"):
        open_runner(tiny_artefacts.files["canary"])


def test_what_is_not_installed_or_fails_is_passed_over(
    tiny_artefacts: TinyArtefacts, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_artefacts.files["onnx"]
    with monkeypatch.context() as patch:
        patch.setitem(RUNNERS, "openvino", "sa_runtime.runners.absent:Nothing")
        with open_runner(model) as runner:
            assert runner.reason == (
                "onnxruntime fp32: first choice for .onnx, nothing else fits; "
                "openvino not taken: not installed"
            )
        patch.setitem(RUNNERS, "onnxruntime", "sa_runtime.runners.absent:Nothing")
        with pytest.raises(MissingPackageError, match=r"runtime openvino needs .*\[cpu\]"):
            open_runner(model)

    def failing(*_: object) -> Iterator[object]:
        raise RunnerError("model.onnx: the device is lost")

    monkeypatch.setattr("sa_runtime.runners.openvino.read_openvino_model", failing)
    with open_runner(model) as runner:
        assert runner.name == "onnxruntime"
        assert "openvino not taken: model.onnx: the device is lost" in runner.reason


def test_an_option_that_no_runtime_knows_is_named(tiny_artefacts: TinyArtefacts) -> None:
    with pytest.raises(
        InputError, match=r"no runtime of \.onnx files takes the options depth; expected some of "
    ):
        open_runner(tiny_artefacts.files["onnx"], depth=3)


def test_canary_crops_survive_as_text() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 4, 3), dtype=np.uint8)
    vectors = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    read = read_canary(make_canary(images, vectors))
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.vectors, vectors)
    wrong: Any
    for wrong in (images[0], images.astype(np.float32), images[:0], images.repeat(5, axis=0)):
        with pytest.raises(ValueError, match=rf"canary images .* N from 1 to {MAX_CROPS}"):
            make_canary(wrong, vectors)
    with pytest.raises(ValueError, match=r"canary vectors float32 \(1, 5\): expected .*\(2, D"):
        make_canary(images, vectors[:1])


def test_damaged_canary_crops_are_named(tmp_path: Path) -> None:
    whole = make_canary(np.zeros((1, 8, 4, 3), np.uint8), np.ones((1, 5), np.float32))
    for text in ("", "?", whole[: len(whole) // 2], whole[:40] + "AAAA" + whole[44:]):
        with pytest.raises(ContractError, match=r"m\.onnx: its canary crops cannot be read"):
            read_canary(text, source="m.onnx")


def test_canary_crops_are_found_in_the_artefact(tiny_artefacts: TinyArtefacts) -> None:
    assert canary_of(tiny_artefacts.files["onnx"]) is None
    canary = canary_of(tiny_artefacts.files["canary"])
    assert canary is not None
    assert canary.images.shape == (3, 128, 64, 3)
    assert CANARY_KEY.encode() in tiny_artefacts.files["canary"].read_bytes()


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SA_DEPLOY_CACHE", "/somewhere/else")
    assert cache_dir() == Path("/somewhere/else")
    monkeypatch.delenv("SA_DEPLOY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/sa-deploy")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "sa-deploy"
