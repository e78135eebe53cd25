"""A picture of rankings: some queries, each with its nearest gallery images, right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Bgr, Image
from sa_runtime.datasets.base import JUNK, ReidDataset, Sample, cameras_of, persons_of
from sa_runtime.decoding import read_image
from sa_runtime.errors import InputError
from sa_runtime.retrieval.distance import Distances, VectorDistances
from sa_runtime.retrieval.labels import Labels
from sa_runtime.retrieval.metrics import RetrievalResult, evaluate_distances
from sa_runtime.retrieval.rerank import RerankedDistances, Reranking
from sa_runtime.retrieval.sheet import INK, PAPER, SUPERSAMPLE, Sheet, write_png
from sa_runtime.retrieval.vectors import Ints, VectorRows, Vectors
from sa_runtime.system.files import refuse_inputs

Verdict = Literal["query", "right", "wrong"]

# Green and vermilion that colour-blind people tell apart (Okabe and Ito); the marks say it again.
_COLOURS: dict[Verdict, Bgr] = {
    "query": (120, 108, 96),
    "right": (115, 158, 0),
    "wrong": (0, 84, 213),
}
_STROKES: dict[Verdict, list[list[tuple[float, float]]]] = {
    "right": [[(-0.48, 0.02), (-0.12, 0.38), (0.5, -0.34)]],
    "wrong": [[(-0.36, -0.36), (0.36, 0.36)], [(-0.36, 0.36), (0.36, -0.36)]],
}
_RULE: Bgr = (232, 228, 224)

_CROP = (176, 88)
_FRAME = 4
_GAP = 14
_QUERY_GAP = 34
_MARGIN = 28
_HEAD = 124
_CAPTION = 44
_BADGE = 11


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One query and what was found, nearest first."""

    query: Sample
    found: tuple[Sample, ...]
    distance: tuple[float, ...]
    average_precision: float


def ranking_picture(
    dataset: ReidDataset,
    query: Vectors,
    gallery: Vectors,
    out: Path,
    *,
    queries: int = 6,
    top: int = 8,
    rerank: Reranking | None = None,
    seed: int = 0,
) -> None:
    """Draw queries with their nearest gallery images, as the protocol ranks them.

    The queries are a spread from the best to the worst average precision, with at least one whose
    first image is wrong if there is one. Images of the query's person under its own camera, and
    junk, are left out as they are in the figures.

    Args:
        dataset: with queries and gallery.
        query: (Q, D) vectors of ``dataset.query``.
        gallery: (G, D) vectors of ``dataset.gallery``.
        out: PNG file to write.
        queries: rows of the picture.
        top: gallery images in a row.
        rerank: rank by re-ranked distances.
        seed: of the choice of queries.

    Raises:
        InputError: another suffix than ``.png``, vectors that do not fit the data set, an image
            that cannot be read, or no query with a match.
    """
    check_picture(out, dataset.root)
    if queries < 1 or top < 1:
        raise InputError(f"queries={queries}, top={top}: expected at least 1 of each")
    query_rows, query_samples = _without_junk(query, dataset.query, "query")
    gallery_rows, gallery_samples = _without_junk(gallery, dataset.gallery, "gallery")
    source: Distances
    if rerank is None:
        source = VectorDistances(query_rows, gallery_rows)
    else:
        source = RerankedDistances(query_rows, gallery_rows, rerank)
    query_labels, gallery_labels = (
        Labels(person=persons_of(samples), camera=cameras_of(samples))
        for samples in (query_samples, gallery_samples)
    )
    result = evaluate_distances(source, query_labels, gallery_labels)
    rows = []
    for index in choose_queries(result, query_labels.person, queries, seed):
        sample = query_samples[index]
        distance = source.row(index)
        kept = np.flatnonzero(
            (gallery_labels.person != sample.person) | (gallery_labels.camera != sample.camera)
        )
        nearest = kept[np.argsort(distance[kept], kind="stable")[:top]]
        rows.append(
            _Row(
                query=sample,
                found=tuple(gallery_samples[i] for i in nearest),
                distance=tuple(distance[nearest].tolist()),
                average_precision=float(result.average_precision[index]),
            )
        )
    picture = _draw(rows, top, _headline(dataset, result, rerank))
    write_png(picture, out)


def check_picture(out: Path, root: Path) -> None:
    """Raise InputError unless the name ends in ``.png`` and lies outside the data set's folder."""
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: a picture is written as PNG; expected a name that ends in .png")
    refuse_inputs(out, [root], parameter="picture")


