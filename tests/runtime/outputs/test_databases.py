"""Embedded databases as outputs: the same rows, whenever a run is stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline import parts
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.result import EmbedResult
from sa_runtime.pipeline.stages import run_pipeline
from tests.clip import Clip
from tests.file_limits import files_up_to

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
PACKAGES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


@pytest.fixture(params=list(PACKAGES))
def suffix(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(PACKAGES[name], reason=f"{PACKAGES[name]} is not installed")
    return name


def run(model: TinyModel, clip: Clip, *outs: Path, **options: Any) -> EmbedResult:
    given = {"batch_size": 8, "shard_rows": 60, "runtime": "onnxruntime", **options}
    return embed(clip.video, model.path, list(outs), detections=clip.detections, **given)


def same(one: Path, other: Path) -> None:
    first, second = read_embeddings(one), read_embeddings(other)
    assert first.rows.equals(second.rows)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert first.contract == second.contract


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_database_holds_what_the_files_hold(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, suffix: str, dtype: str
) -> None:
    outs = [tmp_path / "a", tmp_path / f"b.{suffix}", tmp_path / "c.npz"]
    result = run(tiny_model, clip, *outs, dtype=dtype, camera="door")
    assert result.rows == clip.boxes
    for out in outs[1:]:
        same(outs[0], out)
    assert result.size_bytes == sum(Path(file).stat().st_size for file in result.files)


def test_a_stopped_run_leaves_no_row_twice(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / f"a.{suffix}", tmp_path / "whole"
    run(tiny_model, clip, whole)
    left = 2

    def torn(items: Any, runner: Any, sink: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        result = run_pipeline(items, runner, sink, **options)
        if left < 0:
            raise RuntimeError("stopped")
        return result

    monkeypatch.setattr(parts, "run_pipeline", torn)
    monkeypatch.setattr("sa_runtime.outputs.database._ROWS", 16)
    with pytest.raises(RuntimeError, match="stopped"):
        run(tiny_model, clip, out, resume=True)
    rows = Manifest.read(out).rows
    assert 0 < rows < clip.boxes
    with pytest.raises(InputError, match=rf"not finished, {rows} rows so far"):
        read_embeddings(out)
    half = read_embeddings(out, unfinished=True)
    np.testing.assert_array_equal(half.vectors, read_embeddings(whole).vectors[:rows])
    monkeypatch.undo()
    result = run(tiny_model, clip, out, tmp_path / "late.parquet", resume=True)
    assert (result.rows, result.resumed_rows) == (clip.boxes, rows)
    same(out, whole)
    same(tmp_path / "late.parquet", whole)  # made of the database's rows
    with pytest.raises(InputError, match=rf"a\.{suffix}: holds {clip.boxes} rows of an earlier"):
        run(tiny_model, clip, out)


KILLED = """
import os, sys
from sa_runtime.outputs.table import output_kind
from sa_runtime.pipeline.embed import embed

video, model, boxes, out = sys.argv[1:]
output_kind(out)._trim = lambda self, rows: os._exit(9)
embed(video, model, out, detections=boxes, runtime="onnxruntime")
"""


def test_a_run_that_is_killed_as_its_database_is_made_goes_on(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"a.{suffix}"
    words = [clip.video, tiny_model.path, clip.detections, out]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], check=False)
    assert killed.returncode == 9
    assert run(tiny_model, clip, out, resume=True).rows == clip.boxes


def test_rows_that_are_gone_are_noticed(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"a.{suffix}"
    run(tiny_model, clip, out)
    state = json.loads((out / MANIFEST).read_text())
    state["shards"][0]["rows"] += 1
    (out / MANIFEST).write_text(json.dumps(state))
    for again in (lambda: read_embeddings(out), lambda: run(tiny_model, clip, out, resume=True)):
        with pytest.raises(InputError, match=r"was changed after it was written, with \d+ rows"):
            again()
    other = tmp_path / f"x.{suffix}"
    other.mkdir()
    (other / "of others").write_text("")
    with pytest.raises(InputError, match=r"x\.\w+: exists and was not written by"):
        run(tiny_model, clip, other)
    assert [path.name for path in other.iterdir()] == ["of others"]


def test_the_field_s_own_client_finds_people(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"a.{suffix}"
    run(tiny_model, clip, out)
    stored = read_embeddings(out)
    query = stored.vectors[17]
    nearest = int(np.argmax(stored.vectors @ query))
    if suffix == "lancedb":
        import lancedb

        table = lancedb.connect(str(out)).open_table("embeddings")
        (hit,) = table.search(query).distance_type("cosine").limit(1).to_list()
        assert hit["row"] == nearest
        assert hit["source"] == str(clip.video)
    else:
        from qdrant_client import QdrantClient

        client = QdrantClient(path=str(out / "storage"))
        (point,) = client.query_points("embeddings", query=query.tolist(), limit=1).points
        assert point.id == nearest
        assert point.payload is not None
        assert point.payload["source"] == str(clip.video)
        client.close()


def test_a_full_disk_is_named_and_the_run_goes_on_later(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    pytest.importorskip("qdrant_client", reason="qdrant_client is not installed")
    out, whole = tmp_path / "a.qdrant", tmp_path / "whole"
    run(tiny_model, clip, whole)
    named = r"a\.qdrant: cannot be written \(.*free some space"
    with files_up_to(30_000), pytest.raises(InputError, match=named):
        run(tiny_model, clip, out)
    run(tiny_model, clip, out, resume=True)
    same(whole, out)
