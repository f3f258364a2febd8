from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from ckptlog.blobs import run_writer
from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.run import Mark, open_run
from ckptlog.model.entry import Placement
from ckptlog.storage import files
from tests.blobs.sample import (
    CONTAINER,
    STORE_ID,
    answers,
    commit,
    digest,
    fill,
    flip,
    place,
    run_files,
    small,
)
from tests.holding import living_child


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "views" / "chunks"


def test_the_tail_answers(folder):
    index = small(folder)
    assert (index.position, index.persisted, index.entries) == (0, None, 0)
    expected = fill(index, 2)
    assert answers(index, expected) == expected
    assert index.get(digest(999)) is None
    assert (index.position, index.persisted, index.entries) == (2, None, 6)
    assert not folder.exists()


def test_the_newest_place_wins(folder):
    index = small(folder)
    for position in range(12):
        index.add(commit(position, [place(1, offset=position + 1), place(100 + position)]))
        index.flush(force=position % 3 == 0)
        assert index.get(digest(1)) == place(1, offset=position + 1)
    index.close()
    assert small(folder).get(digest(1)) == place(1, offset=12)


def test_places_from_packs_are_taken_in(folder):
    index = small(folder)
    packed = place(5, container="packs/x.pack")
    assert index.add(commit(0, [place(1)]), extra=[packed])
    assert index.get(digest(5)) == packed


def test_commits_come_in_order(folder):
    index = small(folder)
    assert index.add(commit(0, [place(1)], events=3))
    assert not index.add(commit(4, [place(2)]))  # 3 is missing
    assert index.get(digest(2)) is None
    assert index.position == 3
    assert index.add(commit(1, [place(3)]))  # covered: skipped
    assert index.get(digest(3)) is None
    assert index.add(commit(2, [place(4)], events=2))  # partly covered: taken in
    assert index.get(digest(4)) == place(4)
    assert index.position == 4


def test_flush_writes_a_full_tail_and_only_that(folder):
    index = small(folder)
    expected = fill(index, 2)
    index.flush()
    assert not folder.exists()
    expected |= fill(index, 2, start=2)
    index.flush()
    assert len(run_files(folder)) == 1
    assert index.persisted == Mark(4, CONTAINER, 4000, digest(4))
    assert answers(index, expected) == expected
    index.flush(force=True)  # nothing new
    assert len(run_files(folder)) == 1


def test_a_reopened_index_goes_on_where_it_ended(folder):
    index = small(folder)
    expected = fill(index, 7)
    index.close()
    index = small(folder)
    assert (index.position, index.problems) == (7, ())
    assert index.persisted == Mark(7, CONTAINER, 7000, digest(7))
    assert answers(index, expected) == expected
    expected |= fill(index, 7, start=7)
    index.flush(force=True)
    assert answers(small(folder), expected) == expected


def test_commits_without_chunks_move_the_position(folder):
    index = small(folder)
    for position in range(30):
        index.add(commit(position))
        index.flush(force=True)
    assert small(folder).position == 30
    assert len(run_files(folder)) <= 2


def test_the_number_of_runs_grows_with_the_logarithm(folder):
    index, sizes = small(folder), random.Random(1)
    expected: dict[bytes, Placement] = {}
    number = 0
    for position in range(300):
        places = [place(number + n) for n in range(sizes.randrange(40))]
        number += len(places)
        index.add(commit(position, places))
        expected.update({place.digest: place for place in places})
        index.flush(force=position % 5 == 0)
        counts = [run.count for run in index._view.runs]
        assert all(old > 2 * new for old, new in zip(counts, counts[1:], strict=False))
        assert len(counts) <= 12
        assert len(run_files(folder)) == len(counts) if folder.exists() else not counts
        assert len(index._view.tail) < 60
    assert answers(index, expected) == expected


def test_without_a_folder_it_all_stays_in_memory():
    index = small(None)
    expected = fill(index, 50)
    for _ in range(3):
        index.flush(force=True)
    expected |= fill(index, 50, start=50)
    index.flush()
    assert answers(index, expected) == expected
    assert (index.position, index.persisted, index.problems) == (100, None, ())
    assert len(index._view.tail) == 0
    assert index.entries == 300


def test_a_folder_that_cannot_be_made_is_reported_once_and_does_no_harm(tmp_path):
    (tmp_path / "file").write_bytes(b"in the way")
    index = small(tmp_path / "file" / "chunks")
    expected = fill(index, 20)
    index.flush()
    expected |= fill(index, 20, start=20)
    index.flush()
    assert answers(index, expected) == expected
    assert (index.position, index.persisted) == (40, None)
    assert len(index.problems) == 1
    assert "memory" in index.problems[0]
    index.clear()
    assert index.get(digest(1)) is None
    index.close()


