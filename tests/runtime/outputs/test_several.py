"""One run into every output, and runs that add to what is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from sa_runtime.crops import clip_boxes
from sa_runtime.errors import InputError, MissingPackageError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.manifest import MANIFEST, Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.outputs.table import OUTPUTS
from sa_runtime.pipeline import parts
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.result import EmbedResult
from sa_runtime.pipeline.stages import run_pipeline
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
Run = Callable[..., EmbedResult]


@pytest.fixture
def clips(clip: Clip, tmp_path: Path) -> list[Path]:
    """The clip under three names, which hold two days."""
    names = ["north_20261126.mp4", "north_20261127.mp4", "south_2026-11-27.mp4"]
    folder = tmp_path / "clips"
    folder.mkdir()
    return [Path(shutil.copy(clip.video, folder / name)) for name in names]


@pytest.fixture
def run(tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> Run:
    def call(videos: list[Path], *outs: str, **options: Any) -> EmbedResult:
        given = {"batch_size": 8, "shard_rows": 100, "runtime": "onnxruntime", **options}
        places = [f"{tmp_path}/{out}" for out in outs]
        boxes = [clip.detections] * len(videos)
        return embed(videos, tiny_model.path, places, detections=boxes, **given)

    return call


def same(one: StoredEmbeddings, other: StoredEmbeddings) -> None:
    assert one.rows.equals(other.rows)
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert one.contract == other.contract


def test_every_output_of_a_run_holds_the_same(
    run: Run, clip: Clip, clips: list[Path], tmp_path: Path
) -> None:
    outs = ["a.parquet", "b.npz", "c.csv", "folder"]
    result = run(clips[:2], *outs, crops=tmp_path / "crops", camera="north")
    assert result.rows == 2 * clip.boxes
    first = read_embeddings(tmp_path / "folder")
    same(first, read_embeddings(tmp_path / "a.parquet"))
    same(first, read_embeddings(tmp_path / "b.npz"))
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert len(lines) == 1 + result.rows
    assert lines[0].replace('"', "").split(",") == first.rows.column_names
    assert result.size_bytes == sum(Path(file).stat().st_size for file in result.files)
    with np.load(tmp_path / "b.npz") as archive:  # without pickle, by NumPy alone
        np.testing.assert_array_equal(archive["embedding"], first.vectors)
        assert archive["frame"].tolist() == first.rows["frame"].to_pylist()
    alone = run(clips[:2], "alone.npz", "alone.parquet", camera="north")
    assert alone.rows == result.rows
    without = read_embeddings(tmp_path / "alone.npz")
    same(without, read_embeddings(tmp_path / "alone.parquet"))
    np.testing.assert_allclose(without.vectors, first.vectors, atol=1e-6)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_every_row_of_the_table_holds_what_a_folder_beside_it_holds(
    run: Run, clip: Clip, clips: list[Path], tmp_path: Path, suffix: str
) -> None:
    try:
        run(clips[:2], "folder", f"other{suffix}", camera="north")
    except MissingPackageError as error:
        pytest.skip(str(error))
    first = read_embeddings(tmp_path / "folder")
    assert len(first.rows) == 2 * clip.boxes
    if suffix != ".csv":
        same(first, read_embeddings(tmp_path / f"other{suffix}"))
        return
    table = pyarrow.csv.read_csv(tmp_path / "other.csv")
    for name in ("source", "camera", "frame", "track_id", "timestamp_s"):
        assert table[name].to_pylist() == first.rows[name].to_pylist()


def test_a_row_finds_its_crop(run: Run, clips: list[Path], tmp_path: Path) -> None:
    run(clips[:1], "folder", crops=tmp_path / "crops")
    rows = read_embeddings(tmp_path / "folder").rows.to_pylist()
    names = [row["crop"] for row in rows]
    found = sorted(
        str(path.relative_to(tmp_path / "crops")) for path in (tmp_path / "crops").rglob("*.jpg")
    )
    assert sorted(names) == found
    assert not list((tmp_path / "crops").glob(".*"))
    capture = cv2.VideoCapture(str(clips[0]))
    frames = [capture.read()[1] for _ in range(3)]
    for row in rows[:20]:
        frame: NDArray[np.uint8] = frames[row["frame"] - 1]
        left, top = row["left"], row["top"]
        box = [[left, top, left + row["width"], top + row["height"]]]
        (x0, y0, x1, y1), *_ = clip_boxes(box, *frame.shape[:2]).boxes.tolist()
        crop = cv2.imread(str(tmp_path / "crops" / row["crop"]))
        assert crop is not None
        assert crop.shape == (y1 - y0, x1 - x0, 3)
        assert np.abs(crop.astype(float) - frame[y0:y1, x0:x1]).mean() < 6


def test_files_are_divided_and_read_in_order(run: Run, clips: list[Path], tmp_path: Path) -> None:
    run(clips, "plain")
    run(clips, "divided", partition=["source", "day"], shard_rows=150)
    folders = {
        path.parent.relative_to(tmp_path / "divided").as_posix()
        for path in (tmp_path / "divided").rglob("*.parquet")
    }
    assert folders == {
        "source_name=north_20261126.mp4/day=2026-11-26",
        "source_name=north_20261127.mp4/day=2026-11-27",
        "source_name=south_2026-11-27.mp4/day=2026-11-27",
    }
    one, other = read_embeddings(tmp_path / "plain"), read_embeddings(tmp_path / "divided")
    assert one.rows.equals(other.rows)
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)
    table = pyarrow.dataset.dataset(tmp_path / "divided", partitioning="hive")
    day = table.to_table(filter=pyarrow.dataset.field("day") == "2026-11-26")
    assert set(day["source"].to_pylist()) == {str(clips[0])}
    assert len(table.to_table()) == len(other.vectors)
    with pytest.raises(InputError, match=r"partition='day': .*begun with `partition='source,day"):
        run(clips, "divided", partition=["day"], resume=True)
    with pytest.raises(InputError, match=r"partition='hour': expected some of source, cam"):
        run(clips, "x", partition=["hour"])
    with pytest.raises(InputError, match=r"partition='day': only folders are divided"):
        run(clips, "x.parquet", partition=["day"])


def test_folders_of_long_and_odd_names_are_written(
    run: Run, clips: list[Path], tmp_path: Path
) -> None:
    """Names of files may have 255 bytes; percent signs would make three times as many of some."""
    cameras = ["玄関" * 20, "../x\n%", "é" * 200, "é" * 199 + "è"]
    folders = []
    for number, camera in enumerate(cameras):
        out = tmp_path / str(number)
        run(clips[:1], out.name, partition=["camera"], camera=camera)
        (folder,) = out.glob("camera_name=*")
        folders.append(folder.name)
        assert set(read_embeddings(out).rows["camera"].to_pylist()) == {camera}
        if number < 2:
            table = pyarrow.dataset.dataset(out, partitioning="hive").to_table()
            assert set(table["camera_name"].to_pylist()) == {camera}
    assert folders[:2] == [f"camera_name={cameras[0]}", "camera_name=..%2Fx%0A%25"]
    assert max(len(name.encode()) for name in folders) <= 255
    assert len(set(folders)) == len(cameras)


def test_more_keys_than_files_may_be_open(
    run: Run, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sa_runtime.outputs.partition._OPEN", 1)
    run(clips, "divided", partition=["source"], shard_rows=10_000)
    run(clips, "plain", shard_rows=10_000)
    same(read_embeddings(tmp_path / "plain"), read_embeddings(tmp_path / "divided"))


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Break a run off in the middle of its part of this number."""
    left = after

    def torn(items: Any, runner: Any, sink: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        written = 0

        def write(rows: Any, vectors: Any) -> None:
            nonlocal written
            written += len(rows)
            sink(rows, vectors)
            if left < 0 and written > 20:
                raise RuntimeError("stopped")

        return run_pipeline(items, runner, write, **options)

    monkeypatch.setattr(parts, "run_pipeline", torn)


def test_outputs_that_lag_or_come_later_catch_up(
    run: Run, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clips, "whole", "whole.npz", crops=tmp_path / "whole crops")
    options: dict[str, Any] = {"resume": True, "crops": tmp_path / "crops"}
    stopping(monkeypatch, 2)
    with pytest.raises(RuntimeError, match="stopped"):
        run(clips, "a", "b", "c.npz", **options)
    assert not (tmp_path / "c.npz").exists()
    # As if the second had been lost in the moment between the two manifests.
    state = json.loads((tmp_path / "b" / MANIFEST).read_text())
    first = Manifest.read(tmp_path / "b")
    lost = state["shards"].pop()
    state["position"] = {"source": 0, "done": 12, "digest": ""}
    (tmp_path / "b" / MANIFEST).write_text(json.dumps(state))
    monkeypatch.undo()
    run(clips, "a", "b", "c.npz", "late.parquet", "late", **options)
    whole = read_embeddings(tmp_path / "whole")
    for name in ("a", "b", "c.npz", "late", "late.parquet"):
        same(read_embeddings(tmp_path / name), whole)
    assert Manifest.read(tmp_path / "b").shards[len(first.shards) - 1].file == lost["file"]
    ours = {p.name: p.read_bytes() for p in (tmp_path / "crops").rglob("*.jpg")}
    assert ours == {p.name: p.read_bytes() for p in (tmp_path / "whole crops").rglob("*.jpg")}
    assert len(ours) == len(whole.vectors)


def test_new_sources_come_behind_finished_ones(
    run: Run, clip: Clip, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clips[1:2], "grown", resume=True, settings={"a": 1})
    stopping(monkeypatch, 1)
    with pytest.raises(RuntimeError, match="stopped"):
        run(clips[:2], "grown", resume=True)
    monkeypatch.undo()
    half = read_embeddings(tmp_path / "grown", unfinished=True)
    assert len(half.vectors) > clip.boxes
    # The one in the middle must come again, the finished one need not.
    with pytest.raises(InputError, match=r"sources\.1 was .*north_20261126.* and is absent"):
        run(clips[2:], "grown", resume=True)
    result = run([clips[2], clips[0]], "grown", resume=True, settings={"a": 2})
    assert (result.rows, result.resumed_rows) == (3 * clip.boxes, len(half.vectors))
    stored = read_embeddings(tmp_path / "grown")
    expected = [str(clips[index]) for index in (1, 0, 2) for _ in range(clip.boxes)]
    assert stored.rows["source"].to_pylist() == expected
    run([clips[1], clips[0], clips[2]], "whole")
    same_rows = read_embeddings(tmp_path / "whole")
    assert stored.rows.equals(same_rows.rows)
    np.testing.assert_allclose(stored.vectors, same_rows.vectors, atol=1e-6)
    manifest = Manifest.read(tmp_path / "grown")
    assert (manifest.settings, len(manifest.plan["sources"])) == ({"a": 2}, 3)
    again = run(clips, "grown", resume=True)
    assert (again.rows, again.resumed_rows) == (3 * clip.boxes, 3 * clip.boxes)
    clips[2].write_bytes(clips[2].read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"sources\.2\.size_bytes was \d+ and is \d+"):
        run(clips, "grown", resume=True)


def test_what_cannot_be_written_together_is_refused(
    run: Run, clips: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"out='.*/a': given twice"):
        run(clips, "a", "b", "a")
    with pytest.raises(InputError, match="nothing to write to"):
        run(clips)
    with pytest.raises(InputError, match=r"resume=True: .*a\.npz is one file"):
        run(clips, "a.npz", "b.parquet", resume=True)
    run(clips, "a.csv")
    with pytest.raises(InputError, match=r"a\.csv: a CSV file has the columns but no vectors"):
        read_embeddings(tmp_path / "a.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: a file; choose a folder for `crops`"):
        run(clips, "b.csv", crops=tmp_path / "file")
    assert not (tmp_path / "b.csv").exists()


def test_older_files_are_read_and_later_ones_refused(
    run: Run, clips: list[Path], tmp_path: Path
) -> None:
    run(clips[:1], "a.parquet", "a")
    table = pq.read_table(tmp_path / "a.parquet")
    metadata = dict(table.schema.metadata)
    now = metadata.pop(b"sa_deploy.schema")
    old = table.drop_columns("crop").replace_schema_metadata(metadata)
    pq.write_table(old, tmp_path / "old.parquet")
    same(read_embeddings(tmp_path / "old.parquet"), read_embeddings(tmp_path / "a.parquet"))
    joined = read_embeddings(tmp_path / "old.parquet", tmp_path / "a.parquet")
    assert len(joined.vectors) == 2 * len(table)
    metadata[b"sa_deploy.schema"] = str(int(now) + 1).encode()
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "new.parquet")
    with pytest.raises(InputError, match=r"new\.parquet: its columns are of version \d+, this"):
        read_embeddings(tmp_path / "new.parquet")
    pq.write_table(old.drop_columns("source"), tmp_path / "old.parquet")
    with pytest.raises(InputError, match=r"old\.parquet: no column 'source'"):
        read_embeddings(tmp_path / "old.parquet")
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text())
    del manifest["settings"], manifest["partition"]
    (tmp_path / "a" / MANIFEST).write_text(
        json.dumps({**manifest, "schema": "sa-deploy.embeddings/1"})
    )
    assert run(clips[:2], "a", resume=True).rows == 2 * len(table)


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_vectors_of_another_width_or_not_finite_are_refused(
    run: Run, clips: list[Path], tmp_path: Path, suffix: str
) -> None:
    run(clips[:1], "a.parquet", "a.npz")
    path = tmp_path / f"bad.{suffix}"
    stored = read_embeddings(tmp_path / "a.parquet").vectors
    broken = stored.copy()
    broken[7, 3] = np.nan
    for vectors, message in (
        (stored[:, :5], rf"bad\.{suffix}: its .*'embedding' is .*contract says 12 numbers a row"),
        (broken, rf"bad\.{suffix}: the vector of row 7 is not finite"),
    ):
        if suffix == "npz":
            with np.load(tmp_path / "a.npz") as archive:
                np.savez(path, **{**archive, "embedding": vectors})
        else:
            table = pq.read_table(tmp_path / "a.parquet")
            column = pyarrow.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
            index = table.column_names.index("embedding")
            pq.write_table(table.set_column(index, "embedding", column), path)
        with pytest.raises(InputError, match=message):
            read_embeddings(path)
