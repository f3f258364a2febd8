"""Repair: after any damage the store opens, verifies, and what is not named as lost reads right."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ckptlog
from ckptlog.errors import ArgumentError, CheckpointError
from ckptlog.model import value
from ckptlog.model.event import LOST, REPAIRED
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.compaction import CollectOptions
from ckptlog.repository.layout import read_info
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from ckptlog.storage import files
from tests.repository.ruin import (
    NOISE,
    build,
    check_repaired,
    files_of,
    frames_of,
    fresh,
    newest_of,
    states_of,
)

# Shrinking takes minutes here, and what is found is named by the files and kinds of damage.
SLOW = settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Image(tuple):
    """A store and what it held; its repr is short, for messages."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "image"


@pytest.fixture(scope="module")
def image(ram_folder):
    path = ram_folder / "image"
    return Image((path, build(path)))


@pytest.fixture(scope="module")
def ram_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("repair")


@pytest.fixture
def store(image, tmp_path):
    return fresh(image[0], tmp_path / "store")


DAMAGE = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["flip", "flip", "burst", "zero", "cut", "gone", "head", "tail"]),
    st.integers(1, 5000),
)


def ruin(root: Path, damage) -> str:
    """Do one damage; return to which file."""
    which, where, what, length = damage
    names = files_of(root)
    path = root / names[int(which * len(names))]
    data = bytearray(path.read_bytes())
    at = int(where * len(data))
    at = {"head": 0, "tail": max(0, len(data) - length)}.get(what, at)
    chance = random.Random(length)
    if what == "gone":
        path.unlink()
    elif what == "cut":
        path.write_bytes(bytes(data[:at]))
    else:
        if what == "flip":
            data[at : at + 1] = bytes([data[at] ^ (1 << (length % 8))]) if data else b""
        else:
            size = len(data[at : at + length])
            data[at : at + length] = bytes(size) if what == "zero" else chance.randbytes(size)
        path.write_bytes(bytes(data))
    return path.name


@SLOW
@given(damages=st.lists(DAMAGE, min_size=1, max_size=3))
def test_after_any_damage(image, tmp_path, damages):
    path, truth = image
    root = fresh(path, tmp_path / "store")
    for damage in damages:
        if files_of(root):
            ruin(root, damage)
    planned = repair(root)
    assert not any(one.action == "refused" for one in planned.files), planned.files
    done = repair(root, is_applied=True)
    assert (planned.lost_positions, planned.affected) == (done.lost_positions, done.affected)
    check_repaired(root, truth, done)


@SLOW
@given(damages=st.lists(DAMAGE, min_size=1, max_size=3))
def test_a_copy_brings_everything_back(image, tmp_path, damages):
    path, truth = image
    root = fresh(path, tmp_path / "store")
    before = {name: (root / name).read_bytes() for name in files_of(root)}
    for damage in damages:
        if files_of(root):
            ruin(root, damage)
    done = repair(root, is_applied=True, copy=path)
    assert done.lost_positions == ()
    assert done.lost_chunks == ()
    check_repaired(root, truth, done)
    for name, data in before.items():
        assert (root / name).read_bytes()[: len(data)] == data, name


def test_a_dry_run_changes_nothing(image, store):
    ruin(store, (0.3, 0.5, "zero", 3000))
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    found = repair(store)
    assert not found.is_applied
    assert found.problems_before
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("torn", [b"", b"CKtorn tail" * 9])
@pytest.mark.parametrize("is_applied", [False, True])
def test_a_store_that_was_not_closed_is_left_to_the_next_writer(store, torn, is_applied):
    end = store / "log" / "end"
    older = end.read_bytes()
    with ckptlog.CheckpointManager(store) as manager:
        for number in range(3):
            manager.create_checkpoint("later", "T", number + 1, "s")
    end.write_bytes(older)
    with max(store.glob("log/*.seg")).open("ab") as newest:
        newest.write(torn)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    found = repair(store, is_applied=is_applied)
    assert (found.is_empty, found.ok) == (True, True)
    if not is_applied:
        assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    with ckptlog.open(store) as opened:
        types = [one.event.type for one in opened.events()]
    assert types[-3:] == ["checkpoint.created"] * 3


