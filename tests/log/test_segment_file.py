"""A settled segment's file against the bytes of the written one, read anywhere."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import CheckpointError, CheckpointStorageError, LogCorruptionError
from ckptlog.formats.line import lines_among
from ckptlog.formats.outline import events_in
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log import segment_file, settling
from ckptlog.log.sealed import reading
from ckptlog.log.segment_file import SettledSegment
from tests.log.sample import STORE_ID
from tests.log.settled_log import random_log, sealed_segments


class Pair:
    """One segment, written and settled, and its bytes with zeros for chunks."""

    def __init__(self, root: Path) -> None:
        log = random_log(root, 12, commits=30, segment_bytes=10**6)
        log.seal(0)
        (sealed,) = sealed_segments(log)
        settling.settle(log.segments, sealed)
        self.disk, self.sealed = log._disk, sealed
        self.path = log.segments.settled_path(0, 0)
        data = bytearray(log.segments.path(0, 0).read_bytes()[: sealed.length])
        self.frames = []
        with reading(log.segments, sealed) as source:
            for part in source.outlines():
                for _, offset, length in lines_among(part.lines, None):
                    data[offset : offset + length] = bytes(length)
                self.frames += [(one[0], one[1]) for one in events_in(part.events)]
        self.data = bytes(data)
        log.close()

    def open(self) -> SettledSegment:
        fd = self.disk.open_read(self.path)
        return SettledSegment(self.disk, fd, STORE_ID, (0, 0), str(self.path))


@pytest.fixture(scope="module")
def pair():
    root = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "_BLOCK_BYTES", 900)
        yield Pair(root / "s")
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def file(pair):
    file = pair.open()
    yield file
    file.close()


reads = st.lists(st.tuples(st.integers(0, 15_000), st.integers(0, 20_000)), min_size=1, max_size=8)


@given(reads=reads)
def test_reads_are_those_of_the_written_one_with_zeros_for_chunks(pair, file, reads):
    assert file.size == len(pair.data)
    for offset, length in reads:
        assert file.read(length, offset) == pair.data[offset : offset + length]


@given(reads=reads)
def test_a_run_ends_where_nothing_is(pair, file, reads):
    for offset, length in reads:
        assert file.run(length, offset) == pair.data[offset : offset + length][: run(pair, offset)]


def run(pair, offset):
    """Return how many bytes of events stand from an offset on without a gap."""
    at = offset
    for start, length in [(0, HEADER_FRAME_BYTES), *pair.frames]:
        if start <= at < start + length:
            at = start + length
    return at - offset


def test_it_knows_where_something_is(pair, file):
    starts = [start for start, _ in pair.frames]
    for offset in range(0, len(pair.data) + 50, 7):
        inside = any(start <= offset < start + length for start, length in pair.frames)
        wanted = next((start for start in starts if start >= offset), offset)
        is_header = offset < HEADER_FRAME_BYTES
        assert file.seek(offset) == (offset if inside or is_header else wanted)
    assert file.events == len(starts)
    assert file.brought(len(pair.data)) is None


def test_few_blocks_stay_in_memory(pair):
    file = pair.open()
    assert len(file._lines) > segment_file._BLOCKS_KEPT + 2
    for offset, length in pair.frames:
        assert len(file.read(length, offset)) == length
        assert len(file._blocks) <= segment_file._BLOCKS_KEPT
    file.close()


def test_closing_twice_is_fine(pair):
    file = pair.open()
    file.close()
    file.close()


@pytest.mark.parametrize("size", [0, 1, 48, 108, 171, 172])
def test_a_stub_is_refused_and_its_descriptor_closed(pair, tmp_path, size):
    path = tmp_path / pair.path.name
    path.write_bytes(pair.path.read_bytes()[:size])
    fd = pair.disk.open_read(path)
    with pytest.raises(LogCorruptionError, match=path.name):
        SettledSegment(pair.disk, fd, STORE_ID, (0, 0), str(path))
    with pytest.raises((OSError, CheckpointStorageError)):
        pair.disk.size(fd)


@pytest.mark.parametrize(("store", "name"), [(bytes(16), (0, 0)), (STORE_ID, (0, 1))])
def test_another_stores_or_a_renamed_one_is_refused(pair, store, name):
    with pytest.raises(CheckpointError):
        SettledSegment(pair.disk, pair.disk.open_read(pair.path), store, name, "here")
