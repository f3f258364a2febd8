"""The manager beside a plain dictionary: random operations, reopening, crashes, two processes.

Each rule does one operation on the real store and on the model, through one of three managers:
our own, a second one of this process on the same directory, and one in another process. Every
operation must give the model's answer; in the end the log itself is read, and each prefix of each
checkpoint's history must be legal.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from ckptlog import CheckpointError, CheckpointManager, CheckpointState
from ckptlog.model.state import is_legal
from tests.stateful.remote import RemoteManager, answer_of

TASKS = st.sampled_from(["t1", "t2", "t/3"])
WHO = st.sampled_from(["own", "other", "remote"])
SMALL = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.one_of(st.integers(-5, 5), st.text("xyz", max_size=3), st.lists(st.booleans(), max_size=2)),
    max_size=3,
)
_remote: list[RemoteManager] = []


@pytest.fixture(scope="module", autouse=True)
def remote() -> Iterator[None]:
    """One other process for the whole module."""
    _remote.append(RemoteManager())
    yield
    _remote.pop().close()


@dataclass
class Model:
    """What a checkpoint must be."""

    task: str
    state: str = "created"
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    step: int = 1


class ManagerMachine(RuleBasedStateMachine):
    """Operations on the store and on the model."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.path = tempfile.mkdtemp(prefix="ckptlog-machine-")
        self.living: dict[str, Model] = {}
        self.dead: set[str] = set()
        self.order: list[str] = []
        self.uses_remote = False

    @initialize()
    def open(self) -> None:
        """Open two managers on one directory."""
        self.managers = {"own": CheckpointManager(self.path), "other": CheckpointManager(self.path)}

    def call(self, who: str, method: str, *args: Any, **options: Any) -> Any:
        if who == "remote":
            self.uses_remote = True
            return _remote[0].call(self.path, method, *args, **options)
        return answer_of(self.managers[who], method, list(args), dict(options))

    # --- operations ---

    @rule(target=ids, who=WHO, task=TASKS, data=SMALL, step=st.integers(1, 5))
    def create(self, who: str, task: str, data: dict[str, Any], step: int) -> str:
        """Create a checkpoint."""
        name = self.call(who, "create_checkpoint", task, "Title", step, data=data)
        assert isinstance(name, str), name
        assert name not in self.living
        assert name not in self.dead
        self.living[name] = Model(task, data=data, step=step)
        self.order.append(name)
        return name

    @rule(who=WHO, name=ids, data=SMALL, metadata=SMALL)
    def update(self, who: str, name: str, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Merge into a checkpoint."""
        answer = self.call(who, "update_checkpoint", name, data=data, metadata=metadata)
        if self.expect(answer, name, "active"):
            self.living[name].data.update(data)
            self.living[name].metadata.update(metadata)

    @rule(who=WHO, name=ids, final=st.none() | SMALL)
    def complete(self, who: str, name: str, final: dict[str, Any] | None) -> None:
        """Complete a checkpoint."""
        answer = self.call(who, "complete_checkpoint", name, final)
        model = self.living.get(name)
        if model is not None and model.state == "completed":
            is_same = list({**model.data, **(final or {})}.items()) == list(model.data.items())
            is_same = is_same and repr({**model.data, **(final or {})}) == repr(model.data)
            assert answer is True if is_same else answer[1] == "update.illegal_transition"
        elif self.expect(answer, name, "completed"):
            self.living[name].data.update(final or {})

    @rule(who=WHO, name=ids)
    def fail(self, who: str, name: str) -> None:
        """Fail a checkpoint."""
        answer = self.call(who, "fail_checkpoint", name, {"why": "x"})
        model = self.living.get(name)
        if model is not None and model.state == "failed":
            is_same = model.metadata.get("error_info") == {"why": "x"}
            assert answer is True if is_same else answer[1] == "update.illegal_transition"
        elif self.expect(answer, name, "failed"):
            self.living[name].metadata["error_info"] = {"why": "x"}

    @rule(who=WHO, name=ids)
    def restore(self, who: str, name: str) -> None:
        """Restore a checkpoint."""
        answer = self.call(who, "restore_checkpoint", name)
        if name in self.dead:
            assert answer is None
            return
        model = self.living[name]
        if is_legal(model.state, "restored"):
            model.state = "restored"
            assert answer == self.facts(model)
        else:
            assert answer[1] == "update.illegal_transition"

    @rule(who=WHO, name=ids, state=st.sampled_from(CheckpointState))
    def move(self, who: str, name: str, state: CheckpointState) -> None:
        """Ask for any state, legal or not."""
        answer = self.call(
            who, "update_checkpoint", name, state=state.value if who == "remote" else state
        )
        model = self.living.get(name)
        is_repetition = model is not None and model.state == state.value in {"completed", "failed"}
        if is_repetition:
            assert answer is True
        else:
            self.expect(answer, name, state.value)

    @rule(who=WHO, name=ids)
    def delete(self, who: str, name: str) -> None:
        """Delete a checkpoint."""
        assert self.call(who, "delete_checkpoint", name) is (name in self.living)
        if self.living.pop(name, None):
            self.dead.add(name)

    @rule(who=WHO, task=TASKS)
    def delete_task(self, who: str, task: str) -> None:
        """Delete all checkpoints of a task."""
        names = [name for name, model in self.living.items() if model.task == task]
        assert self.call(who, "delete_task", task) == len(names)
        for name in names:
            del self.living[name]
            self.dead.add(name)

    # --- life ---

    @rule()
    def reopen(self) -> None:
        """Close cleanly and open again."""
        self.managers["own"].close()
        self.managers["own"] = CheckpointManager(self.path)

    @rule()
    def crash(self) -> None:
        """Lose a manager without any closing, as a kill does, and open again."""
        self.managers["own"].store._abandon()  # noqa: SLF001 - what a dead process leaves
        self.managers["own"] = CheckpointManager(self.path)

    @rule()
    def lose_views(self) -> None:
        """Throw away everything disposable."""
        self.managers["own"].close()
        self.managers["other"].close()
        if self.uses_remote:
            _remote[0].call(self.path, "close")
            self.uses_remote = False
        shutil.rmtree(f"{self.path}/views")
        self.open()

    # --- questions ---

    @rule(who=WHO, name=ids)
    def get(self, who: str, name: str) -> None:
        """Read one checkpoint."""
        model = self.living.get(name)
        assert self.call(who, "get_checkpoint", name) == (self.facts(model) if model else None)

    @rule(task=TASKS, who=st.sampled_from(["own", "other"]))
    def lists(self, task: str, who: str) -> None:
        """Read lists."""
        manager = self.managers[who]
        mine = [name for name in self.order if name in self.living]
        of_task = [name for name in mine if self.living[name].task == task]
        assert [one.checkpoint_id for one in manager.get_task_checkpoints(task)] == of_task
        latest = manager.get_latest_checkpoint(task)
        assert (latest.checkpoint_id if latest else None) == (of_task[-1] if of_task else None)
        for state in CheckpointState:
            wanted = [name for name in mine if self.living[name].state == state.value]
            found = [one.checkpoint_id for one in manager.get_checkpoints_by_state(state)]
            assert found == wanted

    @invariant()
    def positions_are_dense(self) -> None:
        """Positions have no gap."""
        if hasattr(self, "managers"):
            positions = [entry.position for entry in self.managers["own"].store.events()]
            assert positions == list(range(len(positions)))

    def teardown(self) -> None:
        """Check every prefix of every history, and close."""
        if not hasattr(self, "managers"):
            return
        states: dict[str, str | None] = {}
        for entry in self.managers["own"].store.events():
            event = entry.event
            name = event.subject.checkpoint
            if name and event.type != "checkpoint.deleted":
                assert is_legal(states.get(name), event.state), (name, entry)
                states[name] = event.state
        assert self.managers["own"].validate_checkpoint_integrity() == []
        for manager in self.managers.values():
            manager.close()
        if self.uses_remote:
            _remote[0].call(self.path, "close")
        shutil.rmtree(self.path)

    # --- the model ---

    def expect(self, answer: Any, name: str, target: str) -> bool:
        """Check an answer against the model's; move the model where it was legal."""
        model = self.living.get(name)
        if model is None:
            assert answer == ["error", "checkpoint.not_found"]
            return False
        if not is_legal(model.state, target):
            assert answer == ["error", "update.illegal_transition"], (model.state, target)
            return False
        assert answer is True, answer
        model.state = target
        return True

    @staticmethod
    def facts(model: Model) -> list[Any]:
        """Return what `answer_of` makes of a checkpoint."""
        return [model.state, model.data, model.metadata, model.step]


ManagerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None
)
TestManagerMachine = ManagerMachine.TestCase


def test_a_closed_manager_says_so(tmp_path: Any) -> None:
    """Using a closed manager is a clear error."""
    manager = CheckpointManager(tmp_path / "store")
    manager.close()
    with pytest.raises(CheckpointError, match="was closed") as caught:
        manager.create_checkpoint("t", "T", 1)
    assert caught.value.code == "store.closed"
