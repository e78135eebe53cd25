"""CSV files of the columns beside the vectors, for tables and spreadsheets."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow.csv
from numpy.typing import NDArray

from sa_runtime.errors import InputError
from sa_runtime.items import Row
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import row_table
from sa_runtime.outputs.file_writer import FileWriter
from sa_runtime.outputs.one_file import OneFile
from sa_runtime.system.files import HashedFile


class CsvWriter(FileWriter):
    """Writes a line for each row, in UTF-8; nulls are empty fields."""

    def _begin(self, file: HashedFile, stack: ExitStack) -> None:
        self._writer = stack.enter_context(pyarrow.csv.CSVWriter(file, self._columns))

    def _append(self, rows: list[Row], vectors: NDArray[np.floating]) -> None:
        self._writer.write_table(row_table(rows, self._columns))


class CsvFile(OneFile):
    """One CSV file, which appears when all is embedded."""

    writer = CsvWriter

    @classmethod
    def read(cls, target: Path, *, unfinished: bool = False) -> list[StoredEmbeddings]:
        """There is nothing to read.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{target}: a CSV file has the columns but no vectors; read the Parquet file, NPZ "
            "file, folder or database that the same run can write beside it",
            path=target,
        )
