"""A recovery that can neither be finished nor undone is given up, and nothing of it stays behind."""

from __future__ import annotations

import asyncio

import pytest

from ckptlog import (
    AsyncCheckpointService,
    CheckpointManager,
    DirectoryComponent,
    FileComponent,
    create_checkpoint_system,
)
from ckptlog.capture.capturer import Capturer
from ckptlog.cli.main import main
from ckptlog.errors import (
    CheckpointNotFoundError,
    LeaseRequiredError,
    RecoveryUnfinishedError,
)
from ckptlog.manager.fact import is_pinned
from ckptlog.manager.unfinished import Unfinished
from ckptlog.policy.command import Delete, DeleteTask
from ckptlog.recovery.recovery import Recovery
from ckptlog.repository.intent import Intent, Step
from ckptlog.views.query import Filter
from tests.service.system import Agents, settings

NAMES = ("a", "b", "c")


def recovery_of(manager, folder):
    return Recovery(
        Capturer(manager, "sys", [FileComponent(name, folder / name) for name in NAMES])
    )


def begin(recovery):
    """Begin a recovery as one that is killed: a is restored, b is half of it, c is untouched."""
    good = recovery.capturer.capture()
    for name in NAMES:
        place = recovery.capturer.components[name].location["path"]
        with open(place, "w") as file:
            file.write("new")
    safety = recovery.capturer.capture(reason="safety")
    journal = recovery.journal
    with journal.alone():
        journal.started(Unfinished("r1", -1, good.id, safety.id, NAMES))
        journal.step("r1", "a", "restoring")
        journal.step("r1", "a", "restored")
        journal.step("r1", "b", "restoring")
    return good, safety


def delete(manager, identifier):
    """Delete as versions did that asked nothing."""
    command = Delete(
        actor="x", checkpoint=identifier, command=manager.new_command_id(), expected=None
    )
    manager.store.submit(Intent((Step(command),)))


def pinned(manager):
    store = manager.store
    rows = store.select(Filter(), after=None, limit=50)
    return {row.id for row in rows if is_pinned(store, row)}


