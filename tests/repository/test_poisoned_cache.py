"""Repair beside a cache of leaf hashes that is wrong: nothing disposable outranks what is bound."""

from __future__ import annotations

import os
import shutil

import pytest

import ckptlog
from ckptlog.model.event import LOST
from ckptlog.repository.head_check import KeptHeads
from ckptlog.repository.notary import Notary
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from tests.repository.ground import Story, quiet
from tests.repository.ruin import build, fresh, leaves_of
from tests.repository.test_repair_later import EVENT, lost_of, smash
from tests.repository.test_settled_salvage import blocks_of, longest, spoil

LEAF = 32


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("poisoned") / "image"
    build(path)
    return path


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    path = tmp_path_factory.mktemp("poisoned") / "image"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptlog.log.settling._BLOCK_BYTES", 600)
        for steps in (60, 5):
            with ckptlog.CheckpointManager(path, actor="tester") as manager:
                manager.store.log._segment_bytes = 60_000
                story = Story(steps)
                story.delete_task = lambda _manager: None
                story.serial = 1000 * steps
                story.steps(manager, steps)
                quiet(manager)
    return path


@pytest.fixture(params=["written", "settled"])
def kind(request):
    return request.param


@pytest.fixture
def store(request, kind, tmp_path, monkeypatch):
    """A copy of an image, with its own memory of signed heads."""
    shutil.copytree(os.environ["CKPTLOG_KEYS"], tmp_path / "keys")
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr("ckptlog.log.settling._BLOCK_BYTES", 600)
    return fresh(request.getfixturevalue(kind), tmp_path / "store")


@pytest.fixture
def signed(store, tmp_path):
    """Sign a head; give the file in which a user keeps it, the leaf hashes, and a sound copy."""
    with ckptlog.CheckpointManager(store) as manager:
        Notary(manager.store).sign()
        leaves = leaves_of(manager.store)
    kept = tmp_path / "kept"
    shutil.copy(store / "heads/latest", kept)
    return kept, leaves, fresh(store, tmp_path / "copy")


def damage(store, kind):
    """Spoil events; return which."""
    if kind == "written":
        smash(store, kind=EVENT, every=3)
    else:
        path = longest(store)
        spoil(path, *blocks_of(path, store)[1])
    return [p for first, last in repair(store).lost_positions for p in range(first, last + 1)]


def poison(store, positions, how):
    with (store / "views/tree/leaves").open("r+b") as file:
        for position in positions if how == "zeros" else positions[:1]:
            file.seek(position * LEAF)
            leaf = file.read(LEAF)
            file.seek(position * LEAF)
            file.write(bytes(LEAF) if how == "zeros" else bytes([leaf[0] ^ 1]) + leaf[1:])


def leaves_now(store):
    with ckptlog.open(store, read_only=True) as opened:
        return leaves_of(opened)


def check_whole(store, kept, leaves):
    assert verify_directory(store, kept=KeptHeads((kept,))).problems == ()
    assert leaves_now(store)[: len(leaves)] == leaves
    with ckptlog.open(store, read_only=True) as opened:
        assert lost_of(opened) == []


@pytest.mark.parametrize("how", ["zeros", "bit"])
def test_a_copy_outranks_the_cache(store, signed, kind, how):
    kept, leaves, copy = signed
    poison(store, damage(store, kind), how)
    done = repair(store, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions) == (True, ())
    check_whole(store, kept, leaves)


@pytest.mark.parametrize("how", ["zeros", "bit"])
def test_a_false_leaf_goes_into_no_tombstone_and_a_later_copy_brings_all_back(
    store, signed, kind, how
):
    kept, leaves, copy = signed
    lost = damage(store, kind)
    poison(store, lost, how)
    first = repair(store, is_applied=True)
    assert first.lost_positions
    assert first.problems_after_total == 0
    with ckptlog.open(store, read_only=True) as opened:
        for position in lost:
            event = opened.event_at(position).event
            assert event.type == LOST
            # What the next header, or the end, names is known without the cache.
            assert not event.facts or leaves_of(opened)[position] == leaves[position]
    (problem,) = verify_directory(store, kept=KeptHeads((kept,))).problems
    assert problem.code == "head.incomparable"
    done = repair(store, is_applied=True, copy=copy)
    assert done.positions_back == first.lost_positions
    check_whole(store, kept, leaves)
    assert repair(store, copy=copy).is_empty


