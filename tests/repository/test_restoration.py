"""A backup whose store has signed more since: going back is no damage, tampering is."""

from __future__ import annotations

import shutil

import pytest

from ckptlog.errors import BackupDamagedError, RolledBackError
from ckptlog.formats import backup as backup_format
from ckptlog.repository.backing import read_manifest
from ckptlog.repository.restoration import restore_store, verify_backup
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
    with pytest.raises(BackupDamagedError, match=r"head\.forked"):
        restore_store(folder, home.elsewhere / "r")


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
    with pytest.raises(BackupDamagedError, match=r"head\.rolled_back"):
        restore_store(folder, home.elsewhere / "r")
    with pytest.raises(BackupDamagedError, match=r"head\.rolled_back"):
        verify_backup(folder)
