"""A copy whose frames hold and say what cannot be: it costs no memory and no time, and helps still."""

from __future__ import annotations

import os

import msgspec
import pytest

import ckptlog
from ckptlog.errors import InputOutputError
from ckptlog.formats import end, event, frame, pack, segment, settled, tombstone
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log.segments import Segments
from ckptlog.repository import gap, second_copy
from ckptlog.repository.continuation import Continuation
from ckptlog.repository.layout import read_info
from ckptlog.repository.repair import repair
from ckptlog.repository.second_copy import Chunks, SecondCopy
from ckptlog.storage.disk import Disk
from ckptlog.views.leaf import LeafCache
from tests.repository.pair import grow, leaves_now, lose, rows_of, segments_of
from tests.repository.ruin import fresh

TIME = "2026-01-02T03:04:05.000006Z"
FAR = 1 << 62


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    root = tmp_path_factory.mktemp("image") / "store"
    grow(root, "both", 40, has_data=False)
    return root


@pytest.fixture
def store(image, tmp_path):
    return fresh(image, tmp_path / "store")


@pytest.fixture
def copy(image, tmp_path):
    return fresh(image, tmp_path / "copy")


def first_of(root):
    return segments_of(root)[0]


def say(root, at, position):
    """Let the frame of an event say another position, with a checksum that holds."""
    path = first_of(root)
    row = rows_of(root, path).known[at].row
    body = row.data[frame.HEADER_BYTES :]
    seed = segment.seed(read_info(root).id_bytes, 0, 0)
    other = event.encode_body(position, row.offset, body[event.PREFIX_BYTES :])
    framed = frame.encode(seed, row.offset, frame.EVENT, row.data[3], other)
    data = path.read_bytes()
    path.write_bytes(data[: row.offset] + framed + data[row.offset + len(framed) :])


# --- what its frames say ----------------------------------------------------------------------


@pytest.mark.parametrize("position", [9, 13, 600, 1 << 33, (1 << 64) - 1])
def test_an_event_at_another_position_is_left_out_and_those_beside_it_are_taken(
    store, copy, position
):
    lose(store, [10, 11, 12])
    say(copy, 11, position)
    done = repair(store, is_applied=True, copy=copy)
    assert done.ok
    assert done.lost_positions == ((11, 11),)
    assert done.facts()["from_copy"] == 2


def test_an_event_of_ours_at_a_position_that_has_no_room_is_told(store):
    lose(store, [10])
    say(store, 11, 1 << 33)
    (refused,) = [one for one in repair(store).files if one.action == "refused"]
    assert "has no room for events 10 to" in refused.message


def test_a_settled_row_far_behind_the_segment_is_not_looked_at(store, copy):
    path = first_of(copy)
    rows = rows_of(copy, path)
    framed = rows.known[5].row.data[frame.HEADER_BYTES + event.PREFIX_BYTES :]
    seed = segment.seed(read_info(copy).id_bytes, 0, 0)
    far = frame.encode(seed, FAR, frame.EVENT, 1, event.encode_body(5, FAR, framed))
    head = settled.encode_header(rows.header)
    place = settled.seed(read_info(copy).id_bytes, 0, 0)
    block, _ = settled.encode_block(place, len(head), FAR, [settled.Row(FAR, far, 0, 0)])
    path.with_suffix(".set").write_bytes(head + block)
    path.unlink()
    assert lose(store, [5]) == [5]
    done = repair(store, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions) == (True, ((5, 5),))


def test_an_end_over_more_events_than_have_room_is_none(store, copy):
    root = Segments(store / "log", read_info(store).id_bytes, Disk())
    name = root.names()[-1]
    path = copy / "log" / segment.segment_name(*name)
    rows = rows_of(copy, path)
    last = max(rows.known)
    row, position = rows.known[last].row, 10**6
    seed = segment.seed(read_info(copy).id_bytes, *name)
    body = row.data[frame.HEADER_BYTES + event.PREFIX_BYTES :]
    framed = frame.encode(
        seed, row.offset, frame.EVENT, 1, event.encode_body(position, row.offset, body)
    )
    data = path.read_bytes()
    path.write_bytes(data[: row.offset] + framed + data[row.offset + len(framed) :])
    told = end.decode((copy / "log/end").read_bytes(), read_info(copy).id_bytes)
    (copy / "log/end").write_bytes(end.encode(msgspec.structs.replace(told, position=position + 1)))
    given = SecondCopy(copy, store, read_info(store).id_bytes, Disk())

    def continued():
        store_id, cache = read_info(store).id_bytes, LeafCache(None)
        return Continuation(root, given, store_id, Disk(), heads=[], cache=cache).end()

    with (store / "log" / path.name).open("r+b") as file:
        file.truncate(row.offset)  # ours is shorter
    assert continued() is None
    (copy / "log/end").write_bytes(end.encode(told))
    path.write_bytes(data)
    assert continued() == told