def test_what_a_head_proves_is_believed(store, signed, kind):
    """The cache is right: every tombstone has the leaf hash, and every head holds."""
    kept, leaves, _copy = signed
    assert damage(store, kind)
    assert repair(store, is_applied=True).ok
    assert verify_directory(store, kept=KeptHeads((kept,))).problems == ()
    assert leaves_now(store)[: len(leaves)] == leaves


def test_a_head_that_was_signed_since_keeps_its_tombstones(store, signed, kind):
    _kept, _leaves, copy = signed
    poison(store, damage(store, kind), "bit")
    repair(store, is_applied=True)
    with ckptlog.CheckpointManager(store, actor="tester") as manager:
        notary = Notary(manager.store)
        notary.fork(actor="tester")
        notary.sign()
        leaves = leaves_of(manager.store)
    newest = store.with_name("newest")
    shutil.copy(store / "heads/latest", newest)
    before = verify_directory(store, kept=KeptHeads((newest,))).problems
    repair(store, is_applied=True, copy=copy)
    assert leaves_now(store)[: len(leaves)] == leaves
    assert verify_directory(store, kept=KeptHeads((newest,))).problems == before == ()


@pytest.mark.parametrize("seal", ["of another boot", "gone"])
def test_what_no_sync_covers_is_not_believed_after_a_reboot(store, kind, seal):
    """No head covers it; its leaves look well, and may be zeros as far as anybody knows."""
    path = store / "views/tree/seal"
    lost = damage(store, kind)
    if seal == "gone":
        path.unlink()
    else:
        from xxhash import xxh3_64_intdigest

        data = b"another boot...." + (3).to_bytes(8, "little")
        path.write_bytes(data + xxh3_64_intdigest(data).to_bytes(8, "little"))
    repair(store, is_applied=True)
    with ckptlog.open(store, read_only=True) as opened:
        known = [p for p in lost if opened.event_at(p).event.facts]
    segments = {int(path.name[:20]) for path in store.glob("log/*.s?[gt]")}
    assert {p for p in known if p >= 3} <= {first - 1 for first in segments} | {lost[-1]}


def test_without_heads_a_copy_outranks_the_cache_too(store, kind, tmp_path):
    copy = fresh(store, tmp_path / "copy")
    leaves = leaves_now(store)
    poison(store, damage(store, kind), "bit")
    done = repair(store, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions) == (True, ())
    assert leaves_now(store)[: len(leaves)] == leaves


def test_heads_of_a_branch_that_was_given_up_ask_for_nothing(store, kind, tmp_path):
    """The store was set back to a backup and forked; a head of what followed then is kept still."""
    with ckptlog.CheckpointManager(store, actor="tester") as manager:
        Notary(manager.store).sign()
    backup = fresh(store, tmp_path / "backup")
    with ckptlog.CheckpointManager(store, actor="tester") as manager:
        manager.create_checkpoint("t", "T", 1, data={"n": 1})
        for step in range(2, 90):
            manager.create_checkpoint("t", "T", step)
        Notary(manager.store).sign()
    fresh(backup, store)
    with ckptlog.CheckpointManager(store, actor="tester") as manager:
        Notary(manager.store).fork(actor="tester")
        first = manager.store.position
        for step in range(1, 9):
            manager.create_checkpoint("other", "O", step)
    copy, leaves = fresh(store, tmp_path / "copy"), leaves_now(store)
    path = max((store / "log").glob("*.seg"))
    with ckptlog.open(store, read_only=True) as opened:
        lost = opened.event_at(first + 2)
    with path.open("r+b") as file:
        file.seek(lost.offset + 4)
        file.write(bytes(56))
    assert repair(store, is_applied=True).lost_positions == ((first + 2, first + 2),)
    assert leaves_now(store)[: len(leaves)] == leaves
    assert repair(store, is_applied=True, copy=copy).positions_back
    assert leaves_now(store)[: len(leaves)] == leaves
