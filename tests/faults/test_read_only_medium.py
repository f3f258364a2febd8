"""A store on a medium that nobody can write: a tmpfs that is mounted again for reading only.

Whatever only reads works, with views in memory; whatever writes is refused by name, and nothing hangs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.cli.main import main
from ckptlog.errors import CheckpointError, ReadOnlyError
from ckptlog.repository.compaction import CollectOptions
from ckptlog.repository.restoration import restore_store, verify_backup

pytestmark = pytest.mark.root


def mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


@pytest.fixture
def medium(tmp_path):
    """Return a folder on a medium of its own, and a function that makes it read-only."""
    folder = tmp_path / "medium"
    folder.mkdir()
    if not mount("-t", "tmpfs", "tmpfs", str(folder)):
        pytest.skip("this machine does not let us mount a tmpfs")

    def close() -> None:
        assert mount("-o", "remount,ro", str(folder))

    yield folder, close
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def fill(root) -> list[str]:
    with CheckpointManager(root) as manager:
        names = [
            manager.create_checkpoint("t", "T", step, data={"n": step, "x": "y" * 2000})
            for step in range(1, 9)
        ]
        manager.complete_checkpoint(names[2])
        with manager.store.watch("mine") as subscription:
            for event, _ in zip(subscription, range(3), strict=False):
                subscription.ack(event)
    return names


def test_all_that_reads_works(medium, tmp_path):
    folder, close = medium
    names = fill(folder / "s")
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    close()
    with pytest.raises(ReadOnlyError, match="mounted read-only"):
        ckptlog.open(folder / "s")
    with pytest.raises(ReadOnlyError):
        CheckpointManager(folder / "s")
    with ckptlog.open(folder / "s", read_only=True) as store:
        manager = CheckpointManager(store=store)
        assert manager.get_checkpoint(names[0]).data["n"] == 1
        assert len(manager.get_task_checkpoints("t")) == 8
        assert manager.get_recovery_point("t").checkpoint_id == names[-1]
        assert store.view().kind == "memory"
        assert store.history().count_rows() == 9
        assert store.verify().ok
        assert store.stats()["events"] == 9
        assert not [one for one in store.doctor() if one.level == "error"]
        assert [one.name for one in store.consumers()] == ["mine"]
        with store.watch() as subscription:
            subscription.close()
        with pytest.raises(ReadOnlyError):
            store.watch("mine")
        with pytest.raises(ReadOnlyError):
            manager.create_checkpoint("t", "T", 9)
        with pytest.raises(ReadOnlyError):
            store.reset_consumer("mine")
        store.backup(tmp_path / "b", verify=True)
        store.export_archive(["t"], tmp_path / "a.ckpt")
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["list"], ["log"], ["stats"], ["verify"], ["audit"], ["consumers"], ["replay", "--until", "3"],
        ["watch", "--once"], ["export", "history", "OUT"], ["export", "archive", "t", "--to", "OUT"],
        ["backup", "OUT"], ["compact", "--dry-run"], ["cleanup", "--dry-run"], ["audit", "head"],
        ["cleanup", "--keep-last", "2", "--dry-run"], ["audit", "head", "--latest"], ["audit", "prove", "2"],
        ["audit", "prove-consistency", "2"], ["audit", "publish", "OUT"], ["tasks"], ["repair"],
        ["init"],
    ],
)  # fmt: skip
def test_commands_that_read(medium, tmp_path, capsys, words):
    folder, close = medium
    fill(folder / "s")
    with ckptlog.open(folder / "s") as store:
        store.notary.sign()
    close()
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    assert main(["--store", str(folder / "s"), "--json", *words]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["delete-task", "t"], ["cleanup"], ["compact"], ["replay"], ["files"], ["restore", "x"],
        ["consumers", "reset", "mine", "--start", "end"], ["consumers", "remove", "mine"],
        ["watch", "--consumer", "mine", "--once"], ["import", "archive", "ARCHIVE"],
    ],
)  # fmt: skip
def test_commands_that_write_say_why_not(medium, tmp_path, capsys, words):
    folder, close = medium
    fill(folder / "s")
    with ckptlog.open(folder / "s") as store:
        store.export_archive(["t"], tmp_path / "a.ckpt")
    close()
    words = [str(tmp_path / "a.ckpt") if word == "ARCHIVE" else word for word in words]
    assert main(["--store", str(folder / "s"), "--json", *words]) == 6
    said = json.loads(capsys.readouterr().err)
    assert said["code"] == "store.read_only"
    assert str(folder / "s") in said["message"]
    assert "mounted read-only" in said["message"] or words[0] == "watch"


@pytest.mark.parametrize("words", [["--list"], ["--dry-run"], ["--diff"], ["--out", "OUT"]])
def test_what_a_rewind_would_do(medium, tmp_path, capsys, words):
    """Also where the views are gone, and nothing can be made in their place."""
    folder, close = medium
    work, store = tmp_path / "work", str(folder / "s")
    work.mkdir()
    (work / "notes").write_text("first")
    ckptlog.open(folder / "s", create=True).close()
    assert main(["--store", store, "capture", str(work)]) == 0
    (work / "notes").write_text("spoiled")
    shutil.rmtree(folder / "s" / "views")
    close()
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    assert main(["--store", store, "rewind", str(work), *words]) == 0
    assert main(["--store", store, "rewind", str(work), "--yes"]) == 6
    assert "backup BACKUP" in capsys.readouterr().err, "it says how to go on"
    assert (work / "notes").read_text() == "spoiled"


def test_a_dry_run_tells_what_a_collection_gives_back(medium, tmp_path):
    folder, close = medium
    with CheckpointManager(folder / "s") as manager:
        for step in range(1, 9):
            manager.create_checkpoint(
                "t", "T", step, data={"x": random.Random(step).randbytes(9000)}
            )
        manager.delete_task("t")
    shutil.copytree(folder / "s", tmp_path / "s")
    close()
    with ckptlog.open(folder / "s", read_only=True) as store:
        found = store.compact(CollectOptions(dry_run=True))
        with pytest.raises(ReadOnlyError):
            store.compact()
    with ckptlog.open(tmp_path / "s") as store:
        assert store.compact(CollectOptions(dry_run=True)).bytes_dropped == found.bytes_dropped
    assert found.bytes_dropped > 8 * 9000


def test_langgraph_reads(medium):
    pytest.importorskip("langgraph.checkpoint.base")
    from ckptlog.integrations.langgraph import CkptlogSaver

    folder, close = medium
    config = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
    checkpoint = {
        "v": 1, "id": "1ef", "ts": "2026", "channel_values": {"a": [1]}, "channel_versions": {"a": 1},
        "versions_seen": {}, "pending_sends": [],
    }  # fmt: skip
    with ckptlog.open(folder / "s", create=True) as store:
        CkptlogSaver(store).put(config, checkpoint, {"step": 1}, {"a": 1})
    close()
    with ckptlog.open(folder / "s", read_only=True) as store:
        saver = CkptlogSaver(store)
        assert saver.get_tuple(config).checkpoint["channel_values"] == {"a": [1]}
        assert len(list(saver.list(config))) == 1
        with pytest.raises(ReadOnlyError):
            saver.put(config, {**checkpoint, "id": "1f0"}, {"step": 2}, {})


def test_a_backup_on_such_a_medium_is_read_and_restored(medium, tmp_path):
    folder, close = medium
    fill(tmp_path / "s")
    with ckptlog.open(tmp_path / "s") as store:
        store.backup(folder / "b")
    close()
    verify_backup(folder / "b")
    with ckptlog.open(folder / "b", read_only=True) as store:
        assert store.position == 9
    assert restore_store(folder / "b", tmp_path / "r").position == 9
    with ckptlog.open(tmp_path / "s") as store, pytest.raises(CheckpointError) as caught:
        store.backup(folder / "b")
    assert caught.value.code == "store.read_only"


KILLED = """
import os, sys
from ckptlog import CheckpointManager
from ckptlog.log.published import PublishedEnd
manager = CheckpointManager(sys.argv[1])
manager.create_checkpoint("t", "T", 1, data={"n": 1})
PublishedEnd.publish = lambda self, end: os.kill(os.getpid(), 9)
manager.create_checkpoint("t", "T", 2, data={"n": 2})
"""


def test_what_a_killed_writer_left_beyond_the_end_is_not_shown(medium):
    folder, close = medium
    process = subprocess.run([sys.executable, "-c", KILLED, str(folder / "s")])
    assert process.returncode == -signal.SIGKILL
    close()
    with ckptlog.open(folder / "s", read_only=True) as store:
        assert store.position == 1
        findings = [one.code for one in store.doctor()]
        assert "doctor.tail" in findings
        assert store.verify().ok


def test_a_bind_mount_for_reading(tmp_path, capsys):
    """The files could be written elsewhere; through this mount they cannot."""
    fill(tmp_path / "s")
    (tmp_path / "m").mkdir()
    if not mount("--bind", str(tmp_path / "s"), str(tmp_path / "m")):
        pytest.skip("this machine does not let us bind a mount")
    try:
        assert mount("-o", "remount,bind,ro", str(tmp_path / "m"))
        assert main(["--store", str(tmp_path / "m"), "--json", "list"]) == 0
        with (
            ckptlog.open(tmp_path / "m", read_only=True) as reader,
            CheckpointManager(tmp_path / "s") as writer,
        ):
            name = writer.create_checkpoint("t", "T", 9)
            assert reader.newest(name) is not None, "it follows who writes elsewhere"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "m")], capture_output=True)


@pytest.mark.parametrize("what", ["lock", "log/end", "log", "views", "."])
def test_files_and_folders_without_rights(what, capsys):
    """As a user whom a part of the store does not belong to."""
    from tests.repository.nobody import as_nobody, give_away, public_directory

    with public_directory() as public:
        names = fill(public / "s")
        give_away(public, but="nothing of this name")
        target = public / "s" / what
        for path in [target, *(target.rglob("*") if what in ("log", ".") else [])]:
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() else 0o644)

        def work():
            with ckptlog.open(public / "s", read_only=True) as store:
                data = CheckpointManager(store=store).get_checkpoint(names[0]).data["n"]
            status = main(["--store", str(public / "s"), "list"])
            try:
                ckptlog.open(public / "s").close()
            except CheckpointError as error:
                return [data, status, error.code]
            return [data, status, "opened"]

        expected = "opened" if what == "views" else "store.read_only"
        assert as_nobody(work) == [1, 0, expected]
