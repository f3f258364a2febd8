"""Payloads through the manager: packs, sharing by a witness, and an index that may be gone."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import os
import random
import shutil

import pytest

import ckptlog
from ckptlog import CheckpointConfiguration, CheckpointManager, CheckpointStorageError
from ckptlog.errors import BlobCorruptionError, CheckpointCorruptionError, MissingBlobError
from tests.manager.interleave import before_commit

LONG = [f"message {number}: {number * 7919 % 10007}" * 3 for number in range(1500)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def noise(seed, size=1_200_000):
    """Text that does not compress below the limit of what rides in the log."""
    return random.Random(seed).randbytes(size).hex()


def new_bytes(store):
    return [entry.event.new for entry in store.events()]


def packs(store):
    return sorted(path.name for path in (store.path / "packs").iterdir())


# --- packs ----------------------------------------------------------------------------------------


def test_large_payloads_go_into_packs(path):
    with CheckpointManager(path) as manager:
        big = {"text": noise(1), "small": 1}
        name = manager.create_checkpoint("t", "T", 1, data=big)
        event = manager.store.event_at(0).event
        assert [f"{pack.base:020}" in packs(manager.store)[0] for pack in event.packs] == [True]
        assert event.packs[0].bytes == (path / "packs" / packs(manager.store)[0]).stat().st_size
        assert (path / "log").stat().st_size < 100_000
        assert manager.get_checkpoint(name).data == big
        manager.update_checkpoint(name, data={"small": 2})
        assert len(packs(manager.store)) == 1
        assert manager.validate_checkpoint_integrity() == []
    with CheckpointManager(path) as manager:
        assert manager.get_checkpoint(name).data == {**big, "small": 2}


def test_a_large_batch_registers_all_of_its_packs(path):
    with CheckpointManager(path) as manager:
        with manager.batch() as batch:
            names = [
                batch.create_checkpoint("t", "T", 1, data={"text": noise(seed)}) for seed in (1, 2)
            ]
            batch.create_checkpoint("u", "U", 1)
        assert len(manager.store.event_at(2).event.packs) == 2
        assert manager.store.event_at(0).event.packs == ()
        for seed, name in enumerate(names, 1):
            assert manager.get_checkpoint(name).data == {"text": noise(seed)}
        assert manager.validate_checkpoint_integrity() == []


def test_a_pack_that_is_gone_or_damaged(path):
    with CheckpointManager(path) as manager:
        big = manager.create_checkpoint("t", "T", 1, data={"text": noise(1)})
        small = manager.create_checkpoint("u", "U", 1, data={"n": 1})
    (pack,) = (path / "packs").iterdir()
    content = pack.read_bytes()
    pack.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    with CheckpointManager(path) as manager:
        with pytest.raises(BlobCorruptionError, match="packs/"):
            manager.get_checkpoint(big)
        assert manager.get_checkpoint(small).data == {"n": 1}
        assert not manager.can_recover_task("t")
    pack.unlink()
    with CheckpointManager(path) as manager:
        with pytest.raises(MissingBlobError, match="which is missing") as caught:
            manager.get_checkpoint(big)
        assert "a backup may have" in caught.value.hint
        assert manager.get_checkpoint(small).data == {"n": 1}
        assert manager.create_checkpoint("t", "T", 2, data={"text": noise(1)})
        assert manager.get_latest_checkpoint("t").data == {"text": noise(1)}


def test_a_refused_create_leaves_no_pack_that_counts(path):
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="mine")
        with pytest.raises(ckptlog.DuplicateIdError):
            manager.create_checkpoint("t", "T", 1, checkpoint_id="mine", data={"text": noise(1)})
        report = manager.store.verify()
        assert report.ok
        assert any("pack" in note for note in report.notes)


# --- sharing --------------------------------------------------------------------------------------


def test_appending_to_a_list_stores_little(manager, store):
    for step in range(1, 11):
        manager.create_checkpoint("t", "T", step, data={"long": LONG[: 1400 + 10 * step]})
    sizes = new_bytes(store)
    assert max(sizes[1:]) < sizes[0] / 4
    for step, found in enumerate(manager.get_task_checkpoints("t"), 1):
        assert found.data == {"long": LONG[: 1400 + 10 * step]}


def test_updating_stores_little(manager, store):
    name = manager.create_checkpoint("t", "T", 1, data={"long": LONG, "n": 0}, metadata={"m": 0})
    for number in range(1, 6):
        manager.update_checkpoint(name, data={"n": number})
        manager.update_checkpoint(name, metadata={"m": number})
        manager.update_checkpoint(name, step_number=number)
    sizes = new_bytes(store)
    assert max(sizes[1:]) < sizes[0] / 3
    assert sizes[3::3] == [0] * 5
    assert manager.get_checkpoint(name).data == {"long": LONG, "n": 5}


def test_another_tasks_chunks_are_no_witness(manager, store):
    """Only what the task still holds itself counts: no look-up in a global index of chunks."""
    manager.create_checkpoint("t", "T", 1, data={"long": LONG})
    manager.create_checkpoint("u", "U", 1, data={"long": LONG})
    first, second = new_bytes(store)
    assert second > first * 0.9


@pytest.mark.parametrize("reopens", [False, True])
def test_sharing_after_reopening(path, reopens):
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1, data={"long": LONG})
        if not reopens:
            manager.create_checkpoint("t", "T", 2, data={"long": LONG, "n": 1})
    with CheckpointManager(path) as manager:
        if reopens:
            manager.create_checkpoint("t", "T", 2, data={"long": LONG, "n": 1})
        first, second = new_bytes(manager.store)
        assert second < first / 4


# --- the witness goes -----------------------------------------------------------------------------


def gone_in_between(manager, act):
    """Create beside a witness that something happens to once the chunks were chosen."""
    witness = manager.create_checkpoint("t", "T", 1, data={"long": LONG})
    with before_commit(manager.store, lambda: act(witness)) as intents:
        name = manager.create_checkpoint("t", "T", 2, data={"long": LONG, "n": 1})
    records = [sum(map(len, intent.steps[0].records)) for intent in intents]
    return name, records


def test_a_witness_deleted_between_preparation_and_commit(manager, store):
    """The chunks that were taken as stored are written fresh, in the commit that needs them."""
    name, (before, after) = gone_in_between(manager, manager.delete_checkpoint)
    assert after > 4 * before
    assert manager.get_checkpoint(name).data == {"long": LONG, "n": 1}
    last = store.position - 1
    own = {
        place.digest
        for commit in store.log.reader.commits()
        for place in commit.placements
        if commit.position_next == last + 1
    }
    assert store.blobs.digests(store.event_at(last).event.data) <= own


def test_a_witness_deleted_with_its_task(manager):
    name, (before, after) = gone_in_between(manager, lambda _: manager.delete_task("t"))
    assert after > 4 * before
    assert manager.get_checkpoint(name).data == {"long": LONG, "n": 1}


def test_a_witness_that_holds_something_else_by_now(manager):
    name, (before, after) = gone_in_between(
        manager,
        lambda witness: manager.update_checkpoint(witness, data={"short": 1}, replace_data=True),
    )
    assert after > 4 * before
    assert manager.get_checkpoint(name).data == {"long": LONG, "n": 1}


def test_a_witness_that_keeps_what_is_needed(manager):
    """A change of its state alone, or of its metadata, takes nothing away."""
    name, records = gone_in_between(manager, manager.complete_checkpoint)
    assert len(records) == 1
    assert manager.get_checkpoint(name).data == {"long": LONG, "n": 1}


def test_a_large_witness_that_goes(path):
    """The same with packs: the second preparation writes a pack of its own."""
    with CheckpointManager(path) as manager:
        text = noise(1)
        witness = manager.create_checkpoint("t", "T", 1, data={"text": text})
        with before_commit(manager.store, lambda: manager.delete_checkpoint(witness)):
            name = manager.create_checkpoint("t", "T", 2, data={"text": text, "n": 1})
        assert len(manager.store.event_at(2).event.packs) == 1
        assert len(packs(manager.store)) == 2
        os.unlink(path / "packs" / packs(manager.store)[0])
    with CheckpointManager(path) as manager:
        assert manager.get_checkpoint(name).data == {"text": text, "n": 1}


def test_a_damaged_witness_does_not_stop_new_work(path):
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1, data={"text": "findable" * 3})
        manager.create_checkpoint("t", "T", 2, data={"long": LONG})
        *_, entry = manager.store.events()
        assert entry.event.data.kind == "tree"
        place = manager.store.index.get(bytes.fromhex(entry.event.data.root))
    segment = path / place.container
    content = bytearray(segment.read_bytes())
    content[place.offset + place.length // 2] ^= 1
    segment.write_bytes(content)
    with CheckpointManager(path, config=CheckpointConfiguration(cache_size_mb=0)) as manager:
        name = manager.create_checkpoint("t", "T", 3, data={"long": LONG, "n": 1})
        assert manager.get_checkpoint(name).data == {"long": LONG, "n": 1}


# --- the index of chunks --------------------------------------------------------------------------


@pytest.fixture
def filled(path):
    """A store with shared chunks in the log and in a pack; returns what it must hold."""
    expected = {}
    with CheckpointManager(path) as manager:
        for step in range(1, 6):
            data = {"long": LONG[: 1400 + 20 * step]}
            expected[manager.create_checkpoint("t", "T", step, data=data)] = data
        for number in range(2):
            data = {"long": [noise(1), str(number)]}
            expected[manager.create_checkpoint("p", "P", 1, data=data)] = data
    return expected


def spoil_index(path, how):
    folder = path / "views" / "chunks"
    if how == "removed":
        shutil.rmtree(folder)
    elif how == "a file":
        shutil.rmtree(folder)
        folder.write_text("not a folder")
    else:
        runs = [run for run in folder.iterdir() if run.name != "lock"]
        assert runs
        for run in runs:
            content = bytearray(run.read_bytes())
            if how == "cut":
                content = content[: len(content) // 2]
            elif how == "empty":
                content = bytearray()
            else:
                for at in range(len(content) // 3, len(content), 97):
                    content[at] ^= 0xFF
            os.unlink(run)
            run.write_bytes(content)


@pytest.mark.parametrize("how", ["removed", "a file", "cut", "empty", "flipped"])
def test_an_index_that_was_spoilt_while_closed(path, filled, how):
    spoil_index(path, how)
    for _ in range(2):
        with CheckpointManager(path) as manager:
            for name, data in filled.items():
                assert manager.get_checkpoint(name).data == data
            found = manager.create_checkpoint("t", "T", 9, data={"long": LONG, "again": how})
            assert manager.get_checkpoint(found).data == {"long": LONG, "again": how}
            assert manager.validate_checkpoint_integrity() == []


@pytest.mark.parametrize("how", ["removed", "a file", "cut", "flipped"])
def test_an_index_that_is_spoilt_while_open(path, filled, how):
    with CheckpointManager(path, config=CheckpointConfiguration(cache_size_mb=0)) as manager:
        name = next(iter(filled))
        assert manager.get_checkpoint(name).data == filled[name]
        spoil_index(path, how)
        for name, data in filled.items():
            assert manager.get_checkpoint(name).data == data
        later = manager.create_checkpoint("t", "T", 9, data={"long": LONG})
        assert manager.get_checkpoint(later).data == {"long": LONG}
    with CheckpointManager(path) as manager:
        for name, data in [*filled.items(), (later, {"long": LONG})]:
            assert manager.get_checkpoint(name).data == data


def test_an_index_of_another_store(path, filled, tmp_path):
    with CheckpointManager(tmp_path / "other") as other:
        for number in range(30):
            other.create_checkpoint("t", "T", 1, data={"long": LONG[number * 20 :]})
    shutil.rmtree(path / "views" / "chunks")
    shutil.copytree(tmp_path / "other" / "views" / "chunks", path / "views" / "chunks")
    with CheckpointManager(path) as manager:
        for name, data in filled.items():
            assert manager.get_checkpoint(name).data == data


def test_an_index_of_an_older_state(path, tmp_path):
    with CheckpointManager(path) as manager:
        first = manager.create_checkpoint("t", "T", 1, data={"long": LONG[:1000]})
    shutil.copytree(path / "views", tmp_path / "old")
    with CheckpointManager(path) as manager:
        second = manager.create_checkpoint("t", "T", 2, data={"long": LONG})
    shutil.rmtree(path / "views")
    shutil.copytree(tmp_path / "old", path / "views")
    with CheckpointManager(path) as manager:
        assert manager.get_checkpoint(first).data == {"long": LONG[:1000]}
        assert manager.get_checkpoint(second).data == {"long": LONG}


# --- damage ---------------------------------------------------------------------------------------


def test_a_damaged_chunk_hides_nothing_but_itself(path):
    """Neither reading it nor opening the store again costs what lies behind it."""
    with CheckpointManager(path) as manager:
        names = [
            manager.create_checkpoint("t", "T", step, data={"long": LONG[: 1000 + 50 * step]})
            for step in range(1, 4)
        ]
        bad = manager.create_checkpoint("u", "U", 1, data={"text": "findable" * 3})
        names += [
            manager.create_checkpoint("t", "T", step, data={"long": LONG[: 1000 + 50 * step]})
            for step in range(4, 7)
        ]
    (segment,) = (path / "log").glob("*.seg")
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"findable" * 3, b"findable" * 2 + b"fiXdable"))
    for turn in range(2):
        with CheckpointManager(path) as manager:
            for _ in range(2):
                with pytest.raises(CheckpointCorruptionError, match="other checkpoints can still"):
                    manager.get_checkpoint(bad)
                for step, name in enumerate(names, 1):
                    assert manager.get_checkpoint(name).data == {"long": LONG[: 1000 + 50 * step]}
            assert len(manager.get_task_checkpoints("t")) == 6 + turn
            manager.store.rebuild_views()
            with pytest.raises(CheckpointCorruptionError):
                manager.get_checkpoint(bad)
            name = manager.create_checkpoint("t", "T", 7, data={"long": LONG})
            assert manager.get_checkpoint(name).data == {"long": LONG}
            assert manager.validate_checkpoint_integrity() != []
    with CheckpointManager(path) as manager:
        assert manager.delete_checkpoint(bad) is True
        assert len(manager.get_task_checkpoints("t")) == 8


def test_a_chunk_that_is_really_gone_is_looked_for_once(path, monkeypatch):
    """Each position's log is searched once, not once for each read."""
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"text": noise(1)})
    for pack in (path / "packs").iterdir():
        pack.unlink()
    with CheckpointManager(path) as manager:
        scans = []
        real = manager.store.log.reader.commits

        def commits(*args, **options):
            scans.append(args)
            return real(*args, **options)

        monkeypatch.setattr(manager.store.log.reader, "commits", commits)
        for _ in range(5):
            with pytest.raises(CheckpointStorageError):
                manager.get_checkpoint(name)
        assert len(scans) <= 3