# --- what its files are -----------------------------------------------------------------------


def test_a_file_with_a_hole_of_a_tebibyte_is_read_as_far_as_one_can_be(store, copy, monkeypatch):
    monkeypatch.setattr(second_copy, "FILE_BYTES_MAX", 1 << 20)
    leaves = leaves_now(store)
    lose(store, [10])
    os.truncate(first_of(copy), 1 << 40)
    done = repair(store, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions) == (True, ())
    assert leaves_now(store)[: len(leaves)] == leaves


def test_a_pack_whose_index_names_a_chunk_of_gibibytes_has_none(tmp_path):
    store_id, digest = bytes(16), bytes(range(32))
    path = tmp_path / pack.pack_name(0, b"\xab" * 16)
    header = pack.PackHeader(store_id, b"\xab" * 16, 0)
    stop = 1 << 33
    line = pack.PackedChunk(digest, pack.HEADER_FRAME_BYTES, (1 << 32) - 1)
    tail = pack.encode_index(pack.seed(store_id, 0, b"\xab" * 16), stop, [line])
    with path.open("wb") as file:
        file.write(pack.encode_header(header))
        file.seek(stop)
        file.write(tail)
    lengths = []

    class Counting(Disk):
        def read(self, fd, length, offset):
            lengths.append(length)
            return super().read(fd, min(length, 100), offset)

    assert [*Chunks([path], store_id, Counting()).found({digest[:16]})] == []
    assert max(lengths) <= 64 * 1024 * 1024 + frame.HEADER_BYTES


def test_a_fifo_for_a_pack_is_not_waited_for(tmp_path):
    path = tmp_path / pack.pack_name(0, b"\xab" * 16)
    os.mkfifo(path)
    assert [*Chunks([path], bytes(16), Disk()).found({bytes(16)})] == []


@pytest.mark.parametrize("where", ["segment", "settled form", "end"])
def test_a_fifo_is_not_waited_for(store, copy, where):
    first = first_of(copy)
    path = {
        "segment": first,
        "settled form": first.with_suffix(".set"),
        "end": copy / "log/end",
    }[where]
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    lost = lose(store, [10])
    if where == "end":
        (store / "log/end").unlink()
    done = repair(store, is_applied=True, copy=copy)
    assert done.ok
    assert done.lost_positions == (((10, 10),) if where == "segment" else ())
    assert lost == [10]
    told = any(f"log/{path.name} counts as missing" in note for note in done.notes)
    assert told is (where in {"segment", "settled form"})


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "long"])
def test_a_store_json_that_is_none_is_an_error(store, copy, kind):
    path = copy / "store.json"
    path.unlink()
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    expected = ckptlog.errors.FormatError if kind == "long" else InputOutputError
    with pytest.raises(expected, match=r"no regular file|longer than 65536"):
        repair(store, copy=copy)


# --- what it costs ----------------------------------------------------------------------------


def test_what_only_looks_like_a_frame_is_not_hashed(monkeypatch):
    head = bytes([*frame.MAGIC, frame.PACK_INDEX, 0]) + (40_000).to_bytes(4, "little") + bytes(8)
    far = bytes([*frame.MAGIC, frame.CHUNK, 0]) + (400_000).to_bytes(4, "little") + bytes(8)
    data = bytes(HEADER_FRAME_BYTES) + (head + far) * 2000
    hashed = []
    measure = frame.measure

    def counting(seed, offset, given, start=0):
        hashed.append(len(given))
        return measure(seed, offset, given, start)

    monkeypatch.setattr(frame, "measure", counting)
    walk = gap.Walk(0, data, gap.judge_by(lambda *_given: None), ())
    walk.run(HEADER_FRAME_BYTES, len(data), kinds=frozenset({frame.EVENT, frame.CHUNK}))
    assert walk.gaps == [(HEADER_FRAME_BYTES, len(data) - HEADER_FRAME_BYTES)]
    assert len(hashed) < 1000


def test_tombstones_that_have_little_room_are_fitted_in_one_pass(monkeypatch):
    lost = [tombstone.Lost(position, b"\x11" * 32) for position in range(200)]
    long = sum(tombstone.room_of(one, TIME) for one in lost)
    made = []
    entry_of = tombstone.entry_of

    def counting(*given):
        made.append(given)
        return entry_of(*given)

    monkeypatch.setattr(tombstone, "entry_of", counting)
    filled = tombstone.fill(0, "log/x", 0, long - 5000, lost, time=TIME)
    assert len(filled) == long - 5000
    assert len(made) < 6 * len(lost)
