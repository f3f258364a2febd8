from __future__ import annotations

import os
import threading

import pytest

from ckptlog.errors import InputOutputError
from ckptlog.formats import end as end_format
from ckptlog.formats.end import End
from ckptlog.log.published import PublishedEnd
from ckptlog.storage.disk import Disk
from tests.log.sample import STORE_ID


def end_at(position):
    return End(STORE_ID, position, 0, 0, 108 + position * 100, bytes(32), bytes(16))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "end"


def published(path, *, disk=None, read_only=False):
    return PublishedEnd(path, STORE_ID, disk or Disk(), read_only=read_only)


def test_what_was_published_is_read(path):
    writer, reader = published(path), published(path, read_only=True)
    assert reader.read() is None
    for position in (0, 1, 5):
        writer.publish(end_at(position))
        assert reader.read() == end_at(position)
        assert path.stat().st_size == end_format.BYTES
    writer.close()
    reader.close()


def test_an_unchanged_end_is_the_same_object(path):
    """The log tells from it, without comparing, that nobody else has published."""
    writer, other = published(path), published(path)
    end = end_at(3)
    writer.publish(end_at(2))
    writer.publish(end)
    assert writer.read() is end
    found = other.read()
    assert other.read() is found
    other.publish(end_at(4))
    assert writer.read() == end_at(4)


def test_a_damaged_end_is_unknown_and_is_written_over(path):
    writer = published(path)
    writer.publish(end_at(1))
    path.write_bytes(path.read_bytes()[:100] + bytes(28))
    assert writer.read() is None
    assert writer.read() is None
    writer.publish(end_at(2))
    assert published(path).read() == end_at(2)


@pytest.mark.parametrize("length", [0, 1, 127])
def test_a_short_end_is_unknown(path, length):
    path.write_bytes(end_format.encode(end_at(1))[:length])
    reader = published(path)
    assert reader.read() is None
    reader.publish(end_at(2))
    assert published(path).read() == end_at(2)


def test_another_stores_end_is_unknown(path):
    path.write_bytes(end_format.encode(end_at(1)))
    assert PublishedEnd(path, bytes(16), Disk(), read_only=True).read() is None


def test_an_end_that_was_deleted_while_open_is_looked_for_anew(path):
    writer, other = published(path), published(path)
    writer.publish(end_at(1))
    assert other.read() == end_at(1)
    os.unlink(path)
    assert other.read() is None
    other.publish(end_at(2))
    assert writer.read() == end_at(2)
    writer.publish(end_at(3))
    assert other.read() == end_at(3)


def test_an_error_of_the_medium_is_no_missing_end(path):
    class SickDisk(Disk):
        def read(self, fd, length, offset):
            raise InputOutputError("The medium reported an error.")

    published(path).publish(end_at(1))
    with pytest.raises(InputOutputError):
        published(path, disk=SickDisk()).read()


def test_an_end_that_is_being_rewritten_is_read_again(path):
    class TearingDisk(Disk):
        reads = 0

        def read(self, fd, length, offset):
            self.reads += 1
            data = super().read(fd, length, offset)
            return data[:60] + bytes(68) if self.reads < 4 else data

    published(path).publish(end_at(1))
    disk = TearingDisk()
    assert published(path, disk=disk).read() == end_at(1)
    assert disk.reads == 4


def test_readers_beside_a_writer_never_go_back(path):
    writer = published(path)
    writer.publish(end_at(0))
    is_over = threading.Event()
    seen, failures = [], []

    def read():
        reader = published(path, read_only=True)
        last = 0
        while not is_over.is_set():
            end = reader.read()
            if end is None or end.position < last:
                failures.append((end, last))
                return
            last = end.position
        seen.append(last)
        reader.close()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for position in range(3000):
        writer.publish(end_at(position))
    is_over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(seen) == 2


def test_a_reader_only_never_syncs(path):
    class CountingDisk(Disk):
        syncs = 0

        def sync(self, fd):
            self.syncs += 1

    disk = CountingDisk()
    published(path, disk=disk).publish(end_at(1))
    reader = published(path, disk=disk, read_only=True)
    reader.read()
    reader.sync()
    assert disk.syncs == 0
    writer = published(path, disk=disk)
    writer.sync()
    writer.read()
    writer.sync()
    assert disk.syncs == 1
