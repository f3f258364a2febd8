"""Single events are found without reading those before; what is met by its header is not believed."""

from __future__ import annotations

import os
import random

import pytest

import ckptlog
from ckptlog.errors import LogCorruptionError
from ckptlog.repository.locator import Locator
from tests.repository.damage import flipped


def grown(path, *, segment_bytes):
    """Make a log of commits of one and of many, with chunks beside them, in several segments."""
    with ckptlog.CheckpointManager(path) as manager:
        manager.store.log._segment_bytes = segment_bytes
        for number in range(60):
            name = manager.create_checkpoint("t", "T", 1, data={"noise": os.urandom(300).hex()})
            if number % 7 == 0:
                with manager.batch() as batch:
                    for _ in range(20):
                        batch.update_checkpoint(name, data={"n": number})
                        batch.create_checkpoint("u", "U", 1, activate=True)


@pytest.fixture(params=[20_000, 64 * 1024 * 1024], ids=["segments", "one"])
def path(request, tmp_path):
    grown(tmp_path / "s", segment_bytes=request.param)
    return tmp_path / "s"


def test_every_event_is_found_where_it_lies(path):
    with ckptlog.open(path) as store:
        everything = list(store.events())
        order = list(range(len(everything)))
        random.Random(1).shuffle(order)
        for position in order:
            assert store._locator.entry(position) == everything[position]
        assert store._locator.entry(len(everything)) is None
        assert store.event_at(len(everything)) is None


def test_a_history_reads_no_event_twice_and_none_beside(path, monkeypatch):
    """The slow way must not come into it: it hides that the fast one finds nothing."""
    with ckptlog.CheckpointManager(path) as manager:
        name = next(e.event.subject.checkpoint for e in manager.store.events() if e.event.previous)
        monkeypatch.setattr(manager.store, "events", None)
        assert len(manager.history(name)) == 21


@pytest.mark.parametrize(
    "waypoint",
    [
        None,
        ("", 0, 0),
        ("log/nothing.seg", 7, 0),
        ("packs/x", 0, 0),
        ("own", 0, 0),
        ("own", 17, 0),
        ("own", 2**62, 0),
        ("own", 0, 10**9),
    ],
    ids=str,
)
def test_a_wrong_waypoint_makes_no_wrong_answer(path, waypoint):
    with ckptlog.open(path) as store:
        everything = list(store.events())

        def wrong(position):
            if waypoint is None or waypoint[0] != "own":
                return waypoint
            return everything[position].container, *waypoint[1:]

        locator = Locator(store.log, wrong)
        for position in range(0, len(everything), 17):
            assert locator.entry(position) in (None, everything[position])
            assert store.event_at(position) == everything[position]


def test_frames_beyond_the_end_are_not_met(tmp_path):
    """A commit whose end was never published is nobody's, whatever a waypoint says."""
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1)
        end = manager.store.log.published.read()
        manager.create_checkpoint("t", "T", 2)
        later = manager.store.event_at(1)
        begin = later.offset - later.span

        def at_the_second(position):
            return later.container, begin, position

        def locator():
            return Locator(manager.store.log, at_the_second)

        assert locator().entry(1) == later
        manager.store.log.published.read = lambda: end
        assert locator().entry(1) is None
        asked = locator()
        assert asked.entry(0) is None  # the waypoint leads past it
        assert asked._places == {}


def test_damage_is_told_and_no_neighbour_taken_for_it(path):
    with ckptlog.open(path) as store:
        everything = list(store.events())
        target = everything[40]
        store._locator.entry(41)  # remembers places
        with flipped(path / target.container, target.offset + 40):
            assert store._locator.entry(40) is None
            with pytest.raises(LogCorruptionError):
                store.event_at(40)
            assert store.event_at(41) == everything[41]
        assert store.event_at(40) == target


def test_what_is_remembered_is_bounded(path, monkeypatch):
    monkeypatch.setattr("ckptlog.repository.locator._PLACES_MAX", 10)
    with ckptlog.open(path) as store:
        everything = list(store.events())
        locator = Locator(store.log, lambda position: None)
        for position in reversed(range(0, len(everything), 23)):
            assert locator.entry(position) == everything[position]
            assert len(locator._places) <= 20


def test_neighbours_are_found_without_a_search(path, monkeypatch):
    with ckptlog.open(path) as store:
        everything = list(store.events())
        locator = Locator(store.log, lambda position: None)
        assert locator.entry(40) == everything[40]
        monkeypatch.setattr(locator, "_find", None)
        met = [one for one in everything[:40] if one.container == everything[40].container]
        assert [locator.entry(one.position) for one in met] == met
        assert met


def test_without_a_published_end_nothing_is_found(path, monkeypatch):
    with ckptlog.open(path) as store:
        monkeypatch.setattr(store.log.published, "read", lambda: None)
        assert store._locator.entry(1) is None
