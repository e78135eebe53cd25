"""Reading embeddings again, whatever output holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sa_runtime.artefact.contract import require_same_space
from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.outputs.base import OutputKind, StoredEmbeddings
from sa_runtime.outputs.folder import ShardFolder
from sa_runtime.outputs.parquet import ParquetFile
from sa_runtime.outputs.remote import read_remote
from sa_runtime.outputs.table import output_kind
from sa_runtime.system.remote import address_of


def read_embeddings(
    first: Path | str, *others: Path | str, unfinished: bool = False
) -> StoredEmbeddings:
    """Read files of one feature space, one after the other.

    Args:
        first: a file, folder or database that ``sa-deploy embed`` wrote, or its address in a store.
        others: more of them; their rows follow.
        unfinished: take what is there of a folder whose run has not come to its end.

    Raises:
        MissingFileError: a file that is not there.
        InputError: a file that is not Parquet, or a folder that is not finished.
        ContractError: a file without a feature space, or files of different ones.
    """
    paths = [address_of(path) or Path(path) for path in (first, *others)]
    _check_there(paths)
    found = [_read(path, unfinished=unfinished) for path in paths]
    parts = [part for parts in found for part in parts]
    contract = parts[0].contract
    for path, (part, *_) in zip(paths[1:], found[1:], strict=True):
        require_same_space(contract.space, part.contract.space, names=(str(paths[0]), str(path)))
    return StoredEmbeddings(
        rows=pa.concat_tables([part.rows for part in parts], promote_options="default"),
        vectors=np.concatenate([part.vectors for part in parts]),
        contract=contract,
    )


def each_embeddings(
    paths: Sequence[Path | str], *, unfinished: bool = False
) -> Iterator[StoredEmbeddings]:
    """Read files one after another, and folders file by file, so that one is in memory at a time.

    Args:
        paths: files and folders that ``sa-deploy embed`` wrote.
        unfinished: as for :func:`read_embeddings`.

    Raises:
        MissingFileError: a file that is not there, before the first is read.
        InputError: a file that cannot be read, or a folder that is not finished.
        ContractError: a file without a feature space; whether spaces agree is the caller's to see.
    """
    found = [address_of(path) or Path(path) for path in paths]
    _check_there(found)
    for path in found:
        if isinstance(path, Path) and _kind(path) is ShardFolder:
            yield from ShardFolder.each(path, unfinished=unfinished)
        else:
            yield from _read(path, unfinished=unfinished)


def _read(path: Path | str, *, unfinished: bool) -> Sequence[StoredEmbeddings]:
    """What a file or folder holds, or an address in a store."""
    if isinstance(path, str):
        return read_remote(path, unfinished=unfinished)
    return _kind(path).read(path, unfinished=unfinished)


def _check_there(paths: Sequence[Path | str]) -> None:
    for path in paths:
        if isinstance(path, Path) and not path.exists():
            raise MissingFileError(
                f"{path}: no such file or folder; expected what `sa-deploy embed` wrote", path=path
            )


def _kind(path: Path) -> OutputKind:
    """By the suffix; a file of any other name may still be one that was renamed."""
    try:
        return output_kind(path)
    except InputError:
        return ParquetFile