def choose_queries(result: RetrievalResult, person: Ints, count: int, seed: int) -> list[int]:
    """Queries spread evenly from the best to the worst, preferably of different people.

    Args:
        result: of their evaluation.
        person: (Q,) persons of the queries.
        count: how many; all that count where there are fewer.
        seed: of the choice within each stretch of alike queries.

    Returns:
        Indices, best average precision first. Where any query's first image is wrong, so is that
        of at least one of these.
    """
    counted = np.flatnonzero(result.first_rank)
    order = counted[np.argsort(-result.average_precision[counted], kind="stable")]
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for stretch in np.array_split(order, min(count, len(order))):
        candidates = rng.permutation(stretch)
        new = candidates[~np.isin(person[candidates], person[chosen])]
        chosen.append(int(new[0] if len(new) else candidates[0]))
    failures = counted[result.first_rank[counted] > 1]
    if len(failures) and not np.isin(chosen, failures).any():
        chosen[-1] = int(rng.choice(failures))
    return sorted(chosen, key=lambda index: -result.average_precision[index])


def _without_junk(
    vectors: Vectors, samples: tuple[Sample, ...], name: str
) -> tuple[VectorRows, list[Sample]]:
    if len(vectors) != len(samples):
        raise InputError(
            f"{len(vectors)} {name} vectors but {len(samples)} {name} images: expected one for each"
        )
    kept = [index for index, sample in enumerate(samples) if sample.person != JUNK]
    rows = VectorRows(vectors, name=name, keep=np.array(kept, np.int64))
    return rows, [samples[index] for index in kept]


def _headline(
    dataset: ReidDataset, result: RetrievalResult, rerank: Reranking | None
) -> tuple[str, str]:
    ranked = "" if rerank is None else ", re-ranked"
    figures = f"mAP {100 * result.mAP:.1f} %, rank-1 {100 * result.rank(1):.1f} %{ranked}"
    return dataset.name, (
        f"{figures}; {result.queries_counted:,} queries in {result.gallery_images:,} images"
    )


class _Ranking(Sheet):
    """A sheet with crops in coloured frames, and ticks and crosses."""

    def crop(self, image: Image, x: int, y: int, verdict: Verdict) -> None:
        """A crop in its frame, whose outer corner is at (x, y)."""
        height, width = _CROP[0] + 2 * _FRAME, _CROP[1] + 2 * _FRAME
        self.fill(_COLOURS[verdict], x=x, y=y, height=height, width=width)
        self.image(crops.resize(image, *_CROP), x + _FRAME, y + _FRAME)

    def mark(self, x: float, y: float, verdict: Verdict) -> None:
        """A white tick or cross on a disc around (x, y)."""
        centre, unit = np.array([x, y]) * SUPERSAMPLE, _BADGE * SUPERSAMPLE
        middle = (round(centre[0]), round(centre[1]))
        cv2.circle(self.large, middle, unit, _COLOURS[verdict], cv2.FILLED, cv2.LINE_AA)
        for stroke in _STROKES[verdict]:
            points = np.round(centre + np.array(stroke) * unit).astype(np.int32)
            width = round(0.26 * unit)
            cv2.polylines(self.large, [points], False, PAPER, width, cv2.LINE_AA)


def _draw(rows: list[_Row], top: int, headline: tuple[str, str]) -> Image:
    cell_height, cell_width = _CROP[0] + 2 * _FRAME, _CROP[1] + 2 * _FRAME
    first = _MARGIN + cell_width + _QUERY_GAP
    width = first + top * (cell_width + _GAP) - _GAP + _MARGIN
    pitch = cell_height + _CAPTION
    sheet = _Ranking(_HEAD + len(rows) * pitch + _MARGIN // 2, width)
    inner = width - 2 * _MARGIN
    sheet.text(headline[0], _MARGIN, 42, height=15, colour=INK, limit=inner)
    sheet.text(headline[1], _MARGIN, 64, height=9, limit=inner)
    sheet.fill(_RULE, x=_MARGIN, y=80, height=1, width=inner)
    columns = [first + i * (cell_width + _GAP) for i in range(top)]
    for x, title in zip([_MARGIN, *columns], ["query", *map(str, range(1, top + 1))], strict=True):
        sheet.text(title, x + cell_width / 2, _HEAD - 16, height=9, align=0.5)
    for index, row in enumerate(rows):
        y = _HEAD + index * pitch
        below = y + cell_height + 21
        sheet.crop(read_image(row.query.path), _MARGIN, y, "query")
        score = f"AP {100 * row.average_precision:.0f} %"
        sheet.text(score, _MARGIN + cell_width / 2, below, height=9, colour=INK, align=0.5)
        for x, sample, distance in zip(columns, row.found, row.distance, strict=False):
            verdict: Verdict = "right" if sample.person == row.query.person else "wrong"
            sheet.crop(read_image(sample.path), x, y, verdict)
            sheet.mark(x + 21, below - 4.5, verdict)
            sheet.text(f"{distance:.3f}", x + 40, below, height=9)
    return sheet.finish()
