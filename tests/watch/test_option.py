from __future__ import annotations

import pytest

from ckptlog.errors import ArgumentError, ReadOnlyError
from ckptlog.watch.filter import EventFilter
from ckptlog.watch.option import Options, WatchOptions, check_options


def test_defaults():
    assert check_options() == Options()
    assert Options().save_interval_s == 0
    assert Options(auto_ack=True).save_interval_s > 0
    assert Options(auto_ack=True, ack_interval_s=0).save_interval_s == 0


def test_the_typed_names_are_those_that_are_taken():
    names = {*EventFilter.__struct_fields__, *Options.__struct_fields__}
    assert set(WatchOptions.__annotations__) == names


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonsense": 1},
        {"auto_ack": 1},
        {"follow": None},
        {"poll_s": 0},
        {"poll_s": -1},
        {"poll_s": "1"},
        {"poll_s": float("nan")},
        {"poll_s": True},
        {"timeout_s": float("inf")},
        {"busy_timeout_s": None},
        {"ack_interval_s": -0.1},
        {"in_flight_max": 0},
        {"in_flight_max": 2.0},
        {"start": "somewhere"},
    ],
)
def test_wrong_options_are_refused_and_nothing_is_held(room, wrong):
    with pytest.raises(ArgumentError):
        room.watch("one", **wrong)
    assert not (room.root / "consumers").exists()


def test_a_reader_of_a_store_that_is_read_only_keeps_its_cursor_elsewhere(room, tmp_path):
    room.add("a")
    reader = room.process(read_only=True)
    with pytest.raises(ReadOnlyError) as caught:
        reader.open("one", {})
    assert "cursors" in caught.value.hint
    with reader.open(None, {"follow": False}) as events:
        assert [event.position for event in events] == [0]
    for wanted in ([0], []):
        with reader.open("one", {"follow": False, "cursors": tmp_path / "mine"}) as events:
            assert [event.position for event in events] == wanted
            events.ack()
    assert not (room.root / "consumers").exists()
    with pytest.raises(ArgumentError):
        reader.open("one", {"cursors": 7})


def test_a_cursor_is_kept_where_the_working_directory_was(room, tmp_path, monkeypatch):
    room.add("a")
    monkeypatch.chdir(tmp_path)
    with room.process().open("one", {"follow": False, "cursors": "mine"}) as events:
        assert next(events).position == 0
        monkeypatch.chdir("/")
        events.ack()
    with room.process().open("one", {"follow": False, "cursors": tmp_path / "mine"}) as events:
        assert list(events) == []
