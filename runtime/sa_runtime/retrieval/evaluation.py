"""A model's retrieval figures on a data set, whatever embeds its images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sa_runtime.datasets.base import ReidDataset, Sample, cameras_of, persons_of
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.retrieval.bootstrap import RANKS as RANKS
from sa_runtime.retrieval.bootstrap import Interval, intervals, query_figures
from sa_runtime.retrieval.expansion import Expansion, expand_queries
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import (
    Convention,
    RetrievalResult,
    check_conventions,
    evaluate_vectors,
)
from sa_runtime.retrieval.rerank import Reranking
from sa_runtime.retrieval.stored import StoredImages, is_stored
from sa_runtime.retrieval.vectors import Vectors

STORED = "stored"
"""The runtime of embeddings that were read from a file."""
_CHUNK = 512


class Embed(Protocol):
    """Image files to vectors: :meth:`sa_runtime.embedder.Embedder.embed_paths`, or a network."""

    def __call__(self, paths: Sequence[Path]) -> Vectors:
        """(N, D) floats; row i is file i."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalReport:
    """What one evaluation gave.

    Its fields never change, so that threads may share it; none should write into its arrays.

    Attributes:
        dataset: its name.
        result: the figures, as fractions.
        reranked: the re-ranking they hold for, if any.
        query: (Q, D) vectors of ``dataset.query``.
        gallery: (G, D) vectors of ``dataset.gallery``.
        query_labels: persons and cameras of ``dataset.query``.
        gallery_labels: persons and cameras of ``dataset.gallery``.
        embed_seconds: reading, cropping and embedding all of them; reading them, where they were
            stored.
        evaluate_seconds: from vectors to figures.
        expanded: the expansion of the queries that they hold for, if any.
        model: file or folder of the model, or of the stored embeddings; empty where a callable
            embedded.
        runtime: what ran it, or ``stored``; likewise.
        precision: of its graph; likewise.
    """

    dataset: str
    result: RetrievalResult
    reranked: Reranking | None
    query: Vectors
    gallery: Vectors
    query_labels: Labels
    gallery_labels: Labels
    embed_seconds: float
    evaluate_seconds: float
    expanded: Expansion | None = None
    model: str = ""
    runtime: str = ""
    precision: str = ""

    @property
    def name(self) -> str:
        """What the model is called in tables and messages."""
        return self.model or "the model"

    @property
    def mAP(self) -> float:  # noqa: N802  # as papers write it
        """Mean average precision, a fraction."""
        return self.result.mAP

    @property
    def mINP(self) -> float:  # noqa: N802
        """Mean of matches / rank of the last match, a fraction."""
        return self.result.mINP

    def rank(self, k: int, convention: Convention | None = None) -> float:
        """Fraction of the queries found within rank ``k``; see :meth:`RetrievalResult.rank`."""
        return self.result.rank(k, convention)

    @property
    def images_per_second(self) -> float:
        """Images embedded per second, with reading and cropping."""
        return (len(self.query) + len(self.gallery)) / self.embed_seconds

    def figures(self) -> dict[str, float]:
        """``mAP``, ``rank1``, ``rank5``, ``rank10`` (by ``market1501``) and ``mINP``, fractions."""
        values = query_figures(self.result)
        return {name: float(np.nanmean(value)) for name, value in values.items()}

    def intervals(self, *, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Where the :meth:`figures` lie, by resampling people.

        Args:
            level: share of such intervals that hold the true value.
            seed: of the draws.

        Returns:
            An interval for each figure; none where the queries show fewer than two people.
        """
        values = query_figures(self.result)
        return intervals(values, self.query_labels.person, level=level, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """The figures for JSON: fractions from 0 to 1, times in seconds."""
        result = self.result
        stored = self.runtime == STORED
        return {
            "model": self.model,
            "runtime": self.runtime,
            "precision": self.precision,
            "dataset": self.dataset,
            "dim": int(self.query.shape[1]),
            "reranked": self.reranked is not None,
            "expanded": self.expanded is not None,
            "mAP": result.mAP,
            "mINP": result.mINP,
            "cmc": {name: {f"rank{k}": result.rank(k, name) for k in RANKS} for name in result.cmc},
            "intervals": {
                name: [found.low, found.high] for name, found in self.intervals().items()
            },
            "queries": len(self.query),
            "queries_counted": result.queries_counted,
            "queries_skipped": result.queries_skipped,
            "gallery": len(self.gallery),
            "junk": result.junk,
            "embed_seconds": self.embed_seconds,
            "images_per_second": None if stored else self.images_per_second,
            "evaluate_seconds": self.evaluate_seconds,
        }


def require_both_sides(dataset: ReidDataset) -> None:
    """Raise InputError where a data set has no queries or no gallery."""
    for name, samples in (("query", dataset.query), ("gallery", dataset.gallery)):
        if not samples:
            raise InputError(
                f"data set {dataset.name} in {dataset.root} has no {name} images to evaluate on; "
                "check it with `sa-deploy data check`"
            )


def labels_of(samples: Sequence[Sample]) -> Labels:
    """Persons and cameras of some samples."""
    return Labels(person=persons_of(samples), camera=cameras_of(samples))


def embed_samples(
    embed: Embed, samples: Sequence[Sample], on_progress: Callable[[int], None] | None = None
) -> Vectors:
    """Embed the images of some samples.

    Args:
        embed: image files to vectors.
        samples: N of them, at least one.
        on_progress: called with the number of images just embedded.

    Returns:
        (N, D) of the type that ``embed`` gives.

    Raises:
        InputError: no samples, or an image that cannot be read.
    """
    if not samples:
        raise InputError("no images to embed: expected at least one sample")
    vectors: Vectors
    for start in range(0, len(samples), _CHUNK):
        paths = [sample.path for sample in samples[start : start + _CHUNK]]
        part = embed(paths)
        if part.ndim != 2 or len(part) != len(paths):
            raise InputError(
                f"{len(paths)} images were embedded as {part.shape}: expected one row for each"
            )
        if start == 0:
            vectors = np.empty((len(samples), part.shape[1]), part.dtype)
        vectors[start : start + len(part)] = part
        if on_progress is not None:
            on_progress(len(part))
    return vectors


def evaluate(
    model: Embedder | StoredEmbeddings | Path | str,
    dataset: ReidDataset | str,
    data_dir: Path | str | None = None,
    *,
    runtime: str = "auto",
    batch_size: int = 32,
    rerank: Reranking | None = None,
    expand: Expansion | None = None,
    conventions: Sequence[Convention] = ("market1501",),
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
    **options: Any,
) -> RetrievalReport:
    """Find a data set's queries in its gallery with an artefact, as ``sa-deploy evaluate`` does.

    ::

        report = evaluate("model.onnx", "market", "Market-1501-v15.09.15")
        print(report.mAP, report.rank(1))

    Args:
        model: an artefact that ``sa-deploy export`` wrote; or embeddings of the data set's images
            that ``sa-deploy embed`` wrote, which are not embedded again; or an open embedder,
            which stays open. ``runtime``, ``batch_size`` and ``options`` are for the artefact.
        dataset: a name of :data:`sa_runtime.datasets.table.DATASETS`, or a data set.
        data_dir: folder of the data set of that name.
        runtime: a name of :data:`sa_runtime.runners.table.RUNNERS`, or ``auto``.
        batch_size: largest batch given to the runtime.
        rerank: re-rank by k-reciprocal neighbours first; ``Reranking()`` has the paper's values.
        expand: move each query towards its nearest gallery images first.
        conventions: CMC curves wanted: ``market1501``, ``allshots``, ``cuhk03``.
        seed: of the draws of ``cuhk03``.
        on_progress: called with the number of images just embedded.
        options: passed to the runner.

    Raises:
        InputError: no such model, runtime, data set or convention; a data set without queries or
            gallery; an image that cannot be read, or without a stored embedding; or no query with
            a match.
        MissingPackageError: the runtime is not installed.
        ContractError: the model carries no readable contract.
    """
    check_conventions(conventions)
    images = dataset if isinstance(dataset, ReidDataset) else _loaded(dataset, data_dir)
    name = str(model) if isinstance(model, (Path, str)) else ""
    with contextlib.ExitStack() as stack:
        if isinstance(model, (Path, str)):
            if is_stored(Path(model)):
                model = read_embeddings(model)
            else:
                embedder = Embedder(model, runtime, batch_size=batch_size, **options)
                model = stack.enter_context(embedder)
        embed: Embed
        if isinstance(model, Embedder):
            embed, ran = model.embed_paths, model.runner.name
        else:
            embed, ran = StoredImages(model, images.root, name=name or "the embeddings"), STORED
        report = evaluate_embedder(
            embed,
            images,
            rerank=rerank,
            expand=expand,
            conventions=conventions,
            seed=seed,
            on_progress=on_progress,
        )
        return replace(report, model=name, runtime=ran, precision=model.contract.precision)


def _loaded(name: str, data_dir: Path | str | None) -> ReidDataset:
    if data_dir is None:
        raise InputError(f"data_dir: expected the folder of the data set {name!r}")
    return load_dataset(name, data_dir)


def evaluate_embedder(
    embed: Embed,
    dataset: ReidDataset,
    *,
    rerank: Reranking | None = None,
    expand: Expansion | None = None,
    conventions: Sequence[Convention] = ("market1501",),
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> RetrievalReport:
    """Embed a data set's queries and gallery and rank one by the other.

    Args:
        embed: image files to vectors: ``embedder.embed_paths``, or any callable of its form.
        dataset: with queries and gallery.
        rerank: re-rank first.
        expand: move each query towards its nearest gallery images before all else.
        conventions: CMC curves wanted.
        seed: of the draws of ``cuhk03``.
        on_progress: called with the number of images just embedded.

    Raises:
        InputError: a data set without queries or gallery, an image that cannot be read, or no
            query with a match.
    """
    require_both_sides(dataset)
    started = time.perf_counter()
    query = embed_samples(embed, dataset.query, on_progress)
    gallery = embed_samples(embed, dataset.gallery, on_progress)
    embedded = time.perf_counter()
    if expand is not None:
        query = expand_queries(query, gallery, neighbours=expand.neighbours, alpha=expand.alpha)
    query_labels, gallery_labels = labels_of(dataset.query), labels_of(dataset.gallery)
    result = evaluate_vectors(
        query,
        query_labels,
        gallery,
        gallery_labels,
        rerank=rerank,
        conventions=conventions,
        seed=seed,
    )
    return RetrievalReport(
        dataset=dataset.name,
        result=result,
        reranked=rerank,
        expanded=expand,
        query=query,
        gallery=gallery,
        query_labels=query_labels,
        gallery_labels=gallery_labels,
        embed_seconds=embedded - started,
        evaluate_seconds=time.perf_counter() - embedded,
    )
