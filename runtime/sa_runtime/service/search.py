"""Who a person is: the nearest rows of a gallery, beside the embedding."""

from __future__ import annotations

import logging
import math
import threading
import time
from pathlib import Path
from typing import Any

import orjson
from starlette.datastructures import QueryParams

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract, require_same_space
from sa_runtime.errors import SaDeployError
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.gallery.manifest import MANIFEST
from sa_runtime.gallery.rows import Where
from sa_runtime.service.refusals import RefusedError, malformed

_log = logging.getLogger(__name__)
ONE, SEVERAL = ("k", "by"), ("camera", "source")
"""What the query of a search may hold: once, and as often as is liked."""
_Stamp = tuple[int, int] | None
LOOK_S = 1.0
"""How often the gallery is looked at."""
MOST = 1000
"""Rows that are given of a person."""


class Searcher:
    """A gallery that is opened again when it changes, so that who was removed is found no more.

    Args:
        path: its folder.
        contract: of the model whose vectors are sought.

    Raises:
        MissingFileError: no gallery is there.
        InputError: it is damaged.
        ContractError: it holds vectors of another space.
    """

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp, self._gallery = self._opened()
        require_same_space(
            contract.space, self._gallery.contract.space, names=("the model", str(path))
        )
        self._looked = time.monotonic()

    def search(
        self, vectors: Embeddings, contract: Contract, asked: QueryParams
    ) -> list[list[dict[str, Any]]]:
        """The nearest rows of every person.

        Args:
            vectors: (N, D) float32.
            contract: of the model that gave them.
            asked: ``k``, ``by``, and every ``camera`` and ``source`` that is searched.

        Raises:
            RefusedError: what cannot be asked for, a model of another space, or a gallery that
                cannot be read any more.
        """
        k = _count(asked.get("k", "10"))
        by = asked.get("by", "row")
        source, camera = (tuple(asked.getlist(name)) for name in ("source", "camera"))
        gallery = self._current()
        try:
            require_same_space(
                contract.space, gallery.contract.space, names=("the model", "the gallery")
            )
            where = Where(source=source, camera=camera) if source or camera else None
            found = gallery.search(vectors, k, where=where, by=by)  # type: ignore[arg-type]
        except SaDeployError as exc:
            raise RefusedError(422, str(exc), reason="not searched") from exc
        return [found.rows(person) for person in range(len(vectors))]

    def _current(self) -> Gallery:
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= LOOK_S:
                self._looked = now
                if _stamp(self.path) != self._stamp:
                    self._open_again()
            return self._gallery

    def _open_again(self) -> None:
        try:
            self._stamp, self._gallery = self._opened()
        except SaDeployError as exc:
            self._looked = -math.inf  # the next request looks again: what is gone is found no more
            _log.error("nobody is sought: %s", exc)
            raise RefusedError(
                503,
                "the gallery cannot be read at the moment; come again in 1 s",
                retry_after_s=1,
                reason="no gallery",
            ) from exc

    def _opened(self) -> tuple[_Stamp, Gallery]:
        stamp = _stamp(self.path)  # before it is read: what changes meanwhile is seen next time
        return stamp, Gallery(self.path)


def answer(
    contract: Contract, name: str, version: int, results: list[list[dict[str, Any]]]
) -> bytes:
    """The body of an answer."""
    fields = {
        "model": name,
        "version": version,
        "space": contract.space,
        "results": [[_plain(row) for row in rows] for rows in results],
    }
    return orjson.dumps(fields)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON does not have are null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= MOST):
        raise malformed(f"k: expected a number from 1 to {MOST}")
    return int(text)


def _stamp(path: Path) -> _Stamp:
    try:
        status = (path / MANIFEST).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
