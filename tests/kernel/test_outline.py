"""The outlines of segments and packs that the kernel makes are those of the walk in Python."""

from __future__ import annotations

import gc
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.formats import chunk, frame, outline
from ckptlog.kernel import native
from ckptlog.log import settling
from tests.log.settled_log import made_log, random_log, sealed_segments

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
some_keys = st.none() | st.sets(st.integers(0, 3)).map(
    lambda numbers: {bytes((number,)) * outline.KEY_BYTES for number in numbers}
)


def both(data, at, stop, keys, items_max):
    """Return the outline, made in both ways."""
    expected = outline._outline(data, at, stop, keys, items_max)
    if native is not None:
        assert outline.Outline(*native.outline(data, at, stop, keys, items_max)) == expected
    return expected


@given(parts, some_keys, st.integers(1, 20))
def test_every_run_of_frames(parts, keys, items_max):
    data = framed(parts)
    found = both(data, 0, len(data), keys, items_max)
    if found.end < len(data):
        assert len(found.events) + len(found.kept) >= items_max
    whole = both(data, 0, len(data), None, 10**6)
    assert whole.end == len(data)
    assert whole.chunks == len(whole.kept) == sum(name != "event" for name, _ in parts)
    assert whole.chunk_bytes == sum(length for _, _, length in whole.kept)
    assert len(whole.events) == len(parts) - whole.chunks


@given(parts, st.data())
def test_whatever_stands_there(parts, data):
    damaged = bytearray(framed(parts))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    stop = data.draw(st.integers(0, len(damaged)))
    found = both(bytes(damaged), 0, stop, None, 10**6)
    assert found.end <= stop
    assert all(at + length <= stop for _, at, length in found.kept)


def test_the_chunks_that_came_with_an_event():
    data = framed([(1, 5), (2, 7), ("event", 3), ("event", 3), (3, 1)])
    found = both(data, 0, len(data), set(), 10**6)
    assert [one[2:] for one in found.events] == [(2, 12), (0, 0)]
    assert not found.kept


@pytest.mark.parametrize("items_max", [1, 5, 100_000])
def test_a_sealed_segment_in_pieces(tmp_path, monkeypatch, items_max):
    monkeypatch.setattr(settling, "_ITEMS_MAX", items_max)
    log = random_log(tmp_path / "s", 3, commits=40, segment_bytes=10**6)
    log.seal(0)
    (sealed,) = sealed_segments(log)
    with settling.reading(log.segments, sealed) as source:
        pieces = list(source.outlines(None))
        events = [event for piece in pieces for event in piece.events]
        chunks = [line for piece in pieces for line in piece.kept]
        rows = [(row.offset, row.chunks) for _, row in source.rows()]
    assert len(pieces) > 1 or items_max > 5
    assert rows == [(offset, count) for offset, _, count, _ in events]
    assert sum(count for _, _, count, _ in events) == len(chunks) > 5
    log.close()


@pytest.mark.parametrize("items_max", [1, 3, 5, 100_000])
def test_a_walk_that_is_remembered_is_whole(tmp_path, monkeypatch, items_max):
    monkeypatch.setattr(settling, "_ITEMS_MAX", items_max)
    log = made_log(tmp_path / "s", [(1, 0)] * 10, segment_bytes=10**6)
    log.seal(0)
    (sealed,) = sealed_segments(log)
    walks = settling.Walks()
    with settling.reading(log.segments, sealed, walks) as source:
        first = list(source.rows())
    with settling.reading(log.segments, sealed, walks) as source:
        assert list(source.rows()) == first
    assert (walks.of(sealed) is None) is (items_max < len(first))
    log.close()


@given(st.lists(st.binary(min_size=44, max_size=44), max_size=20), st.data())
def test_lines(lines, data):
    body = b"".join(lines)
    chosen = data.draw(st.sets(st.sampled_from(lines or [bytes(44)])))
    for keys in (None, set(), {line[:16] for line in chosen}):
        expected = outline._lines_among(body, keys)
        assert outline.lines_among(body, keys) == expected
        wanted = [line for line in lines if keys is None or line[:16] in keys]
        assert [digest for digest, _, _ in expected] == [line[:32] for line in wanted]


@needs_kernel
def test_what_is_no_argument():
    for arguments in (
        (b"", 0, 1, None, 1),
        (b"", -1, 0, None, 1),
        (b"", 0, 0, [], 1),
        ("", 0, 0, None, 1),
        (b"", 0, 0, None),
        (b"", None, 0, None, 1),
    ):
        with pytest.raises((TypeError, ValueError)):
            native.outline(*arguments)
    for arguments in ((b"x", None), ("", None), (b"", []), (b"",)):
        with pytest.raises(TypeError):
            native.lines_among(*arguments)


@needs_kernel
def test_nothing_is_leaked():
    source = random.Random(1)
    data = framed([(source.randrange(4), 9) for _ in range(50)] + [("event", 1)])
    body = source.randbytes(44 * 50)
    keys = {bytes((1,)) * 16}
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        native.outline(data, 0, len(data), keys, 10)
        native.lines_among(body, keys)
        native.lines_among(body, None)
    assert sys.getallocatedblocks() - blocks < 200
