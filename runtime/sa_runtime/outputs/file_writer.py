"""What writers of one file share: one owner, groups of rows, and a file that is whole or absent."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError, bad_value
from sa_runtime.items import Row
from sa_runtime.outputs.base import StoredType
from sa_runtime.outputs.columns import ROW_SCHEMA
from sa_runtime.system.files import HashedFile, atomic_path, remove_leftovers
from sa_runtime.system.locking import owned


class FileWriter(ABC):
    """Writes rows and their vectors; the file appears whole when the ``with`` block ends well.

    One thread writes at a time; another writer of the same file is refused meanwhile.

    Args:
        path: the file.
        contract: of the model.
        dtype: ``float32`` or ``float16`` (half the size, 1e-3 of accuracy).
        in_owned_folder: the caller owns the folder, see :func:`sa_runtime.system.locking.owned`.
        columns: of the rows.

    Attributes:
        group_bytes: of the vectors that are held in memory before they are written.
        path: the file.
        count: rows written so far.
        size_bytes, sha256: of the file, once the block has ended.

    Raises:
        InputError: an unknown ``dtype``, a file that cannot be written, or that another writes.
    """

    group_bytes: ClassVar[int] = 16 * 2**20

    def __init__(
        self,
        path: Path | str,
        contract: Contract,
        dtype: StoredType = "float32",
        *,
        in_owned_folder: bool = False,
        columns: pa.Schema = ROW_SCHEMA,
    ) -> None:
        if dtype not in get_args(StoredType):
            raise bad_value("dtype", dtype, f"expected one of {', '.join(get_args(StoredType))}")
        self.path = Path(path)
        self.count = 0
        self.size_bytes = 0
        self.sha256 = ""
        self._in_owned_folder = in_owned_folder
        self._columns = columns
        self._contract = contract
        self._dim = contract.output.dim
        self._dtype = np.dtype(dtype)
        self._group = max(1, self.group_bytes // (self._dim * self._dtype.itemsize))
        self._rows: list[Row] = []
        self._vectors: list[NDArray[np.floating]] = []
        self._stack = ExitStack()
        self._discarded = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                if not self._in_owned_folder:
                    stack.enter_context(owned(self.path))
                    stem, suffix = re.escape(self.path.stem), self.path.suffix
                    remove_leftovers(self.path.parent, stem, suffix)
                temporary = stack.enter_context(atomic_path(self.path))
                self._file = stack.enter_context(HashedFile(temporary))
                self._begin(self._file, stack)
            except OSError as exc:
                raise InputError(f"{self.path}: cannot be written ({exc})") from exc
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                if self._discarded:
                    raise _DiscardedError
                self._flush()
                self._end()
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                if isinstance(failure, _DiscardedError):
                    return
                raise
        self._stack.__exit__(kind, error, trace)
        self.size_bytes, self.sha256 = self._file.size_bytes, self._file.sha256

    def discard(self) -> None:
        """Leave no file behind when the block ends."""
        self._discarded = True

    def write(self, rows: Sequence[Row], vectors: Embeddings) -> None:
        """Append rows.

        Args:
            rows: N rows.
            vectors: (N, D) float32; row i belongs to row i.

        Raises:
            InputError: the counts or D disagree.
        """
        if vectors.shape != (len(rows), self._dim):
            raise InputError(
                f"{self.path}: vectors of shape {vectors.shape} for {len(rows)} rows, "
                f"expected {(len(rows), self._dim)}"
            )
        self._rows.extend(rows)
        self._vectors.append(vectors.astype(self._dtype))
        self.count += len(rows)
        if len(self._rows) >= self._group:
            self._flush()

    @abstractmethod
    def _begin(self, file: HashedFile, stack: ExitStack) -> None:
        """Start the file; what is to be closed before it goes onto the stack."""

    @abstractmethod
    def _append(self, rows: list[Row], vectors: NDArray[np.floating]) -> None:
        """Write a group of N >= 1 rows and their (N, D) vectors of the stored type."""

    def _end(self) -> None:  # noqa: B027 (few formats need it)
        """Write what comes last; what is on the stack is closed afterwards."""

    def _flush(self) -> None:
        if not self._rows:
            return
        self._append(self._rows, np.concatenate(self._vectors))
        self._rows, self._vectors = [], []


class _DiscardedError(Exception):
    """Tells the temporary file that it is not to get its name."""
