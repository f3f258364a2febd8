"""Random operations, backups that are killed anywhere, restores: each equals the source at its P."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import BackupDamagedError, BackupDivergedError
from ckptlog.repository.backing import read_manifest
from ckptlog.repository.restoration import restore_store, verify_backup
from tests.stateful.crashing import Killed, killed_after

State = dict[str, tuple[str, object]]


class BackupMachine(RuleBasedStateMachine):
    """The model: what the living checkpoints were at each position that was ever seen."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ckptlog-backup-"))
        self.manager = CheckpointManager(self.root / "store")
        self.manager.store.log._segment_bytes = 4000
        self.now: State = {}
        self.states: dict[int, State] = {0: {}}
        self.backed = -1
        self.possible: set[int] = set()
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.manager.close()
            shutil.rmtree(self.root)

    def _seen(self) -> None:
        self.states[self.manager.store.position] = dict(self.now)

    @rule(size=st.sampled_from([1, 50, 3000, 200_000]), task=st.sampled_from("ab"))
    def create(self, size: int, task: str) -> None:
        self.number += 1
        # Above 1 MiB of fresh chunks a commit writes a pack; ten of these do.
        data = {"n": self.number, "x": f"{self.number}".zfill(8) * (size // 8 + 1)}
        name = self.manager.create_checkpoint(task, "T", self.number, data=data)
        self.now[name] = ("created", data)
        self._seen()

    @rule()
    def create_large(self) -> None:
        import random

        self.number += 1
        data = {"x": random.Random(self.number).randbytes(1_200_000).hex()}
        name = self.manager.create_checkpoint("large", "L", self.number, data=data)
        self.now[name] = ("created", data)
        self._seen()

    @precondition(lambda self: self.now)
    @rule(pick=st.integers(0, 10**6), act=st.sampled_from(["update", "complete", "fail", "delete"]))
    def change(self, pick: int, act: str) -> None:
        name = sorted(self.now)[pick % len(self.now)]
        state, data = self.now[name]
        if act == "delete":
            self.manager.delete_checkpoint(name)
            del self.now[name]
        elif state in ("completed", "failed"):
            self.manager.restore_checkpoint(name)
            self.now[name] = ("restored", data)
        elif act == "update":
            self.manager.update_checkpoint(name, data={"more": pick})
            self.now[name] = ("active", {**data, "more": pick})
        elif act == "complete":
            self.manager.complete_checkpoint(name)
            self.now[name] = ("completed", data)
        else:
            self.manager.fail_checkpoint(name, {"why": pick})
            self.now[name] = ("failed", data)
        self._seen()

    @rule(is_verified=st.booleans())
    def back_up(self, is_verified: bool) -> None:
        report = self.manager.store.backup(self.root / "b", verify=is_verified)
        assert report.position == self.manager.store.position
        self.backed, self.possible = report.position, {report.position}

    @rule(count=st.integers(0, 60))
    def back_up_killed(self, count: int) -> None:
        position = self.manager.store.position
        try:
            with killed_after(count):
                self.manager.store.backup(self.root / "b")
        except Killed:
            self.possible |= {position}
        else:
            self.backed, self.possible = position, {position}

    @precondition(lambda self: self.backed >= 0)
    @rule()
    def reopen_from_backup(self) -> None:
        """The original is lost; the restored one goes on, in the same backup."""
        position = self._restore("new")
        self.manager.close()
        shutil.rmtree(self.root / "store")
        (self.root / "new").rename(self.root / "store")
        self.manager = CheckpointManager(self.root / "store")
        self.manager.store.log._segment_bytes = 4000
        self.now = dict(self.states[position])
        self.states = {at: state for at, state in self.states.items() if at <= position}
        self.backed, self.possible = position, {position}

    @precondition(lambda self: self.possible)
    @rule()
    def restore(self) -> None:
        manifest = read_manifest(self.root / "b")
        if manifest is None or not manifest.is_whole:
            assert self.backed < 0, "a state that was whole is gone"
            return
        self._restore("r")
        shutil.rmtree(self.root / "r")

    def _restore(self, name: str) -> int:
        done = restore_store(self.root / "b", self.root / name)
        assert done.position in self.possible | {self.backed}
        with CheckpointManager(self.root / name) as other:
            assert other.store.position == done.position
            assert content(other) == self.states[done.position]
        return done.position

    @invariant()
    def the_backup_can_be_read(self) -> None:
        if getattr(self, "backed", -1) < 0:
            return
        with ckptlog.open(self.root / "b", read_only=True) as store:
            assert store.position in self.possible | {self.backed}


def content(manager: CheckpointManager) -> State:
    return {
        one.checkpoint_id: (one.state.value, one.data)
        for task in ("a", "b", "large")
        for one in manager.get_task_checkpoints(task)
    }


TestBackupMachine = BackupMachine.TestCase
TestBackupMachine.settings = settings(max_examples=12, stateful_step_count=18)


@pytest.mark.thorough
class TestBackupMachineLong(BackupMachine.TestCase):
    settings = settings(max_examples=400, stateful_step_count=40)


@pytest.mark.parametrize("is_first", [True, False])
def test_killed_at_every_act(tmp_path, is_first):
    """Every single change of the file system, in a first run and in a later one."""
    with CheckpointManager(tmp_path / "s") as manager:
        manager.store.log._segment_bytes = 4000
        states = {}

        def grow() -> None:
            for _ in range(8):
                manager.create_checkpoint("a", "A", 1, data={"x": "y" * 700})
            manager.create_checkpoint(
                "large", "L", 1, data={"x": "z" * 100, "n": manager.store.position}
            )
            (tmp_path / "s/keys/k").write_bytes(b"%d" % manager.store.position)
            states[manager.store.position] = content(manager)

        grow()
        if not is_first:
            manager.store.backup(tmp_path / "base")
            grow()
        old = min(states)
        count = 0
        while True:
            shutil.rmtree(tmp_path / "b", ignore_errors=True)
            if not is_first:
                shutil.copytree(tmp_path / "base", tmp_path / "b")
            try:
                with killed_after(count) as done:
                    manager.store.backup(tmp_path / "b")
            except Killed:
                check(tmp_path, states, old, is_first=is_first)
                again = manager.store.backup(tmp_path / "b")
                assert again.position == manager.store.position
                verify_backup(tmp_path / "b", level="structure")
            else:
                break
            count += 1
        assert count == len(done) > 20


def check(tmp_path, states, old, *, is_first) -> None:
    try:
        found = restore_store(tmp_path / "b", tmp_path / "r", level="structure").position
    except BackupDamagedError as error:
        assert "never finished" in str(error)
        assert is_first
        return
    except Exception as error:
        assert is_first
        assert error.code in ("backup.foreign", "store.missing")
        return
    assert found in (old, max(states))
    with CheckpointManager(tmp_path / "r") as other:
        assert content(other) == states[found]
    shutil.rmtree(tmp_path / "r")


def test_a_backup_never_goes_back(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("a", "A", 1)
        manager.store.backup(tmp_path / "b")
    with CheckpointManager(tmp_path / "other") as other:
        other.create_checkpoint("a", "A", 1)
    shutil.copy(tmp_path / "s/store.json", tmp_path / "other/store.json")
    shutil.rmtree(tmp_path / "other")
    restore_store(tmp_path / "b", tmp_path / "other")
    with CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("a", "A", 2)
        manager.store.backup(tmp_path / "b")
    with CheckpointManager(tmp_path / "other") as other, pytest.raises(BackupDivergedError):
        other.store.backup(tmp_path / "b")
