"""Faults of other savers, each of which users have met; ours has none of them."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

import ckptlog
from ckptlog.errors import (
    CheckpointCorruptionError,
    ConflictError,
    CreationRefusedError,
    UnregisteredTypeError,
    UnstorableError,
)
from ckptlog.integrations.langgraph import CkptlogSaver
from tests.integrations.langgraph.thread import config, identifiers, put, values_of


def test_reading_inside_a_loop_over_a_list_does_not_hang(saver):
    for number in range(3):
        put(saver, config(), {"a": number})
    found = []

    def loop():
        found.extend(saver.get_tuple(one.config) for one in saver.list(config()))

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert len(found) == 3


def test_two_writers_from_one_parent_can_be_told_apart(tmp_path):
    with CkptlogSaver.open(tmp_path, second_children="refuse") as saver:
        parent = put(saver, config(), {"balance": 100})
        put(saver, parent, {"balance": 90})
        with pytest.raises(ConflictError):
            put(saver, parent, {"balance": 80})
        assert values_of(saver, config()) == {"balance": 90}


def test_a_late_write_does_not_bring_a_deleted_thread_back(saver):
    parent = put(saver, config(), {"balance": 100})
    saver.delete_thread("t")
    with pytest.raises(CreationRefusedError):
        put(saver, parent, {"balance": 1})
    assert saver.get_tuple(config()) is None


def test_a_flipped_byte_is_never_returned_as_data(tmp_path):
    note = "".join(f"PAY-{number * 7919 % 10**7:07}-EUR" for number in range(20))
    with CkptlogSaver.open(tmp_path) as saver:
        where = put(saver, config("rot"), {"note": note})
        put(saver, config("other"), {"note": "sound"})
    (segment,) = (tmp_path / "log").glob("*.seg")
    sound = segment.read_bytes()
    with ckptlog.open(tmp_path, read_only=True) as store:
        entry = next(iter(store.events()))
    told = 0
    for number in range(12):  # from the first chunk of the commit to its event
        damaged = bytearray(sound)
        damaged[entry.offset - entry.span + 40 + number * entry.span // 12] ^= 9
        segment.write_bytes(damaged)
        with CkptlogSaver.open(tmp_path) as saver:
            # A frame's header is not part of the data, and a list has metadata from the view.
            for read in (lambda: [saver.get_tuple(where)], lambda: list(saver.list(config("rot")))):
                try:
                    (found,) = read()
                except CheckpointCorruptionError:
                    told += 1
                else:
                    assert found.checkpoint["channel_values"] == {"note": note}
            assert values_of(saver, config("other")) == {"note": "sound"}
    assert told >= 12


def test_types_are_refused_and_not_turned_into_something_else(saver):
    class Unknown:
        pass

    with pytest.raises(UnstorableError):
        put(saver, config(), {"a": Unknown()})


def test_a_stored_name_never_makes_an_object_by_itself(tmp_path):
    class Planted:
        made = 0

        def __init__(self):
            type(self).made += 1

    from ckptlog.model.codec import TypeCodec

    codec = TypeCodec(
        kind=Planted, name="os.system", lower=lambda _: "touch x", lift=lambda _: Planted()
    )
    with CkptlogSaver.open(tmp_path, types=[codec]) as saver:
        where = put(saver, config(), {"a": Planted()})
    with CkptlogSaver.open(tmp_path) as saver, pytest.raises(UnregisteredTypeError):
        saver.get_tuple(where)
    assert Planted.made == 1


def _put_many(folder, thread, count, failures):
    try:
        with CkptlogSaver.open(folder) as saver:
            where = config(thread)
            for number in range(count):
                where = put(saver, where, {"m": ["x" * 1000] * 100, "n": number})
    except BaseException as error:
        failures.put(repr(error))
        raise


@pytest.mark.unmeasured
def test_many_processes_begin_with_one_fresh_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    processes = [
        context.Process(target=_put_many, args=(tmp_path / "store", f"t{number}", 15, failures))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4, failures.get(timeout=5)
    with CkptlogSaver.open(tmp_path / "store") as saver:
        for number in range(4):
            assert len(identifiers(saver, config(f"t{number}"))) == 15
            assert values_of(saver, config(f"t{number}"))["n"] == 14
        assert not saver.store.verify().problems
