"""TaskCheckpointWrapper beside a list: steps, ends, failures, recoveries, interference, crashes."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ckptlog import CheckpointError, CheckpointManager, TaskCheckpointWrapper
from tests.stateful.model import ENDED, NOT_FOUND, Checkpoint, Model

DATA = st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2)


class WrapperMachine(RuleBasedStateMachine):
    """One task, one wrapper at a time; a second manager interferes."""

    def __init__(self) -> None:
        super().__init__()
        self.path = tempfile.mkdtemp(prefix="ckptlog-wrapper-")
        self.model = Model()
        self.current: str | None = None
        self.step = 0
        self.total: int | None = None
        self.is_complete = False

    @initialize()
    def open(self) -> None:
        """Begin the task."""
        self.manager = CheckpointManager(self.path)
        self.other = CheckpointManager(self.path)
        self.wrapper = TaskCheckpointWrapper(self.manager, "t", "The task")

    def answer(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self.wrapper, method)(*args)
        except CheckpointError as error:
            return ["error", error.code]

    # --- the wrapper ---

    @rule(data=DATA)
    def checkpoint(self, data: dict[str, int] | None) -> None:
        """The next step: the one before is completed, if it still runs."""
        answer = self.answer("checkpoint", f"step {self.step + 1}", data)
        before = self.current and self.model.living.get(self.current)
        if self.current is not None and before is None:
            assert answer == NOT_FOUND
            return
        if self.current is not None and before is not None and before.state not in ENDED:
            assert self.model.change(self.current, "completed") is True
        self.step += 1
        description = f"step {self.step}"
        self.model.create(answer, Checkpoint("t", self.step, self.total, description, data or {}))
        self.model.activate(answer)
        self.current, self.is_complete = answer, False

    @rule(data=DATA, description=st.none() | st.just("new"))
    def update_progress(self, data: dict[str, int] | None, description: str | None) -> None:
        """Merge into the present step."""
        answer = self.answer("update_progress", data, description)
        self.check(answer, None, data=data, description=description)

    @rule(data=DATA)
    def complete(self, data: dict[str, int] | None) -> None:
        """Complete the task, whatever number of steps was expected."""
        answer = self.answer("complete_task", data)
        before = self.current and self.model.living.get(self.current)
        changes: dict[str, Any] = {"data": data}
        if before and before.total and before.total > before.step:
            changes["total"] = before.step
            if before.state == "completed":
                assert self.model.change(self.current, "restored") is True
        if self.check(answer, "completed", **changes):
            self.is_complete = True
            self.total = self.total and min(self.total, self.step)
            assert not self.manager.can_recover_task("t") or self.is_overtaken()

    def is_overtaken(self) -> bool:
        """Say whether the task has a later checkpoint than the wrapper's."""
        return self.current != [*self.model.living][-1]

    @rule(data=DATA)
    def fail(self, data: dict[str, int] | None) -> None:
        """Fail the task."""
        answer = self.answer("fail_task", data)
        metadata = None if data is None else {"error_info": data}
        self.check(answer, "failed", metadata=metadata)

    def check(self, answer: Any, target: str | None, **changes: Any) -> bool:
        if self.current is None:
            assert answer == ["error", "update.invalid"]
            return False
        right = self.model.change(self.current, target, **changes)
        assert answer == (None if right is True else right)
        return right is True

    @rule(total=st.integers(1, 4))
    def set_total(self, total: int) -> None:
        """Say how many steps there are."""
        self.wrapper.set_total_steps(total)
        self.total = total

    # --- life ---

    @rule(recover=st.booleans(), reopens=st.booleans())
    def begin_again(self, recover: bool, reopens: bool) -> None:
        """Another run of the program: a new wrapper, perhaps a new process."""
        if reopens:
            self.manager.close()
            self.manager = CheckpointManager(self.path)
        is_open = self.manager.can_recover_task("t")
        self.wrapper = TaskCheckpointWrapper(self.manager, "t", "The task", recover=recover)
        self.step, self.total, self.current, self.is_complete = 0, None, None, False
        point = self.recovery_point() if recover else None
        if point is not None and is_open:
            assert self.model.change(point, "restored") is True
        restored = [
            (one.position, name)
            for name, one in self.model.living.items()
            if one.state == "restored"
        ]
        if restored:
            _, self.current = max(restored)
        elif point is not None:  # the task is complete, and stays so
            self.current, self.is_complete = point, True
        if self.current is not None:
            found = self.model.living[self.current]
            self.step, self.total = found.step, found.total
            assert self.wrapper.recovered is not None
            assert self.wrapper.recovered.data == found.data
        else:
            assert self.wrapper.recovered is None

    def recovery_point(self) -> str | None:
        names = [*self.model.living][::-1]
        good = [name for name in names if self.model.living[name].state != "failed"]
        return next(iter(good or names), None)

    @rule(which=st.integers(0, 5), what=st.sampled_from(["restore", "complete", "delete"]))
    def interfere(self, which: int, what: str) -> None:
        """Somebody else does something to one of the checkpoints."""
        names = [*self.model.living]
        if not names:
            return
        name = names[which % len(names)]
        if what == "delete":
            assert self.other.delete_checkpoint(name) is self.model.delete(name)
            return
        answer: Any = True
        try:
            getattr(self.other, f"{what}_checkpoint")(name)
        except CheckpointError as error:
            answer = ["error", error.code]
        target = {"restore": "restored", "complete": "completed"}[what]
        assert answer == self.model.change(name, target)

    @rule()
    def delete_task(self) -> None:
        """Somebody else deletes the whole task."""
        deleted = self.model.delete_task("t", is_recorded=False)
        assert self.other.delete_task("t") == deleted

    # --- what must be so ---

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        """All checkpoints, the progress, and what can be recovered."""
        if not hasattr(self, "manager"):
            return
        found = self.manager.get_task_checkpoints("t")
        assert [one.checkpoint_id for one in found] == [*self.model.living]
        for one in found:
            right = self.model.living[one.checkpoint_id]
            assert (one.state.value, one.step_number) == (right.state, right.step)
            assert (one.data, one.metadata) == (right.data, right.metadata)
            assert (one.step_description, one.total_steps) == (right.description, right.total)
            assert one.position == right.position
        point = self.manager.get_recovery_point("t")
        assert (point.checkpoint_id if point else None) == self.recovery_point()
        assert self.wrapper.get_progress() == {
            "task_id": "t",
            "current_step": self.step,
            "total_steps": self.total,
            "progress_percentage": self.percentage(),
            "current_checkpoint_id": self.current,
            "is_complete": self.is_complete,
        }

    def percentage(self) -> float | None:
        if self.is_complete:
            return 100.0
        if self.total is None:
            return None
        done = self.step - (self.current is not None)
        return round(min(100.0, 100.0 * done / self.total), 1)

    def teardown(self) -> None:
        """Check the store, and close."""
        if hasattr(self, "manager"):
            assert self.manager.validate_checkpoint_integrity() == []
            self.manager.close()
            self.other.close()
        shutil.rmtree(self.path)


_profile = settings()
WrapperMachine.TestCase.settings = settings(
    max_examples=_profile.max_examples // 3, stateful_step_count=30, deadline=None
)
TestWrapperMachine = WrapperMachine.TestCase
