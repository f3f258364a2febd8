"""What is left of a damaged backup: restored when that is asked for, and told as it is."""

from __future__ import annotations

import json
import random
import shutil

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.cli.main import main
from ckptlog.errors import BackupDamagedError
from ckptlog.repository.repair import repair
from ckptlog.repository.restoration import restore_store
from ckptlog.repository.verify import verify_directory


def data_of(step: int, size: int = 3000) -> dict[str, object]:
    return {"step": step, "noise": random.Random(step).randbytes(size)}


@pytest.fixture
def backup(tmp_path):
    """A backup of a store with six checkpoints in the log, the last one's data in a pack."""
    with CheckpointManager(tmp_path / "s") as manager:
        for step in range(1, 7):
            size = 3_000_000 if step == 6 else 3000
            manager.create_checkpoint(
                "t", "T", step, data=data_of(step, size), checkpoint_id=f"c{step}"
            )
        manager.store.notary.sign()
        manager.store.backup(tmp_path / "b", verify=True)
    return tmp_path / "b"


def damage(path, what):
    if what == "gone":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if what == "flip":
        data[len(data) // 2] ^= 0x11
    path.write_bytes(data if what == "flip" else data[: len(data) // 2])


def problems(root):
    found = verify_directory(root).problems
    return sorted((one.code, one.where, one.checkpoints) for one in found)


@pytest.mark.parametrize("what", ["flip", "cut", "gone"])
@pytest.mark.parametrize("which", ["log/*.seg", "packs/*.pack"])
def test_what_is_left_is_restored_and_told(backup, tmp_path, which, what):
    (path,) = backup.glob(which)
    damage(path, what)
    name = str(path.relative_to(backup))
    with pytest.raises(BackupDamagedError, match="--damaged"):
        restore_store(backup, tmp_path / "r")
    report = restore_store(backup, tmp_path / "r", allow_damaged=True)
    assert not report.ok
    assert [name in line for line in report.damaged] == [True]
    assert report.problems_total == len(report.problems) > 0
    told = sorted((one.code, one.where, one.checkpoints) for one in report.problems)
    assert told == problems(tmp_path / "r") == problems(backup), "nothing is made good"
    restored, left = tmp_path / "r" / name, b"" if what == "gone" else path.read_bytes()
    assert (restored.read_bytes() if restored.exists() else b"") == left
    if what == "flip":
        with CheckpointManager(tmp_path / "r") as manager:
            assert manager.get_checkpoint("c1").data == data_of(1)
    done = repair(tmp_path / "r", is_applied=True, copy=tmp_path / "s")
    assert not done.lost_chunks
    with CheckpointManager(tmp_path / "r") as manager:
        for step in range(1, 7):
            assert manager.get_checkpoint(f"c{step}").data["step"] == step
        assert manager.store.verify().ok


def test_a_whole_one_is_restored_as_ever(backup, tmp_path):
    report = restore_store(backup, tmp_path / "r", allow_damaged=True)
    assert report.ok
    assert (report.damaged, report.problems) == ((), ())


@pytest.mark.parametrize("which", ["store.json", "backup.json"])
def test_without_what_says_whose_it_is_it_is_refused(backup, tmp_path, which):
    damage(backup / which, "cut")
    with pytest.raises(BackupDamagedError):
        restore_store(backup, tmp_path / "r", allow_damaged=True)
    assert not (tmp_path / "r" / "store.json").exists()


def test_a_store_that_was_damaged_before_it_was_backed_up(backup, tmp_path):
    """Its manifest and hashes agree; the damage is of the store itself."""
    manifest = backup / "backup.json"
    from ckptlog.formats import backup as formats
    from ckptlog.repository.backing import read_manifest

    (pack,) = backup.glob("packs/*.pack")
    found = read_manifest(backup)
    name = f"packs/{pack.name}"
    rest = [file for file in found.files if file.name != name]
    pack.unlink()
    fields = {"created": found.created, "serial": found.serial, "store": found.store}
    forged = formats.Manifest(**fields, end=found.end, files=formats.in_order(rest))
    manifest.write_bytes(formats.encode(forged))
    with pytest.raises(BackupDamagedError, match="--damaged"):
        restore_store(backup, tmp_path / "r")
    shutil.rmtree(tmp_path / "r")
    report = restore_store(backup, tmp_path / "r", allow_damaged=True)
    assert report.damaged == ()
    assert [one.checkpoints for one in report.problems if one.checkpoints] == [("c6",)]


def test_the_command(backup, tmp_path, capsys):
    (path,) = backup.glob("log/*.seg")
    damage(path, "flip")
    assert main(["--json", "restore-store", str(backup), str(tmp_path / "r")]) == 5
    assert "--damaged" in json.loads(capsys.readouterr().err)["hint"]
    words = ["restore-store", str(backup), str(tmp_path / "r"), "--damaged"]
    assert main(["--json", *words]) == 1
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["ok"], len(document["damaged"])) == (False, 1)
    assert len(document["problems"]) == document["problems_total"]
    assert json.loads(told.err)["code"] == "cli.partial"
    with ckptlog.open(tmp_path / "r") as store:
        assert not store.verify().ok
    shutil.rmtree(tmp_path / "r")
    assert main(words) == 1
    told = capsys.readouterr()
    assert f"log/{path.name}" in told.out
    assert "verified" not in told.out
    assert "repair" in told.err