@pytest.fixture
def begun(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_text("old")
    with CheckpointManager(tmp_path / "store") as manager:
        recovery = recovery_of(manager, tmp_path)
        yield recovery, *begin(recovery)


def test_what_it_needs_cannot_be_deleted(begun, capsys):
    recovery, good, safety = begun
    manager = recovery.capturer.manager
    for one in (good, safety):
        with pytest.raises(RecoveryUnfinishedError, match=f"needs {one.id}") as caught:
            manager.delete_checkpoint(one.id)
        assert "--abandon gives it up" in caught.value.hint
        with pytest.raises(RecoveryUnfinishedError), manager.batch() as batch:
            batch.delete_checkpoint(one.id)
        words = ["delete", one.id, "--store", str(manager.store.path)]
        assert main(words) == 4
        assert "--abandon" in capsys.readouterr().err
    with pytest.raises(RecoveryUnfinishedError):
        manager.delete_task("sys")
    policy = {"keep_last": 0, "keep_recovery_points": False, "keep_pinned": False}
    manager.cleanup_old_checkpoints(retention=policy)
    assert {one.id for one in recovery.capturer.captures()} == {good.id, safety.id}
    recovery.abandon()
    assert manager.delete_checkpoint(good.id)
    assert manager.delete_task("sys") == 1


def test_given_up_it_says_what_state_everything_is_in(begun):
    recovery, good, safety = begun
    manager = recovery.capturer.manager
    assert pinned(manager) == {good.id, safety.id}
    done = recovery.abandon()
    assert (done.status, done.is_finished) == ("abandoned", True)
    assert (done.restored, done.mixed, done.components) == (("a",), ("b",), NAMES)
    assert (done.capture_id, done.safety_id, done.errors) == (good.id, safety.id, ())
    assert pinned(manager) == set()
    assert recovery.unfinished() is None
    (event,) = [
        entry.event for entry in manager.store.events() if entry.event.type == "recovery.failed"
    ]
    assert event.facts == {
        "recovery": "r1", "capture": good.id, "component": "", "error": "abandoned",
        "rolled_back": 0, "abandoned": 1, "restored": "a", "mixed": "b",
    }  # fmt: skip
    assert recovery.abandon() is None
    assert recovery.recover(good.id).status == "completed"


@pytest.mark.parametrize("gone", ["capture", "safety", "both"])
def test_it_is_the_way_out_where_a_capture_is_gone(begun, tmp_path, capsys, gone):
    recovery, good, safety = begun
    manager = recovery.capturer.manager
    for name, one in (("capture", good), ("safety", safety)):
        if gone in {name, "both"}:
            delete(manager, one.id)
    if gone != "safety":
        with pytest.raises(CheckpointNotFoundError):
            recovery.resume()
    words = ["recover", "--system", "sys", "--store", str(manager.store.path), "--yes"]
    if gone != "safety":
        assert main([*words, "--resume"]) == 3
        assert "--abandon" in capsys.readouterr().err
    assert main([*words, "--abandon"]) == 0
    out, err = capsys.readouterr()
    assert "restored, as in the capture: a\n" in out
    assert "may be half restored: b\n" in out
    assert "as before: c\n" in out
    assert (f"ckptlog recover {safety.id}" in out) == (gone == "capture")
    assert ("no safety capture" in err) == (gone != "capture")
    assert pinned(manager) == set()
    assert main([*words, "--abandon"]) in {0, 3}
    assert recovery.unfinished() is None
    assert {(tmp_path / name).read_text() for name in NAMES} == {"new"}


def test_what_was_deleted_can_still_be_undone(begun, tmp_path, capsys):
    recovery, good, _ = begun
    delete(recovery.capturer.manager, good.id)
    (tmp_path / "b").write_text("half")
    store = str(recovery.capturer.manager.store.path)
    assert main(["recover", "--store", store, "--yes", "--roll-back"]) == 0, capsys.readouterr()
    assert {(tmp_path / name).read_text() for name in NAMES} == {"new"}
    assert recovery.unfinished() is None


def test_a_living_owner_gives_it_up_himself(begun):
    recovery, _, _ = begun
    manager = recovery.capturer.manager
    with manager.acquire_lease("sys", holder="its owner") as lease:
        with pytest.raises(LeaseRequiredError, match="its owner"):
            recovery.abandon()
        own = Recovery(recovery.capturer, lease=lease)
        assert own.abandon().status == "abandoned"


def test_what_was_put_aside_is_named(tmp_path):
    (tmp_path / "tree").mkdir()
    with CheckpointManager(tmp_path / "store") as manager:
        part = DirectoryComponent("tree", tmp_path / "tree")
        recovery = Recovery(Capturer(manager, "sys", [part]))
        info = recovery.capturer.capture()
        recovery.journal.started(Unfinished("r1", -1, info.id, "", None))
        recovery.journal.step("r1", "tree", "restoring")
        (tmp_path / "tree").rename(tmp_path / "tree.before-r1")
        done = recovery.abandon()
    assert done.errors == (
        f"Component 'tree': what was there before lies at {tmp_path}/tree.before-r1",
    )
    assert done.safety_id == ""


def test_the_deletion_of_the_whole_system_ends_it_too(begun):
    recovery, _, _ = begun
    manager = recovery.capturer.manager
    count, position = manager.store.count_task("sys")
    command = DeleteTask(  # as versions did that asked nothing
        actor="x", task="sys", based_on=position, count=count, command=manager.new_command_id()
    )
    manager.store.submit(Intent((Step(command),)))
    assert recovery.unfinished() is None
    assert recovery.capturer.capture() is not None


def service_of(path):
    config = settings(path, intervalSeconds=600)
    return create_checkpoint_system(config, {"agentManager": Agents()})


def broken(path):
    """Leave an unfinished recovery of a service's system whose capture is gone."""
    with service_of(path) as service:
        info = service.create_checkpoint("good")
        service.create_checkpoint("newer")
        system = service.config.system
    with CheckpointManager(path) as manager:
        journal = Recovery(Capturer(manager, system)).journal
        journal.started(Unfinished("r1", -1, info.id, "", None))
        delete(manager, info.id)


def test_a_service_gives_it_up_and_captures_again(tmp_path):
    broken(tmp_path / "store")
    told = []
    service = service_of(tmp_path / "store")
    with pytest.raises(CheckpointNotFoundError):
        service.start()
    service.initialize()
    service.on("recoveryAbandoned", told.append)
    with pytest.raises(RecoveryUnfinishedError, match="abandon_recovery"):
        service.create_checkpoint("mixture")
    assert service.abandon_recovery().status == "abandoned"
    assert service.abandon_recovery() is None
    with service:
        assert service.create_checkpoint("again") is not None
    assert [one.status for one in told] == ["abandoned"]


def test_an_async_service_too(tmp_path):
    broken(tmp_path / "store")

    async def act():
        service = AsyncCheckpointService(service_of(tmp_path / "store"))
        await service.initialize()
        done = await service.abandon_recovery()
        await service.close()
        return done

    assert asyncio.run(act()).status == "abandoned"
