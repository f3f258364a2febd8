"""The outlines of segments that the kernel makes are those of the walk in Python."""

from __future__ import annotations

import gc
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import LogCorruptionError
from ckptlog.formats import chunk, frame, line, outline
from ckptlog.kernel import native
from ckptlog.log import sealed as sealed_module
from ckptlog.log import walks as walks_module
from ckptlog.log.sealed import reading
from ckptlog.log.walks import Walks
from tests.log.settled_log import random_log, sealed_segments

SEED = 7
needs_kernel = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")


def framed(parts):
    """Return frames back to back: ("event", bytes) or ("chunk", digest's first byte, bytes)."""
    data = b""
    for name, size in parts:
        if name == "event":
            body, kind = bytes(size + 1), frame.EVENT
        else:
            digest = bytes((name,)) * chunk.DIGEST_BYTES
            body = chunk.encode_plain(0, chunk.LEAF, digest, size, b"x" * size)
            kind = frame.CHUNK
        data += frame.encode(SEED, len(data), kind, 0, body)
    return data


parts = st.lists(
    st.tuples(st.just("event") | st.integers(0, 3), st.integers(0, 90)), min_size=1, max_size=12
)


def both(data, at, stop, items_max):
    """Return the outline, made in both ways."""
    expected = outline._outline(data, at, stop, items_max)
    if native is not None:
        assert outline.Outline(*native.outline(data, at, stop, items_max)) == expected
    return expected


def lines_of(found):
    return line.lines_among(found.lines, None)


def events_of(found):
    return list(outline.events_in(found.events))


@given(parts, st.integers(1, 20))
def test_every_run_of_frames(parts, items_max):
    data = framed(parts)
    found = both(data, 0, len(data), items_max)
    assert found.items == len(lines_of(found)) + len(events_of(found))
    if found.end < len(data):
        assert found.items >= items_max
    whole = both(data, 0, len(data), 10**6)
    assert whole.end == len(data)
    assert whole.chunks == sum(name != "event" for name, _ in parts)
    assert whole.chunk_bytes == sum(length for _, _, length in lines_of(whole))
    assert whole.items == len(parts)


@given(parts, st.data())
def test_whatever_stands_there(parts, data):
    damaged = bytearray(framed(parts))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    stop = data.draw(st.integers(0, len(damaged)))
    found = both(bytes(damaged), 0, stop, 10**6)
    assert found.end <= stop
    assert all(at + length <= stop for _, at, length in lines_of(found))


def test_the_chunks_that_came_with_an_event():
    data = framed([(1, 5), (2, 7), ("event", 3), ("event", 3), (3, 1)])
    found = both(data, 0, len(data), 10**6)
    assert [one[2:] for one in events_of(found)] == [(2, 12), (0, 0)]
    assert [digest[0] for digest, _, _ in lines_of(found)] == [1, 2, 3]


def test_more_than_there_is_room_for_at_first():
    data = framed([("event", 0)] * 3000 + [(1, 0)] * 1600)
    found = both(data, 0, len(data), 10**6)
    assert (found.chunks, found.items) == (1600, 4600)


@pytest.mark.parametrize("items_max", [1, 5, 100_000])
def test_a_sealed_segment_in_pieces(tmp_path, monkeypatch, items_max):
    monkeypatch.setattr(sealed_module, "_ITEMS_MAX", items_max)
    log = random_log(tmp_path / "s", 3, commits=40, segment_bytes=10**6)
    log.seal(0)
    (sealed,) = sealed_segments(log)
    with reading(log.segments, sealed) as source:
        pieces = list(source.outlines())
        events = [event for piece in pieces for event in events_of(piece)]
        chunks = [one for piece in pieces for one in lines_of(piece)]
        rows = [(row.offset, row.chunks) for _, row in source.rows()]
    assert len(pieces) > 1 or items_max > 5
    assert rows == [(offset, count) for offset, _, count, _ in events]
    assert sum(count for _, _, count, _ in events) == len(chunks) > 5
    log.close()


def walked(log, sealed, walks):
    """Return rows and chunks of a sealed segment, as a walk has them."""
    with reading(log.segments, sealed, walks) as source:
        rows = list(source.rows())
        return rows, b"".join(part.lines for part in source.outlines())


@pytest.mark.parametrize("items_max", [1, 3, 5, 100_000])
@pytest.mark.parametrize("room", [0, 600, 10**6])
def test_a_walk_that_is_remembered_is_whole(tmp_path, monkeypatch, items_max, room):
    monkeypatch.setattr(sealed_module, "_ITEMS_MAX", items_max)
    monkeypatch.setattr(sealed_module, "_WHOLE_ITEMS_MAX", 2 * items_max)
    monkeypatch.setattr(walks_module, "_OUTLINES_BYTES_MAX", room)
    monkeypatch.setattr(walks_module, "_ROWS_BYTES_MAX", room)
    log = random_log(tmp_path / "s", 3, commits=40, segment_bytes=10**6)
    log.seal(0)
    (sealed,) = sealed_segments(log)
    walks = Walks()
    first = walked(log, sealed, walks)
    assert walked(log, sealed, walks) == first == walked(log, sealed, Walks())
    assert (walks.outline_of(sealed) is None) is (items_max < 100_000 or room < 1000)
    assert (walks.rows_of(sealed) is None) is (room < 1000)
    walks.forget_chunks(sealed)
    assert walks.outline_of(sealed) is None
    assert walked(log, sealed, walks) == first
    log.close()


def test_what_is_remembered_is_of_that_segment_alone(tmp_path):
    log = random_log(tmp_path / "s", 3, commits=5, segment_bytes=10**6)
    log.seal(0)
    (sealed,) = sealed_segments(log)
    walks = Walks()
    walked(log, sealed, walks)
    for other in (sealed._replace(stop=3), sealed._replace(leaf=bytes(32))):
        with (
            reading(log.segments, other, walks) as source,
            pytest.raises(LogCorruptionError),
        ):
            list(source.rows())
    log.close()


def test_rows_of_a_segment_that_does_not_end_as_it_must_are_not_remembered(tmp_path):
    log = random_log(tmp_path / "s", 3, commits=5, segment_bytes=10**6)
    log.seal(0)
    (sealed,) = sealed_segments(log)
    odd, walks = sealed._replace(leaf=bytes(32)), Walks()
    for _ in range(2):
        with (
            reading(log.segments, odd, walks) as source,
            pytest.raises(LogCorruptionError),
        ):
            list(source.rows())
    assert walks.rows_of(odd) is None
    log.close()


@needs_kernel
def test_what_is_no_argument():
    for arguments in (
        (b"", 0, 1, 1),
        (b"", -1, 0, 1),
        ("", 0, 0, 1),
        (b"", 0, 0),
        (b"", None, 0, 1),
        (b"", 0, 0, None),
    ):
        with pytest.raises((TypeError, ValueError)):
            native.outline(*arguments)


@needs_kernel
def test_nothing_is_leaked():
    source = random.Random(1)
    data = framed([(source.randrange(4), 9) for _ in range(50)] + [("event", 1)])
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        native.outline(data, 0, len(data), 10)
    assert sys.getallocatedblocks() - blocks < 200
