"""Identities in a Parquet file: a row for each track, with its vector, so that linking goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sa_runtime.artefact.contract import METADATA_KEY, Contract
from sa_runtime.errors import InputError, MissingFileError, bad_value
from sa_runtime.linking.link import Links
from sa_runtime.linking.tracks import Ints, Tracks, join
from sa_runtime.outputs.parquet import vectors_of
from sa_runtime.system.files import refuse_inputs
from sa_runtime.system.locking import owned_path

SCHEMA_KEY, SCHEMA = "sa_deploy.identities", "1"
COLUMNS = pa.schema(
    [
        pa.field("identity", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("camera", pa.string(), nullable=False),
        pa.field("track_id", pa.int64(), nullable=False),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("certainty", pa.float32()),
    ]
)
"""``start`` and ``end`` in seconds (frames where the boxes have no time), null where unknown;
``certainty`` is null where an identity has one track. ``embedding`` follows them."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Identities:
    """Who is on which track.

    Attributes:
        tracks: T of them.
        links: their identities.
        contract: of the model that made the vectors.
    """

    tracks: Tracks
    links: Links
    contract: Contract

    @property
    def count(self) -> int:
        """Identities."""
        return len(np.unique(self.links.identity))

    @property
    def across_cameras(self) -> int:
        """Identities that more than one camera saw."""
        pairs = {
            (int(identity), camera)
            for identity, camera in zip(self.links.identity, self.tracks.camera, strict=True)
        }
        seen = np.bincount([identity for identity, _ in pairs], minlength=1)
        return int(np.count_nonzero(seen > 1))

    def visits(self) -> list[dict[str, Any]]:
        """Who was where when: tracks by identity and time, as plain values."""
        tracks, links = self.tracks, self.links
        order = np.lexsort((np.nan_to_num(tracks.start), links.identity))
        return [
            {
                "identity": int(links.identity[row]),
                "camera": tracks.camera[row],
                "start": _number(tracks.start[row]),
                "end": _number(tracks.end[row]),
                "source": tracks.source[row],
                "track_id": int(tracks.number[row]),
                "rows": int(tracks.rows[row]),
                "certainty": _number(links.certainty[row]),
            }
            for row in order.tolist()
        ]


def check_identities(path: Path, inputs: list[Path]) -> None:
    """Refuse a file that is read, or of another suffix, before anything is linked.

    Raises:
        InputError: either.
    """
    if path.suffix.lower() != ".parquet":
        raise bad_value("out", str(path), "is written as Parquet; expected NAME.parquet")
    refuse_inputs(path, inputs)


def write_identities(path: Path, found: Identities) -> None:
    """Write identities, atomically: a stopped run leaves the file of before.

    Raises:
        InputError: another process writes it.
    """
    tracks, links = found.tracks, found.links
    columns = {
        "identity": links.identity,
        "source": list(tracks.source),
        "camera": list(tracks.camera),
        "track_id": tracks.number,
        "start": tracks.start,
        "end": tracks.end,
        "rows": tracks.rows,
        "certainty": links.certainty,
    }
    arrays = [
        pa.array(columns[field.name], field.type, from_pandas=field.nullable) for field in COLUMNS
    ]
    dim = tracks.vectors.shape[1]
    vector = pa.list_(pa.field("item", pa.float32(), nullable=False), dim)
    flat = pa.array(tracks.vectors.astype(np.float32, copy=False).ravel())
    arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=vector))
    metadata = {SCHEMA_KEY: SCHEMA, METADATA_KEY: found.contract.to_json()}
    schema = COLUMNS.append(pa.field("embedding", vector, nullable=False)).with_metadata(metadata)
    with owned_path(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary)


def read_identities(path: Path) -> Identities:
    """Read what :func:`write_identities` wrote.

    Raises:
        InputError: no such file, another one, or vectors that are not as wide as its contract says
            or not finite.
        ContractError: its contract was changed.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as exc:
        raise MissingFileError(
            f"{path}: no such file; expected identities of `sa-deploy link`", path=path
        ) from exc
    except (OSError, pa.ArrowInvalid) as exc:
        raise InputError(
            f"{path}: not a Parquet file that can be read ({exc}); expected identities of "
            "`sa-deploy link`",
            path=path,
        ) from exc
    metadata = table.schema.metadata or {}
    stated = metadata.get(METADATA_KEY.encode())
    names = {*COLUMNS.names, "embedding"}
    if stated is None or SCHEMA_KEY.encode() not in metadata or not names <= {*table.column_names}:
        raise InputError(
            f"{path}: no identities in it; expected a file of `sa-deploy link`", path=path
        )
    contract = Contract.from_json(stated.decode(), source=str(path))
    tracks = Tracks(
        source=tuple(table["source"].to_pylist()),
        camera=tuple(table["camera"].to_pylist()),
        number=_column(table, "track_id"),
        start=_column(table, "start"),
        end=_column(table, "end"),
        rows=_column(table, "rows"),
        vectors=vectors_of(table, contract.output.dim, path),
    )
    links = Links(identity=_column(table, "identity"), certainty=_column(table, "certainty"))
    return Identities(tracks=tracks, links=links, contract=contract)


def with_known(tracks: Tracks, known: Identities) -> tuple[Tracks, Ints]:
    """Old tracks and new ones, with the identities of the old ones and -1 for the new ones.

    Raises:
        InputError: a new track that is known already.
    """
    both = join([known.tracks, tracks])
    fresh = np.full(len(tracks), -1, np.int64)
    return both, np.concatenate([known.links.identity, fresh])


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name].to_numpy())


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
