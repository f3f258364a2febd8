from __future__ import annotations

import os

import pytest

from ckptlog.errors import (
    CheckpointStorageError,
    FormatError,
    InputOutputError,
    LogCorruptionError,
)
from ckptlog.formats import segment
from ckptlog.formats.segment import SegmentHeader
from ckptlog.log.segments import Segments, container_of, parse_container
from ckptlog.storage.disk import Disk
from tests.log.sample import STORE_ID

LEAF = b"\x11" * 32


@pytest.fixture
def folder(tmp_path):
    """Three live segments: 0.0, 10.1 (which replaced 10.0), 20.0."""
    write(tmp_path, 0, 0, (0, 0, 0))
    write(tmp_path, 10, 0, (0, 0, 500))
    write(tmp_path, 10, 1, (0, 0, 500))
    write(tmp_path, 20, 0, (10, 1, 900))
    return tmp_path


def write(folder, first, generation, previous, store_id=STORE_ID):
    before, of_generation, length = previous
    header = SegmentHeader(store_id, first, generation, before, of_generation, length, LEAF, 1)
    path = folder / segment.segment_name(first, generation)
    path.write_bytes(segment.encode(header))
    return path


def segments_of(folder):
    return Segments(folder, STORE_ID, Disk())


def names(headers):
    return [(header.first, header.generation) for header in headers]


def test_container_names_go_both_ways():
    name = container_of(42, 3)
    assert name == "log/00000000000000000042.3.seg"
    assert parse_container(name) == (42, 3)
    for other in ("packs/x.pack", "00000000000000000042.3.seg", "", "log/", name + "/", f"x{name}"):
        assert parse_container(other) is None


def test_lists_the_live_ones_in_order(folder):
    (folder / "end").write_bytes(b"x")
    (folder / "torn-5-17").write_bytes(b"x")
    (folder / "00000000000000000030.0.seg.tmp").write_bytes(b"x")
    segments = segments_of(folder)
    assert names(segments.refresh()) == [(0, 0), (10, 1), (20, 0)]
    assert segments.names() == [(0, 0), (10, 0), (10, 1), (20, 0)]
    assert segments.unreadable == ()


def test_a_damaged_header_is_named_and_the_generation_before_counts(folder):
    path = folder / segment.segment_name(10, 1)
    path.write_bytes(path.read_bytes()[:-1])
    segments = segments_of(folder)
    assert names(segments.refresh()) == [(0, 0), (10, 0), (20, 0)]
    assert segments.unreadable == (path,)
    with pytest.raises(FormatError):
        segments.header(10, 1)


def test_another_stores_segment_does_not_count(folder):
    path = write(folder, 30, 0, (20, 0, 100), store_id=bytes(16))
    segments = segments_of(folder)
    assert names(segments.refresh()) == [(0, 0), (10, 1), (20, 0)]
    assert segments.unreadable == (path,)


def test_finds_the_segment_that_holds_a_position(folder):
    segments = segments_of(folder)
    for position, first in ((0, 0), (9, 0), (10, 10), (19, 10), (20, 20), (10**9, 20)):
        assert segments.holding(position).first == first


def test_finds_a_segment_that_another_process_has_made_since(folder):
    segments = segments_of(folder)
    assert segments.holding(35).first == 20
    write(folder, 30, 0, (20, 0, 100))
    assert segments.holding(35).first == 30
    assert segments.holding(25).first == 20


def test_finds_successors(folder):
    segments = segments_of(folder)
    first = segments.holding(0)
    assert names([segments.successor(first)]) == [(10, 1)]
    assert segments.successor(segments.holding(20)) is None
    write(folder, 30, 0, (20, 0, 100))
    assert names([segments.successor(segments.holding(20))]) == [(30, 0)]


def test_a_gap_in_the_chain_is_corruption(folder):
    os.unlink(folder / segment.segment_name(10, 1))
    os.unlink(folder / segment.segment_name(10, 0))
    segments = segments_of(folder)
    with pytest.raises(LogCorruptionError) as caught:
        segments.successor(segments.holding(0))
    assert "00000000000000000020.0.seg" in caught.value.message


def test_a_wrong_generation_in_the_chain_is_corruption(folder):
    os.unlink(folder / segment.segment_name(10, 1))
    segments = segments_of(folder)
    with pytest.raises(LogCorruptionError):
        segments.successor(segments.holding(10))


def test_an_empty_folder_holds_no_position(tmp_path):
    with pytest.raises(LogCorruptionError) as caught:
        segments_of(tmp_path).holding(7)
    assert caught.value.context["position"] == 7


def test_a_missing_folder_is_our_error(tmp_path):
    with pytest.raises(CheckpointStorageError):
        segments_of(tmp_path / "none").refresh()


def test_reads_each_header_once(folder):
    class CountingDisk(Disk):
        opened = 0

        def open_read(self, path):
            self.opened += 1
            return super().open_read(path)

    disk = CountingDisk()
    segments = Segments(folder, STORE_ID, disk)
    segments.refresh()
    assert disk.opened == 4
    segments.refresh()
    assert disk.opened == 4
    write(folder, 30, 0, (20, 0, 100))
    segments.refresh()
    assert disk.opened == 5


def test_forgets_a_header_whose_file_has_gone(folder):
    segments = segments_of(folder)
    segments.refresh()
    os.unlink(folder / segment.segment_name(20, 0))
    assert names(segments.refresh()) == [(0, 0), (10, 1)]


def test_a_file_that_vanishes_while_it_is_looked_at_is_not_there(folder):
    class VanishingDisk(Disk):
        def open_read(self, path):
            if path.name.startswith("00000000000000000020") and path.exists():
                path.rename(path.with_name("torn-1"))
            return super().open_read(path)

    segments = Segments(folder, STORE_ID, VanishingDisk())
    assert names(segments.refresh()) == [(0, 0), (10, 1)]


def test_a_file_that_cannot_be_read_is_reported(folder):
    class SickDisk(Disk):
        def read(self, fd, length, offset):
            raise InputOutputError("The medium reported an error.", errno=5)

    with pytest.raises(InputOutputError):
        Segments(folder, STORE_ID, SickDisk()).refresh()


def test_follows_the_segment_that_the_end_names(folder):
    segments = segments_of(folder)
    segments.refresh()
    write(folder, 20, 1, (10, 1, 900))
    segments.follow(20, 0)
    assert segments.holding(15).first == 10
    assert names([segments.successor(segments.holding(15))]) == [(20, 0)]
    segments.follow(20, 1)
    assert names([segments.successor(segments.holding(15))]) == [(20, 1)]


def test_says_whether_a_file_exists(folder):
    segments = segments_of(folder)
    assert segments.exists(10, 1)
    assert not segments.exists(10, 2)