def test_runs_are_written_though_a_child_was_forked_meanwhile(folder, monkeypatch):
    index = small(folder)
    replace = os.replace
    with ExitStack() as stack:
        with monkeypatch.context() as patch:

            def forking(*paths):
                stack.enter_context(living_child())
                replace(*paths)

            patch.setattr(os, "replace", forking)
            fill(index, 5)
            index.flush(force=True)
        fill(index, 5, start=5)
        index.flush(force=True)
        assert index.persisted.position == 10
    index.close()


@pytest.mark.parametrize("call", ["replace", "open", "make_below", "listdir"])
def test_a_full_disk_does_no_harm(folder, monkeypatch, call):
    index = small(folder)
    expected = fill(index, 5)
    index.flush()
    expected |= fill(index, 5, start=5)

    def failing(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files if call == "make_below" else os, call, failing)
        index.flush()
    assert len(index.problems) == 1
    expected |= fill(index, 5, start=10)
    index.flush(force=True)
    assert answers(index, expected) == expected
    assert index.position == 15
    assert index.persisted.position == 5
    assert [path.name for path in folder.iterdir() if path.name.endswith(".tmp")] == []
    again = small(folder)
    assert (again.position, again.problems) == (5, ())


def test_read_only_uses_runs_and_changes_nothing(folder):
    writer = small(folder)
    expected = fill(writer, 5)
    writer.close()
    (folder / "left-over.tmp").write_bytes(b"x")
    before = sorted(os.listdir(folder))
    index = small(folder, read_only=True)
    assert index.position == 5
    expected |= fill(index, 30, start=5)
    index.flush(force=True)
    assert answers(index, expected) == expected
    assert index.persisted.position == 5
    index.clear()
    assert (index.position, index.get(digest(1))) == (0, None)
    index.close()
    assert sorted(os.listdir(folder)) == before


def test_read_only_of_nothing_makes_nothing(folder):
    index = small(folder, read_only=True)
    fill(index, 10)
    index.close()
    assert not folder.exists()


def test_clear_forgets_everything(folder):
    index = small(folder)
    fill(index, 10)
    index.flush(force=True)
    fill(index, 1, start=10)
    index.clear()
    assert (index.position, index.persisted, index.entries) == (0, None, 0)
    assert index.get(digest(1)) is None
    assert run_files(folder) == []
    expected = fill(index, 4)
    index.flush(force=True)
    assert answers(small(folder), expected) == expected


def test_closed_is_empty_and_writes_no_more(folder):
    index = small(folder)
    expected = fill(index, 4)
    index.close()
    names = os.listdir(folder)
    assert index.get(digest(1)) is None
    fill(index, 4)
    index.close()
    assert sorted(os.listdir(folder)) == sorted(names)
    assert answers(small(folder), expected) == expected


def three_runs(folder):
    """Make runs over [0,40), [40,50), [50,52); return what they say."""
    index = small(folder)
    expected: dict[bytes, Placement] = {}
    for start, stop in ((0, 40), (40, 50), (50, 52)):
        expected |= fill(index, stop - start, start=start)
        index.flush(force=True)
    index.close()
    assert len(run_files(folder)) == 3
    return expected


@pytest.mark.parametrize(("which", "position"), [(0, 0), (1, 40), (2, 50)])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "gone"])
def test_a_damaged_run_is_dropped_with_everything_after_it(folder, which, position, damage):
    expected = three_runs(folder)
    path = run_files(folder)[which]
    if damage == "flip":
        flip(path, -20)
    elif damage == "gone":
        path.unlink()
    elif damage == "foreign":
        other = ChunkIndex(folder.parent / "other", bytes(16))
        fill(other, 5)
        other.close()
        shutil.copy(run_files(folder.parent / "other")[0], path)
    else:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data[:-1] if damage == "cut" else b"")
    index = small(folder)
    assert index.position == position
    assert len(index.problems) == 3 - which - (damage == "gone")
    if damage != "gone":
        assert path.name in index.problems[0]
    assert answers(index, expected) == {
        name: place if place.offset < position * 300 else None for name, place in expected.items()
    }
    healed = fill(index, 52 - position, start=position)
    index.flush(force=True)
    assert answers(index, expected | healed) == expected | healed
    again = small(folder)
    assert (again.position, again.problems) == (52, ())
    assert answers(again, expected) == expected


