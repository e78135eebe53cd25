from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.errors import ContractError, InputError
from sa_runtime.items import Row
from sa_runtime.linking.fit import LinkParameters, World, fit_links, measure_world
from sa_runtime.linking.link import link_nearest, link_tracks, without_bias
from sa_runtime.linking.measures import measure_links
from sa_runtime.linking.picture import draw_timeline
from sa_runtime.linking.store import (
    Identities,
    read_identities,
    with_known,
    write_identities,
)
from sa_runtime.linking.tracks import Tracks, join, tracks_of
from sa_runtime.outputs.parquet import EmbeddingWriter, vector_array
from sa_runtime.outputs.read import read_embeddings

DIM = 24
CONTRACT = Contract(
    input=InputSpec(height=8, width=4), output=OutputSpec(dim=DIM), weights_sha256="0", space="s"
)


def tracks(
    vectors: NDArray[np.floating], camera: Sequence[str], start: Sequence[float], stay: float = 5
) -> Tracks:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    begin = np.asarray(start, np.float64)
    return Tracks(
        source=tuple(camera),
        camera=tuple(camera),
        number=np.arange(len(unit)),
        start=begin,
        end=begin + stay,
        rows=np.full(len(unit), 10),
        vectors=unit.astype(np.float32),
    )


def drawn(
    seed: int, people: int = 40, cameras: int = 4, bias: float = 0.0, noise: float = 0.55
) -> World:
    """People as directions with noise; each camera adds its own; everyone walks through most."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, DIM))
    tints = bias * rng.normal(size=(cameras, DIM))
    found = []
    for person in range(people):
        now = rng.uniform(0, 400)
        for camera in rng.permutation(cameras):
            if rng.random() < 0.7:
                vector = centres[person] + tints[camera] + noise * rng.normal(size=DIM)
                found.append((vector, f"c{camera}", now, person))
                now += rng.uniform(6, 40)
    vectors, names, start, persons = zip(*found, strict=True)
    return World(tracks=tracks(np.stack(vectors), names, start), person=np.array(persons))


def same(identity: NDArray[np.int64]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(identity == who).tolist()) for who in np.unique(identity)}


def test_links_are_those_of_a_slow_loop_over_all_pairs_of_groups() -> None:
    world = drawn(3, people=12)
    for threshold in (0.2, 0.5, 0.8):
        vectors = without_bias(world.tracks)
        cosine = (vectors @ vectors.T).astype(np.float64)
        apart = world.tracks.together()
        groups = [[track] for track in range(len(world.tracks))]
        while True:
            best = max(
                (
                    (cosine[np.ix_(a, b)].mean(), i, j)
                    for (i, a), (j, b) in itertools.combinations(enumerate(groups), 2)
                    if not apart[np.ix_(a, b)].any()
                ),
                default=(-2.0, 0, 0),
            )
            if best[0] < threshold:
                break
            groups[best[1]] += groups.pop(best[2])
        found = link_tracks(world.tracks, threshold)
        assert same(found.identity) == {frozenset(group) for group in groups}


def test_who_is_seen_at_once_is_never_one_person() -> None:
    vectors = np.tile(np.eye(1, DIM), (3, 1))
    found = link_tracks(
        tracks(vectors, ["a", "a", "b"], [0, 3, 1]), 0.5, remove_bias=False
    ).identity
    assert found[0] != found[1]
    assert found[2] in (found[0], found[1])
    apart = tracks(vectors, ["a", "a", "b"], [0, 30, 1])
    assert len(set(link_tracks(apart, 0.5, remove_bias=False).identity.tolist())) == 1


def test_what_a_camera_adds_is_taken_off_and_chance_is_not() -> None:
    tinted, plain = drawn(5, people=80, bias=0.8), drawn(5, people=80)
    offsets = []
    for world in (tinted, plain):
        moved = without_bias(world.tracks)
        camera = world.tracks.camera_index()
        means = np.stack([moved[camera == index].mean(axis=0) for index in range(4)])
        offsets.append(float(np.linalg.norm(means - means.mean(axis=0), axis=1).mean()))
    before = tinted.tracks.vectors
    camera = tinted.tracks.camera_index()
    means = np.stack([before[camera == index].mean(axis=0) for index in range(4)])
    assert offsets[0] < 0.3 * np.linalg.norm(means - means.mean(axis=0), axis=1).mean()
    untouched = np.abs(without_bias(plain.tracks) - plain.tracks.vectors).max()
    assert untouched < 0.15
    lonely = tracks(np.eye(2, DIM), ["a", "b"], [0, 0])
    assert np.allclose(without_bias(lonely), lonely.vectors)


@pytest.mark.parametrize(("bias", "margin"), [(0.0, 0.0), (0.8, 0.1)])
def test_links_beat_nearest_neighbours_with_thresholds_of_other_worlds(
    bias: float, margin: float
) -> None:
    others = [drawn(seed, bias=bias, noise=0.8) for seed in (101, 102)]
    scores = {}
    for name, way in (("linked", link_tracks), ("nearest", link_nearest)):
        parameters = fit_links(others, "s", linker=way)
        scores[name] = [
            measure_world(world, way(world.tracks, parameters.threshold)).idf1
            for world in (drawn(seed, bias=bias, noise=0.8) for seed in (1, 2, 3))
        ]
    pairs = zip(scores["linked"], scores["nearest"], strict=True)
    assert all(linked > nearest + margin for linked, nearest in pairs)


def test_new_tracks_join_those_who_are_known(tmp_path: Path) -> None:
    world = drawn(7, bias=0.3)
    first = np.arange(len(world.tracks)) < 60
    old = subset(world.tracks, first)
    known = Identities(tracks=old, links=link_tracks(old, 0.5), contract=CONTRACT)
    path = tmp_path / "who.parquet"
    write_identities(path, known)
    read = read_identities(path)
    assert read.links.identity.tolist() == known.links.identity.tolist()
    assert np.array_equal(read.tracks.vectors, old.vectors)
    assert read.tracks.keys == old.keys
    assert np.array_equal(read.links.certainty, known.links.certainty, equal_nan=True)

    both, before = with_known(subset(world.tracks, ~first), read)
    found = link_tracks(both, 0.5, known=before)
    assert found.identity[:60].tolist() == known.links.identity.tolist()
    fresh = found.identity[60:]
    assert np.isin(fresh, known.links.identity).any()
    assert fresh.max() > known.links.identity.max()
    assert set(range(fresh.max() + 1)) == set(found.identity.tolist())
    with pytest.raises(InputError, match="given twice; leave one of the files out"):
        with_known(old, read)


def subset(whole: Tracks, kept: NDArray[np.bool_]) -> Tracks:
    index = np.flatnonzero(kept)
    return Tracks(
        source=tuple(whole.source[row] for row in index),
        camera=tuple(whole.camera[row] for row in index),
        number=whole.number[index],
        start=whole.start[index],
        end=whole.end[index],
        rows=whole.rows[index],
        vectors=whole.vectors[index],
    )


def test_measures_are_those_of_counting() -> None:
    identity, person = np.array([0, 0, 1, 1, 2]), np.array([5, 5, 5, 6, 6])
    found = measure_links(identity, person, np.array([3, 1, 4, 2, 10]))
    # Person 5 as identity 0 or 1 (4 boxes each), person 6 as 2 (10 boxes).
    assert found.idf1 == pytest.approx((4 + 10) / 20)
    assert (found.precision, found.recall) == (1 / 2, 1 / 4)
    assert (found.identities, found.persons) == (3, 2)
    assert measure_links(person, person, identity + 1).idf1 == 1


def test_tracks_are_read_from_boxes(tmp_path: Path) -> None:
    rows, vectors = [], []
    for frame in range(4):
        for track in (1, 2):
            rows.append(Row("v/c1.mp4", frame, frame / 2, track, 0, 0, 4, 8, None, None))
            vectors.append(np.eye(DIM)[track])
    rows.append(Row("v/c1.mp4", 0, 0.0, None, 0, 0, 4, 8, None, None))
    vectors.append(np.eye(DIM)[5])
    with EmbeddingWriter(tmp_path / "c1.parquet", CONTRACT) as writer:
        writer.write(rows, np.array(vectors, np.float32))
    found = tracks_of(read_embeddings(tmp_path / "c1.parquet"))
    assert found.keys == [("v/c1.mp4", 1), ("v/c1.mp4", 2)]
    assert found.camera == ("c1.mp4", "c1.mp4")
    assert (found.start.tolist(), found.end.tolist()) == ([0, 0], [1.5, 1.5])
    assert found.rows.tolist() == [4, 4]
    assert np.array_equal(found.vectors, np.eye(DIM)[[1, 2]])
    assert found.together().tolist() == [[False, True], [True, False]]


def test_extremes_behave() -> None:
    one = tracks(np.eye(1, DIM), ["a"], [0])
    assert link_tracks(one, 0.5).identity.tolist() == [0]
    alike = tracks(np.ones((1000, DIM)), [f"c{i % 10}" for i in range(1000)], range(0, 9000, 9))
    assert set(link_tracks(alike, 0.5, remove_bias=False).identity.tolist()) == {0}
    assert len(link_tracks(subset(alike, np.zeros(1000, bool)), 0.5).identity) == 0


def test_parameters_are_kept_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "link.json"
    parameters = fit_links([drawn(1)], "s")
    parameters.write(path)
    assert LinkParameters.read(path) == parameters
    path.write_text(path.read_text().replace('"threshold": ', '"threshold": 4'))
    with pytest.raises(InputError, match=r"link\.json: not parameters that can be read \(its thr"):
        LinkParameters.read(path)
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        LinkParameters.read(tmp_path / "none.json")
    alone = World(tracks=tracks(np.eye(2, DIM), ["a", "b"], [0, 0]), person=np.array([1, 2]))
    with pytest.raises(InputError, match="expected people on two tracks or more, to learn from"):
        fit_links([alone], "s")


def test_what_cannot_be_linked_is_named(tmp_path: Path) -> None:
    one = tracks(np.eye(2, DIM), ["a", "b"], [0, 0])
    with pytest.raises(InputError, match=r"threshold=2: a cosine; expected -1 to 1"):
        link_tracks(one, 2)
    with pytest.raises(InputError, match="track 0 of a: given twice"):
        join([one, one])
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match=r"x\.parquet: not a Parquet file that can be read"):
        read_identities(tmp_path / "x.parquet")
    with EmbeddingWriter(tmp_path / "y.parquet", CONTRACT) as writer:
        writer.write([], np.zeros((0, DIM), np.float32))
    with pytest.raises(InputError, match=r"y\.parquet: no identities in it"):
        read_identities(tmp_path / "y.parquet")
    with pytest.raises(InputError, match="no row has a track_id"):
        tracks_of(read_embeddings(tmp_path / "y.parquet"))
    changed = replace(CONTRACT, space="other")
    assert changed.space != CONTRACT.space
    assert issubclass(ContractError, ValueError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vectors: vectors[:, : DIM // 2], r"list.*\[12\], its contract says 24 numbers"),
        (
            lambda vectors: np.where(vectors == vectors[1, 2], np.nan, vectors),
            "row 1 is not finite",
        ),
    ],
)
def test_changed_vectors_of_identities_are_refused(
    tmp_path: Path, change: Callable[[NDArray[np.float32]], NDArray[np.float32]], message: str
) -> None:
    path = tmp_path / "who.parquet"
    old = drawn(7).tracks
    write_identities(path, Identities(tracks=old, links=link_tracks(old, 0.5), contract=CONTRACT))
    table = pq.read_table(path)
    at = table.schema.get_field_index("embedding")
    column = vector_array(np.ascontiguousarray(change(old.vectors)))
    pq.write_table(table.set_column(at, "embedding", column), path)
    with pytest.raises(InputError, match=message):
        read_identities(path)


def test_a_picture_shows_a_bar_for_each_track(tmp_path: Path) -> None:
    world = drawn(2, people=8)
    found = Identities(tracks=world.tracks, links=link_tracks(world.tracks, 0.5), contract=CONTRACT)
    draw_timeline(tmp_path / "who.png", found)
    image = cv2.imread(str(tmp_path / "who.png"))
    assert image is not None
    colours = {tuple(map(int, pixel)) for pixel in image[100:-40].reshape(-1, 3)}
    assert {(178, 114, 0), (0, 94, 213), (115, 158, 0), (167, 121, 204)} <= colours
    unknown = replace(world.tracks, start=np.full(len(world.tracks), np.nan))
    with pytest.raises(InputError, match="tracks of unknown time"):
        draw_timeline(tmp_path / "no.png", replace(found, tracks=unknown))
