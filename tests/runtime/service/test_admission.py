"""Who may join a queue: bursts as far as it goes, an overload no further than is run at a time."""

from __future__ import annotations

import time

import pytest

from sa_runtime.service import admission
from sa_runtime.service.admission import Admission, Place


def kept(queue: Admission, waiting: int) -> Place:
    place = queue.keep(waiting, 0.0)
    assert place is not None
    return place


def test_a_burst_fills_the_queue_and_an_overload_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Admission(100, 8)
    assert queue.admits(92, 8, 0.0)
    assert queue.limit() == 100
    assert not queue.admits(100, 1, 0.0)
    assert queue.limit() == 8
    assert not queue.admits(8, 1, 0.0)
    assert queue.admits(7, 1, 0.0)
    monkeypatch.setattr(admission, "CALM_S", 0.0)
    time.sleep(0.001)
    assert queue.limit(calm_s=1000.0) == 8  # a full queue would not be worked off yet
    assert queue.admits(50, 8, 0.0)


def test_bursts_with_pauses_between_them_fill_the_queue_each_time() -> None:
    queue = Admission(100, 8)
    assert not queue.admits(100, 1, 0.0)
    assert not queue.admits(8, 1, 0.0)
    queue.idle()
    time.sleep(0.001)
    assert queue.admits(8, 90, 0.0)


def test_a_model_that_runs_out_of_work_for_a_moment_is_not_idle() -> None:
    queue = Admission(16, 8)
    full_s = 100.0  # of which half a batch is a sixth
    assert not queue.admits(16, 1, full_s)
    queue.idle()
    assert queue.limit(full_s) == 8
    queue.busy()
    assert queue.limit(0.0001) == 8  # the pause is over, however short a batch is
    queue.idle()
    time.sleep(0.001)
    assert queue.limit(0.0001) == 16


def test_a_request_of_many_people_has_the_chance_of_one_of_few_under_overload() -> None:
    queue = Admission(100, 8)
    assert not queue.admits(100, 1, 0.0)
    assert queue.admits(7, 64, 0.0)
    assert not queue.admits(71, 1, 0.0)
    assert not queue.admits(7, 94, 0.0)  # but no more than the queue takes


def test_a_place_is_kept_for_a_body_that_is_on_its_way() -> None:
    queue = Admission(4, 4)
    places = [kept(queue, 0) for _ in range(4)]
    assert queue.keep(0, 0.0) is None
    assert not queue.admits(0, 1, 0.0)
    assert queue.admits(0, 1, 0.0, places[0])
    assert queue.keep(1, 0.0) is None  # three are coming, one waits
    assert queue.give_up(places[1])
    assert not queue.give_up(places[1])
    assert kept(queue, 1)


def test_a_place_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PLACE_S", 0.0)
    queue = Admission(2, 2)
    slow = [kept(queue, 0) for _ in range(20)]
    assert queue.admits(0, 2, 0.0)
    assert not queue.admits(2, 1, 0.0, slow[0])  # and whoever lost his comes too late
    assert queue.admits(0, 1, 0.0, slow[1])


def test_who_has_a_place_is_let_in_with_more_than_was_expected() -> None:
    queue = Admission(40, 4)
    assert not queue.admits(40, 1, 0.0)
    place = kept(queue, 3)
    assert queue.admits(10, 9, 0.0, place)
    assert not queue.admits(10, 9, 0.0)


def test_places_are_of_the_usual_size() -> None:
    queue = Admission(100, 100)
    for _ in range(200):
        assert queue.admits(0, 6, 0.0)
    assert kept(queue, 0).crops == 6
