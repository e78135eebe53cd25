from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.errors import ContractError, InputError
from sa_runtime.items import Row
from sa_runtime.outputs.parquet import EmbeddingWriter
from sa_runtime.outputs.read import read_embeddings

DIM = 6


def contract(space: str = "here", dim: int = DIM) -> Contract:
    return Contract(
        input=InputSpec(height=8, width=4),
        output=OutputSpec(dim=dim),
        weights_sha256="0" * 64,
        space=space,
    )


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(count, DIM))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def rows(count: int) -> list[Row]:
    return [
        Row(f"cam/{i % 2}.mp4", i + 1, i / 10, i % 3, 1.5, 2, 30, 60, 0.5, "north")
        for i in range(count)
    ]


def write(path: Path, count: int = 5, space: str = "here") -> Path:
    with EmbeddingWriter(path, contract(space)) as writer:
        writer.write(rows(count), vectors(count))
    return path


def test_rows_and_vectors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.parquet"
    image = Row("a.jpg", None, None, None, 0, 0, 64, 128, None, None)
    with EmbeddingWriter(path, contract()) as writer:
        writer.write(rows(4), vectors(4, 1))
        writer.write([], vectors(0))
        writer.write([image], vectors(1, 2))
    assert writer.count == 5
    read = read_embeddings(path)
    np.testing.assert_array_equal(read.vectors, np.concatenate([vectors(4, 1), vectors(1, 2)]))
    assert read.contract == contract()
    assert [Row(**row) for row in read.rows.to_pylist()] == [*rows(4), image]


def test_the_file_says_what_it_holds(tmp_path: Path) -> None:
    schema = pq.read_schema(write(tmp_path / "a.parquet"))
    assert schema.metadata[b"sa_deploy.space"] == b"here"
    text = schema.metadata[b"sa_deploy.contract"].decode()
    assert Contract.from_json(text, source="a") == contract()
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert kinds == {
        "source": "string",
        "frame": "int64",
        "timestamp_s": "double",
        "track_id": "int64",
        "left": "float",
        "top": "float",
        "width": "float",
        "height": "float",
        "confidence": "float",
        "camera": "string",
        "crop": "string",
        "quality": "float",
        "embedding": kinds["embedding"],
    }
    embedding = schema.field("embedding").type
    assert (embedding.list_size, embedding.value_type) == (DIM, pa.float32())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_half_precision_halves_the_vectors(
    tmp_path: Path, dtype: Literal["float32", "float16"]
) -> None:
    path = tmp_path / f"{dtype}.parquet"
    with EmbeddingWriter(path, contract(), dtype) as writer:
        writer.write(rows(9), vectors(9))
    stored = pq.read_schema(path).field("embedding").type.value_type
    assert stored == pa.from_numpy_dtype(np.dtype(dtype))
    read = read_embeddings(path).vectors
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, vectors(9), atol=0 if dtype == "float32" else 1e-3)


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddingWriter, "group_bytes", 4 * DIM * 10)
    path = tmp_path / "a.parquet"
    with EmbeddingWriter(path, contract()) as writer:
        for part in range(7):
            writer.write(rows(4), vectors(4, part))
            assert len(writer._rows) < 10
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [12, 12, 4]
    expected = np.concatenate([vectors(4, part) for part in range(7)])
    np.testing.assert_array_equal(read_embeddings(path).vectors, expected)


def test_no_rows_make_an_empty_file(tmp_path: Path) -> None:
    read = read_embeddings(write(tmp_path / "a.parquet", 0))
    assert read.vectors.shape == (0, DIM)
    assert read.rows.num_rows == 0


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", 3)
    before = path.read_bytes()

    def fail_half_way() -> None:
        with EmbeddingWriter(path, contract()) as writer:
            writer.write(rows(2), vectors(2))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_of_the_last_flush_leaves_nothing(tmp_path: Path) -> None:
    bad = rows(2)[0]._replace(frame="seven")  # type: ignore[arg-type]
    with (
        pytest.raises(pa.ArrowInvalid),
        EmbeddingWriter(tmp_path / "a.parquet", contract()) as writer,
    ):
        writer.write([bad], vectors(1))
    assert list(tmp_path.iterdir()) == []


def test_rows_and_vectors_must_match(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"vectors of shape \(3, 6\) for 2 rows, expected \(2, 6\)"),
        EmbeddingWriter(tmp_path / "a.parquet", contract()) as writer,
    ):
        writer.write(rows(2), vectors(3))
    with pytest.raises(InputError, match="dtype='int8': expected one of float32, float16"):
        EmbeddingWriter(tmp_path / "a.parquet", contract(), "int8")  # type: ignore[arg-type]


def test_files_of_one_space_are_joined_and_others_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.parquet", 3), write(tmp_path / "b.parquet", 2)
    joined = read_embeddings(a, b)
    np.testing.assert_array_equal(joined.vectors, np.concatenate([vectors(3), vectors(2)]))
    assert joined.rows["frame"].to_pylist() == [1, 2, 3, 1, 2]
    other = write(tmp_path / "c.parquet", 2, space="elsewhere")
    with pytest.raises(
        ContractError, match=r"a\.parquet holds .* here, .*c\.parquet of space elsewhere"
    ):
        read_embeddings(a, b, other)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet: no such file"):
        read_embeddings(tmp_path / "absent.parquet")
    text = tmp_path / "text.parquet"
    text.write_text("hello")
    with pytest.raises(InputError, match=r"text\.parquet: not a Parquet file"):
        read_embeddings(text)
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"embedding": [[1.0]]}), plain)
    with pytest.raises(ContractError, match=r"plain\.parquet: no feature space in its metadata"):
        read_embeddings(plain)
    table = pq.read_table(write(tmp_path / "a.parquet"))
    changed = table.replace_schema_metadata(
        table.schema.metadata | {b"sa_deploy.space": b"elsewhere"}
    )
    pq.write_table(changed, plain)
    with pytest.raises(ContractError, match="says space elsewhere, its contract here"):
        read_embeddings(plain)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"a\.parquet: cannot be written"),
        EmbeddingWriter(tmp_path / "file" / "a.parquet", contract()),
    ):
        pass
