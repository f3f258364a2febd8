"""A backup whose store has signed more since: going back is no damage, tampering is."""

from __future__ import annotations

import shutil

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import BackupDamagedError, BackupDivergedError, RolledBackError
from ckptlog.formats import backup as backup_format
from ckptlog.repository.backing import read_manifest
from ckptlog.repository.keyring import VARIABLE
from ckptlog.repository.restoration import restore_store, verify_backup
from ckptlog.repository.verify import verify_directory
from tests.repository.attested import codes, house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    made.sign()
    return made


def backed_up(home):
    folder = home.elsewhere / "b"
    with home.open() as store:
        store.backup(folder, verify=True)
    return folder


def restored(home, folder):
    report = restore_store(folder, home.elsewhere / "r")
    shutil.rmtree(home.path)
    shutil.move(home.elsewhere / "r", home.path)
    return report


@pytest.mark.parametrize("level", ["structure", "full"])
def test_heads_that_were_signed_since_are_told_and_refuse_nothing(home, level):
    folder = backed_up(home)
    home.write(5)
    home.sign()
    assert verify_backup(folder, level=level).ok
    report = restored(home, folder)
    assert any("Heads of 15 events were signed since" in note for note in report.notes)
    assert "audit fork" in " ".join(report.notes)
    assert codes(home.verify()) == ["head.rolled_back"]
    with home.open() as store:
        with pytest.raises(RolledBackError):
            store.notary.sign()
        store.notary.fork()
    assert home.verify().ok


def test_an_origin_that_was_given_up_since_refuses_nothing(home):
    folder = backed_up(home)
    with home.open() as store:
        former = store.notary.key.name
        store.notary.fork()
    report = restored(home, folder)
    assert f"The origin {former} was given up since." in report.notes


def test_an_origin_that_the_key_apart_never_had_is_refused(home):
    folder = backed_up(home)
    with home.open() as store:
        store.notary.fork()
    shutil.rmtree(home.keys / "former")
    with pytest.raises(BackupDivergedError, match=r"head\.forked"):
        restore_store(folder, home.elsewhere / "r")


def write(root, task, count):
    with CheckpointManager(root) as manager:
        for step in range(1, count + 1):
            manager.create_checkpoint(task, "T", step, data={"task": task, "step": step})


def two_branches(home):
    """The store, signed on; and a copy from before that was written on by itself."""
    shutil.copytree(home.path, home.elsewhere / "twin")
    write(home.path, "left", 3)
    home.sign()
    write(home.elsewhere / "twin", "right", 5)
    return home.elsewhere / "twin"


def tree_of(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_backup_of_the_other_branch_is_no_damaged_one(home, monkeypatch):
    twin = two_branches(home)
    with ckptlog.open(twin) as store:
        store.backup(home.elsewhere / "b")
    keys, left = tree_of(home.keys), tree_of(home.path)
    target = home.elsewhere / "r"
    with pytest.raises(BackupDivergedError, match=r"head\.other_branch.*part somewhere"):
        restore_store(home.elsewhere / "b", target)
    with pytest.raises(BackupDivergedError):
        verify_backup(home.elsewhere / "b")
    shutil.rmtree(target)
    report = restore_store(home.elsewhere / "b", target, allow_branch=True)
    assert report.ok
    assert "audit fork" in report.notes[0]
    assert codes(verify_directory(target)) == ["head.rewritten"], (
        "it is no less visible than before"
    )
    assert (tree_of(home.keys), tree_of(home.path)) == (keys, left), (
        "nothing of the other is touched"
    )
    assert home.verify().ok
    monkeypatch.setenv(VARIABLE, str(home.elsewhere / "own keys"))
    with CheckpointManager(target) as manager:
        assert len(manager.get_task_checkpoints("right")) == 5
        assert manager.get_task_checkpoints("left") == []
        manager.store.notary.fork()
        assert manager.store.verify().ok
    with CheckpointManager(home.path) as manager:
        assert len(manager.get_task_checkpoints("left")) == 3


def test_a_branch_that_was_forked_elsewhere(home, monkeypatch):
    twin = two_branches(home)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(VARIABLE, str(home.elsewhere / "their keys"))
        with ckptlog.open(twin) as store:
            store.notary.fork()
            store.backup(home.elsewhere / "b", verify=True)
    with pytest.raises(BackupDivergedError, match=r"head\.forked"):
        restore_store(home.elsewhere / "b", home.elsewhere / "r")
    shutil.rmtree(home.elsewhere / "r")
    report = restore_store(home.elsewhere / "b", home.elsewhere / "r", allow_branch=True)
    assert report.ok
    assert "head.forked" in codes(verify_directory(home.elsewhere / "r"))


def test_a_backup_whose_own_heads_say_more_is_refused(home):
    """Its log was cut, and its manifest made anew: its head is the one that was signed last."""
    folder = backed_up(home)
    home.write(5)
    home.sign()
    later = home.elsewhere / "later"
    with home.open() as store:
        store.backup(later)
    old, new = read_manifest(folder), read_manifest(later)
    heads = [file for file in new.files if file.name.startswith("heads/")]
    others = [file for file in old.files if not file.name.startswith("heads/")]
    shutil.rmtree(folder / "heads")
    shutil.copytree(later / "heads", folder / "heads")
    fields = {"files": backup_format.in_order([*heads, *others]), "end": old.end}
    forged = backup_format.Manifest(
        created=old.created, serial=old.serial, store=old.store, **fields
    )
    (folder / backup_format.NAME).write_bytes(backup_format.encode(forged))
    for allowed in (False, True):
        with pytest.raises(BackupDamagedError, match=r"head\.rolled_back"):
            restore_store(folder, home.elsewhere / "r", allow_branch=allowed)
    with pytest.raises(BackupDamagedError, match=r"head\.rolled_back"):
        verify_backup(folder)
