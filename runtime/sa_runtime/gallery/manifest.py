"""The manifest of a gallery: which segments count. It is replaced as a whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, get_args

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import ContractError, InputError, MissingFileError, bad_value
from sa_runtime.gallery.approximate import Method, kind_of
from sa_runtime.gallery.calibration import Calibration
from sa_runtime.gallery.segments import SegmentInfo
from sa_runtime.outputs.base import StoredType
from sa_runtime.system.files import atomic_path

MANIFEST = "gallery.json"
UNFINISHED = ".unfinished"
"""Stands in a folder while its first rows are written, which no manifest names yet."""
SCHEMA_VERSION = 1
MOST_KEPT = timedelta(days=365_000)
"""Longer spans lead out of the calendar."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The state of a gallery.

    Attributes:
        contract: of the model whose vectors it holds.
        dtype: of the stored vectors.
        method: how it is searched.
        keep_seconds: rows older than this are forgotten; ``None`` keeps them.
        segments: the segments that count, in order.
        calibration: what distances say, or nothing yet.
        removals: when rows were removed, why and how many; whose they were is not kept.
        schema: version of this layout.
    """

    contract: Contract
    dtype: StoredType = "float32"
    method: Method = "exact"
    keep_seconds: float | None = None
    segments: tuple[SegmentInfo, ...] = ()
    calibration: Calibration | None = None
    removals: tuple[dict[str, Any], ...] = ()
    schema: int = SCHEMA_VERSION

    @property
    def rows(self) -> int:
        """Rows of all segments."""
        return sum(info.rows for info in self.segments)

    @classmethod
    def new(
        cls, contract: Contract, dtype: StoredType, method: Method, keep: timedelta | None
    ) -> Self:
        """Of a gallery without rows; see :meth:`sa_runtime.gallery.gallery.Gallery.create`."""
        if dtype not in get_args(StoredType):
            raise bad_value("dtype", dtype, f"expected one of {', '.join(get_args(StoredType))}")
        if method not in get_args(Method):
            raise bad_value("method", method, f"expected one of {', '.join(get_args(Method))}")
        if method != "exact":
            kind_of(method).check()
        return cls(contract=contract, dtype=dtype, method=method, keep_seconds=seconds_kept(keep))

    def write(self, gallery: Path) -> None:
        """Replace the manifest in a gallery's folder."""
        fields = dataclasses.asdict(self)
        fields["contract"] = json.loads(self.contract.to_json())
        with atomic_path(gallery / MANIFEST) as temporary:
            temporary.write_text(json.dumps(fields, indent=1))

    @classmethod
    def read(cls, gallery: Path) -> Manifest:
        """Read the manifest of a gallery's folder.

        Raises:
            MissingFileError: there is none.
            InputError: it cannot be read.
            ContractError: its contract was changed.
        """
        path = gallery / MANIFEST
        try:
            fields = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError) as exc:
            if (gallery / UNFINISHED).exists():
                raise MissingFileError(
                    f"{gallery}: nothing is indexed yet, since the first `sa-deploy index` into it "
                    "has not ended; wait for it, or run it again if it was stopped",
                    path=gallery,
                ) from exc
            raise MissingFileError(
                f"{gallery}: no gallery, since it has no {MANIFEST}; make one with "
                "`sa-deploy index people.parquet --out FOLDER`",
                path=gallery,
            ) from exc
        except (UnicodeDecodeError, json.JSONDecodeError) as exc:
            raise _unreadable(path, exc) from exc
        try:
            if fields["schema"] != SCHEMA_VERSION:
                raise InputError(
                    f"{path}: schema {fields['schema']!r}, this version reads {SCHEMA_VERSION}; "
                    "install a matching sa-deploy, or index again",
                    path=path,
                )
            if fields["dtype"] not in get_args(StoredType):
                raise ValueError(f"dtype {fields['dtype']!r}")
            if fields.get("method", "exact") not in get_args(Method):
                raise ValueError(f"method {fields['method']!r}")
            segments = tuple(
                SegmentInfo(**{**segment, "total": tuple(map(float, segment["total"]))})
                for segment in fields["segments"]
            )
            for segment in segments:
                # A name leads to files that may be removed.
                if not (segment.name.isalnum() and isinstance(segment.rows, int)):
                    raise ValueError(f"segment {segment.name!r}")
            contract = Contract.from_json(json.dumps(fields["contract"]), source=str(path))
            stated = fields.get("calibration")
            return cls(
                **{
                    **fields,
                    "calibration": None if stated is None else Calibration.from_dict(stated),
                    "contract": contract,
                    "segments": segments,
                    "removals": tuple(fields["removals"]),
                }
            )
        except (InputError, ContractError):
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise _unreadable(path, exc) from exc


def seconds_kept(keep: timedelta | None) -> float | None:
    """How long rows are kept, as a manifest says it.

    Raises:
        InputError: no time at all, or more than :data:`MOST_KEPT`.
    """
    if keep is not None and keep <= timedelta():
        raise bad_value("keep", keep, "expected more than no time")
    if keep is not None and keep > MOST_KEPT:
        most = f"at most {MOST_KEPT.days} days; without it rows are kept for ever"
        raise bad_value("keep", str(keep), f"expected {most}")
    return None if keep is None else keep.total_seconds()


def _unreadable(path: Path, exc: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read ({type(exc).__name__}: {exc}); take it from a backup or index "
        "again",
        path=path,
    )
