"""A settled segment answers every reader as the written one did (specs/settled.md)."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptlog.errors import CheckpointError, CheckpointStorageError, LogCorruptionError
from ckptlog.formats import frame, settled
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log import settling
from ckptlog.log.follower import Follower
from ckptlog.model.cursor import BEGINNING
from ckptlog.storage import files
from tests.log.sample import STORE_ID, append, group, open_log, published_ids, segment_paths
from tests.log.settled_log import (
    answers,
    bare,
    cursors_of,
    made_log,
    random_log,
    sealed_segments,
    settle_all,
)

_settings = settings()
FEWER = settings(max_examples=max(1, _settings.max_examples // 10), deadline=None)
shapes = st.lists(
    st.tuples(st.sampled_from([1, 1, 2, 6]), st.sampled_from([0, 0, 60, 700])),
    min_size=3,
    max_size=25,
)


@FEWER
@given(commits=shapes, block_bytes=st.sampled_from([1, 500, 1500, 65536]))
@example(commits=[(1, 60)] * 30, block_bytes=1)
@example(commits=[(6, 0)] * 8 + [(1, 700)] * 8, block_bytes=1500)
def test_every_reader_sees_what_it_saw_before(commits, block_bytes):
    root = Path(tempfile.mkdtemp())
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settling, "_BLOCK_BYTES", block_bytes)
            log = made_log(root / "s", commits, segment_bytes=2500)
            log.seal(0)
            cursors = cursors_of(log)
            before = answers(log, cursors)
            made = settle_all(log)
            assert made
            assert len(segment_paths(root / "s")) == 1
            assert answers(log, cursors) == before
            log.close()
            log = open_log(root / "s")
            assert answers(log, cursors) == before
            log.close()
    finally:
        shutil.rmtree(root)


def test_the_settled_form_changes_nothing_while_the_written_one_is_there(tmp_path):
    log = random_log(tmp_path / "s", 1)
    cursors = cursors_of(log)
    before = answers(log, cursors)
    with_places = list(log.reader.commits())
    made = settle_all(log, removes=False)
    for path in made[::2]:  # the written one is read, whatever stands beside it
        path.write_bytes(b"nothing of the kind")
    assert answers(log, cursors) == before
    assert list(log.reader.commits()) == with_places
    log.close()


def test_settling_again_makes_the_same_bytes(tmp_path):
    log = random_log(tmp_path / "s", 2)
    first = [path.read_bytes() for path in settle_all(log, removes=False)]
    assert [path.read_bytes() for path in settle_all(log)] == first
    assert not list((tmp_path / "s" / "log").glob(f"*{files.TEMPORARY_SUFFIX}"))
    log.close()


def test_a_reader_goes_on_across_a_settle(tmp_path):
    log = random_log(tmp_path / "s", 3)
    expected = bare(log.reader.commits())
    walk = log.reader.commits()
    follower = Follower(log.reader, log.published, BEGINNING)
    followed = follower.commits()
    got = [next(walk) for _ in range(5)]
    seen = [next(followed) for _ in range(7)]
    settle_all(log)
    assert bare([*got, *walk]) == expected
    assert bare([*seen, *followed]) == expected
    (more,) = append(log, group("more", record_bytes=80))
    assert list(follower.commits()) == [more]
    log.close()


def test_another_process_reads_right_across_a_settle(tmp_path):
    log = random_log(tmp_path / "s", 4)
    cursors = cursors_of(log)
    other = open_log(tmp_path / "s", read_only=True)
    before = answers(other, cursors)
    settle_all(log)
    assert answers(other, cursors) == before
    other.close()
    log.close()


def test_a_writer_goes_on_behind_a_settled_segment(tmp_path):
    log = random_log(tmp_path / "s", 5)
    names = published_ids(log)
    settle_all(log)
    log.close()
    log = open_log(tmp_path / "s")
    for number in range(30):
        append(log, group(f"after-{number}", record_bytes=300))
    assert published_ids(log) == [*names, *(f"after-{n}" for n in range(30))]
    settle_all(log)
    assert published_ids(log) == [*names, *(f"after-{n}" for n in range(30))]
    log.close()


def test_the_chunks_are_gone_and_their_figures_stay(tmp_path):
    log = made_log(tmp_path / "s", [(1, 700)] * 30)
    written = sum(path.stat().st_size for path in segment_paths(tmp_path / "s")[:-1])
    made = settle_all(log)
    assert sum(path.stat().st_size for path in made) < written / 3
    for path in made:
        first, generation = settled.parse_name(path.name)
        file = log.segments.open(first, generation)
        assert file.is_settled
        for commit in log.reader.commits():
            for entry in commit.entries:
                name = f"log/{first:020d}.{generation}.seg"
                if entry.container == name:
                    assert file.brought(entry.offset)[0] == 1
        file.close()
    log.close()


def test_the_segment_that_the_log_ends_in_is_never_settled(tmp_path):
    log = random_log(tmp_path / "s", 6, commits=3, segment_bytes=10**6)
    assert sealed_segments(log) == []
    assert log.seal(10**9) is False
    assert log.seal(0) is True
    assert log.seal(0) is False, "an empty one is not finished"
    assert len(sealed_segments(log)) == 1
    log.close()


# --- damage -----------------------------------------------------------------------------------


def everything(root: Path) -> object:
    """Return what a process sees that opens the log now; an error of ours as it is."""
    log = open_log(root, read_only=True)
    try:
        return bare(log.reader.commits()), [
            log.reader.entry(one.container, one.offset, one.length, one.span)[0]
            for commit in log.reader.commits()
            for one in commit.entries
        ]
    except CheckpointError as error:
        return error
    finally:
        log.close()


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(settling, "_BLOCK_BYTES", 700)
    log = made_log(tmp_path / "s", [(1, 0), (3, 60), (1, 400), (1, 60)], segment_bytes=10**6)
    log.seal(0)
    append(log, group("last"))
    (path,) = settle_all(log)
    log.close()
    return tmp_path / "s", path


def test_every_damaged_byte_is_detected(small):
    root, path = small
    whole = everything(root)
    data = path.read_bytes()
    assert not isinstance(whole, CheckpointError)
    chance = random.Random(7)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        assert isinstance(everything(root), CheckpointError), at
    path.write_bytes(data)
    assert everything(root) == whole


def test_every_cut_is_detected(small):
    root, path = small
    data = path.read_bytes()
    for size in range(0, len(data), 3):
        path.write_bytes(data[:size])
        assert isinstance(everything(root), CheckpointError), size
    path.write_bytes(data + bytes(16))
    assert isinstance(everything(root), CheckpointError)


def test_one_that_is_renamed_or_of_another_store_is_refused(small):
    root, path = small
    path.rename(path.with_name(settled.settled_name(0, 1)))
    assert isinstance(everything(root), CheckpointError)


def test_what_is_read_of_a_damaged_one_is_right(small):
    """Blocks that are whole are read; the error names the file."""
    root, path = small
    data = bytearray(path.read_bytes())
    log = open_log(root, read_only=True)
    expected = bare(log.reader.commits())
    log.close()
    data[HEADER_FRAME_BYTES + frame.HEADER_BYTES + 40] ^= 4  # in the first block
    path.write_bytes(data)
    log = open_log(root, read_only=True)
    with pytest.raises(LogCorruptionError, match=path.name):
        list(log.reader.commits())
    last = expected[-2]
    assert bare(log.reader.commits(last.container, last.entries[0].offset - 76, 5))
    one = last.entries[0]
    assert log.reader.entry(one.container, one.offset, one.length, one.span)[0] == one
    log.close()


def hostile(rows, path, *, valid_length=None, events=None):
    """Write a settled file that is whole in itself, of rows of one block."""
    first, generation = settled.parse_name(path.name)
    place = settled.seed(STORE_ID, first, generation)
    data = path.read_bytes()[:HEADER_FRAME_BYTES]
    block, stop = settled.encode_block(place, len(data), HEADER_FRAME_BYTES, rows)
    line = settled.Line(HEADER_FRAME_BYTES, stop, len(data), len(block))
    data += block
    data += settled.encode_end(
        place, len(data), [line], valid_length=stop, events=len(rows) if events is None else events
    )
    path.write_bytes(data)
    return stop


def rows_of(root, path):
    log = open_log(root, read_only=True)
    file = log.segments.open(*settled.parse_name(path.name))
    rows = [row for index in range(len(file._lines)) for row in file._block(index).rows]
    file.close()
    log.close()
    return rows


@pytest.mark.parametrize("gap", [1, 70_000, 2**31, 2**32 - 1000])
def test_a_gap_that_lies_costs_no_memory(small, gap):
    root, path = small
    rows = rows_of(root, path)
    moved = [settled.Row(row.offset + gap * (n > 0), *row[1:]) for n, row in enumerate(rows)]
    hostile(moved, path)
    log = open_log(root, read_only=True)
    tracemalloc.start()
    with pytest.raises(LogCorruptionError):
        list(log.reader.commits())
    name = f"log/{path.name.removesuffix('.set')}.seg"
    for row in moved[1:]:
        with pytest.raises(LogCorruptionError):
            log.reader.entry(name, row.offset, len(row.data), row.offset - HEADER_FRAME_BYTES)
    file = log.segments.open(*settled.parse_name(path.name))
    assert len(file.run(10**9, moved[1].offset)) < 10_000
    assert file.run(10**9, moved[0].offset) == moved[0].data
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    file.close()
    log.close()


@pytest.mark.parametrize(
    "lie",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[1:],
        lambda rows: rows[::-1],
        lambda rows: [rows[0], *rows],
        lambda rows: [rows[0]._replace(data=rows[1].data), *rows[1:]],
    ],
    ids=["last", "first", "order", "twice", "swapped"],
)
def test_events_that_are_missing_or_elsewhere_are_met(small, lie):
    root, path = small
    whole = everything(root)
    rows, at = [], HEADER_FRAME_BYTES
    for row in lie(rows_of(root, path)):
        rows.append(row._replace(offset=max(at, row.offset)))
        at = rows[-1].offset + len(row.data)
    hostile(rows, path)
    found = everything(root)
    assert isinstance(found, LogCorruptionError), found
    assert found != whole


# --- the writer -------------------------------------------------------------------------------


def test_a_damaged_segment_is_not_settled(tmp_path):
    log = random_log(tmp_path / "s", 8)
    sealed = sealed_segments(log)[0]
    path = log.segments.path(sealed.header.first, sealed.header.generation)
    data = path.read_bytes()
    chance = random.Random(1)
    events = {
        at
        for commit in log.reader.commits()
        for entry in commit.entries
        if entry.container == f"log/{path.name}"
        for at in range(entry.offset, entry.offset + entry.length)
    }
    for at in chance.sample(sorted(events), 60):
        damaged = bytearray(data)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(LogCorruptionError):
            settling.settle(log.segments, sealed)
        assert not list(path.parent.glob("*.set*"))
    path.write_bytes(data[:-1] if len(data) == sealed.length else data[: sealed.length - 1])
    with pytest.raises(LogCorruptionError, match="shorter"):
        settling.settle(log.segments, sealed)
    path.write_bytes(data)
    assert settling.settle(log.segments, sealed) > 0
    log.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one._replace(leaf=bytes(32)),
        lambda one: one._replace(stop=one.stop + 1),
        lambda one: one._replace(length=one.length - 1),
    ],
)
def test_what_the_next_header_does_not_confirm_is_not_settled(tmp_path, change):
    log = random_log(tmp_path / "s", 9)
    with pytest.raises(LogCorruptionError):
        settling.settle(log.segments, change(sealed_segments(log)[0]))
    assert not list((tmp_path / "s" / "log").glob("*.set*"))
    log.close()


def test_nothing_is_left_where_there_is_no_room(tmp_path, monkeypatch):
    log = random_log(tmp_path / "s", 10)

    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(os.listdir(tmp_path / "s" / "log"))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: full(fd, data))
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at: full(fd, data))
    with pytest.raises(CheckpointStorageError) as caught:
        settling.settle(log.segments, sealed_segments(log)[0])
    assert caught.value.code == "storage.full"
    assert sorted(os.listdir(tmp_path / "s" / "log")) == before
    monkeypatch.undo()
    log.close()


def test_the_order_of_a_writer(tmp_path, monkeypatch):
    """The bytes are synced before the name is there, the folder after it."""
    log = random_log(tmp_path / "s", 11)
    done = []
    for name in ("sync_file", "sync_directory", "publish"):
        real = getattr(files, name)

        def traced(*args, _name=name, _real=real, **options):
            done.append(_name)
            return _real(*args, **options)

        monkeypatch.setattr(files, name, traced)
    settling.settle(log.segments, sealed_segments(log)[0])
    assert done[:2] == ["sync_file", "publish"]
    assert done[-1] in {"publish", "sync_directory"}
    log.close()
