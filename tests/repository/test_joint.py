"""Compaction beside everything else that reads a store: none of it may notice, or it says so.

Verification, backup, archives, signed heads, retention and the history in Parquet, each after one
and after two compactions of a store with deletions, replaced states, differences and packs.
"""

from __future__ import annotations

import shutil
import tarfile
import threading
from pathlib import Path

import pytest

import ckptlog
from ckptlog.errors import UnsupportedError
from ckptlog.formats import merkle
from ckptlog.manager.importer import import_archive
from ckptlog.model.event import LOST
from ckptlog.repository.archive import export_archive
from ckptlog.repository.backing import read_manifest
from ckptlog.repository.depth import Depth
from ckptlog.repository.publication import Publication
from ckptlog.repository.repair import repair
from ckptlog.repository.restoration import restore_store
from ckptlog.repository.verify import verify_directory
from tests.repository.ground import TEXTS, Story, check_files, quiet
from tests.repository.ruin import leaves_of

LEVELS = ("structure", "existence", "sampled", "full")
STORES = Path(__file__).parents[1] / "vectors" / "stores"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Some chunks in packs, some beside their events; keys of their own for each test."""
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 6_000)


def opened(path, **options):
    config = ckptlog.CheckpointConfiguration(storage_dir=str(path), **options)
    manager = ckptlog.CheckpointManager(config=config, actor="tester")
    manager.store.log._segment_bytes = 20_000
    return manager


def grown(path, times=1, *, drops=False, seed=11, raw=False, steps=50):
    """Use a store and compact it, so often; return the story.

    Args:
        raw: Put the written segments back, as if the last compaction had been killed before it
            removed them.
    """
    story = Story(seed)
    with opened(path) as manager:
        for _ in range(times):
            story.steps(manager, steps)
            manager.store.log.seal(1)
            put_aside(path)
            quiet(manager, drop_superseded=drops)
        story.steps(manager, 3)
    if raw:
        put_back(path)
    return story


def put_aside(path):
    """Keep the written segments as they are just before a compaction."""
    shutil.rmtree(path.parent / "before", ignore_errors=True)
    shutil.copytree(path / "log", path.parent / "before")


def put_back(path):
    """Leave the store as if the compaction had been killed before it removed the segments."""
    for file in (path.parent / "before").glob("*.seg"):
        if (path / "log" / file.name).with_suffix(".set").exists():
            shutil.copy(file, path / "log" / file.name)


def clean(report):
    assert report.problems == (), report.problems
    assert report.ok


# --- verification -----------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True], ids=["gone", "there"])
@pytest.mark.parametrize("drops", [False, True], ids=["kept", "dropped"])
@pytest.mark.parametrize("times", [1, 2])
def test_every_level_is_clean(path, times, drops, raw):
    story = grown(path, times, drops=drops, raw=raw)
    assert list(path.glob("log/*.set"))
    assert list(path.glob("packs/*.pack"))
    with opened(path) as manager:
        for level in LEVELS:
            clean(manager.store.verify(level))
        story.check(manager)
    for level in LEVELS:
        clean(verify_directory(path, level))
    shutil.rmtree(path / "views")
    with opened(path) as manager:
        clean(manager.store.verify())
        story.check(manager)
        story.check_past(manager, drops=drops)
        if raw:
            quiet(manager, drop_superseded=drops)
            check_files(path, drops=drops)
            clean(manager.store.verify())


@pytest.mark.parametrize("level", ["structure", "full"])
def test_each_flipped_bit_of_a_settled_segment_is_found(path, level):
    grown(path)
    file = max(path.glob("log/*.set"), key=lambda one: one.stat().st_size)
    whole = file.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        file.write_bytes(data)
        report = verify_directory(path, level)
        assert report.problems, at
        assert not report.ok
    file.write_bytes(whole)
    clean(verify_directory(path, level))


def test_each_flipped_bit_of_a_pack_of_a_compaction_is_found(path):
    grown(path, 2)
    with ckptlog.open(path, read_only=True) as store:
        packs = [pack for one in store.events() if one.event.removes for pack in one.event.packs]
    names = {f"{pack.base:020d}-{pack.id}.pack" for pack in packs}
    (file, *_) = [one for one in path.glob("packs/*.pack") if one.name in names]
    whole = file.read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        file.write_bytes(data)
        assert verify_directory(path).problems, at
    file.unlink()
    for level in LEVELS:
        assert verify_directory(path, level).problems, level


def test_verification_beside_a_compaction_tells_of_nothing(path):
    """Again and again, while another thread writes and moves chunks."""
    story, faults, done = grown(path, steps=30), [], threading.Event()

    def collect():
        try:
            with opened(path) as other:
                for _ in range(6):
                    story.steps(other, 8)
                    quiet(other)
        except BaseException as error:
            faults.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=collect)
    with opened(path) as manager:
        thread.start()
        reports = []
        while not done.is_set() or len(reports) < 4:
            reports.append(manager.store.verify(LEVELS[len(reports) % 4]))
            reports.append(verify_directory(path, LEVELS[len(reports) % 4]))
        thread.join()
        assert not faults, faults
        for report in reports:
            clean(report)
        clean(manager.store.verify())


def test_a_run_is_gone_on_with_after_a_compaction(path):
    story = grown(path)
    with opened(path) as manager:
        story.steps(manager, 20)
        seen = []

        def stop(done, total):
            seen.append((done, total))
            if done > total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            manager.store.verify("full", stop)
        quiet(manager)
        report = manager.store.verify(Depth("full", is_resuming=True))
        clean(report)
        with pytest.raises(KeyboardInterrupt):
            manager.store.verify("full", stop)
        (pack, *_) = sorted(path.glob("packs/*.pack"))
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
        assert manager.store.verify(Depth("full", is_resuming=True)).problems


# --- backup -----------------------------------------------------------------------------------


def states(path):
    with ckptlog.CheckpointManager(path) as manager:
        leaves = leaves_of(manager.store)
        return {one.checkpoint_id: one.to_dict() for one in manager.iterate()}, leaves


@pytest.mark.parametrize("drops", [False, True], ids=["kept", "dropped"])
def test_a_backup_follows_across_compactions(path, tmp_path, drops):
    story, backup = Story(21), tmp_path / "backup"
    with opened(path) as manager:
        for number in range(4):
            story.steps(manager, 30)
            if number:
                quiet(manager, drop_superseded=drops)
                story.steps(manager, 3)
            report = manager.store.backup(backup, verify=True)
            assert report.position == manager.store.position
            again = manager.store.backup(backup)
            assert (again.bytes_copied, again.files_removed) == (0, 0)
            restored = tmp_path / f"restored {number}"
            restore_store(backup, restored)
            assert states(restored) == states(path)
            with ckptlog.open(backup, read_only=True) as copy:
                assert leaves_of(copy) == leaves_of(manager.store)
            if number:
                names = {file.name for file in read_manifest(backup).files}
                assert any(name.endswith(".set") for name in names)
                there = {str(one.relative_to(path)) for one in path.glob("log/*.set")}
                assert there <= names
                written = {one.replace(".set", ".seg") for one in there}
                assert not written & names
                assert not [one for one in written if (backup / one).exists()]
    with opened(restored) as manager:
        story.check(manager)
        quiet(manager, drop_superseded=drops)
        clean(manager.store.verify())


def test_a_backup_beside_a_compaction(path, tmp_path):
    story, faults, done = grown(path, steps=30), [], threading.Event()

    def collect():
        try:
            with opened(path) as other:
                for _ in range(6):
                    story.steps(other, 8)
                    quiet(other)
        except BaseException as error:
            faults.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=collect)
    with opened(path) as manager:
        thread.start()
        count = 0
        while not done.is_set() or count < 3:
            manager.store.backup(tmp_path / "backup", verify=True)
            shutil.rmtree(tmp_path / "restored", ignore_errors=True)
            restore_store(tmp_path / "backup", tmp_path / "restored")
            count += 1
        thread.join()
        assert not faults, faults
        manager.store.backup(tmp_path / "backup", verify=True)
    restore_store(tmp_path / "backup", tmp_path / "last")
    assert states(tmp_path / "last") == states(path)


# --- archives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("drops", [False, True], ids=["kept", "dropped"])
def test_an_archive_brings_what_is_left(path, tmp_path, times, drops):
    story, file = grown(path, times, drops=drops), tmp_path / "tasks.ckpt"
    with opened(path) as manager:
        tasks = sorted({story.task[name] for name in story.living})
        report = export_archive(manager.store, tasks, file)
        assert bool(report.lacks) == drops
    with opened(tmp_path / "other") as other:
        import_archive(other.store, file)
        assert {one.checkpoint_id: one.data for one in other.iterate()} == story.living
        clean(other.store.verify())
        quiet(other)
        count = other.store.position
        import_archive(other.store, file)
        assert other.store.position == count
        assert {one.checkpoint_id: one.data for one in other.iterate()} == story.living


# --- proofs -----------------------------------------------------------------------------------


def paths(notary, head):
    """Return the proofs of some events in the tree of an earlier head, made from the log."""
    perfect = notary.tree.grown(head, head.size).perfect
    return [merkle.inclusion_proof(perfect, at, head.size) for at in range(0, head.size, 7)]


def test_heads_and_proofs_stay_the_same(path, tmp_path):
    story = Story(31)
    with opened(path) as manager:
        story.steps(manager, 60)
        notary = manager.store.notary
        old = notary.sign()
        size = old.head.size
        proofs, events = paths(notary, old.head), [notary.prove(at) for at in range(0, size, 7)]
        Publication(notary, tmp_path / "tiles").publish(old)
    tiles = {one: one.read_bytes() for one in (tmp_path / "tiles").rglob("*") if one.is_file()}
    for _ in range(2):
        with opened(path) as manager:
            quiet(manager)
            clean(manager.store.verify())
        shutil.rmtree(path / "views")
        with opened(path) as manager:
            notary = manager.store.notary
            assert paths(notary, old.head) == proofs
            if notary.latest() == old:
                assert [notary.prove(at) for at in range(0, size, 7)] == events
            new = notary.sign()
            assert new.head.size > size
            notary.prove_consistency(size)
            Publication(notary, tmp_path / "tiles").publish(new)
            clean(manager.store.verify())
            story.steps(manager, 10)
    now = {one: one.read_bytes() for one in (tmp_path / "tiles").rglob("*") if one.is_file()}
    for file, data in tiles.items():
        if file.name != "checkpoint" and ".p" not in str(file):
            assert now[file] == data


# --- retention --------------------------------------------------------------------------------


def test_a_cleanup_and_a_compaction_give_the_room_back(path):
    with opened(path) as manager:
        story = Story(41)
        for _ in range(60):
            name = story.create(manager, story.data() | {"pad": story.serial})
            manager.complete_checkpoint(name)
        before = sum(one.stat().st_size for one in path.glob("*/*") if one.parent.name != "views")
        manager.cleanup_old_checkpoints(max_age_days=0)
        left = {one.checkpoint_id: one.data for one in manager.iterate()}
        assert len(left) < 60
        quiet(manager)
        after = sum(one.stat().st_size for one in path.glob("*/*") if one.parent.name != "views")
        assert after < before
        assert {one.checkpoint_id: one.data for one in manager.iterate()} == left
        clean(manager.store.verify())


# --- the history in Parquet -------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True], ids=["gone", "there"])
def test_the_history_made_anew_is_the_same(path, raw):
    story = Story(51)
    with opened(path) as manager:
        story.steps(manager, 80)
        manager.store.log.seal(1)
        before = manager.store.history().to_table().to_pylist()
        put_aside(path)
        quiet(manager)
        shutil.rmtree(path / "views" / "history")
    for _ in range(2):
        if raw:
            put_back(path)
        shutil.rmtree(path / "views")
        with opened(path) as manager:
            after = manager.store.history().to_table().to_pylist()
            assert after[: len(before)] == before
            story.steps(manager, 5)
            before = manager.store.history().to_table().to_pylist()
            manager.store.log.seal(1)
            put_aside(path)
            quiet(manager)


# --- old stores -------------------------------------------------------------------------------


def extracted(name, folder):
    with tarfile.open(STORES / name) as archive:
        archive.extractall(folder, filter="data")
    return next(one.parent for one in folder.rglob("store.json"))


@pytest.mark.parametrize("name", sorted(one.name for one in STORES.glob("*.tar.gz")))
def test_an_old_store_is_compacted_once_that_is_agreed(tmp_path, name):
    path = extracted(name, tmp_path)
    before = states(path)
    events = {one.relative_to(path): one.read_bytes() for one in path.glob("log/*.seg")}
    with ckptlog.CheckpointManager(path) as manager:
        with pytest.raises(UnsupportedError, match="upgrade"):
            quiet(manager)
        assert {one.relative_to(path): one.read_bytes() for one in path.glob("log/*.seg")} == events
        count = manager.store.position
        quiet(manager, upgrade=True)
        clean(manager.store.verify())
        manager.store.notary.sign()
    shutil.rmtree(path / "views")
    after = states(path)
    assert after[0] == before[0]
    assert after[1][:count] == before[1]
    assert list(path.glob("log/*.set"))
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("more", "M", 1, data={"x": 1})
        quiet(manager)
        clean(manager.store.verify())
    clean(verify_directory(path))


@pytest.mark.parametrize("name", sorted(one.name for one in STORES.glob("*.tar.gz")))
def test_an_old_store_is_repaired_in_its_own_schema(tmp_path, name):
    path = extracted(name, tmp_path)
    before, info = states(path), (path / "store.json").read_bytes()
    with ckptlog.open(path, read_only=True) as store:
        entries = list(store.events())
        schema = entries[0].event.schema
    hit = entries[3]
    with (path / hit.container).open("r+b") as file:
        file.seek(hit.offset + 16)
        file.write(bytes(hit.length - 16))
    done = repair(path, is_applied=True)
    assert done.lost_positions == ((3, 3),)
    with ckptlog.open(path) as store:
        lost = next(one.event for one in store.events() if one.event.type == LOST)
        assert lost.schema == schema
        assert leaves_of(store)[: len(entries)] == before[1]
        clean(store.verify())
    assert (path / "store.json").read_bytes() == info


# --- what a compaction relies on --------------------------------------------------------------


def test_a_written_segment_stays_until_its_settled_form_is_sound(path):
    story = grown(path, raw=True)
    file = max(path.glob("log/*.set"), key=lambda one: one.stat().st_size)
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    assert file.with_suffix(".seg").exists()
    with opened(path) as manager:
        quiet(manager)
        assert not file.with_suffix(".seg").exists()
        clean(manager.store.verify())
        story.check(manager)


def test_a_state_that_a_compaction_kept_is_missed(path):
    """It was the newest at the fence, was replaced later, and no compaction let go of it."""
    with opened(path) as manager:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="a", data={"x": TEXTS[0] * 50})
        manager.update_checkpoint("a", data={"x": TEXTS[1] * 50})
        quiet(manager, drop_superseded=True)
        manager.update_checkpoint("a", data={"x": TEXTS[2] * 50})
        clean(manager.store.verify())
        for file in path.glob("packs/*.pack"):
            file.unlink()
        found = [one.position for one in manager.store.verify().problems]
    assert 1 in found
    assert 0 not in found
