"""Differences in the log: written only where their base is, and readable at every step."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest

import ckptlog
from ckptlog import CheckpointConfiguration, CheckpointManager
from ckptlog.blobs import difference
from ckptlog.errors import (
    BlobCorruptionError,
    CheckpointError,
    FullError,
    InputOutputError,
)
from ckptlog.formats import chunk
from ckptlog.log import log as logs
from ckptlog.log.committer import Job
from ckptlog.policy.decide import Stale
from tests.blobs.sample import noise
from tests.manager.differences import check_differences, check_store, history_of
from tests.manager.interleave import before_commit

GROWER = Path(__file__).with_name("grower.py")


def messages(count, seed=""):
    return [
        {"n": n, "text": f"{seed} message {n} " + noise(40, f"{seed}{n}".encode()).hex()}
        for n in range(count)
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def grow(manager, name, stop, start=0, seed=""):
    """Let a checkpoint's state grow; return what each step must read."""
    expected = []
    for count in range(start + 1, stop + 1):
        data = {"messages": messages(count, seed)}
        manager.update_checkpoint(name, data=data, replace_data=True)
        expected.append((name, data))
    return expected


def test_a_growing_state_is_stored_as_differences_and_read_at_every_step(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"messages": []})
        expected = [(name, {"messages": []}), *grow(manager, name, 300)]
        assert history_of(manager.store) == expected
    with ckptlog.open(path) as store:
        assert history_of(store) == expected
        tally = check_differences(store)
        assert store.verify().ok
    assert tally.differences > 150
    assert tally.deepest > 10
    size = sum(one.stat().st_size for one in (path / "log").iterdir())
    assert size < 300 * 1500


def test_a_short_state_that_changes_is_stored_as_differences_of_few_steps(path):
    lines = [noise(30, b"%d" % n).hex() for n in range(60)]
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"lines": lines, "n": 0})
        for n in range(60):
            manager.update_checkpoint(name, data={"n": n})
    tally = check_store(path)
    assert tally.differences > 40
    assert 4 <= tally.deepest <= 16


def test_two_states_in_turn_never_differ_from_each_other_in_a_circle(path):
    lines = [noise(30, b"%d" % n).hex() for n in range(60)]
    expected = []
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"lines": lines, "n": 0})
        for n in [1, 0] * 10 + [2, 1, 0, 2, 0, 1]:
            manager.update_checkpoint(name, data={"n": n})
            expected.append((name, {"lines": lines, "n": n}))
    with ckptlog.open(path) as store:
        assert history_of(store)[1:] == expected
    assert check_store(path).differences >= 1


def test_random_walks_through_few_states_are_read_back(path):
    random_ = random.Random(5)
    lines = [noise(30, b"%d" % n).hex() for n in range(700)]
    expected = []
    with CheckpointManager(path) as manager:
        names = [manager.create_checkpoint(f"t{n}", "T", 1) for n in range(3)]
        for turn in range(250):
            if turn % 60 == 59:
                manager.store.log._segment_bytes = 1  # the next commit begins a segment
            name = random_.choice(names)
            picked = lines[: random_.choice([50, 51, 300, 301, 700])] + ["x"] * random_.randrange(3)
            manager.update_checkpoint(name, data={"lines": picked})
            manager.store.log._segment_bytes = logs.SEGMENT_BYTES
            expected.append((name, {"lines": picked}))
    with ckptlog.open(path) as store:
        assert history_of(store)[3:] == expected
    assert check_store(path).differences >= 1


@pytest.mark.parametrize("segment_bytes", [1, 8_000, 60_000])
def test_segments_that_end_never_part_a_difference_from_its_base(path, segment_bytes):
    with CheckpointManager(path) as manager:
        manager.store.log._segment_bytes = segment_bytes
        name = manager.create_checkpoint("t", "T", 1)
        expected = grow(manager, name, 120)
    with ckptlog.open(path) as store:
        assert history_of(store)[1:] == expected
    assert len(list((path / "log").glob("*.seg"))) > 1
    tally = check_store(path)
    assert tally.differences > 20 or segment_bytes == 1