@pytest.mark.parametrize(("which", "position"), [(0, 0), (1, 40), (2, 50)])
def test_damaged_entries_are_dropped_when_they_are_touched(folder, which, position):
    expected = three_runs(folder)
    flip(run_files(folder)[which], 33)
    index = small(folder)
    assert (index.position, index.problems) == (52, ())
    for name, right in expected.items():
        assert index.get(name) in (right, None)
    assert index.position == position
    assert index.persisted == (index._view.runs[-1].mark if which else None)
    assert "damaged" in index.problems[0]
    assert not index.add(commit(52, [place(999)]))  # the owner is told to scan
    healed = fill(index, 52 - position, start=position)
    index.flush(force=True)
    assert answers(index, healed) == healed
    again = small(folder)
    assert answers(again, expected) == expected
    assert (again.position, again.problems) == (52, ())


def test_damage_that_a_merge_meets_is_dropped_and_healed(folder):
    expected = three_runs(folder)
    flip(run_files(folder)[2], 33)
    index = small(folder)
    expected |= fill(index, 20, start=52)
    index.flush()  # merges; the damaged run goes
    assert index.position == 50
    assert "damaged" in index.problems[0]
    fill(index, 22, start=50)
    index.flush()
    assert answers(index, expected) == expected
    assert small(folder).position == 72


def test_damage_that_cannot_be_removed_is_not_met_for_ever(folder, monkeypatch):
    expected = three_runs(folder)
    flip(run_files(folder)[1], 33)
    index = small(folder)
    monkeypatch.setattr(files, "remove", lambda path: None)
    for name in expected:
        index.get(name)
    assert index.position == 40
    fill(index, 12, start=40)
    index.flush(force=True)
    assert answers(index, expected) == expected
    assert (index.position, index.persisted.position) == (52, 40)


def test_a_gap_that_others_left_is_bridged_by_an_overlapping_run(folder):
    expected = three_runs(folder)
    path = run_files(folder)[1]
    wide = run_writer.write_run(
        folder, STORE_ID, 30, Mark(50, CONTAINER, 50_000, digest(50)), expected.values()
    )
    path.unlink()
    assert wide.path is not None
    index = small(folder)
    assert (index.position, index.problems) == (52, ())
    assert answers(index, expected) == expected


def test_two_processes_that_flush_the_same_range_agree(folder):
    one, two = small(folder), small(folder)
    expected = fill(one, 20)
    fill(two, 20)
    one.flush()
    two.flush()
    assert one.persisted == two.persisted
    assert len(run_files(folder)) == 1
    expected |= fill(two, 10, start=20)
    two.flush()
    expected |= fill(one, 13, start=20)
    one.flush(force=True)
    for index in (one, two, small(folder)):
        assert index.problems == ()
        assert {name: index.get(name) for name in expected if index.position == 33} in (
            expected,
            {},
        )
    assert answers(small(folder), expected) == expected


def test_an_index_that_lies_behind_takes_over_what_others_wrote(folder):
    ahead, behind = small(folder), small(folder)
    expected = fill(ahead, 20)
    fill(behind, 4)
    ahead.flush()
    behind.flush(force=True)
    assert behind.position == 20
    assert answers(behind, expected) == expected
    assert behind.add(commit(4, [place(12)]))  # covered
    assert behind.add(commit(20, [place(1000)]))


def test_a_folder_that_was_made_anew_is_left_to_who_made_it(folder):
    one = small(folder)
    expected = fill(one, 20)
    one.flush()
    two = small(folder)
    two.clear()
    fill(two, 5)
    two.flush(force=True)
    expected |= fill(one, 10, start=20)
    one.flush()
    assert answers(one, expected) == expected
    assert "anew" in one.problems[0]
    assert small(folder).position == 5


def test_another_flush_is_not_awaited(folder):
    index = small(folder)
    expected = fill(index, 20)
    folder.mkdir(parents=True)
    holder = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    index.flush()
    assert run_files(folder) == []
    assert answers(index, expected) == expected
    expected |= fill(index, 1, start=20)
    assert answers(index, expected) == expected
    os.close(holder)
    index.flush()
    assert small(folder).position == 21
    assert answers(index, expected) == expected
    assert index.problems == ()


def test_what_could_not_be_written_yet_gives_way_to_what_is_newer(folder):
    index = small(folder)
    index.add(commit(0, [place(n) for n in range(20)]))
    folder.mkdir(parents=True)
    holder = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    index.flush()
    index.add(commit(1, [place(1, offset=77)]))
    assert index.get(digest(1)) == place(1, offset=77)
    os.close(holder)
    index.flush()
    assert index.get(digest(1)) == place(1, offset=77)
    assert small(folder).get(digest(1)) == place(1, offset=77)


def test_what_comes_while_a_flush_writes_is_kept(folder, monkeypatch):
    index = small(folder)
    expected = fill(index, 20)
    real = run_writer.write_run

    def slow(*args):
        expected.update(fill(index, 1, start=index.position))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(run_writer, "write_run", slow)
        index.flush()
    assert (index.position, index.persisted.position) == (21, 20)
    assert answers(index, expected) == expected
    index.flush(force=True)
    assert index.persisted.position == 21
    assert answers(small(folder), expected) == expected


