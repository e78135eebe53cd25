"""How far an artefact agrees with its FP32 network: in vectors, and in the people it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa_export.crop_set import CropSet, spread
from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.canary import make_canary
from sa_runtime.retrieval.bootstrap import LEVEL, intervals
from sa_runtime.retrieval.metrics import RetrievalResult, evaluate_vectors
from sa_runtime.runners.base import Runner

if TYPE_CHECKING:
    from sa_training.network import SANetwork

Embed = Callable[[Images], Embeddings]
SMALL_BATCHES = (1, 3)
_SMALL_CROPS = 32
_WORST = 5
_TOP = 10
_CANARY_CROPS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Retrieval figures as fractions."""

    mAP: float
    rank1: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of an artefact with its FP32 network.

    Attributes:
        validation: where the crops came from.
        crops, queries: how many; the queries are sought in the other crops.
        runtime: what ran the artefact.
        network, artefact: retrieval figures; ``None`` where the crops have no labels.
        map_drop_interval: points of mAP between which other people of the same gallery would have
            put the loss, in 95 of 100 cases; ``None`` without labels or of one person.
        rank1_agreement: fraction of queries whose first match is the same crop.
        top10_overlap: mean fraction of their first ten that are the same.
        min_cosine, p1_cosine, mean_cosine: between the two vectors of a crop: the smallest (over
            all batch sizes), the 1st percentile, the mean.
        batches: batch size -> smallest cosine; small batches see an even choice of the crops.
        independence: smallest cosine of a crop's vector alone to the same among others.
        worst: names and cosines of the crops that changed most.
    """

    validation: str
    crops: int
    queries: int
    runtime: str
    network: Score | None
    artefact: Score | None
    rank1_agreement: float
    top10_overlap: float
    min_cosine: float
    p1_cosine: float
    mean_cosine: float
    batches: dict[int, float]
    independence: float
    worst: dict[str, float]
    map_drop_interval: tuple[float, float] | None = None

    @property
    def map_drop(self) -> float | None:
        """Points of mAP that the artefact lost, negative where it gained."""
        if self.network is None or self.artefact is None:
            return None
        return 100 * (self.network.mAP - self.artefact.mAP)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "map_drop": self.map_drop}

    def summary(self) -> dict[str, Any]:
        """The figures that travel in the contract."""
        scores: dict[str, Any] = {}
        if self.network is not None and self.artefact is not None:
            scores = {
                "mAP_network": round(self.network.mAP, 6),
                "mAP": round(self.artefact.mAP, 6),
                "rank1_network": round(self.network.rank1, 6),
                "rank1": round(self.artefact.rank1, 6),
            }
        if self.map_drop_interval is not None:
            scores["map_drop_interval"] = [round(end, 4) for end in self.map_drop_interval]
        return {
            "validation": self.validation,
            "crops": self.crops,
            "runtime": self.runtime,
            **scores,
            "rank1_agreement": round(self.rank1_agreement, 6),
            "top10_overlap": round(self.top10_overlap, 6),
            "min_cosine": round(self.min_cosine, 7),
            "mean_cosine": round(self.mean_cosine, 7),
            "independence": round(self.independence, 7),
        }

    def rows(self) -> list[tuple[str, str]]:
        """The report as rows for people."""
        rows = []
        if self.network is not None and self.artefact is not None:
            for what, ours, theirs in (
                ("mAP", self.artefact.mAP, self.network.mAP),
                ("rank-1", self.artefact.rank1, self.network.rank1),
            ):
                rows.append((what, f"{100 * ours:.2f} (network {100 * theirs:.2f})"))
        if self.map_drop_interval is not None:
            low, high = self.map_drop_interval
            text = f"{self.map_drop:+.2f} ({100 * LEVEL:.0f} % interval {low:+.2f} to {high:+.2f})"
            rows.append(("points of mAP lost", text))
        worst, cosine = next(iter(self.worst.items()))
        rows += [
            ("same first match", f"{100 * self.rank1_agreement:.1f} %"),
            ("same top ten", f"{100 * self.top10_overlap:.1f} %"),
            (
                "cosine min / 1 % / mean",
                f"{self.min_cosine:.6f} / {self.p1_cosine:.6f} / {self.mean_cosine:.6f}",
            ),
            ("worst at batch", ", ".join(f"{n}: {c:.6f}" for n, c in self.batches.items())),
            ("alone and among others", f"{self.independence:.6f}"),
            ("worst crop", f"{worst} {cosine:.6f}"),
            ("compared on", f"{self.crops} crops, {self.validation}, {self.runtime}"),
        ]
        return rows


def crop_embedder(network: SANetwork, embedding: str) -> Embed:
    """The FP32 network as a function from crops to embeddings, 16 crops at a time."""
    import torch

    from sa_training.pixels import network_input

    network.eval()

    def embed(images: Images) -> Embeddings:
        with torch.inference_mode():
            parts = [
                network.embed(
                    network_input(torch.from_numpy(images[i : i + 16])), embedding
                ).numpy()
                for i in range(0, len(images), 16)
            ]
        return (
            np.concatenate(parts)
            if parts
            else np.zeros((0, network.embedding_dim(embedding)), np.float32)
        )

    return embed


def measure_parity(
    artefact: Embed,
    reference: Embeddings,
    crops: CropSet,
    *,
    runtime: str,
    largest: int = 16,
) -> Parity:
    """Embed the crops at several batch sizes and compare vectors and retrieval.

    Args:
        artefact: crops (N, H, W, 3) uint8 BGR -> (N, D), rows of unit length.
        reference: (N, D) float32 of the FP32 network, rows of unit length.
        crops: the crops; retrieval figures need their labels.
        runtime: what runs the artefact, for the report.
        largest: batch size at which all crops are embedded; 1 and 3 see some of them.
    """
    images = crops.images
    vectors = _in_batches(artefact, images, largest)
    cosine = cosines(vectors, reference)
    batches = {largest: float(cosine.min())}
    some = np.array(spread(range(len(images)), _SMALL_CROPS))
    independence = 1.0
    for size in SMALL_BATCHES:
        small = _in_batches(artefact, images[some], size)
        batches[size] = float(cosines(small, reference[some]).min())
        independence = min(independence, float(cosines(small, vectors[some]).min()))
    order = np.argsort(cosine)[:_WORST]
    found, known = (_retrieval(each, crops) for each in (vectors, reference))
    ours, theirs = _top(vectors, crops), _top(reference, crops)
    overlap = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(ours, theirs, strict=True)]
    return Parity(
        validation=crops.source,
        crops=len(crops),
        queries=crops.queries,
        runtime=runtime,
        network=_score(known),
        artefact=_score(found),
        map_drop_interval=_drop_interval(known, found, crops),
        rank1_agreement=float(np.mean([a[0] == b[0] for a, b in zip(ours, theirs, strict=True)])),
        top10_overlap=float(np.mean(overlap)),
        min_cosine=min(batches.values()),
        p1_cosine=float(np.percentile(cosine, 1)),
        mean_cosine=float(cosine.mean()),
        batches=dict(sorted(batches.items())),
        independence=independence,
        worst={crops.names[i]: float(cosine[i]) for i in order.tolist()},
    )


def canary_of_crops(crops: CropSet, runner: Runner) -> str:
    """A few of the crops and what a runner makes of them, for runtimes to check themselves on."""
    images = crops.images[spread(range(len(crops)), _CANARY_CROPS)]
    return make_canary(images, runner.run(images))


def score(vectors: Embeddings, crops: CropSet) -> Score | None:
    """mAP and rank-1 of some vectors, ``None`` where the crops have no labels."""
    return _score(_retrieval(vectors, crops))


def _retrieval(vectors: Embeddings, crops: CropSet) -> RetrievalResult | None:
    if crops.labels is None:
        return None
    rows = np.arange(len(crops))
    query, gallery = rows[: crops.queries], rows[crops.queries :]
    return evaluate_vectors(
        vectors[query], crops.labels.select(query), vectors[gallery], crops.labels.select(gallery)
    )


def _score(found: RetrievalResult | None) -> Score | None:
    return None if found is None else Score(mAP=found.mAP, rank1=found.rank(1))


def _drop_interval(
    known: RetrievalResult | None, found: RetrievalResult | None, crops: CropSet
) -> tuple[float, float] | None:
    """Of the paired differences of the queries, over people."""
    if known is None or found is None or crops.labels is None:
        return None
    lost = 100 * (known.average_precision - found.average_precision)
    between = intervals({"mAP": lost}, crops.labels.person[: crops.queries]).get("mAP")
    return None if between is None else (between.low, between.high)


def _in_batches(embed: Embed, images: Images, size: int) -> Embeddings:
    return np.concatenate([embed(images[i : i + size]) for i in range(0, len(images), size)])


def cosines(ours: Embeddings, theirs: Embeddings) -> NDArray[np.float64]:
    """(N,) cosines between the rows of two sets of unit vectors."""
    cosine: NDArray[np.float64] = np.einsum(
        "nd,nd->n", ours.astype(np.float64), theirs.astype(np.float64)
    )
    return cosine


def _top(vectors: Embeddings, crops: CropSet) -> list[NDArray[np.int64]]:
    """The nearest gallery rows of every query, without its own person under its own camera."""
    gallery = vectors[crops.queries :]
    found = []
    for i in range(crops.queries):
        similarity = gallery @ vectors[i]
        if crops.labels is not None:
            person, camera = crops.labels.person, crops.labels.camera
            same = (person[crops.queries :] == person[i]) & (camera[crops.queries :] == camera[i])
            similarity = np.where(same, -np.inf, similarity)
        found.append(np.argsort(-similarity, kind="stable")[:_TOP])
    return found