def test_a_commit_that_must_begin_a_segment_is_prepared_again(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        expected = grow(manager, name, 60)
        before = len(list((path / "log").glob("*.seg")))
        manager.store.log._segment_bytes = 1
        expected += grow(manager, name, 61, 60)
        manager.store.log._segment_bytes = logs.SEGMENT_BYTES
        assert len(list((path / "log").glob("*.seg"))) == before + 1
        expected += grow(manager, name, 70, 61)
        assert history_of(manager.store)[1:] == expected
    check_store(path)


def run_growers(path, shared, *, segment_bytes, turns=12, options=()):
    command = [sys.executable, str(GROWER), str(path)]
    rest = [str(turns), str(segment_bytes), shared, *options]
    children = [
        subprocess.Popen([*command, name, *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in ("left", "right")
    ]
    told = []
    for child in children:
        out, fault = child.communicate(timeout=120)
        assert child.returncode == 0, fault.decode()
        told += json.loads(out)
    return told


@pytest.mark.parametrize("durability", ["commit", "interval"])
@pytest.mark.parametrize("segment_bytes", [30_000, 64 * 1024 * 1024])
def test_writers_in_two_processes(path, durability, segment_bytes):
    with CheckpointManager(path) as manager:
        shared = manager.create_checkpoint("shared", "T", 1)
    told = run_growers(path, shared, segment_bytes=segment_bytes, options=[durability])
    with ckptlog.open(path) as store:
        found = history_of(store)
        for name, grown in told:
            assert (name, {"messages": grown}) in found
    assert check_store(path).differences > 20


def test_a_kill_and_an_opening_between_steps(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        expected = grow(manager, name, 40)
    for turn in range(3):
        count = 40 + turn * 5
        code = (
            "import os, sys; sys.path.insert(0, '.')\n"
            "from ckptlog import CheckpointManager\n"
            "from tests.manager.test_delta import grow\n"
            f"manager = CheckpointManager({str(path)!r})\n"
            f"grow(manager, {name!r}, {count + 5}, {count})\n"
            "os.kill(os.getpid(), 9)\n"
        )
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
        assert done.returncode == -9
        expected += [(name, {"messages": messages(n)}) for n in range(count + 1, count + 6)]
    with ckptlog.open(path) as store:
        assert history_of(store)[1:] == expected
    check_store(path)


def faults(manager, act, random_):
    """Let some calls of a kind fail."""
    disk = type(manager.store.log._disk)
    real = getattr(disk, act)

    def failing(*arguments):
        if random_.random() < 0.4:
            raise FullError("injected") if act == "write" else InputOutputError("injected")
        return real(*arguments)

    return mock.patch.object(disk, act, failing)


@pytest.mark.parametrize("durability", ["commit", "interval"])
@pytest.mark.parametrize("act", ["write", "sync"])
def test_commits_that_fail_leave_nothing_to_differ_from(path, act, durability):
    random_ = random.Random(act)
    lost = 0
    ckptlog.open(path, create=True).close()
    with ckptlog.open(path, durability=durability) as store:
        manager = CheckpointManager(store=store)
        name = manager.create_checkpoint("t", "T", 1)
        expected = grow(manager, name, 40)
        store.log.flush()
        for count in range(41, 70):
            data = {"messages": messages(count)}
            with faults(manager, act, random_):
                try:
                    manager.update_checkpoint(name, data=data)
                    if count % 5 == 0:
                        store.log.flush()
                except CheckpointError:
                    lost += 1
                    continue
            expected.append((name, data))
        expected += grow(manager, name, 80, 70)
        store.log.flush()
        found = history_of(store)[1:]
        # Else what is written from now on is not found in it.
        places = [one for commit in store.log.reader.commits() for one in commit.placements]
        assert all(store.index.get(place.digest) for place in places)
        assert store.index.get(places[-1].digest) == places[-1]
    assert lost > 0
    # One of which the outcome was not known may be there, and with "interval" an acknowledged one
    # may be lost: what is there must be readable, in order.
    assert found[-10:] == expected[-10:]
    counts = [len(data["messages"]) for _, data in found]
    assert counts == sorted(set(counts))
    assert all(data == {"messages": messages(len(data["messages"]))} for _, data in found)
    if durability == "commit":
        assert [one for one in found if one in expected] == expected
    check_store(path)


def test_a_chunk_that_another_stores_meanwhile_is_prepared_again_whole(path):
    """Else there would be two differences of one chunk, and a circle is not far."""
    lines = [noise(30, b"%d" % n).hex() for n in range(60)]
    with CheckpointManager(path) as manager, CheckpointManager(path) as other:
        mine = manager.create_checkpoint("t", "T", 1, data={"lines": lines, "n": 0})
        theirs = other.create_checkpoint("u", "T", 1, data={"lines": lines, "n": 0})
        manager.update_checkpoint(mine, data={"n": 1})
        meanwhile = lambda: other.update_checkpoint(theirs, data={"n": 2})  # noqa: E731
        with before_commit(manager.store, meanwhile):
            manager.update_checkpoint(mine, data={"n": 2})
        assert manager.get_checkpoint(mine).data == {"lines": lines, "n": 2}
    assert check_store(path).differences == 2


def test_two_intents_of_one_round_do_not_both_bring_a_difference(path):
    lines = [noise(30, b"%d" % n).hex() for n in range(60)]
    with CheckpointManager(path) as manager:
        store, intents = manager.store, []
        names = [
            manager.create_checkpoint(task, "T", 1, data={"lines": lines, "n": 0}) for task in "tu"
        ]
        for name in names:
            with (
                mock.patch.object(store, "submit", side_effect=intents.append),
                pytest.raises(TypeError),
            ):
                manager.update_checkpoint(name, data={"n": 1})
        assert all(any(map(chunk.base_in, one.steps[0].records)) for one in intents)
        jobs = [Job(intent) for intent in intents]
        store._writer._round(jobs)
        assert type(jobs[0].result) is tuple
        assert type(jobs[1].result) is Stale
        manager.update_checkpoint(names[1], data={"n": 1})
    assert check_store(path).differences == 1


# --- packs ----------------------------------------------------------------------------------------


def test_a_large_commit_puts_whole_chunks_into_packs(path):
    random_ = random.Random(3)
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"n": 0, "blocks": {}})
        blocks = {}
        for part in range(4):  # each fits the log
            blocks |= {f"b{part}-{n}": noise(350, b"%d-%d" % (part, n)).hex() for n in range(900)}
            manager.update_checkpoint(name, data={"blocks": blocks})
        assert not list((path / "packs").glob("*.pack"))
        changed = {key: text[:650] + str(random_.random()) for key, text in blocks.items()}
        with mock.patch("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 20_000):
            manager.update_checkpoint(name, data={"blocks": changed})
        assert list((path / "packs").glob("*.pack"))
        assert manager.get_checkpoint(name).data["blocks"] == changed
    check_store(path)


def test_a_batch_of_small_changes_that_is_large_puts_whole_chunks_into_packs(path):
    with CheckpointManager(path) as manager:
        names = [manager.create_checkpoint(f"t{n}", "T", 1) for n in range(5)]
        for name in names:
            grow(manager, name, 45, 40, seed=name)
        before = check_differences(manager.store)
        with (
            mock.patch("ckptlog.manager.joint.CHUNK_BYTES_IN_LOG_MAX", 200),
            manager.batch() as batch,
        ):
            for name in names:
                batch.update_checkpoint(name, data={"messages": messages(46, seed=name)})
        assert list((path / "packs").glob("*.pack"))
        assert check_differences(manager.store).differences == before.differences
        for name in names:
            assert manager.get_checkpoint(name).data == {"messages": messages(46, seed=name)}
    check_store(path)


def test_states_of_a_batch_differ_from_each_other(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        expected = grow(manager, name, 40)
        with manager.batch() as batch:
            for count in range(41, 50):
                data = {"messages": messages(count)}
                batch.update_checkpoint(name, data=data)
                expected.append((name, data))
        expected += grow(manager, name, 60, 49)
        assert history_of(manager.store)[1:] == expected
    check_store(path)


# --- what is kept in memory -----------------------------------------------------------------------


def test_memory_is_bounded_by_the_setting(path):
    config = CheckpointConfiguration(cache_size_mb=2)
    with CheckpointManager(path, config=config) as manager:
        blobs = manager.store.blobs
        names = [manager.create_checkpoint(f"t{n}", "T", 1) for n in range(12)]
        for turn in range(3):
            for name in names:
                manager.update_checkpoint(
                    name, data={"messages": messages(1200, f"{name}"), "turn": turn}
                )
                assert blobs.cached_bytes <= 2_100_000
        blobs.close()
        assert blobs.cached_bytes == 0


def test_what_a_memo_takes_is_what_it_says(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        grow(manager, name, 2)
        blobs = manager.store.blobs
        tracemalloc.start()
        before, before_cost = tracemalloc.get_traced_memory()[0], blobs._memos.cost
        for n in range(4):
            other = manager.create_checkpoint(f"o{n}", "T", 1)
            manager.update_checkpoint(other, data={"messages": messages(2000, f"{n}")})
        blobs._cache.clear()
        blobs._written.clear()
        blobs._digests.clear()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        said = blobs._memos.cost - before_cost
    assert said > 900_000
    assert grown < said * 1.5 + 500_000


def test_without_a_cache_nothing_is_kept_and_all_is_right(path):
    config = CheckpointConfiguration(cache_size_mb=0)
    with CheckpointManager(path, config=config) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        expected = grow(manager, name, 30)
        assert manager.store.blobs.cached_bytes == 0
        assert history_of(manager.store)[1:] == expected
    check_store(path)


def test_what_is_returned_never_is_what_is_remembered(path):
    with CheckpointManager(path) as manager:
        data = {"messages": messages(300), "raw": bytearray(b"x" * 40_000)}
        name = manager.create_checkpoint("t", "T", 1, data=data)
        first = manager.get_checkpoint(name).data
        first["messages"][7]["text"] = "changed by the reader"
        first["messages"].clear()
        first["raw"][:] = b"y" * 40_000
        data["messages"][9]["text"] = "changed by the writer"
        data["raw"][0] = 0
        expected = {"messages": messages(300), "raw": bytearray(b"x" * 40_000)}
        assert manager.get_checkpoint(name).data == expected
        manager.update_checkpoint(name, data={"n": 1})
        assert manager.get_checkpoint(name).data == expected | {"n": 1}
        # What was changed in place is seen, as it is a new value now.
        manager.update_checkpoint(name, data=data, replace_data=True)
        assert manager.get_checkpoint(name).data == data
    check_store(path)


# --- damage ---------------------------------------------------------------------------------------


def test_damage_of_a_base_is_told_for_what_needs_it_and_new_work_goes_on(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        grow(manager, name, 40)
        store = manager.store
        for commit in store.log.reader.commits():
            for place in commit.placements:
                base = chunk.base_in(store.blobs.read_record(place))
                if base:
                    damaged = store.index.get(base)
    content = bytearray((path / damaged.container).read_bytes())
    content[damaged.offset + damaged.length - 1] ^= 1
    (path / damaged.container).write_bytes(content)
    with CheckpointManager(path) as manager:
        report = manager.store.verify()
        assert {"blob.missing", "log.corrupt"} <= {one.code for one in report.problems}
        with pytest.raises(CheckpointError):
            history_of(manager.store)
        fresh = manager.create_checkpoint("u", "T", 1)
        expected = grow(manager, fresh, 10)
        assert [one for one in expected if manager.get_checkpoint(fresh).data == one[1]]


# --- older stores ---------------------------------------------------------------------------------


def without_trees(path):
    """Make a store as it was made before there were trees."""
    ckptlog.open(path, create=True).close()
    file = path / "store.json"
    document = json.loads(file.read_text())
    document["features"] = [
        name for name in document["features"] if name not in {"payload-trees", "chunks-delta"}
    ]
    file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def test_a_store_without_trees_is_read_and_written_on(path):
    without_trees(path)
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        expected = grow(manager, name, 80, 60)
    with CheckpointManager(path) as manager:
        expected += grow(manager, name, 100, 80)
        assert history_of(manager.store)[1:] == expected
        kinds = {entry.event.data.kind for entry in manager.store.events() if entry.event.data}
        assert kinds == {"leaf", "list"}
        assert check_differences(manager.store).differences == 0
    check_store(path)


def test_a_program_without_trees_refuses_a_store_with_them(path, monkeypatch):
    ckptlog.open(path, create=True).close()
    known = frozenset({"chunks-blake3", "chunks-fastcdc2020", "events-1", "log-1", "values-json1"})
    monkeypatch.setattr("ckptlog.formats.store.FEATURES_READ", known)
    with pytest.raises(
        CheckpointError,
        match="chunks-delta, chunks-dictionary-1, events-2, leases-1, payload-trees",
    ):
        ckptlog.open(path)


# --- views ----------------------------------------------------------------------------------------


def test_views_are_made_again_from_metas_that_are_trees(path):
    metadata = {"notes": messages(200), "common": messages(300, "c")}
    with CheckpointManager(path) as manager:
        # The data hold what the metadata hold: chunks of one may be differences in the other.
        name = manager.create_checkpoint("t", "Title", 1, data={"common": messages(299, "c")})
        manager.update_checkpoint(name, data={"common": messages(300, "c")})
        manager.update_checkpoint(name, metadata=metadata)
        whole = {"title": "Title", "description": "", "metadata": {"a": "a" * 3000}}
        other = manager.create_checkpoint("u", "T", 1, data=whole | {"description": "d"})
        manager.update_checkpoint(other, data=whole)
        manager.create_checkpoint("v", "Title", 1, metadata={"a": "a" * 3000})
        kinds = {entry.event.meta.kind for entry in manager.store.events() if entry.event.meta}
        assert "tree" in kinds
        before = [(one.checkpoint_id, one.task_title, one.metadata) for one in listed(manager)]
    shutil.rmtree(path / "views")
    with CheckpointManager(path) as manager:
        assert [
            (one.checkpoint_id, one.task_title, one.metadata) for one in listed(manager)
        ] == before
        assert manager.get_checkpoint(name).metadata == metadata
        rows = manager.store.history().to_table().to_pylist()
        assert len(rows) == len(list(manager.store.events()))
        assert max(row["meta_bytes"] for row in rows) > 16_384
        then = manager.store.replay(2, into=path.parent / "then")
        assert [entry.event.meta.kind for entry in then.entries] == ["tree"]
        (database,) = (path.parent / "then").rglob("current.sqlite")
        assert b"Title" in database.read_bytes()
    check_store(path)


def listed(manager):
    return [one for task in "tuv" for one in manager.get_task_checkpoints(task)]


def test_the_depth_of_a_record_is_read_where_it_is_not_remembered(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1)
        for count in range(1, 160):
            manager.update_checkpoint(name, data={"messages": messages(count)})
            if count % 10 == 0:
                manager.store.blobs._depths.clear()
    tally = check_store(path)
    assert 10 < tally.deepest <= difference.DEPTH_MAX


@pytest.mark.parametrize("tasks", [("t", "u"), ("t", "new"), ("t", "t")])
def test_one_state_for_two_checkpoints_of_a_batch(path, tasks):
    lines = [f"{n} " + f"abc{n * 7919}" * 30 for n in range(400)]
    changed = [*lines[:300], "changed", *lines[301:]]
    with CheckpointManager(path) as manager:
        for task in "tu":
            manager.create_checkpoint(task, "T", 1, data={"lines": [*lines, task]})
        with manager.batch() as batch:
            names = [
                batch.create_checkpoint(task, "T", 2, data={"lines": changed}) for task in tasks
            ]
        assert all(manager.get_checkpoint(name).data == {"lines": changed} for name in names)
    check_store(path)


def test_what_a_step_without_an_event_brings_is_there_for_the_others(path):
    """It brings something where what is stored already cannot be told: the neighbour is damaged."""
    lines = [f"{n} " + f"abc{n * 7919}" * 30 for n in range(200)]
    with CheckpointManager(path) as manager:
        done = manager.create_checkpoint("done", "T", 1, data={"lines": lines})
        manager.complete_checkpoint(done)
        manager.create_checkpoint("t", "T", 1, data={"lines": lines[:-1]})
        lines_new = [*lines, "new"]
        manager.create_checkpoint("u", "T", 1, data={"lines": lines_new})
        manager.restore_checkpoint(done)
        manager.complete_checkpoint(done, final_data={"lines": lines_new})
        position = manager.store.position
        broken = mock.Mock(side_effect=BlobCorruptionError("damaged"))
        with mock.patch.object(manager.store.blobs, "digests", broken), manager.batch() as batch:
            batch.complete_checkpoint(done, final_data={"lines": lines_new})  # no event
            new = batch.create_checkpoint("t", "T", 2, data={"lines": lines_new})
        (entry,) = manager.store.events(position)
        assert entry.event.subject.checkpoint == new
        written = {
            place.digest for place in list(manager.store.log.reader.commits())[-1].placements
        }
        # No witness was named, so all of it came along.
        assert manager.store.blobs.digests(entry.event.data) <= written
        lines = lines_new
        assert manager.get_checkpoint(new).data == {"lines": lines}
    check_store(path)