def test_a_second_flush_returns_at_once(folder, monkeypatch):
    index = small(folder)
    fill(index, 20)
    real, written = run_writer.write_run, []

    def slow(*args):
        index.flush(force=True)
        written.append(args)
        return real(*args)

    monkeypatch.setattr(run_writer, "write_run", slow)
    index.flush()
    assert len(written) == 1


def test_damage_that_is_found_while_a_flush_writes_wins(folder, monkeypatch):
    expected = three_runs(folder)
    flip(run_files(folder)[1], 33)
    index = small(folder)
    expected |= fill(index, 1, start=52)  # too few to be merged with the damaged run
    real = run_writer.write_run

    def slow(*args):
        answers(index, expected)  # meets the damage
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(run_writer, "write_run", slow)
        index.flush(force=True)
    assert index.position == 40
    fill(index, 13, start=40)
    index.flush(force=True)
    assert answers(index, expected) == expected
    assert answers(small(folder), expected) == expected
    assert small(folder).position == 53


def test_damage_in_what_another_process_wrote_is_removed(folder):
    one, two = small(folder), small(folder)
    fill(one, 20)
    fill(two, 25)
    one.flush()
    flip(run_files(folder)[0], 33)
    fill(two, 40, start=25)
    two.flush()  # takes the other's run over, to merge it
    assert "damaged" in two.problems[0]
    assert small(folder).position == 0
    two.flush()
    again, expected = small(folder), fill(small(None), 65)
    assert (again.position, again.problems) == (65, ())
    assert answers(two, expected) == answers(again, expected) == expected


def test_left_overs_are_swept(folder):
    three_runs(folder)
    (folder / "00000000000000000000-00000000000000000009.run.1-1.tmp").write_bytes(b"torn")
    (folder / "00000000000000000000-00000000000000000001.run").write_bytes(b"torn")
    (folder / "notes.txt").write_bytes(b"somebody else's")
    index = small(folder)
    assert len(index.problems) == 1
    fill(index, 1, start=52)
    index.flush(force=True)
    assert sorted(os.listdir(folder)) == ["lock", "notes.txt"] or len(run_files(folder)) <= 4
    assert not any(name.endswith(".tmp") for name in os.listdir(folder))
    assert small(folder).problems == ()


def test_a_flush_that_was_overtaken_by_a_clear_changes_nothing(folder, monkeypatch):
    """The clear waits for the flush, and what the flush wrote is gone with the rest."""
    index = small(folder)
    fill(index, 20)
    real, cleared = run_writer.write_run, []

    def slow(*args):
        thread = threading.Thread(target=index.clear)
        thread.start()
        cleared.append(thread)
        return real(*args)

    monkeypatch.setattr(run_writer, "write_run", slow)
    index.flush()
    cleared[0].join()
    assert (index.position, index.entries) == (0, 0)
    assert run_files(folder) == []


def test_threads_read_while_others_write(folder):
    index = small(folder)
    expected: dict[bytes, Placement] = {}
    wrong: list[bytes] = []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            for name, right in list(expected.items()):
                if index.get(name) != right:
                    wrong.append(name)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for position in range(150):
        places = [place(position * 3 + n) for n in range(3)]
        index.add(commit(position, places))
        expected.update({place.digest: place for place in places})
        index.flush()
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert index.problems == ()


def test_a_merge_while_the_index_is_opened_is_no_problem(folder, monkeypatch):
    expected = three_runs(folder)
    calls = []

    def slow(path, store_id):
        calls.append(path)
        if len(calls) == 1:  # the folder was listed; now another process merges all of it
            rival = small(folder)
            fill(rival, 100, start=52)
            rival.close()
            assert len(run_files(folder)) == 1
        return open_run(path, store_id)

    monkeypatch.setattr("ckptlog.blobs.index.open_run", slow)
    index = small(folder)
    assert (index.position, index.problems) == (152, ())
    assert answers(index, expected) == expected


def test_processes_flush_side_by_side(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.blobs.sample import small, fill\n"
        "index = small(Path(sys.argv[1]))\n"
        "for position in range(index.position, 150):\n"
        "    if index.position <= position:\n"
        "        fill(index, 1, start=position)\n"
        "    index.flush()\n"
        "index.close()\n"
        "assert index.problems == (), index.problems\n"
    )
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "chunks")], cwd=root)
        for _ in range(2)
    ]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0]
    index = small(tmp_path / "chunks")
    assert index.problems == ()
    expected = fill(small(None), 150)
    fill(index, 150 - index.position, start=index.position)
    assert answers(index, expected) == expected
