from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.errors import InputError
from sa_runtime.retrieval.metrics import RetrievalResult
from sa_runtime.retrieval.picture import choose_queries, ranking_picture
from sa_runtime.retrieval.rerank import Reranking

GREEN, VERMILION, SLATE = (115, 158, 0), (0, 84, 213), (120, 108, 96)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReidDataset:
    """Each person's images are of one plain colour, so that they can be told in the picture."""
    folder = tmp_path_factory.mktemp("world")

    def sample(person: int, camera: int, shot: int = 0) -> Sample:
        path = folder / f"{person}_{camera}_{shot}.png"
        grey = 40 + 30 * (person + 1) + shot
        cv2.imwrite(str(path), np.full((64, 32, 3), grey, np.uint8))
        return Sample(path, person, camera)

    return ReidDataset(
        name="plain",
        root=folder,
        train=(),
        query=(sample(1, 0), sample(2, 0)),
        gallery=(
            sample(1, 0, 1),  # removed for query 1
            sample(1, 1, 2),
            sample(2, 1, 3),
            sample(-1, 1, 4),
            sample(3, 1, 5),
        ),
    )


def vectors(*angles: float) -> Any:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


QUERY = vectors(0.0, 1.5)
# Junk and the removed image would come first; query 2 meets a stranger before its match.
GALLERY = vectors(0.01, 0.1, 1.2, 0.02, 1.45)


def frames(picture: Any) -> dict[tuple[int, int, int], list[tuple[int, int, int]]]:
    """(row, column, grey of the crop) of every frame in each of the three colours."""
    found: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    for colour in (SLATE, GREEN, VERMILION):
        mask = (picture == colour).all(axis=2).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        boxes = [stats[i] for i in range(1, count) if stats[i][3] > 150]
        found[colour] = sorted(
            (int(y), int(x), int(picture[y + h // 2, x + w // 2, 0])) for x, y, w, h, _ in boxes
        )
    return found


def test_right_and_wrong_matches_are_framed_as_the_protocol_ranks_them(
    world: ReidDataset, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "ranking.png"
    ranking_picture(world, QUERY, GALLERY, out, queries=2, top=3)
    picture = cv2.imread(str(out))
    assert picture is not None
    found = frames(picture)
    assert [grey for _, _, grey in found[SLATE]] == [100, 130]
    rows = [y for y, _, _ in found[SLATE]]
    columns = sorted({x for _, x, _ in found[GREEN] + found[VERMILION]})
    assert len(columns) == 3

    def row(y: int) -> list[tuple[str, int]]:
        cells = [(x, "right", grey) for top, x, grey in found[GREEN] if top == y]
        cells += [(x, "wrong", grey) for top, x, grey in found[VERMILION] if top == y]
        return [(verdict, grey) for _, verdict, grey in sorted(cells)]

    # Query 1 (at 0): its match (0.1), then persons 2 (1.2) and 3 (1.45). Query 2 (at 1.5): a
    # stranger (1.45), its match (1.2), then person 1 (0.1).
    assert row(rows[0]) == [("right", 102), ("wrong", 133), ("wrong", 165)]
    assert row(rows[1]) == [("wrong", 165), ("right", 133), ("wrong", 102)]
    assert [path.name for path in out.parent.iterdir()] == ["ranking.png"]


def test_marks_tell_the_verdict_without_colour(world: ReidDataset, tmp_path: Path) -> None:
    out = tmp_path / "ranking.png"
    ranking_picture(world, QUERY, GALLERY, out, queries=1, top=2)
    picture = np.asarray(cv2.imread(str(out)), np.int64)
    found = frames(picture)
    marks = []
    for colour in (GREEN, VERMILION):
        y, x, _ = found[colour][0]
        below = picture[y + 184 : y + 214, x : x + 34]
        marks.append((np.abs(below - 255).sum(axis=2) < 60) & _inside_disc(below, colour))
    assert marks[0].sum() > 20
    assert marks[1].sum() > 20
    assert (marks[0] != marks[1]).sum() > 20


def _inside_disc(patch: Any, colour: tuple[int, int, int]) -> Any:
    ys, xs = np.nonzero((patch == colour).all(axis=2))
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]]
    return (y - ys.mean()) ** 2 + (x - xs.mean()) ** 2 < 8**2


def test_the_same_inputs_give_the_same_bytes_and_missing_places_stay_empty(
    world: ReidDataset, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    for out in (one, two):
        ranking_picture(world, QUERY, GALLERY, out, queries=5, top=7, rerank=Reranking(k1=2, k2=1))
    assert one.read_bytes() == two.read_bytes()
    found = frames(cv2.imread(str(one)))
    assert [len(found[colour]) for colour in (SLATE, GREEN, VERMILION)] == [2, 2, 5]


def result(average_precision: list[float], first_rank: list[int]) -> RetrievalResult:
    counted = sum(rank > 0 for rank in first_rank)
    return RetrievalResult(
        mAP=0.5,
        mINP=0.5,
        cmc={},
        average_precision=np.array(average_precision),
        first_rank=np.array(first_rank),
        inverse_penalty=np.array(average_precision),
        matches=np.ones(len(first_rank), np.int64),
        queries_counted=counted,
        queries_skipped=len(first_rank) - counted,
        gallery_images=9,
    )


def test_queries_spread_from_best_to_worst_over_different_people() -> None:
    ap = np.linspace(1, 0.1, 20).tolist()
    person = np.arange(20) // 2
    chosen = choose_queries(result(ap, [1] * 12 + [3] * 8), person, 5, seed=3)
    assert [index // 4 for index in chosen] == [0, 1, 2, 3, 4]
    assert len(set(person[chosen])) == 5
    assert chosen == choose_queries(result(ap, [1] * 12 + [3] * 8), person, 5, seed=3)


@pytest.mark.parametrize("seed", range(5))
def test_one_failure_is_shown_if_there_is_one(seed: int) -> None:
    ap, first_rank = [1.0] * 50 + [0.4, np.nan], [1] * 50 + [2, 0]
    chosen = choose_queries(result(ap, first_rank), np.arange(52), 3, seed)
    assert 50 in chosen
    assert 51 not in chosen
    assert len(set(chosen)) == 3


def test_fewer_queries_than_wanted_are_all_shown() -> None:
    assert choose_queries(result([0.5, np.nan, 1.0], [2, 0, 1]), np.arange(3), 6, 0) == [2, 0]


def test_messages_name_what_is_wrong(world: ReidDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jpg: a picture is written as PNG; expected a name"):
        ranking_picture(world, QUERY, GALLERY, tmp_path / "a.jpg")
    with pytest.raises(InputError, match="1 query vectors but 2 query images: expected one for"):
        ranking_picture(world, QUERY[:1], GALLERY, tmp_path / "a.png")
    with pytest.raises(InputError, match="queries=0, top=8: expected at least 1 of each"):
        ranking_picture(world, QUERY, GALLERY, tmp_path / "a.png", queries=0)
    assert not list(tmp_path.iterdir())
