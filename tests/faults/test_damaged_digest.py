"""A digest in the log that came to harm: a collection takes no living chunk for garbage by it."""

from __future__ import annotations

import random
import shutil

import pytest

from ckptlog import CheckpointManager
from ckptlog.blobs import live_set
from ckptlog.errors import CheckpointCorruptionError, LogCorruptionError
from ckptlog.formats import frame, segment
from ckptlog.repository.collection import CollectOptions, collect
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory

SEGMENTS = ("log/00000000000000000000.0.seg", "log/00000000000000000006.0.seg")


def data_of(step):
    return {"step": step, "noise": random.Random(step).randbytes(3000)}


@pytest.fixture
def store(tmp_path):
    """Two segments with garbage, and a third."""
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        for step in range(1, 16):
            manager.create_checkpoint("t", "T", step, data=data_of(step), checkpoint_id=f"c{step}")
            if step % 6 == 0:
                manager.store.log.seal(0)
        for step in (1, 2, 7, 8):
            manager.delete_checkpoint(f"c{step}")
    return path


LIVING = (3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15)


def chunks_of(path, name):
    """Return where each chunk's frame begins."""
    with CheckpointManager(path) as manager:
        id_bytes = manager.store.info.id_bytes
    seed = segment.seed(id_bytes, *segment.parse_name(name.removeprefix("log/")))
    walked = frame.walk(seed, 0, (path / name).read_bytes())
    return [begin for kind, _, begin, _ in walked if kind == frame.CHUNK]


def flip(path, name, at, count=1):
    data = bytearray((path / name).read_bytes())
    data[at : at + count] = bytes(byte ^ 4 for byte in data[at : at + count])
    (path / name).write_bytes(data)


def check(path):
    with CheckpointManager(path) as manager:
        for step in LIVING:
            assert manager.get_checkpoint(f"c{step}").data == data_of(step)
        assert manager.store.verify().ok


def collected(path):
    """Collect; return the error that it ended with, if any."""
    with CheckpointManager(path) as manager:
        try:
            collect(manager.store, CollectOptions(seal_bytes_min=0))
        except CheckpointCorruptionError as error:
            return error
    return None


@pytest.mark.parametrize(
    ("views", "spills"), [("views", False), ("none", False), ("none", True)], ids=str
)
def test_no_digest_that_came_to_harm_loses_its_chunk(store, monkeypatch, views, spills):
    if spills:
        monkeypatch.setattr(live_set, "RECENT_MAX", 3)
        monkeypatch.setitem(live_set.LiveSet.__init__.__kwdefaults__, "recent_max", 3)
    told = 0
    for name in SEGMENTS:
        for number, begin in enumerate(chunks_of(store, name)):
            copy = store.with_name(f"{name[-10:]}-{number}")
            shutil.copytree(store, copy)
            if views == "none":
                shutil.rmtree(copy / "views")
            flip(copy, name, begin + frame.HEADER_BYTES + number % 32)
            told += collected(copy) is not None
            if (copy / name).exists():
                flip(copy, name, begin + frame.HEADER_BYTES + number % 32)
            check(copy)
            assert collected(copy) is None
            check(copy)
            shutil.rmtree(copy)
    assert told >= 8, "one for each that lives"


def test_what_is_sound_is_collected_and_the_rest_once_it_was_repaired(store, tmp_path):
    shutil.copytree(store, tmp_path / "sound")
    begin = chunks_of(store, SEGMENTS[0])[-1]
    flip(store, SEGMENTS[0], begin + frame.HEADER_BYTES)
    shutil.copytree(store, tmp_path / "lost")
    error = collected(store)
    assert isinstance(error, LogCorruptionError)
    assert SEGMENTS[0] in error.message
    assert "ckptlog repair" in error.hint
    assert (store / SEGMENTS[0]).exists()
    assert not (store / SEGMENTS[1]).exists()
    assert repair(store, is_applied=True, copy=tmp_path / "sound").lost_chunks == ()
    check(store)
    assert collected(store) is None
    assert not (store / SEGMENTS[0]).exists()
    check(store)


def test_a_chunk_that_a_repair_told_lost_stops_no_collection(store):
    begin = chunks_of(store, SEGMENTS[0])[-1]
    flip(store, SEGMENTS[0], begin + frame.HEADER_BYTES, 400)
    assert len(repair(store, is_applied=True).lost_chunks) == 1
    assert collected(store) is None
    assert not (store / SEGMENTS[0]).exists()
    assert not any(one.code == "log.corrupt" for one in verify_directory(store).problems)