def test_a_sound_store_is_left_alone(store):
    before = {name: (store / name).read_bytes() for name in files_of(store)}
    assert repair(store, is_applied=True).is_empty
    assert {name: (store / name).read_bytes() for name in files_of(store)} == before
    assert not (store / "quarantine").exists()


def test_a_turned_bit_is_turned_back(image, store):
    for name in files_of(store):
        data = bytearray((store / name).read_bytes())
        data[len(data) // 2] ^= 16
        (store / name).write_bytes(bytes(data))
    done = repair(store, is_applied=True)
    assert done.facts()["bits"] == len(files_of(store))
    assert not done.lost_chunks
    for name in files_of(store)[:-2]:
        assert (store / name).read_bytes() == (image[0] / name).read_bytes()


def test_originals_are_kept_and_the_event_tells(store):
    name = files_of(store)[1]
    (store / name).write_bytes(bytes(9000) + (store / name).read_bytes()[9000:])
    damaged = (store / name).read_bytes()
    done = repair(store, is_applied=True, actor="me")
    (file,) = done.files
    assert (store / file.quarantine).read_bytes() == damaged
    told = json.loads(next(store.glob("quarantine/*/done.json")).read_text())
    assert told["lost_positions"] == [list(one) for one in done.lost_positions]
    with ckptlog.open(store) as opened:
        last = opened.event_at(done.position).event
        assert (last.type, last.actor) == (REPAIRED, "me")
        assert last.facts == done.facts()
        assert last.data is not None
        record = value.decode(opened.blobs.wire(last.data))
    assert record["lost_chunks"] == [*done.lost_chunks]
    assert [one["container"] for one in record["files"]] == [name]


def test_a_tombstone_has_the_leaf_of_what_was_lost(image, store):
    path, truth = image
    name = files_of(store)[1]
    store_id = ckptlog.open(path, read_only=True).info.id_bytes
    offset = [begin for kind, begin, _ in frames_of(path / name, store_id) if kind == 2][1]
    data = bytearray((store / name).read_bytes())
    data[offset : offset + 40] = bytes(40)
    (store / name).write_bytes(bytes(data))
    done = repair(store, is_applied=True)
    ((first, last),) = done.lost_positions
    assert first == last
    with ckptlog.open(store) as opened:
        assert opened.event_at(first).event.type == LOST
        assert opened.verify().events_lost == 1
        leaves = [leaf for commit in opened.log.reader.commits() for leaf in commit.leaves]
    assert leaves[first] == truth.leaves[first]


def test_leaf_hash_of_what_only_looks_like_a_tombstone():
    start = b'{"actor":"","facts":{"leaf":"'
    end = b'"type":"repair.lost"}'
    plain = leaf_hash(b"x")
    assert leaf_hash(start + b"ab" * 32 + b'"},' + end) == b"\xab" * 32
    assert leaf_hash(start + b"zz" * 32 + b'"},' + end) not in (plain, bytes(32))
    assert leaf_hash(start + b"ab" * 32) != b"\xab" * 32
    assert leaf_hash(memoryview(start + b"ab" * 32 + end)) == b"\xab" * 32


def test_a_copy_of_another_store_is_refused(store, tmp_path):
    with ckptlog.open(tmp_path / "other", create=True):
        pass
    with pytest.raises(ArgumentError, match="another store"):
        repair(store, copy=tmp_path / "other")
    with pytest.raises(ArgumentError, match="itself"):
        repair(store, copy=store)


def test_a_lost_end_and_a_damaged_segment(image, store):
    _, truth = image
    (store / "log" / "end").unlink()
    ruin(store, (0.0, 0.5, "zero", 2000))
    done = repair(store, is_applied=True)
    check_repaired(store, truth, done)


def test_without_views_leaf_hashes_are_unknown_and_said_so(image, store):
    _, truth = image
    shutil.rmtree(store / "views")
    (store / files_of(store)[2]).unlink()
    done = repair(store, is_applied=True)
    assert done.lost_positions
    check_repaired(store, truth, done, leaves_known=False)


def test_an_open_store_repairs_itself(image, store):
    _, truth = image
    with ckptlog.CheckpointManager(store) as manager:
        name = files_of(store)[0]
        data = bytearray((store / name).read_bytes())
        data[5000:5400] = bytes(400)
        (store / name).write_bytes(bytes(data))
        done = manager.store.repair(apply=True)
        assert manager.store.verify().problems == ()
        manager.create_checkpoint("more", "M", 1)
    check_repaired(store, truth, done)


def test_what_was_lost_is_known_after_the_record_was_moved(store):
    (store / files_of(store)[2]).unlink()
    done = repair(store, is_applied=True)
    assert done.lost_chunks
    with ckptlog.CheckpointManager(store) as manager:
        before = manager.store.verify()
        assert before.problems == ()
        more = manager.create_checkpoint("more", "M", 1, data={"n": NOISE})
        manager.delete_checkpoint(more)
        manager.store.compact(CollectOptions(garbage_min=0, seal_bytes_min=0))
        moved = manager.store.event_at(done.position)
        assert moved is not None
        assert (store / moved.container).with_suffix(".set").exists()
        assert manager.store.verify().problems == ()


def test_a_writer_that_has_the_newest_segment_open_goes_on_in_it(store):
    with ckptlog.CheckpointManager(store) as manager:
        manager.create_checkpoint("open", "O", 1)
        name = files_of(store)[-2]
        assert name.startswith("log/")
        with (store / name).open("r+b") as file:
            file.seek(3000)
            file.write(bytes(300))
        repair(store, is_applied=True)
        late = manager.create_checkpoint("open", "O", 2)
    with ckptlog.CheckpointManager(store) as manager:
        assert manager.get_checkpoint(late).step_number == 2


# --- killed in the middle ---------------------------------------------------------------------


def killed_at(root: Path, number: int) -> bool:
    """Repair in another process that ends at its n-th change; say whether it came to that."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    count = [0]

    def stopping(act):
        def run(*given, **named):
            count[0] += 1
            if count[0] == number:
                os._exit(7)
            return act(*given, **named)

        return run

    try:
        for name in ("write_all", "sync_file", "sync_directory", "publish"):
            setattr(files, name, stopping(getattr(files, name)))
        repair(root, is_applied=True)
    except BaseException:  # the child must not go on as a test
        os._exit(8)
    os._exit(0)


def told_by(root: Path) -> dict[str, list]:
    """Return what all events of repairs have told to be lost."""
    told: dict[str, list] = {"lost_positions": [], "lost_chunks": []}
    with ckptlog.open(root, read_only=True) as opened:
        for one in opened.events():
            if one.event.type == REPAIRED:
                record = value.decode(opened.blobs.wire(one.event.data))
                assert bool(record["lost_positions"]) == bool(one.event.facts["events_lost"])
                for name, stretches in told.items():
                    stretches.extend(record[name])
    return told


def check_kill(image, tmp_path, number: int) -> bool:
    path, truth = image
    root = fresh(path, tmp_path / "store")
    store_id = read_info(root).id_bytes
    for name in files_of(root)[::3]:
        data = (root / name).read_bytes()
        data = data[:2000] + bytes(1500) + data[3500:]
        events = [at for kind, at, _ in frames_of(path / name, store_id) if kind == 2]
        for at in events[1:2]:
            data = data[: at + 4] + bytes(56) + data[at + 60 :]
        (root / name).write_bytes(data)
    other = fresh(root, tmp_path / "other")
    assert repair(other, is_applied=True).lost_positions
    damaged = {name: (root / name).read_bytes() for name in files_of(root)[::3]}
    was_killed = killed_at(root, number)
    for name, data in damaged.items():
        kept = [
            (root / name).read_bytes(),
            *(p.read_bytes() for p in root.glob(f"quarantine/*/{name}")),
        ]
        assert any(one[: len(data)] == data for one in kept), name
    done = repair(root, is_applied=True)
    with ckptlog.CheckpointManager(root) as manager:
        report = manager.store.verify()
        assert report.problems == ()
        seen, newest = states_of(manager), newest_of(manager.store)
        lost = {e.position for e in manager.store.events() if e.event.type == LOST}
        losses = {name for one in report.losses for name in one.checkpoints}
    for name, state in truth.states.items():
        if truth.newest[name] not in lost and name not in losses:
            assert seen[name] == state
    assert newest
    assert told_by(root) == told_by(other)
    assert not list(root.glob("quarantine/*/repair.json"))
    assert done.position >= 0 or done.is_empty  # killed when its last step was done
    return was_killed


@pytest.mark.parametrize("number", [1, 4, 9, 14, 20, 27, 36])
def test_killed_in_the_middle(image, tmp_path, number):
    check_kill(image, tmp_path, number)


@pytest.mark.thorough
def test_killed_at_every_change(image, tmp_path):
    number = 1
    while check_kill(image, tmp_path, number):
        number += 1
    assert number > 20


def test_killed_when_the_event_was_written_and_not_published(store):
    end = (store / "log/end").read_bytes()
    (store / files_of(store)[2]).unlink()
    repair(store, is_applied=True)
    told = told_by(store)
    (store / "log/end").write_bytes(end)
    (done,) = store.glob("quarantine/*/done.json")
    done.rename(done.with_name("repair.json"))
    again = repair(store, is_applied=True)
    assert (again.lost_positions, again.lost_chunks) == ((), ())
    assert told_by(store) == told
    assert told["lost_positions"]


def test_what_events_of_repairs_say_is_checked(store):
    """They are bytes of the log, whoever wrote them."""
    from ckptlog.repository.loss import positions_in

    assert positions_in([[3, 4], [-5, 0], [7, 1 << 60]], 9) == {3, 4, 0, 7, 8}


def test_a_repaired_store_can_be_looked_back_at(store):
    (store / files_of(store)[2]).unlink()
    repair(store, is_applied=True)
    with ckptlog.CheckpointManager(store) as manager:
        store_ = manager.store
        assert store_.history().to_table().num_rows == store_.position
        assert store_.doctor()
        assert store_.stats()["events"] == store_.position
        store_.rebuild_views()
        assert store_.verify().problems == ()
        for name in states_of(manager):
            try:
                list(manager.history(name))
            except CheckpointError as error:
                assert error.code  # a loss is an error of ours
    assert verify_directory(store).ok


def test_what_was_lost_and_is_saved_again_outlives_a_collection(tmp_path):
    """A collection took chunks that a repair had told to be lost for lost, though they were back."""
    root, data = tmp_path / "store", {"noise": random.Random(1).randbytes(5000)}
    with ckptlog.CheckpointManager(root) as manager:
        manager.create_checkpoint("a", "A", 1, data=data, checkpoint_id="first")
        manager.create_checkpoint("b", "B", 1, data={"x": 1})
    (path,) = (root / "log").glob("*.seg")
    damaged = bytearray(path.read_bytes())
    damaged[2000:2003] = bytes(3)
    path.write_bytes(damaged)
    mending = repair(root, is_applied=True)
    assert len(mending.lost_chunks) == 1
    assert not mending.lost_positions
    with ckptlog.CheckpointManager(root) as manager:
        manager.create_checkpoint("c", "C", 1, data=data, checkpoint_id="again")
        manager.store.compact(CollectOptions(seal_bytes_min=0, garbage_min=0.0))
    with ckptlog.CheckpointManager(root) as manager:
        assert manager.get_checkpoint("again").data == data
        assert manager.get_checkpoint("first").data == data
        assert manager.store.verify().ok


def test_the_last_event_and_a_chunk_before_it_are_lost(tmp_path):
    """The tombstone went to the first gap: chunks without an event were left at the log's end."""
    root = tmp_path / "store"
    with ckptlog.CheckpointManager(root) as manager:
        manager.create_checkpoint("a", "A", 1, data={"n": NOISE[0]})
        manager.create_checkpoint("b", "B", 1, data={"n": NOISE[1]})
        store_id = manager.store.info.id_bytes
    (path,) = (root / "log").glob("*.seg")
    chunk, about, event = frames_of(path, store_id)[-3:]
    assert (chunk[0], about[0], event[0]) == (3, 3, 2)
    data = bytearray(path.read_bytes())
    for _, begin, _ in (chunk, event):
        data[begin + 4 : begin + 60] = bytes(56)
    path.write_bytes(data)
    done = repair(root, is_applied=True)
    assert done.lost_positions == ((1, 1),)
    with ckptlog.CheckpointManager(root) as manager:
        assert manager.store.verify().problems == ()
        assert [one.event.type for one in manager.store.events()][1] == LOST
