"""Search in a gallery on disk, exact beside faiss-cpu's flat index in the same run, or by an index.

Run: ``python benchmarks/gallery.py --folder EMPTY [--rows 1000000] [--dtype float32] [--faiss]
[--method hnsw] [--latent 32] [--out FILE.json]``. The folder is filled with a gallery of so many
drawn vectors, which is removed at the end. ``--faiss`` needs faiss-cpu and the vectors in memory;
the answers are compared. With ``--method`` the recall that the gallery states is set beside the
one measured with queries that are not in it, and the time beside that of the exact search.
``--latent`` draws from a space of so many dimensions with a little noise in all of them, as the
embeddings of people lie; without it every direction is alike, the hardest case for an index.

Memory is the largest anonymous memory of this process (RssAnon, Linux): what lies in the page cache
is the system's, and is given back when somebody needs it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.gallery.approximate import METHODS
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.columns import ROW_SCHEMA
from sa_runtime.retrieval.vectors import Floats
from sa_runtime.system.environment import cores
from sa_runtime.system.files import atomic_path

PART, TOP = 50_000, 10


def contract(dim: int) -> Contract:
    """Of vectors that are drawn."""
    return Contract(
        input=InputSpec(height=256, width=128),
        output=OutputSpec(dim=dim),
        weights_sha256="0",
        space="drawn",
    )


def vectors(count: int, dim: int, seed: int, latent: int = 0) -> Floats:
    """Unit vectors; spread over so many ``latent`` directions, and a tenth of it over all."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((count, dim), dtype=np.float32)
    if latent:
        axes = np.random.default_rng(1).standard_normal((latent, dim), dtype=np.float32)
        drawn *= np.float32(0.1 * latent**0.5)
        drawn += rng.standard_normal((count, latent), dtype=np.float32) @ axes
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def parts(rows: int, dim: int, latent: int) -> Iterator[StoredEmbeddings]:
    """Rows of one camera after another."""
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        empty = [pa.nulls(count, field.type) for field in ROW_SCHEMA]
        table = pa.table(dict(zip(ROW_SCHEMA.names, empty, strict=True)))
        numbers = {
            "source": pa.array([f"{start}.mp4"] * count),
            "frame": pa.array(np.arange(count)),
            **{
                name: pa.array(np.ones(count, np.float32))
                for name in ("left", "top", "width", "height")
            },
        }
        for name, column in numbers.items():
            table = table.set_column(ROW_SCHEMA.names.index(name), name, column)
        yield StoredEmbeddings(
            rows=table, vectors=vectors(count, dim, start, latent), contract=contract(dim)
        )


class Peak:
    """The largest anonymous memory while the block runs, in MiB."""

    def __enter__(self) -> Peak:
        self.mib, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.mib = max(self.mib, int(line.split()[1]) / 1024)


def timed(work: Any) -> tuple[float, float, Any]:
    """Seconds, MiB and result."""
    with Peak() as peak:
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
    return seconds, peak.mib, result


def beside_faiss(gallery: Gallery, query: Floats, index: Any) -> dict[str, Any]:
    """faiss-cpu on the same vectors, and how many answers differ."""
    import faiss

    flat = faiss.IndexFlatL2(query.shape[1])
    for segment in gallery.segments:
        flat.add(np.asarray(segment.vectors, np.float32))
    seconds, _, (_, found) = timed(lambda: flat.search(query, TOP))
    return {
        "faiss": faiss.__version__,
        "faiss_seconds": seconds,
        "answers": int(found.size),
        "answers_that_differ": int((found != index).sum()),
    }


def beside_exact(gallery: Gallery, dim: int, latent: int, queries: int) -> dict[str, Any]:
    """What an index finds for queries that are not in the gallery, and how much sooner."""
    strangers = vectors(queries, dim, 10**9, latent)
    gallery.search(strangers[:1], TOP)  # the index is read from disk
    seconds, _, found = timed(lambda: gallery.search(strangers, TOP))
    exact_seconds, _, exact = timed(lambda: gallery.search(strangers, TOP, exact=True))
    pairs = zip(found.index.tolist(), exact.index.tolist(), strict=True)
    hits = sum(len(set(mine) & set(others)) for mine, others in pairs)
    return {
        "recall_stated": gallery.recall,
        "recall_measured": hits / exact.index.size,
        "index_seconds": seconds,
        "exact_seconds": exact_seconds,
        "times": exact_seconds / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--method", choices=["exact", *METHODS], default="exact")
    parser.add_argument("--latent", type=int, default=0)
    parser.add_argument("--faiss", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the gallery for another run")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    words = asked.rows, asked.dim, asked.dtype, asked.method, asked.latent
    path = asked.folder / "-".join(["gallery", *map(str, words)])
    result: dict[str, Any] = {
        "rows": asked.rows,
        "dim": asked.dim,
        "queries": asked.queries,
        "dtype": asked.dtype,
        "method": asked.method,
        "latent": asked.latent,
    }
    if not path.exists():
        gallery = Gallery.create(path, contract(asked.dim), dtype=asked.dtype, method=asked.method)
        result["build_seconds"], result["build_mib"], _ = timed(
            lambda: gallery.add(parts(asked.rows, asked.dim, asked.latent))
        )
    result["open_seconds"], _, gallery = timed(lambda: Gallery(path))
    result["gallery_mib"] = gallery.size_bytes / 2**20
    if asked.method != "exact":
        result |= beside_exact(gallery, asked.dim, asked.latent, asked.queries)
    base = vectors(min(PART, asked.rows), asked.dim, 0, asked.latent)[: asked.queries]
    query = base + 0.02 * vectors(len(base), asked.dim, 7)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    result["search_seconds"], result["search_mib"], found = timed(
        lambda: gallery.search(query, TOP)
    )
    result["one_query_seconds"], _, _ = timed(lambda: gallery.search(query[:1], TOP))
    if asked.faiss:
        result |= beside_faiss(gallery, query, found.index)
        result["ratio_to_faiss"] = result["search_seconds"] / result["faiss_seconds"]
    if not asked.keep:
        shutil.rmtree(path)
    stamp = {
        "date": datetime.date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": cores(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    text = json.dumps({**result, **stamp}, indent=2)
    print(text)
    if asked.out is not None:
        with atomic_path(asked.out) as temporary:
            temporary.write_text(text + "\n")


if __name__ == "__main__":
    main()
