"""Checkpoints whose data is written piece by piece: commits, witnesses, all that reads stores."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager, CheckpointState, Store
from ckptlog.blobs.pieces import Root
from ckptlog.blobs.tree_reader import Stored
from ckptlog.errors import (
    BlobCorruptionError,
    InvalidCreationError,
    NoSuchPartError,
    PlantingStaleError,
    ReadOnlyError,
    StoreClosedError,
)
from ckptlog.manager.draft import CreateRequest
from ckptlog.repository.collection import CollectOptions
from ckptlog.repository.planting import Planting

KIB = 1024
MIB = 1024 * KIB


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def request(step: int = 1, **others: object) -> CreateRequest:
    return CreateRequest(
        task="sys",
        title="A capture",
        step=step,
        actor="tester",
        description="d",
        **others,  # type: ignore[arg-type]
    )


def mapped(planting: Planting, content: dict[str, bytes]) -> Root:
    writer = planting.writer()
    made = writer.mapping()
    for key in sorted(content):
        made.add(key, writer.raw(content[key]))
    return writer.root(made.finish())


def capture(manager: CheckpointManager, content: dict[str, bytes], step: int = 1) -> str:
    with manager.planting("sys") as planting:
        roots = {"files": mapped(planting, content)}
        return manager.create_planted(planting, roots, request(step, metadata={"n": step}))


def files_of(stored: Stored) -> dict[str, bytes]:
    return {key: b"".join(item.raw()) for key, item in stored.get("files").items()}


@pytest.fixture
def content() -> dict[str, bytes]:
    return {f"f{number:03}": noise(700, number) for number in range(300)} | {"big": noise(3 * MIB)}


def packs(store: Store) -> list[Path]:
    return sorted((store.path / "packs").glob("*"))


def test_a_capture_is_a_completed_checkpoint_in_one_commit(
    manager: CheckpointManager, content: dict[str, bytes]
) -> None:
    before = manager.store.position
    name = capture(manager, content)
    entries = list(manager.store.events(before, manager.store.position))
    assert [entry.event.type for entry in entries] == [
        "checkpoint.created",
        "checkpoint.completed",
    ]
    found = manager.get_checkpoint(name)
    assert found is not None
    assert found.state is CheckpointState.COMPLETED
    assert found.data == {"files": content}
    assert found.metadata["n"] == 1
    assert files_of(manager.stored(name)) == content
    assert manager.get_part(name, "files", "f007") == content["f007"]
    assert len(packs(manager.store)) == 1
    with pytest.raises(NoSuchPartError):
        manager.get_part(name, "files", "none")
    assert manager.validate_checkpoint_integrity() == []


def test_what_the_witness_holds_is_not_stored_again(
    manager: CheckpointManager, content: dict[str, bytes]
) -> None:
    capture(manager, content)
    size = sum(path.stat().st_size for path in packs(manager.store))
    with manager.planting("sys") as planting:
        root = mapped(planting, content)
        assert planting.new_bytes == 0
        name = manager.create_planted(planting, {"files": root}, request(2))
    assert sum(path.stat().st_size for path in packs(manager.store)) == size
    changed = {**content, "f100": b"changed"}
    with manager.planting("sys") as planting:
        before = planting.stored_before()
        assert before is not None
        assert before.get("files").root == root.reference.root
        fresh = mapped(planting, changed)
        assert 0 < planting.new_bytes < 64 * KIB
        again = manager.create_planted(planting, {"files": fresh}, request(3))
    assert files_of(manager.stored(again)) == changed
    assert files_of(manager.stored(name)) == content
    assert [one.path for one in manager.diff(name, again)] != []


def test_another_tasks_chunks_are_no_witness(
    manager: CheckpointManager, content: dict[str, bytes]
) -> None:
    capture(manager, content)
    with manager.planting("other") as planting:
        mapped(planting, content)
        assert planting.before is None
        assert planting.new_bytes > 3 * MIB


def test_what_is_not_committed_leaves_nothing(
    manager: CheckpointManager, content: dict[str, bytes]
) -> None:
    before = manager.store.position
    with manager.planting("sys") as planting:
        mapped(planting, content)
        assert planting.new_bytes > MIB
    assert packs(manager.store) == []
    with pytest.raises(StoreClosedError):
        planting.put(bytes(32), 0, b"")
    with manager.planting("sys") as planting:
        root = mapped(planting, content)
        with pytest.raises(InvalidCreationError):
            manager.create_planted(planting, {"files": root}, request(0))
    assert packs(manager.store) == []
    assert manager.store.position == before


def test_a_witness_that_goes_makes_it_stale(
    manager: CheckpointManager, content: dict[str, bytes]
) -> None:
    name = capture(manager, content)
    kept = packs(manager.store)
    with manager.planting("sys") as planting:
        root = mapped(planting, {**content, "new": noise(2 * MIB, 9)})
        manager.delete_checkpoint(name)
        with pytest.raises(PlantingStaleError, match="is gone"):
            manager.create_planted(planting, {"files": root}, request(2))
    assert packs(manager.store) == kept
    again = capture(manager, content, 2)
    assert files_of(manager.stored(again)) == content


def test_a_collection_in_between_makes_it_stale(
    manager: CheckpointManager, content: dict[str, bytes]
) -> None:
    gone = capture(manager, {"x": noise(2 * MIB, 5)})
    capture(manager, content, 2)
    manager.delete_checkpoint(gone)
    with manager.planting("sys") as planting:
        root = mapped(planting, {**content, "new": noise(2 * MIB, 9)})
        manager.create_checkpoint("other", "Moves the log on", 1)
        manager.store.compact(CollectOptions(seal_bytes_min=0, garbage_min=0.0))
        with pytest.raises(PlantingStaleError, match="collection"):
            manager.create_planted(planting, {"files": root}, request(3))


def test_a_collection_keeps_what_a_capture_needs_and_frees_the_rest(
    manager: CheckpointManager, content: dict[str, bytes]
) -> None:
    first = capture(manager, {**content, "only": noise(4 * MIB, 7)})
    second = capture(manager, content, 2)
    before = sum(path.stat().st_size for path in packs(manager.store))
    manager.delete_checkpoint(first)
    manager.store.compact(CollectOptions(seal_bytes_min=0, garbage_min=0.0))
    after = sum(path.stat().st_size for path in packs(manager.store))
    assert after < before - 3 * MIB
    assert files_of(manager.stored(second)) == content
    assert manager.validate_checkpoint_integrity() == []


def test_a_flipped_byte_is_found(manager: CheckpointManager, content: dict[str, bytes]) -> None:
    name = capture(manager, content)
    (path,) = packs(manager.store)
    data = bytearray(path.read_bytes())
    at = data.index(content["big"][1_000_000:1_000_100])
    data[at] ^= 1
    path.write_bytes(data)
    assert manager.validate_checkpoint_integrity() != []
    with pytest.raises(BlobCorruptionError):
        files_of(manager.stored(name))


def test_backup_and_archive_hold_captures(
    manager: CheckpointManager, content: dict[str, bytes], tmp_path: Path
) -> None:
    name = capture(manager, content)
    manager.store.backup(tmp_path / "copy", verify=True)
    ckptlog.restore_store(tmp_path / "copy", tmp_path / "back")
    with CheckpointManager(tmp_path / "back") as back:
        assert files_of(back.stored(name)) == content
    manager.store.export_archive(["sys"], tmp_path / "sys.archive")
    with CheckpointManager(tmp_path / "other") as other:
        ckptlog.import_archive(other.store, tmp_path / "sys.archive")
        assert files_of(other.stored(name)) == content
        assert other.stored(name).root == manager.stored(name).root
        assert other.validate_checkpoint_integrity() == []
        assert ckptlog.import_archive(other.store, tmp_path / "sys.archive").imported == 0


def test_secrets_in_values_are_replaced(manager: CheckpointManager) -> None:
    with manager.planting("sys") as planting:
        writer = planting.writer()
        value = {
            "password": "hunter2hunter2",
            "big": bytes(2 * MIB),
            "nested": {"api_key": "k" * 30},
        }
        root = writer.root(writer.value(value))
        small = writer.root(writer.value({"password": "hunter2hunter2"}))
        name = manager.create_planted(planting, {"v": root, "w": small}, request())
    data = manager.get_checkpoint(name).data  # type: ignore[union-attr]
    assert "hunter2" not in repr(data["v"]["password"]) + repr(data["w"])
    assert "kkkk" not in repr(data["v"]["nested"])
    assert data["v"]["big"] == bytes(2 * MIB)


def test_small_plantings_ride_in_the_log(manager: CheckpointManager) -> None:
    name = capture(manager, {"a": b"1", "b": noise(20 * KIB)})
    assert packs(manager.store) == []
    assert files_of(manager.stored(name))["a"] == b"1"
    assert files_of(manager.stored(name))["b"] == noise(20 * KIB)


def test_a_store_that_is_read_only_or_old_refuses(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "store"):
        pass
    with ckptlog.open(tmp_path / "store", read_only=True) as store:
        manager = CheckpointManager(store=store)
        with pytest.raises(ReadOnlyError):
            manager.planting("sys")
