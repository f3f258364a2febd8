"""A log that lost its published end and its last events: a copy has them, or nobody writes there."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

import pytest

import ckptlog
from ckptlog.errors import LogCorruptionError
from ckptlog.log.log import Log
from ckptlog.model.event import FORKED, LOST, REPAIRED
from ckptlog.repository.doctor import diagnose
from ckptlog.repository.layout import read_info
from ckptlog.repository.notary import Notary
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from tests.repository.ground import quiet
from tests.repository.ruin import frames_of, fresh, leaves_of

EVENT, SIZE = 2, 60


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setitem(Log.__init__.__kwdefaults__, "segment_bytes", 6000)


def write(root, count, *, name="c", is_signed=False):
    with ckptlog.CheckpointManager(root, actor="tester") as manager:
        for number in range(count):
            manager.create_checkpoint("t", "T", 1, checkpoint_id=f"{name}{number:04}")
        if is_signed:
            Notary(manager.store).sign()
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two stores: one without a head, one with a head over all of it."""
    defaults = Log.__init__.__kwdefaults__
    before, defaults["segment_bytes"] = defaults["segment_bytes"], 6000
    folder = tmp_path_factory.mktemp("continuation")
    made = {
        is_signed: write(folder / str(is_signed), SIZE, is_signed=is_signed)
        for is_signed in (False, True)
    }
    defaults["segment_bytes"] = before
    return made


@pytest.fixture
def _own_memory(images, tmp_path, monkeypatch):
    shutil.copytree(os.environ["CKPTLOG_KEYS"], tmp_path / "keys")
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "keys"))


@pytest.fixture
def plain(images, tmp_path, _own_memory):
    return fresh(images[False], tmp_path / "store")


@pytest.fixture
def signed(images, tmp_path, _own_memory):
    return fresh(images[True], tmp_path / "store")


def newest(root):
    return max((root / "log").glob("*.seg"))


def events_of(root):
    """Return where the events of the newest segment begin."""
    found = frames_of(newest(root), read_info(root).id_bytes)
    return [begin for kind, begin, _ in found if kind == EVENT]


def lose_end(root, what):
    (root / "log/end").unlink()
    path, begins = newest(root), events_of(root)
    data = bytearray(path.read_bytes())
    if what == "gone":
        path.unlink()
        return
    if what == "cut":
        data = data[: begins[-3]]
    elif what == "torn":
        data = data[: begins[-3] + 30]
    elif what == "zeros":
        data = bytearray(len(data))
    else:
        for begin in begins[-3:]:
            data[begin + 4 : begin + 60] = bytes(56)
    path.write_bytes(bytes(data))


def leaves_now(root):
    with ckptlog.open(root, read_only=True) as opened:
        return leaves_of(opened)


def _opened(root):
    for options in ({}, {"read_only": True}):
        with suppress(LogCorruptionError), ckptlog.open(root, **options) as store:
            store.verify()


def kinds_of(root):
    with ckptlog.open(root, read_only=True) as opened:
        return [one.event.type for one in opened.events()]


@pytest.mark.parametrize("what", ["cut", "torn", "zeros", "events", "gone"])
@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
def test_a_copy_has_the_end(request, images, what, *, is_signed):
    store, copy = request.getfixturevalue("signed" if is_signed else "plain"), images[is_signed]
    lose_end(store, what)
    planned = repair(store, copy=copy)
    done = repair(store, is_applied=True, copy=copy)
    for told in (planned, done):
        assert (told.ok, told.lost_positions, told.problems_after) == (True, (), ())
    assert done.position == SIZE
    assert leaves_now(store)[:SIZE] == leaves_now(copy)
    assert verify_directory(store).problems == ()
    assert repair(store, copy=copy).is_empty


