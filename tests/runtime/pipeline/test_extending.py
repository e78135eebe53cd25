"""A stranger's detection format, source and output: one file and one row each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sa_runtime.detections.table import DETECTIONS, DetectionFormat
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.outputs.table import OUTPUTS
from sa_runtime.pipeline.embed import embed
from sa_runtime.sources.table import SOURCES

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

STRANGERS = '''
"""Boxes in JSON, pictures in an .npy file, vectors in an .npz file."""

import json
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from sa_runtime.detections.collect import Chunk
from sa_runtime.items import Item, Row
from sa_runtime.outputs.base import Progress, StoredEmbeddings
from sa_runtime.outputs.columns import ROW_SCHEMA
from sa_runtime.artefact.contract import Contract
from sa_runtime.sources.base import START, ignore


def read_json(path, options):
    boxes = json.loads(path.read_text())
    yield Chunk(
        frames=np.array([b["frame"] for b in boxes], np.int64),
        track_ids=np.array([b["id"] for b in boxes], np.int64),
        ltwh=np.array([b["ltwh"] for b in boxes], np.float64).reshape(-1, 4),
        confidences=np.ones(len(boxes)),
    )


class Pictures:
    needs_detections = False

    def __init__(self, images):
        self.images = images

    @classmethod
    def takes(cls, location):
        return location.endswith(".npy")

    @classmethod
    def open(cls, location, options):
        return cls(np.load(location))

    def __len__(self):
        return len(self.images)

    def identity(self):
        return {"pictures": len(self)}

    def items(self, counts, *, after=START, on_skip=ignore):
        for done, image in enumerate(self.images[after.done :], after.done + 1):
            counts.images += 1
            row = Row(f"#{done}", None, None, None, 0, 0, *image.shape[1::-1], None, None)
            yield Item(image, np.array([[0, 0, *image.shape[1::-1]]]), [row], done)

    def digest(self, item):
        return ""


class Arrays:
    part_rows = None

    def __init__(self, target, contract, options):
        self.progress, self.target, self.contract = Progress(), target, contract
        self.rows, self.vectors, self.count = [], [], 0

    @classmethod
    def check(cls, target, *, resume):
        assert not resume

    @classmethod
    def read(cls, target, *, unfinished):
        found = np.load(target)
        rows = pa.Table.from_pylist(json.loads(str(found["rows"])), ROW_SCHEMA)
        contract = Contract.from_json(str(found["contract"]), source=str(target))
        return [StoredEmbeddings(rows=rows, vectors=found["vectors"], contract=contract)]

    @contextmanager
    def part(self):
        yield self
        rows = json.dumps([row._asdict() for row in self.rows])
        vectors = np.concatenate(self.vectors)
        np.savez(self.target, rows=rows, vectors=vectors, contract=self.contract.to_json())

    def write(self, rows, vectors):
        self.rows.extend(rows)
        self.vectors.append(vectors)
        self.count += len(rows)

    def commit(self, progress):
        self.progress = progress

    def files(self):
        return [self.target]

    def size_bytes(self):
        return self.target.stat().st_size

    def close(self):
        pass
'''


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strangers.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strangers", raising=False)
    monkeypatch.setitem(DETECTIONS, "json", DetectionFormat("strangers:read_json", (".json",)))
    # The last kind takes whatever is left, so that a new row stands before it.
    sources = {"pictures": "strangers:Pictures", **SOURCES}
    monkeypatch.setattr("sa_runtime.sources.table.SOURCES", sources)
    monkeypatch.setitem(OUTPUTS, ".npz", "strangers:Arrays")


@pytest.mark.usefixtures("strangers")
def test_one_of_each_is_used_by_name_alone(tiny_model: TinyModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 40, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", images)
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for image in rng.integers(0, 256, (3, 48, 64, 3), dtype=np.uint8):
        writer.write(image)
    writer.release()
    boxes = [{"frame": frame, "id": 7, "ltwh": [1, 2, 20, 30]} for frame in (1, 3)]
    (tmp_path / "v.json").write_text(json.dumps(boxes))

    result = embed(
        [tmp_path / "pictures.npy", tmp_path / "v.avi"],
        tiny_model.path,
        tmp_path / "people.npz",
        detections=tmp_path / "v.json",
        runtime="onnxruntime",
    )

    assert (result.rows, result.counts.images, result.counts.frames) == (7, 5, 2)
    stored = read_embeddings(tmp_path / "people.npz")
    assert stored.rows["frame"].to_pylist() == [None] * 5 + [1, 3]
    assert stored.contract == tiny_model.contract
    embed(tmp_path / "pictures.npy", tiny_model.path, tmp_path / "p.parquet", runtime="onnxruntime")
    np.testing.assert_array_equal(
        read_embeddings(tmp_path / "p.parquet").vectors, stored.vectors[:5]
    )
