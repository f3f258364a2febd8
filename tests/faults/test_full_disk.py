"""A disk that is really full: a small tmpfs."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager, FullError
from ckptlog.cli.main import main
from ckptlog.integrations.transcript import import_transcript
from ckptlog.repository.layout import RESERVE_BYTES, RESERVE_LAST_BYTES
from tests.faults.fault_disk import FaultDisk, SimulatedStop
from tests.faults.medium import Medium
from tests.log.sample import append, create_log, fill, group, open_log, published_ids

pytestmark = pytest.mark.root

DISK_BYTES = 6 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def take_space(folder: Path, leave_bytes: int) -> Path:
    """Fill the disk with a file, but for so many bytes."""
    path = folder / "ballast"
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    with path.open("wb") as file:
        file.write(bytes(max(0, free - leave_bytes)))
    return path


def noise(seed: int, size: int) -> dict[str, str]:
    return {"text": random.Random(seed).randbytes(size // 2).hex()}


def create_until_full(manager: CheckpointManager, size: int) -> dict[str, int]:
    made = {}
    for number in range(1, 10_000):
        try:
            made[manager.create_checkpoint("task", "title", number, data=noise(number, size))] = (
                number
            )
        except FullError:
            return made
    raise AssertionError("never full")


def data_of(manager: CheckpointManager, name: str) -> dict[str, str]:
    checkpoint = manager.get_checkpoint(name)
    assert checkpoint is not None
    return checkpoint.data


def check_all_there(manager: CheckpointManager, made: dict[str, int], size: int) -> None:
    for name, number in made.items():
        assert data_of(manager, name) == noise(number, size)
    assert manager.store.verify().ok


@pytest.mark.parametrize("size", [500, 50_000])
def test_a_full_disk_refuses_commits_keeps_reading_and_deleting_and_goes_on(disk, size):
    with CheckpointManager(disk / "store") as manager:
        ballast = take_space(disk, leave_bytes=600_000)
        made = create_until_full(manager, size)
        assert made
        for _ in range(3):  # refused again and again, without harm
            with pytest.raises(FullError):
                manager.create_checkpoint("task", "title", 1, data=noise(-1, 2 * size + 5000))
        check_all_there(manager, made, size)
        victim = next(iter(made))
        assert manager.delete_checkpoint(victim)
        del made[victim]
        assert manager.get_checkpoint(victim) is None
        ballast.unlink()
        name = manager.create_checkpoint("task", "title", 1, data=noise(5, size))
        made[name] = 5
        check_all_there(manager, made, size)
    with CheckpointManager(disk / "store") as manager:
        check_all_there(manager, made, size)
        assert manager.get_checkpoint(victim) is None


def test_a_store_on_a_full_disk_opens_for_reading_and_writing(disk):
    with CheckpointManager(disk / "store") as manager:
        name = manager.create_checkpoint("task", "title", 1, data=noise(1, 20_000))
    take_space(disk, leave_bytes=0)
    with ckptlog.open(disk / "store", read_only=True) as store:
        reader = CheckpointManager(store=store)
        assert data_of(reader, name) == noise(1, 20_000)
    with CheckpointManager(disk / "store") as manager:
        assert data_of(manager, name) == noise(1, 20_000)
        with pytest.raises(FullError):
            manager.create_checkpoint("task", "title", 2, data=noise(2, 500_000))
        assert manager.delete_checkpoint(name)
        assert manager.store.verify().ok


def test_the_reserve_lets_many_deletes_through_and_is_made_again(disk):
    root = disk / "store"
    with CheckpointManager(root) as manager:
        names = [
            manager.create_checkpoint("task", "title", step, data=noise(step, 500))
            for step in range(1, 61)
        ]
    ballast = take_space(disk, leave_bytes=0)
    with CheckpointManager(root) as manager:
        for name in names:
            assert manager.delete_checkpoint(name)
        assert (root / "reserve").stat().st_size == RESERVE_LAST_BYTES, "for a collection"
        ballast.unlink()
    assert (root / "reserve").stat().st_size > 0
    with CheckpointManager(root) as manager:
        assert [manager.get_checkpoint(name) for name in names] == [None] * len(names)


def test_a_torn_commit_on_a_full_disk_does_not_keep_the_log_from_opening(disk):
    """There is no room to keep the torn rest aside."""
    root = disk / "store"
    create_log(root, segment_bytes=200_000).close()
    medium = FaultDisk(Medium(root))
    victim = open_log(root, disk=medium, segment_bytes=200_000)
    fill(victim, "ab", record_bytes=2000)
    medium.stop("torn", "write segment", part=0.9)
    with pytest.raises(SimulatedStop):
        append(victim, group("c", record_bytes=100_000))
    victim.abandon()
    ballast = take_space(disk, leave_bytes=0)
    log = open_log(root, segment_bytes=200_000)
    with log.exclusive(1.0) as tail:
        assert tail.position == 2
    assert "no room" in log.notes[0]
    assert published_ids(log) == [*"ab"]
    # What was cut off has made room.
    append(log, group("d", record_bytes=1000))
    ballast.unlink()
    append(log, group("e", record_bytes=100_000))
    log.close()
    reader = open_log(root, read_only=True)
    assert published_ids(reader) == [*"abde"]
    reader.close()


def test_a_segment_that_does_not_fit_is_begun_later(disk):
    root = disk / "store"
    log = create_log(root, segment_bytes=20_000)
    fill(log, "abc", record_bytes=6000)
    ballast = take_space(disk, leave_bytes=0)
    for _ in range(3):
        with pytest.raises(FullError):
            append(log, group("d", record_bytes=6000))
    assert published_ids(log) == [*"abc"]
    assert len(os.listdir(root / "log")) == 2, "nothing half-made is left"
    ballast.unlink()
    fill(log, "de", record_bytes=6000)
    assert published_ids(log) == [*"abcde"]
    log.close()


def test_an_import_of_a_transcript_goes_on_after_a_full_disk(disk):
    """It once ended with "call again", and then refused to be called again."""
    run = disk / "run.traj"
    history, trajectory = [], []
    for number in range(40):
        history += [
            {"role": "user", "content": noise(number, 60_000)["text"]},
            {"role": "assistant", "content": f"answer {number}"},
        ]
        trajectory.append({"action": f"step {number}"})
    run.write_text(json.dumps({"history": history, "trajectory": trajectory}))
    with CheckpointManager(disk / "store") as manager:
        ballast = take_space(disk, leave_bytes=1_000_000)
        with pytest.raises(FullError):
            import_transcript(manager, run)
        assert 1 < manager.store.position < 119
        with pytest.raises(FullError):
            import_transcript(manager, run)
        ballast.unlink()
        identifiers = import_transcript(manager, run)
        found = manager.get_task_checkpoints("run")
        assert [checkpoint.checkpoint_id for checkpoint in found] == identifiers
        assert len(set(identifiers)) == 40
        assert manager.store.position == 120
        assert found[-1].data == {"history": history, "step": trajectory[-1]}
        assert manager.store.verify().ok


def fill_and_clean(root, size):
    """Fill a disk with checkpoints of five tasks, delete all but the newest of each; return those."""
    made = {}
    with CheckpointManager(root) as manager:
        for number in range(1, 10_000):
            try:
                name = manager.create_checkpoint(
                    f"t{number % 5}", "T", number, data=noise(number, size)
                )
            except FullError:
                break
            made[name] = number
        assert len(os.listdir(root / "log")) == 2, "one segment, and the end"
    with CheckpointManager(root) as manager:
        count = manager.cleanup_old_checkpoints(retention={"keep_last": 1})
        assert count == len(made) - 5
        return {one.checkpoint_id: made[one.checkpoint_id] for one in manager.iterate()}


@pytest.mark.parametrize("size", [2000, 30_000])
def test_garbage_in_the_newest_segment_is_collected_on_a_full_disk(disk, size):
    root = disk / "store"
    kept = fill_and_clean(root, size)
    with CheckpointManager(root) as manager:
        done = manager.compact_checkpoint_storage()
        assert done["collection"]["segments"] == 1
        assert done["bytes_after"] < DISK_BYTES // 2
        kept[manager.create_checkpoint("t0", "T", 1, data=noise(-1, size))] = -1
        check_all_there(manager, kept, size)
    assert (root / "reserve").stat().st_size == RESERVE_BYTES
    with CheckpointManager(root) as manager:
        check_all_there(manager, kept, size)


def test_a_collection_says_how_much_room_it_lacks(disk, capsys):
    root, size = disk / "store", 500_000
    kept = fill_and_clean(root, size)
    for _ in range(2):
        assert main(["--store", str(root), "--json", "compact"]) == 6
        said = json.loads(capsys.readouterr().err)
        assert said["code"] == "storage.full"
        assert f"{said['context']['bytes_missing']:,} bytes" in said["message"]
    with CheckpointManager(root) as manager:
        check_all_there(manager, kept, size)
    assert said["context"]["bytes_missing"] > 400_000
    subprocess.run(
        ["mount", "-o", f"remount,size={DISK_BYTES + said['context']['bytes_missing']}", str(disk)],
        check=True,
    )
    with CheckpointManager(root) as manager:
        assert manager.compact_checkpoint_storage()["collection"]["segments"] == 1
        check_all_there(manager, kept, size)


def test_a_newest_segment_that_cannot_be_finished_is_told(disk, monkeypatch):
    root = disk / "store"
    fill_and_clean(root, 30_000)
    with CheckpointManager(root) as manager:
        monkeypatch.setattr(manager.store.log, "seal", no_room)
        with pytest.raises(FullError, match="bytes more must be free"):
            manager.compact_checkpoint_storage()


def no_room(*_):
    raise FullError("No space left.")


def test_a_reserve_that_a_failed_collection_used_up_comes_back(disk, monkeypatch):
    """By whoever has room next, also where no process ever closes the store."""
    root, reserve = disk / "s", disk / "s" / "reserve"
    with CheckpointManager(root) as manager:
        size = reserve.stat().st_size
        made = [manager.create_checkpoint("t", "T", n, data=noise(n, 40_000)) for n in range(1, 60)]
        for name in made[::4]:
            manager.delete_checkpoint(name)
        ballast = take_space(disk, leave_bytes=4096)
        monkeypatch.setattr(manager.store, "shed_views", lambda: False)
        with pytest.raises(FullError):
            manager.compact_checkpoint_storage(garbage_min=0.0)
        assert reserve.stat().st_size == size, "what was copied in vain has given its room back"
        reserve.unlink()
        with (disk / "more").open("wb", buffering=0) as more, suppress(OSError):
            while True:
                more.write(bytes(4096))
        with ckptlog.open(root):
            assert not reserve.exists(), "there is no room, and that is no reason to fail"
        (disk / "more").unlink()
        ballast.unlink()
        with ckptlog.open(root):
            assert reserve.stat().st_size == size, "the next opening"
        reserve.unlink()
        manager.compact_checkpoint_storage()
        assert reserve.stat().st_size == size, "the next collection"
        os.truncate(reserve, 100)
    assert reserve.stat().st_size == size, "one that is cut, too"