@pytest.mark.parametrize("what", ["cut", "torn", "zeros", "gone"])
def test_nothing_is_appended_where_a_head_covers_what_was_lost(images, signed, what):
    lose_end(signed, what)
    first = min((signed / "log").glob("*.seg"))
    begin = [at for kind, at, _ in frames_of(first, read_info(signed).id_bytes) if kind == EVENT][9]
    data = bytearray(first.read_bytes())
    data[begin + 4 : begin + 60] = bytes(56)
    first.write_bytes(bytes(data))
    for is_applied in (False, True, True):
        told = repair(signed, is_applied=is_applied)
        assert (told.ok, told.position, told.views) == (False, -1, "kept")
        (refused,) = told.refused
        assert refused.container == "log/end"
        assert all(word in refused.message for word in ("--from", "restore-store", "audit fork"))
        assert [one.partition(" ")[0] for one in told.problems_after] == ["head.rolled_back"]
    assert not (signed / "log/end").exists()
    done = repair(signed, is_applied=True, copy=images[True])
    assert (done.ok, done.position, done.lost_positions) == (True, SIZE, ())
    assert leaves_now(signed)[:SIZE] == leaves_now(images[True])
    assert verify_directory(signed).problems == ()


def test_what_is_given_up_is_given_up(images, signed):
    lose_end(signed, "cut")
    assert not repair(signed, is_applied=True).ok
    done = repair(signed, is_applied=True, gives_up=True)
    assert [(one.container, one.action) for one in done.files] == [("log/end", "made")]
    with ckptlog.CheckpointManager(signed, actor="tester") as manager:
        Notary(manager.store).fork(actor="tester")
    assert repair(signed, is_applied=True).ok
    assert kinds_of(signed)[SIZE - 3] == FORKED
    # The copy goes another way now.
    (signed / "log/end").unlink()
    done = repair(signed, is_applied=True, copy=images[True])
    assert (done.ok, done.lost_positions) == (True, ())
    assert kinds_of(signed)[SIZE - 3] == FORKED


