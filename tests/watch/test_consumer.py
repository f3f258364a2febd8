"""The durable cursor: one holder, two slots, nothing believed that does not check."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import pytest

from ckptlog.errors import (
    ArgumentError,
    CheckpointStorageError,
    ConsumerBusyError,
    ConsumerDamagedError,
    ConsumerForeignError,
    InputOutputError,
    OtherTimelineError,
)
from ckptlog.formats import cursor as cursor_format
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.storage.disk import Disk
from ckptlog.storage.environment import Environment
from ckptlog.watch.consumer import Consumer, cursor_path, list_consumers

STORE = bytes(range(16))


def at(position):
    return Cursor(position, bytes([position % 256]) * 32, "log/x", position * 10)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store" / "consumers"


@pytest.fixture
def hold(folder):
    held = []

    def hold(name="mailer", store_id=STORE, environment=None, **options):
        consumer = Consumer(folder, name, store_id, environment or Environment(), **options)
        held.append(consumer)
        return consumer

    (folder.parent).mkdir(parents=True)
    yield hold
    for consumer in held:
        consumer.close()


def saved(hold, *positions, name="mailer"):
    consumer = hold(name)
    consumer.load()
    for position in positions:
        consumer.save(at(position))
    consumer.close()


def test_a_new_consumer_has_no_cursor(hold):
    assert hold().load() is None


def test_what_was_saved_is_loaded(hold, folder):
    for count in range(1, 6):
        saved(hold, *range(10 * count, 10 * count + count))
        assert hold(name="other" * count).load() is None
        again = hold()
        assert again.load() == at(10 * count + count - 1)
        again.close()
        assert cursor_path(folder, "mailer").stat().st_size == cursor_format.FILE_BYTES


@pytest.mark.parametrize(
    "name", ["a", "a.lock", "a.cursor", "..", ".a", "Größe/🚀", "x" * 200, "🚀" * 200]
)
def test_any_name_has_a_file_of_its_own(hold, folder, name):
    saved(hold, 7, name=name)
    saved(hold, 8, name="a b")
    assert hold(name).load() == at(7)
    assert {path.parent for path in folder.rglob("*")} == {folder}


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 201, 7, None])
def test_a_wrong_name_is_refused(hold, name):
    with pytest.raises(ArgumentError):
        hold(name)


# --- one at a time ---------------------------------------------------------------------------


def test_a_second_holder_is_refused_and_told_who_holds(hold):
    hold()
    with pytest.raises(ConsumerBusyError) as caught:
        hold()
    assert f"process {os.getpid()}" in caught.value.message
    assert caught.value.context["consumer"] == "mailer"
    hold("another")


def test_a_second_holder_may_wait(hold):
    first = hold()
    timer = threading.Timer(0.05, first.close)
    timer.start()
    hold(busy_timeout_s=60).close()
    timer.join()


def hold_and_tell(folder, ready):
    consumer = Consumer(folder, "mailer", STORE, Environment())
    consumer.load()
    consumer.save(at(3))
    ready.send(True)
    signal.pause()


def test_the_name_dies_with_its_holder(hold, folder):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=hold_and_tell, args=(folder, theirs)
    )
    process.start()
    assert ours.recv()
    with pytest.raises(ConsumerBusyError) as caught:
        hold()
    assert str(process.pid) in caught.value.message
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    consumer = hold(busy_timeout_s=30)
    assert consumer.load() == at(3)


def test_a_forked_child_does_not_keep_the_name(hold):
    first = hold()
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        first.close()
        hold().close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- torn, lost, foreign ---------------------------------------------------------------------


@pytest.mark.parametrize("positions", [(5,), (5, 6), (5, 6, 7)])
def test_torn_at_every_byte_of_a_write_it_is_the_cursor_before_or_the_new_one(
    hold, folder, positions
):
    saved(hold, *positions)
    path = cursor_path(folder, "mailer")
    before = path.read_bytes()
    consumer = hold()
    consumer.load()
    consumer.save(at(99))
    consumer.close()
    after = path.read_bytes()
    begin = cursor_format.slot_of(len(positions) + 1)
    for written in range(cursor_format.BYTES + 1):
        end = begin + written
        path.write_bytes(before[:begin] + after[begin:end] + before[end:])
        found = hold()
        is_new = path.read_bytes() == after
        assert found.load() == at(99 if is_new else positions[-1])
        # And it can go on from there.
        if written % 100 == 0:
            found.save(at(123))
            assert found.load() == at(123)
        found.close()


def test_a_cut_file_shows_a_whole_record_or_is_refused(hold, folder):
    saved(hold, 5, 6, 7)  # slots: serial 2 at 0, serial 3 at 4096
    path = cursor_path(folder, "mailer")
    data = path.read_bytes()
    for length in range(0, cursor_format.FILE_BYTES, 61):
        path.write_bytes(data[:length])
        consumer = hold()
        if length >= cursor_format.SLOT_BYTES + cursor_format.BYTES:
            assert consumer.load() == at(7)
        elif length >= cursor_format.BYTES:
            assert consumer.load() == at(6)
        else:
            with pytest.raises(ConsumerDamagedError) as caught:
                consumer.load()
            assert str(path) in caught.value.message
            assert "reset" in caught.value.hint
            assert path.read_bytes() == data[:length], "nothing is replaced silently"
        consumer.close()


def test_every_flipped_bit_of_both_slots_is_refused(hold, folder):
    saved(hold, 5, 6)
    path = cursor_path(folder, "mailer")
    data = bytearray(path.read_bytes())
    for slot in range(2):
        data[slot * cursor_format.SLOT_BYTES + 37] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConsumerDamagedError):
        hold().load()


def test_another_stores_cursor_is_refused(hold, folder):
    saved(hold, 5)
    with pytest.raises(ConsumerForeignError) as caught:
        hold(store_id=bytes(16)).load()
    assert STORE.hex() in caught.value.message


def test_another_consumers_cursor_is_refused(hold, folder):
    saved(hold, 5)
    cursor_path(folder, "other").write_bytes(cursor_path(folder, "mailer").read_bytes())
    with pytest.raises(ConsumerForeignError) as caught:
        hold("other").load()
    assert "'mailer'" in caught.value.message


def test_a_damaged_cursor_can_be_begun_anew(hold, folder):
    saved(hold, 5, 6, 7)
    cursor_path(folder, "mailer").write_bytes(b"junk")
    consumer = hold()
    with pytest.raises(ConsumerDamagedError):
        consumer.load()
    consumer.begin_anew()
    consumer.save(at(2))
    assert consumer.load() == at(2)


def test_a_file_that_somebody_removes_is_made_again(hold, folder):
    consumer = hold()
    consumer.load()
    consumer.save(at(1))
    consumer.save(at(2))
    cursor_path(folder, "mailer").unlink()
    consumer.save(at(3))
    consumer.save(at(4))
    assert consumer.load() == at(4)


# --- a medium that refuses -------------------------------------------------------------------


class FaultyDisk(Disk):
    """Fails when it is told to."""

    fails = ""

    def write(self, fd, data, offset):
        if self.fails == "write":
            raise InputOutputError("no")
        super().write(fd, data, offset)

    def sync(self, fd):
        if self.fails == "sync":
            raise InputOutputError("no")
        super().sync(fd)


@pytest.mark.parametrize("fault", ["write", "sync"])
def test_after_an_error_the_file_is_opened_anew_and_the_cursor_before_is_there(hold, folder, fault):
    disk = FaultyDisk()
    consumer = hold(environment=Environment(disk))
    consumer.load()
    consumer.save(at(1))
    consumer.save(at(2))
    descriptor = consumer._fd
    disk.fails = fault
    for _ in range(3):
        with pytest.raises(CheckpointStorageError):
            consumer.save(at(3))
        assert consumer._fd != descriptor or descriptor < 0
    record = cursor_format.newest(cursor_path(folder, "mailer").read_bytes())
    assert record.cursor in (at(2), at(3))
    disk.fails = ""
    consumer.save(at(4))
    assert consumer.load() == at(4)


# --- listing ---------------------------------------------------------------------------------


def refuse_beyond_nine(cursor):
    if cursor.position > 9:
        raise OtherTimelineError("Of another history.")


def test_lists_what_is_there_with_its_faults(hold, folder):
    assert list_consumers(folder, STORE, 0, refuse_beyond_nine) == []
    saved(hold, 5, name="b")
    saved(hold, 9, name="a/🚀")
    saved(hold, 50, name="far")
    cursor_path(folder, "broken").write_bytes(b"")
    cursor_path(folder, "copied").write_bytes(cursor_path(folder, "b").read_bytes())
    holder = hold("b")
    found = {one.name: one for one in list_consumers(folder, STORE, 9, refuse_beyond_nine)}
    assert list(found) == sorted(found)
    assert (found["b"].position, found["b"].lag, found["b"].fault) == (5, 4, "")
    assert str(os.getpid()) in found["b"].holder
    assert (found["a/🚀"].position, found["a/🚀"].lag, found["a/🚀"].holder) == (9, 0, "")
    assert found["far"].fault == "log.other_timeline"
    assert (found["broken"].position, found["broken"].fault) == (None, "consumer.damaged")
    assert found["copied"].fault == "consumer.foreign"
    holder.close()


def test_a_removed_consumer_is_new_again(hold, folder):
    saved(hold, 5)
    consumer = hold()
    consumer.remove()
    assert list(folder.iterdir()) == []
    assert hold().load() is None


def test_the_beginning_can_be_saved(hold):
    consumer = hold()
    consumer.save(BEGINNING)
    assert consumer.load() == BEGINNING
