"""One vector a track, beside those of its crops."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sa_runtime.errors import InputError
from sa_runtime.items import Row
from sa_runtime.linking.tracks import tracks_of
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import TRACK_SCHEMA
from sa_runtime.outputs.manifest import MANIFEST
from sa_runtime.outputs.parquet import EmbeddingWriter
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.outputs.tracks import TrackMeans
from sa_runtime.pipeline.embed import embed
from sa_runtime.pipeline.result import EmbedResult
from tests.clip import TRACKS, Clip
from tests.runtime.outputs.test_store import contract
from tests.runtime.outputs.test_stores import SLOW

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
Run = Callable[..., EmbedResult]


@pytest.fixture
def run(tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> Run:
    def call(*outs: str, **options: Any) -> EmbedResult:
        given = {"batch_size": 8, "shard_rows": 60, "runtime": "onnxruntime", **options}
        given.setdefault("detections", clip.detections)
        return embed(clip.video, tiny_model.path, [tmp_path / out for out in outs], **given)

    return call


def means_of(stored: StoredEmbeddings) -> dict[int, np.ndarray[Any, Any]]:
    """Track -> mean of its vectors by quality, of unit length: an oracle of four lines."""
    table = stored.rows.to_pydict()
    found = {}
    for number in dict.fromkeys(table["track_id"]):
        mine = np.array(table["track_id"]) == number
        weights = np.array(table["quality"])[mine]
        total = (stored.vectors[mine].astype(np.float64) * weights[:, None]).sum(axis=0)
        found[number] = total / np.linalg.norm(total)
    return found


def test_a_track_is_the_mean_of_its_crops_by_quality(run: Run, clip: Clip, tmp_path: Path) -> None:
    result = run("people.parquet", tracks=tmp_path / "tracks.parquet", camera="north")
    assert result.tracks == tmp_path / "tracks.parquet"
    crops, tracks = read_embeddings(tmp_path / "people.parquet"), read_embeddings(result.tracks)
    expected = means_of(crops)
    assert tracks.rows.schema.equals(TRACK_SCHEMA)
    assert tracks.rows["track_id"].to_pylist() == list(expected)
    assert len(tracks.rows) == TRACKS
    np.testing.assert_allclose(tracks.vectors, np.stack(list(expected.values())), atol=1e-6)
    assert tracks.contract == crops.contract
    table = crops.rows.to_pylist()
    for row in tracks.rows.to_pylist():
        mine = [one for one in table if one["track_id"] == row["track_id"]]
        best = max(mine, key=lambda one: one["quality"])
        assert {name: row[name] for name in best} == best
        assert row["crops"] == len(mine)
        assert (row["first_frame"], row["last_frame"]) == (mine[0]["frame"], mine[-1]["frame"])
        assert row["first_timestamp_s"] == mine[0]["timestamp_s"]
        assert row["last_timestamp_s"] == mine[-1]["timestamp_s"]


@pytest.mark.parametrize("name", ["tracks.npz", "tracks.csv"])
def test_every_file_of_tracks_holds_the_same(run: Run, tmp_path: Path, name: str) -> None:
    run("folder", tracks=tmp_path / "tracks.parquet")
    run("again", tracks=tmp_path / name)
    whole = read_embeddings(tmp_path / "tracks.parquet")
    if name.endswith("csv"):
        lines = (tmp_path / name).read_text().replace('"', "").splitlines()
        assert lines[0].split(",") == TRACK_SCHEMA.names
        assert len(lines) == 1 + TRACKS
        return
    stored = read_embeddings(tmp_path / name)
    assert stored.rows.equals(whole.rows)
    np.testing.assert_array_equal(stored.vectors, whole.vectors)


def test_tracks_beside_a_folder_are_made_when_all_is_embedded(run: Run, tmp_path: Path) -> None:
    """So that a run that goes on, or one to which they are added, makes them too."""
    tracks = tmp_path / "tracks.parquet"
    run("folder", tracks=tracks)
    first = tracks.read_bytes()
    tracks.unlink()
    run("folder", tracks=tracks, resume=True)
    assert tracks.read_bytes() == first
    run("one.parquet", tracks=tmp_path / "b.parquet")
    other = read_embeddings(tmp_path / "b.parquet")
    np.testing.assert_array_equal(other.vectors, read_embeddings(tracks).vectors)
    with pytest.raises(InputError, match="rated was true and is absent"):
        run("folder", resume=True)


def test_links_take_tracks_as_they_take_crops(run: Run, tmp_path: Path) -> None:
    run("people.parquet", tracks=tmp_path / "tracks.parquet")
    whole = tracks_of(read_embeddings(tmp_path / "people.parquet"))
    short = tracks_of(read_embeddings(tmp_path / "tracks.parquet"))
    assert short.keys == whole.keys
    for field in ("start", "end", "rows"):
        np.testing.assert_array_equal(getattr(short, field), getattr(whole, field), field)
    assert short.together().tolist() == whole.together().tolist()
    assert (np.einsum("td,td->t", short.vectors, whole.vectors) > 0.9).all()
    both = read_embeddings(tmp_path / "people.parquet", tmp_path / "tracks.parquet")
    assert both.rows["crops"].null_count == len(both.rows) - TRACKS
    np.testing.assert_array_equal(tracks_of(both).start, whole.start)


def test_many_tracks_of_several_sources_in_any_pieces(tmp_path: Path) -> None:
    """More than fit the first table of sums; a source that comes twice is two."""
    rng = np.random.default_rng(3)
    dim, numbers = 8, rng.integers(0, 700, 3000)
    rows = [
        Row("ab"[index // 1500], index, None, int(n) or None, 0, 0, 4, 8, 1.0, None, None, q)
        for index, (n, q) in enumerate(zip(numbers, rng.random(3000).tolist(), strict=True))
    ]
    vectors = rng.normal(size=(3000, dim)).astype(np.float32)
    found = []
    for step in (7, 3000):
        path = tmp_path / f"{step}.parquet"
        with (
            EmbeddingWriter(path, contract(dim=dim), columns=TRACK_SCHEMA) as writer,
            TrackMeans(writer, dim) as means,
        ):
            for start in range(0, 3000, step):
                means.write(rows[start : start + step], vectors[start : start + step])
            means.finish()
        found.append(read_embeddings(path))
    assert found[0].rows.equals(found[1].rows)
    np.testing.assert_array_equal(found[0].vectors, found[1].vectors)
    keys = {(row.source, row.track_id) for row in rows if row.track_id is not None}
    assert len(found[0].rows) == len(keys) > 1024
    mine = [i for i, row in enumerate(rows) if (row.source, row.track_id) == ("b", 5)]
    total = sum(vectors[i].astype(np.float64) * rows[i].quality for i in mine)
    place = [(r["source"], r["track_id"]) for r in found[0].rows.to_pylist()].index(("b", 5))
    np.testing.assert_allclose(found[0].vectors[place], total / np.linalg.norm(total), atol=1e-6)


def test_crops_without_any_quality_give_their_plain_mean(tmp_path: Path) -> None:
    dim = 8
    made = contract(dim=dim)
    vectors = np.eye(dim, dtype=np.float32)[:2]
    rows = [Row("a", 1, None, 7, 0, 0, 4, 8, 0.0, None, None, 0.0)] * 2
    with (
        EmbeddingWriter(tmp_path / "t.parquet", made, columns=TRACK_SCHEMA) as writer,
        TrackMeans(writer, dim) as means,
    ):
        means.write(rows, vectors)
        means.finish()
    mean = read_embeddings(tmp_path / "t.parquet").vectors[0]
    np.testing.assert_allclose(mean, vectors.sum(axis=0) / 2**0.5, atol=1e-6)


def test_what_cannot_be_tracks_is_refused(run: Run, clip: Clip, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody.txt"
    nobody.write_text("1,-1,20,20,40,80,0.9\n")
    with pytest.raises(InputError, match="no box has the id of a track"):
        run("a.parquet", tracks=tmp_path / "t.parquet", detections=nobody)
    for name in ("folder/", "people.lancedb"):
        with pytest.raises(InputError, match=r"tracks.*expected one file, NAME.parquet"):
            run("a.parquet", tracks=f"{tmp_path}/{name}")
    with pytest.raises(InputError, match=r"tracks.*need a file of their own"):
        run("a.parquet", tracks=tmp_path / "a.parquet")
    assert not list(tmp_path.glob("*.parquet"))


def kills(model: TinyModel, clip: Clip, tmp_path: Path, count: int) -> None:
    """Runs into a folder and a file of tracks, ended at any moment, the writing of tracks too."""
    words: list[object] = [
        *(sys.executable, "-c", SLOW, model.path, clip.video, "--detections", clip.detections),
        *("--out", tmp_path / "folder", "--tracks", tmp_path / "tracks.parquet", "--resume"),
        *("--runtime", "onnxruntime", "-b", "8", "--shard-rows", "60"),
    ]
    folder, tracks = tmp_path / "folder", tmp_path / "tracks.parquet"
    rng, ended = random.Random(5), 0
    for _ in range(5 * count):
        process = subprocess.Popen(
            list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        # Counted from the moment at which the run owns its folder, not from the start of Python.
        while process.poll() is None and not (
            (folder / ".lock").exists() and (folder / MANIFEST).exists()
        ):
            time.sleep(0.005)
        # Alone, it takes two seconds from there to its end.
        time.sleep(rng.uniform(0.05, 2.0 if count > 1 else 0.5))
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        ended += process.returncode != 0
        if ended == count:
            break
        (folder / ".lock").unlink(missing_ok=True)  # left by the kill; its lock is free
        if process.returncode == 0:  # a machine that does something else let it end: once more
            shutil.rmtree(folder)
            tracks.unlink()
    assert ended == count
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    embed(
        *(clip.video, model.path, tmp_path / "whole"),
        detections=clip.detections, tracks=tmp_path / "expected.parquet",
        batch_size=8, shard_rows=60, runtime="onnxruntime",
    )  # fmt: skip
    assert tracks.read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_killed_run_gives_the_same_tracks(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    kills(tiny_model, clip, tmp_path, 1)


@pytest.mark.soak
def test_twenty_killed_runs_give_the_same_tracks(
    tiny_model: TinyModel, clip: Clip, tmp_path: Path
) -> None:
    kills(tiny_model, clip, tmp_path, 20)