@pytest.mark.parametrize(
    "look", [verify_directory, diagnose, _opened], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
def test_who_looks_first_takes_nothing_from_the_copy(request, images, look, *, is_signed):
    store, copy = request.getfixturevalue("signed" if is_signed else "plain"), images[is_signed]
    lose_end(store, "gone")
    look(store)
    assert not (store / "log/end").exists()
    done = repair(store, is_applied=True, copy=copy)
    assert (done.ok, done.position, done.lost_positions) == (True, SIZE, ())
    assert leaves_now(store)[:SIZE] == leaves_now(copy)


@pytest.mark.parametrize("killed_at", ["_mend", "_publish"])
def test_a_repair_that_was_killed_leaves_the_store_shut(images, plain, monkeypatch, killed_at):
    """Else whoever opened it would append where the copy has what was lost."""
    lose_end(plain, "gone")
    newest(plain).unlink()

    class KilledError(BaseException):
        pass

    def stop(*_given):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(f"ckptlog.repository.repair._Work.{killed_at}", stop)
        with pytest.raises(KilledError):
            repair(plain, is_applied=True, copy=images[False])
    with pytest.raises(LogCorruptionError, match="published end"):
        ckptlog.open(plain)
    done = repair(plain, is_applied=True, copy=images[False])
    assert (done.ok, done.position) == (True, SIZE)
    assert leaves_now(plain)[:SIZE] == leaves_now(images[False])


def publish_what_is_left(root):
    """Do what an earlier version did, whoever opened the store."""
    (done,) = repair(root, is_applied=True, gives_up=True).files
    assert done.container == "log/end"
    ckptlog.open(root).close()


def test_an_end_below_a_head_is_like_a_lost_one(images, signed):
    lose_end(signed, "gone")
    publish_what_is_left(signed)
    short = len(leaves_now(signed))
    assert short < SIZE
    assert [one.code for one in verify_directory(signed).problems] == ["head.rolled_back"]
    before = {one.name: one.read_bytes() for one in (signed / "log").iterdir()}
    for is_applied in (False, True):
        told = repair(signed, is_applied=is_applied)
        assert [one.container for one in told.refused] == ["log/end"]
        assert f"{short} events are left" in told.refused[0].message
        assert [one.partition(" ")[0] for one in told.left] == ["head.rolled_back"]
        assert (told.ok, told.position) == (False, -1)
    assert {one.name: one.read_bytes() for one in (signed / "log").iterdir()} == before
    done = repair(signed, is_applied=True, copy=images[True])
    assert (done.ok, done.position, done.lost_positions) == (True, SIZE, ())
    (file,) = [one for one in done.files if one.container == "log/end"]
    assert (signed / file.quarantine).read_bytes() == before["end"]
    assert leaves_now(signed)[:SIZE] == leaves_now(images[True])
    assert verify_directory(signed).problems == ()
    assert repair(signed).is_empty


def test_where_an_end_is_below_a_head_damage_is_mended_and_nothing_appended(signed):
    lose_end(signed, "gone")
    publish_what_is_left(signed)
    short = len(leaves_now(signed))
    path = min((signed / "log").glob("*.seg"))
    begin = [at for kind, at, _ in frames_of(path, read_info(signed).id_bytes) if kind == EVENT][9]
    data = bytearray(path.read_bytes())
    data[begin + 4 : begin + 60] = bytes(56)
    path.write_bytes(bytes(data))
    done = repair(signed, is_applied=True)
    assert (done.ok, done.position, done.views) == (False, -1, "kept")
    assert {one.action for one in done.files} == {"mended", "refused"}
    assert len(kinds_of(signed)) == short
    # Given up, the head counts no more, and the repair comes to its end.
    with ckptlog.CheckpointManager(signed, actor="tester") as manager:
        Notary(manager.store).fork(actor="tester")
    done = repair(signed, is_applied=True)
    assert done.ok
    assert LOST in kinds_of(signed)


def test_without_heads_and_copies_the_report_says_what_nobody_knows(plain):
    lose_end(plain, "cut")
    done = repair(plain, is_applied=True)
    assert done.ok
    (note,) = done.notes
    assert f"{SIZE - 3} events were found" in note
    assert "nobody can know" in note
    assert repair(plain).is_empty


@pytest.mark.parametrize("header", ["sound", "damaged"])
def test_of_an_older_copy_nothing_is_believed(plain, tmp_path, header):
    copy = fresh(plain, tmp_path / "copy")
    write(plain, 5, name="late")
    leaves = leaves_now(plain)
    if header == "damaged":
        data = newest(plain).read_bytes()
        newest(plain).write_bytes(bytes(60) + data[60:])
    (plain / "log/end").unlink()
    done = repair(plain, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions) == (True, ())
    assert f"{len(leaves)} events were found" in done.notes[0]
    assert leaves_now(plain)[: len(leaves)] == leaves


def test_of_a_copy_without_its_last_event_no_end_is_believed(plain, tmp_path):
    """Nothing but its end would tell the leaf hash of that event."""
    copy = fresh(plain, tmp_path / "copy")
    begin = events_of(copy)[-1]
    data = bytearray(newest(copy).read_bytes())
    data[begin + 4 : begin + 60] = bytes(56)
    newest(copy).write_bytes(bytes(data))
    lose_end(plain, "cut")
    done = repair(plain, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions) == (True, ())
    assert f"{SIZE - 3} events were found" in done.notes[0]


def test_a_copy_that_was_written_on_by_itself_is_not_gone_on_with(signed, tmp_path):
    """Both have the same first events; the head was signed over those that only we had."""
    copy = fresh(signed, tmp_path / "copy")
    write(copy, 9, name="other")
    write(signed, 9, name="ours", is_signed=True)
    lose_end(signed, "cut")
    data = newest(signed).read_bytes()
    begins = events_of(signed)
    with ckptlog.open(copy, read_only=True) as opened:
        assert opened.position == SIZE + 9
    newest(signed).write_bytes(data[: begins[len(begins) - 6]])  # back to what both have
    told = repair(signed, is_applied=True, copy=copy)
    assert not told.ok
    assert [one.container for one in told.refused] == ["log/end"]
    assert not any(one.copied for one in told.files)


@pytest.mark.parametrize("is_right", [True, False])
def test_a_copy_that_the_cache_speaks_against_is_not_gone_on_with(plain, tmp_path, *, is_right):
    """Nothing that is left tells it from ours; a cache that is wrong elsewhere does not, either."""
    copy = fresh(plain, tmp_path / "copy")
    write(plain, 3, name="m")
    write(copy, 6, name="y")
    lose_end(plain, "events")
    if not is_right:
        with (plain / "views/tree/leaves").open("r+b") as file:
            file.write(b"\x11")
    told = repair(plain, is_applied=True, copy=copy)
    assert told.ok
    assert leaves_now(plain)[SIZE : SIZE + 6] == ([] if is_right else leaves_now(copy)[SIZE:])
    is_noted = any(f"end was not taken: from event {SIZE} on" in one for one in told.notes)
    assert is_noted is is_right


def test_a_copy_with_another_event_is_not_gone_on_with(plain, tmp_path):
    copy = fresh(plain, tmp_path / "copy")
    write(copy, 9, name="other")
    write(plain, 4, name="ours")
    leaves = leaves_now(plain)
    (plain / "log/end").unlink()
    done = repair(plain, is_applied=True, copy=copy)
    assert done.ok
    assert leaves_now(plain)[: len(leaves)] == leaves
    assert "created" not in kinds_of(plain)[len(leaves) :]


def test_a_head_above_the_end_of_the_copy(signed, tmp_path):
    copy = fresh(signed, tmp_path / "copy")
    write(signed, 4, name="late", is_signed=True)
    whole = fresh(signed, tmp_path / "whole")
    (signed / "log/end").unlink()
    path = newest(signed)
    path.write_bytes(path.read_bytes()[: events_of(signed)[-7]])
    told = repair(signed, is_applied=True, copy=copy)
    assert [one.container for one in told.refused] == ["log/end"]
    assert f"{SIZE} events are left" in told.refused[0].message
    done = repair(signed, is_applied=True, copy=whole)
    assert (done.ok, done.lost_positions) == (True, ())
    assert leaves_now(signed)[: SIZE + 4] == leaves_now(whole)


def test_an_end_in_settled_company(plain, tmp_path):
    """Segments before the newest one are settled, here or there."""
    with ckptlog.CheckpointManager(plain, actor="tester") as manager:
        quiet(manager)
    assert list((plain / "log").glob("*.set"))
    copy = fresh(plain, tmp_path / "copy")
    leaves = leaves_now(plain)
    lose_end(plain, "gone")
    done = repair(plain, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions) == (True, ())
    kinds = kinds_of(plain)
    assert leaves_now(plain)[: len(leaves)] == leaves
    assert LOST not in kinds
    assert kinds[len(leaves)] == REPAIRED


@pytest.mark.parametrize("what", ["zeros", "gone"])
def test_only_settled_segments_are_left(plain, what):
    """Nothing can be appended to one: a new segment is begun behind it."""
    with ckptlog.CheckpointManager(plain, actor="tester") as manager:
        quiet(manager)
    leaves = leaves_now(plain)
    lose_end(plain, what)
    done = repair(plain, is_applied=True)
    assert (done.ok, done.lost_positions) == (True, ())
    write(plain, 1, name="late")
    kept = int(newest(plain).name[:20])  # it begins behind the settled ones
    assert 0 < kept < len(leaves)
    assert leaves_now(plain)[:kept] == leaves[:kept]
    assert verify_directory(plain).problems == ()
