from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.errors import InputError
from sa_runtime.retrieval.analysis import RECALLS, analyse, worst_pairs
from sa_runtime.retrieval.evaluation import RetrievalReport, evaluate_embedder
from sa_runtime.retrieval.report.build import write_report
from sa_runtime.retrieval.rerank import Reranking

PEOPLE, CAMERAS = 12, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReidDataset:
    """Two images of everyone under every camera; sequence 2 holds the people from 7 on."""
    root = tmp_path_factory.mktemp("world")
    image = np.zeros((8, 4, 3), np.uint8)
    samples = []
    for person in range(1, PEOPLE + 1):
        for camera in range(CAMERAS):
            for shot in range(2):
                sequence = 1 + (person > 6)
                path = root / f"{person:04d}_c{camera + 1}s{sequence}_{shot:06d}_00.png"
                cv2.imwrite(str(path), image[: 4 + person // 3])
                samples.append(Sample(path, person, camera))
    return ReidDataset(
        name="drawn",
        root=root,
        train=(),
        query=tuple(samples[::2]),
        gallery=(*samples[1::2], replace(samples[0], person=0), replace(samples[0], person=-1)),
    )


@pytest.fixture(scope="module")
def report(world: ReidDataset) -> RetrievalReport:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(PEOPLE + 1, 8))
    sides: list[Any] = []
    for samples in (world.query, world.gallery):
        who = [sample.person for sample in samples]
        vectors = centres[who] + rng.normal(size=(len(who), 8))
        sides.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return evaluate_embedder(lambda paths: sides[len(paths) != len(world.query)], world)


def distances(report: RetrievalReport) -> Any:
    return ((report.query[:, None] - report.gallery[None]) ** 2).sum(axis=2)


def test_pairs_are_the_protocol_within_one_camera(
    world: ReidDataset, report: RetrievalReport
) -> None:
    matrix = distances(report)
    analysis = analyse(report, world)
    person, camera = report.gallery_labels.person, report.gallery_labels.camera
    assert len(analysis.pairs) == CAMERAS * (CAMERAS - 1)
    for pair in analysis.pairs:
        scores, firsts = [], []
        images = np.flatnonzero((camera == pair.gallery_camera) & (person != -1))
        for query, sample in enumerate(world.query):
            if sample.camera == pair.query_camera:
                right = person[images] == sample.person
                row = matrix[query, images]
                scores.append(average_precision_score(right, -row))
                firsts.append(right[np.argmin(row)])
        assert pair.queries == len(scores)
        assert pair.mAP == pytest.approx(np.mean(scores))
        assert pair.rank1 == pytest.approx(np.mean(firsts))
    worst = worst_pairs(analysis.pairs)
    assert worst[0].mAP == min(pair.mAP for pair in analysis.pairs)


def test_rankings_hold_what_the_protocol_counts_and_what_it_leaves_out(
    world: ReidDataset, report: RetrievalReport
) -> None:
    matrix = distances(report)
    labels = report.gallery_labels
    for query, ranking in enumerate(analyse(report, world, top=5).rankings):
        assert ranking is not None
        sample = world.query[query]
        kept = np.flatnonzero(labels.person != -1)
        order = kept[np.argsort(matrix[query, kept], kind="stable")]
        out = (labels.person[order] == sample.person) & (labels.camera[order] == sample.camera)
        assert ranking.index.tolist() == order[np.cumsum(~out) <= 5][: len(ranking.index)].tolist()
        assert np.count_nonzero(~out[: len(ranking.index)]) == 5
        right = order[(labels.person[order] == sample.person) & ~out]
        assert ranking.first_match == right[0]
        assert ranking.first_distance == pytest.approx(matrix[query, right[0]], abs=1e-5)


def test_precision_falls_over_recall_and_bounds_the_mean(
    world: ReidDataset, report: RetrievalReport
) -> None:
    analysis = analyse(report, world)
    assert analysis.precision.shape == RECALLS.shape
    assert (np.diff(analysis.precision) <= 1e-12).all()
    # Interpolated precision is never below the step form that average precision sums.
    assert report.mAP <= analysis.precision.mean() <= report.mAP + 0.1


def test_groups_add_up(world: ReidDataset, report: RetrievalReport) -> None:
    analysis = analyse(report, world)
    assert [group.name for group in analysis.times] == ["sequence 1", "sequence 2"]
    assert len(analysis.heights) >= 2
    for groups in (analysis.heights, analysis.times):
        total = sum(group.queries for group in groups)
        assert total == report.result.queries_counted
        mean = sum(group.queries * group.mAP for group in groups) / total
        assert mean == pytest.approx(report.mAP)
    figures = analysis.to_dict()
    assert set(figures) == {"camera_pairs", "heights", "times", "open_set"}


def test_re_ranked_distances_are_looked_at_where_they_ranked(world: ReidDataset) -> None:
    rng = np.random.default_rng(1)
    sides = [rng.normal(size=(len(side), 8)) for side in (world.query, world.gallery)]
    again = evaluate_embedder(
        lambda paths: sides[len(paths) != len(world.query)],
        world,
        rerank=Reranking(k1=6, k2=2),
    )
    analysis = analyse(again, world)
    first = [
        world.gallery[ranking.index[0]].person == sample.person
        for ranking, sample in zip(analysis.rankings, world.query, strict=True)
        if ranking is not None and world.gallery[ranking.index[0]].camera != sample.camera
    ]
    assert 0 <= np.mean(first) <= 1
    assert max(ranking.distance.max() for ranking in analysis.rankings if ranking) <= 1.0


def test_what_does_not_fit_is_refused(
    world: ReidDataset, report: RetrievalReport, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected the data set that was evaluated"):
        analyse(report, replace(world, query=world.query[:3]))
    with pytest.raises(InputError, match=r"top=0: expected at least 1 image"):
        analyse(report, world, top=0)
    with pytest.raises(InputError, match="is read; write elsewhere"):
        write_report(world.root / "out", [report], world)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a file; expected a folder, for report\.html in it"):
        write_report(tmp_path / "file", [report], world)
    with pytest.raises(InputError, match="most_images=3: expected at least 20 pictures"):
        write_report(tmp_path, [report], world, most_images=3)
    with pytest.raises(InputError, match="no evaluations to report"):
        write_report(tmp_path, [], world)


def test_fewer_pictures_leave_the_figures(
    world: ReidDataset, report: RetrievalReport, tmp_path: Path
) -> None:
    small = write_report(tmp_path / "small", [report], world, most_images=20)
    whole = write_report(tmp_path / "whole", [report], world)
    assert small.stat().st_size < whole.stat().st_size
    assert small.read_text().count('"file"') == whole.read_text().count('"file"')
