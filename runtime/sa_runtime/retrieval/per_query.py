"""What an evaluation gave for each query, as a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.errors import InputError, bad_value
from sa_runtime.retrieval.evaluation import RetrievalReport
from sa_runtime.system.files import refuse_inputs
from sa_runtime.system.locking import owned_path

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("person", pa.int64(), nullable=False),
        pa.field("camera", pa.int64(), nullable=False),
        pa.field("matches", pa.int64(), nullable=False),
        pa.field("average_precision", pa.float64()),
        pa.field("first_rank", pa.int64()),
        pa.field("inverse_penalty", pa.float64()),
    ]
)
"""Columns: ``query`` is the image file; the last three are null where a query does not count."""


def check_per_query(path: Path, roots: Sequence[Path]) -> None:
    """Refuse another suffix than ``.parquet``, and a file in a data set's folder.

    Raises:
        InputError: either.
    """
    if path.suffix.lower() != ".parquet":
        raise bad_value("per_query", str(path), "is written as Parquet; expected NAME.parquet")
    refuse_inputs(path, roots, parameter="per_query")


def per_query_table(report: RetrievalReport, dataset: ReidDataset) -> pa.Table:
    """A row for each query, in the data set's order.

    Raises:
        InputError: the report is of another number of queries.
    """
    result, queries = report.result, dataset.query
    if len(queries) != len(report.query_labels):
        raise InputError(
            f"report of {len(report.query_labels)} queries, data set {dataset.name} of "
            f"{len(queries)}: expected the data set that was evaluated"
        )
    left_out = result.first_rank == 0
    columns = {
        "model": [report.name] * len(queries),
        "dataset": [report.dataset] * len(queries),
        "query": [str(sample.path) for sample in queries],
        "person": report.query_labels.person,
        "camera": report.query_labels.camera,
        "matches": result.matches,
        "average_precision": result.average_precision,
        "first_rank": result.first_rank,
        "inverse_penalty": result.inverse_penalty,
    }
    arrays = [
        pa.array(columns[field.name], field.type, mask=left_out if field.nullable else None)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def write_per_query(path: Path, evaluated: Sequence[tuple[RetrievalReport, ReidDataset]]) -> None:
    """Write the queries of some evaluations one after the other, atomically."""
    tables = [per_query_table(report, dataset) for report, dataset in evaluated]
    with owned_path(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
