"""Two stores exchange tasks at random: what arrives is what was sent, once, or a conflict is told."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ckptlog import CheckpointManager
from ckptlog.errors import CheckpointError, ImportConflictError
from ckptlog.manager.importer import import_archive, verify_archive
from tests.stateful.crashing import Killed, killed_after

Sent = tuple[Path, dict[str, tuple[str, int, object]], set[str]]


class ImportMachine(RuleBasedStateMachine):
    """The model: what each archive holds, and what was imported, deleted or changed in the target."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ckptlog-import-"))
        self.source = CheckpointManager(self.root / "s")
        self.best: dict[str, int] = {}
        self.target = CheckpointManager(self.root / "t")
        self.living: dict[str, str] = {}
        self.sent: list[Sent] = []
        self.arrived: dict[str, tuple[str, int, object]] = {}
        self.own: set[str] = set()  # changed by the target itself
        self.gone: set[str] = set()  # deleted in the target
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "target"):
            self.source.close()
            self.target.close()
            shutil.rmtree(self.root)

    def _pick(self, names, number):
        return sorted(names)[number % len(names)]

    @rule(task=st.sampled_from("ab"), size=st.sampled_from([3, 3000, 40_000]))
    def create(self, task, size) -> None:
        self.number += 1
        name = self.source.create_checkpoint(
            task, "T", self.number, data={"x": [self.number] * size}
        )
        self.living[name] = task

    @precondition(lambda self: self.living)
    @rule(
        number=st.integers(0, 10**6), act=st.sampled_from(["update", "complete", "fail", "delete"])
    )
    def change(self, number, act) -> None:
        name = self._pick(self.living, number)
        state = self.source.get_checkpoint(name).state.value
        if act == "delete":
            self.source.delete_checkpoint(name)
            del self.living[name]
        elif state in ("completed", "failed"):
            self.source.restore_checkpoint(name)
        elif act == "update":
            self.source.update_checkpoint(name, data={"n": number}, step_number=number % 9 + 1)
        elif act == "complete":
            self.source.complete_checkpoint(name, {"done": number})
        else:
            self.source.fail_checkpoint(name, {"why": number})

    @precondition(lambda self: self.living)
    @rule(number=st.integers(0, 10**6))
    def send(self, number) -> None:
        task = self.living[self._pick(self.living, number)]
        path = self.root / f"{len(self.sent)}.ckpt"
        self.source.store.export_archive([task], path)
        verify_archive(path)
        held = {one.checkpoint_id: facts(one) for one in self.source.get_task_checkpoints(task)}
        deleted = {
            e.event.subject.checkpoint for e in self.source.store.events()
            if e.event.type == "checkpoint.deleted" and e.event.subject.task == task
        }  # fmt: skip
        self.sent.append((path, held, deleted))

    @precondition(lambda self: self.sent)
    @rule(number=st.integers(0, 10**6))
    def receive(self, number) -> None:
        self._receive(self.sent[number % len(self.sent)])

    @precondition(lambda self: self.sent)
    @rule(number=st.integers(0, 10**6), count=st.integers(0, 30))
    def receive_killed(self, number, count) -> None:
        sent = self.sent[number % len(self.sent)]
        self.target.close()
        killed = CheckpointManager(self.root / "t")
        try:
            with killed_after(count):
                import_archive(killed.store, sent[0])
        except (Killed, CheckpointError):
            pass
        # Its memory is dropped as a dead process's is.
        killed.store._abandon()
        self.target = CheckpointManager(self.root / "t")
        self._receive(sent)

    def _receive(self, sent: Sent) -> None:
        path, held, _ = sent
        position = self.target.store.position
        try:
            report = import_archive(self.target.store, path)
        except ImportConflictError:
            assert self.target.store.position == position
            assert self.own & held.keys(), "only what went on here stands in the way"
            return
        if report.imported == 0:
            assert self.target.store.position == position
        for name, wanted in held.items():
            if name in self.gone:
                assert self.target.get_checkpoint(name) is None
            elif name not in self.own and self._is_newer(path, name):
                self.arrived[name] = wanted
        self._check()

    def _is_newer(self, path, name) -> bool:
        """Say whether no later archive that was received has this checkpoint."""
        number = int(path.stem)
        if self.best.get(name, -1) <= number:
            self.best[name] = number
            return True
        return False

    @precondition(lambda self: self.arrived)
    @rule(number=st.integers(0, 10**6), is_deleted=st.booleans())
    def act_on_what_arrived(self, number, is_deleted) -> None:
        name = self._pick(self.arrived, number)
        if is_deleted:
            self.target.delete_checkpoint(name)
            del self.arrived[name]
            self.own.discard(name)
            self.gone.add(name)
        elif self.arrived[name][0] not in ("completed", "failed"):
            self.target.update_checkpoint(name, metadata={"mine": number})
            _, step, data = self.arrived[name]
            self.arrived[name] = ("active", step, data)
            self.own.add(name)

    def _check(self) -> None:
        for name, wanted in self.arrived.items():
            assert facts(self.target.get_checkpoint(name)) == wanted
        there = {
            one.checkpoint_id for task in "ab" for one in self.target.get_task_checkpoints(task)
        }
        assert there == self.arrived.keys()


def facts(checkpoint) -> tuple[str, int, object]:
    return checkpoint.state.value, checkpoint.step_number, checkpoint.data


TestImportMachine = ImportMachine.TestCase
TestImportMachine.settings = settings(max_examples=12, stateful_step_count=20)


@pytest.mark.thorough
class TestImportMachineLong(ImportMachine.TestCase):
    settings = settings(max_examples=300, stateful_step_count=40)
