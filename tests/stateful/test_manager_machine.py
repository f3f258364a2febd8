"""The manager beside a plain model: random operations, reopening, crashes, two processes.

Each rule does one operation on the real store and on the model, through one of three managers:
our own, a second one of this process on the same directory, and one in another process. Every
operation must give the model's answer, and after each one the log is exactly as long as the
model's. In the end the log itself is read, and each prefix of each checkpoint's history must be
legal.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from ckptlog import CheckpointError, CheckpointManager, CheckpointState
from ckptlog.model.state import is_legal
from tests.stateful.model import NOT_FOUND, Checkpoint, Model
from tests.stateful.remote import RemoteManager, perform

TASKS = st.sampled_from(["t1", "t2", "t/3"])
WORKERS = st.sampled_from([None, "w1", "w2"])
SPACES = st.sampled_from(["", "n"])
WHO = st.sampled_from(["own", "other", "remote"])
STATES = st.sampled_from([state.value for state in CheckpointState])
SMALL = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.one_of(st.integers(-5, 5), st.text("xyz", max_size=3), st.lists(st.booleans(), max_size=2)),
    max_size=3,
)
STEPS = st.integers(1, 5)
# The position that was seen last, an earlier one, or none asked for.
EXPECTED = st.sampled_from([None, None, "seen", "old"])
_remote: list[RemoteManager] = []


@pytest.fixture(scope="module", autouse=True)
def remote() -> Iterator[None]:
    """One other process for the whole module."""
    _remote.append(RemoteManager())
    yield
    _remote.pop().close()


class ManagerMachine(RuleBasedStateMachine):
    """Operations on the store and on the model."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.path = tempfile.mkdtemp(prefix="ckptlog-machine-")
        self.model = Model()
        self.uses_remote = False
        # Commands with an id: what was called, and what was answered.
        self.commands: list[tuple[str, list[Any], dict[str, Any], Any]] = []
        self.serial = 0

    @initialize()
    def open(self) -> None:
        """Open two managers on one directory."""
        self.managers = {"own": CheckpointManager(self.path), "other": CheckpointManager(self.path)}

    def call(self, who: str, method: str, *args: Any, **options: Any) -> Any:
        if who == "remote":
            self.uses_remote = True
            return _remote[0].call(self.path, method, *args, **options)
        return perform(self.managers[who], method, list(args), options)

    def named(self, wants: bool) -> dict[str, Any]:
        """Return a new command id as an option, or none."""
        self.serial += wants
        return {"command_id": f"id{self.serial}"} if wants else {}

    def keep(self, method: str, args: list[Any], options: dict[str, Any], answer: Any) -> None:
        """Remember a command that left an event, for a retry."""
        if "command_id" in options:
            self.commands.append((method, args, options, answer))

    def expected(self, name: str, which: str | None) -> dict[str, Any]:
        checkpoint = self.model.living.get(name)
        if which is None or checkpoint is None:
            return {}
        return {"expected": checkpoint.position if which == "seen" else checkpoint.position - 1}

    # --- operations ---

    @rule(
        target=ids,
        who=WHO,
        task=TASKS,
        data=SMALL,
        metadata=SMALL,
        step=STEPS,
        total=st.none() | STEPS,
        worker=WORKERS,
        namespace=SPACES,
        wants_id=st.booleans(),
    )
    def create(  # noqa: PLR0917 - so that the rule reads like the call
        self, who, task, data, metadata, step, total, worker, namespace, wants_id
    ):
        """Create a checkpoint."""
        args = [task, "Title", step, "described", total, data, metadata, worker]
        options = {"namespace": namespace, **self.named(wants_id)}
        name = self.call(who, "create_checkpoint", *args, **options)
        assert isinstance(name, str), name
        self.model.create(
            name,
            Checkpoint(task, step, total, "described", data, metadata, worker, namespace=namespace),
        )
        self.keep("create_checkpoint", args, options, name)
        return name

    @rule(who=WHO, task=TASKS, parent=ids, number=st.integers(0, 2))
    def create_child(self, who: str, task: str, parent: str, number: int) -> None:
        """Create one with a parent, under an id of our own; both may be impossible."""
        name = f"mine-{number}"
        answer = self.call(
            who, "create_checkpoint", task, "T", 1, parent_checkpoint_id=parent, checkpoint_id=name
        )
        if name in self.model.past:
            assert answer == ["error", "create.duplicate_id"]
        elif self.model.refused_parent(parent):
            assert answer == ["error", "create.refused"]
        else:
            assert answer == name
            self.model.create(name, Checkpoint(task, 1, parent=parent))

    @rule(
        who=WHO,
        name=ids,
        data=st.none() | SMALL,
        metadata=st.none() | SMALL,
        description=st.none() | st.sampled_from(["", "described", "new"]),
        step=st.none() | STEPS,
        total=st.none() | STEPS,
        state=st.none() | STATES,
        replaces=st.booleans(),
        which=EXPECTED,
        wants_id=st.booleans(),
    )
    def update(  # noqa: PLR0917
        self, who, name, data, metadata, description, step, total, state, replaces, which, wants_id
    ):
        """Change anything, legal or not."""
        expected = self.expected(name, which)
        args = [name, step, description, data, metadata]
        options = {
            "state": state,
            "total_steps": total,
            "replace_data": replaces,
            **expected,
            **self.named(wants_id),
        }
        answer = self.call(who, "update_checkpoint", *args, **options)
        position = self.model.position
        assert answer == self.model.change(
            name,
            state,
            data=data,
            metadata=metadata,
            description=description,
            step=step,
            total=total,
            replaces=replaces,
            **expected,
        )
        if self.model.position > position:
            self.keep("update_checkpoint", args, options, answer)

    @rule(who=WHO, name=ids, final=st.none() | SMALL, which=EXPECTED, wants_id=st.booleans())
    def complete(self, who, name, final, which, wants_id):
        """Complete a checkpoint."""
        self.end(who, name, "complete_checkpoint", final, which, wants_id=wants_id)

    @rule(who=WHO, name=ids, info=st.none() | SMALL, which=EXPECTED, wants_id=st.booleans())
    def fail(self, who, name, info, which, wants_id):
        """Fail a checkpoint."""
        self.end(who, name, "fail_checkpoint", info, which, wants_id=wants_id)

    def end(self, who, name, method, value, which, *, wants_id):
        expected = self.expected(name, which)
        options = {**expected, **self.named(wants_id)}
        answer = self.call(who, method, name, value, **options)
        position = self.model.position
        if method == "complete_checkpoint":
            right = self.model.change(name, "completed", data=value, **expected)
        else:
            metadata = None if value is None else {"error_info": value}
            right = self.model.change(name, "failed", metadata=metadata, **expected)
        assert answer == right
        if self.model.position > position:
            self.keep(method, [name, value], options, answer)

    @rule(who=WHO, name=ids, which=EXPECTED, wants_id=st.booleans())
    def restore(self, who, name, which, wants_id):
        """Restore a checkpoint."""
        expected = self.expected(name, which)
        options = {**expected, **self.named(wants_id)}
        answer = self.call(who, "restore_checkpoint", name, **options)
        right = self.model.change(name, "restored", **expected)
        if right == NOT_FOUND:
            assert answer is None
        elif right is not True:
            assert answer == right
        else:
            assert answer == self.model.living[name].facts()
            self.keep("restore_checkpoint", [name], options, answer)

    @rule(who=WHO, name=ids, which=EXPECTED, wants_id=st.booleans())
    def delete(self, who, name, which, wants_id):
        """Delete a checkpoint."""
        expected = self.expected(name, which)
        options = {**expected, **self.named(wants_id)}
        answer = self.call(who, "delete_checkpoint", name, **options)
        assert answer == self.model.delete(name, **expected)
        if answer is True:
            self.keep("delete_checkpoint", [name], options, answer)

    @rule(who=WHO, task=TASKS, wants_id=st.booleans())
    def delete_task(self, who: str, task: str, wants_id: bool) -> None:
        """Delete all checkpoints of a task."""
        options = self.named(wants_id)
        answer = self.call(who, "delete_task", task, **options)
        assert answer == self.model.delete_task(task, is_recorded=wants_id)
        self.keep("delete_task", [task], options, answer)

    # --- batches ---

    @rule(
        who=WHO,
        task=TASKS,
        old=ids,
        data=SMALL,
        final=st.none() | SMALL,
        shape=st.sampled_from(["step", "merge", "delete", "spoilt"]),
        wants_id=st.booleans(),
    )
    def batch(self, who, task, old, data, final, shape, wants_id):  # noqa: PLR0917
        """Some operations as one commit: all of them, or none."""
        operations: list[tuple[str, list[Any], dict[str, Any]]] = [
            ("create_checkpoint", [task, "Title", 2, "", None, data], {"activate": True}),
            ("update_checkpoint", ["#0"], {"metadata": data}),
        ]
        if shape == "step":
            operations.insert(0, ("complete_checkpoint", [old, final], {}))
            operations[2] = ("update_checkpoint", ["#1"], {"metadata": data})
        elif shape == "merge":
            operations.append(("update_checkpoint", [old], {"data": data}))
            operations.append(("update_checkpoint", [old], {"data": final}))
        elif shape == "delete":
            operations.append(("fail_checkpoint", ["#0", final], {}))
            operations.append(("delete_checkpoint", [old], {}))
        else:
            operations.append(("complete_checkpoint", ["nobody"], {}))
        command = f"id{self.serial + 1}" if wants_id else None
        self.serial += wants_id
        answer = self.call(who, "run_batch", operations, command)
        if self.is_possible(shape, old, final):
            self.apply(operations, answer, activate=True)
            if command is not None:
                self.commands.append(("run_batch", [operations, command], {}, answer))
        else:
            assert answer[0] == "error", answer

    def is_possible(self, shape: str, old: str, final: dict[str, Any] | None) -> bool:
        before = self.model.living.get(old)
        if shape == "delete":
            return old in self.model.past
        if shape == "spoilt" or before is None:
            return False
        if shape == "merge":
            return is_legal(before.state, "active")
        same = {**before.data, **(final or {})}
        is_repetition = before.state == "completed" and repr(same) == repr(before.data)
        return is_repetition or is_legal(before.state, "completed")

    def apply(
        self, operations: list[tuple[str, list[Any], dict[str, Any]]], made: Any, *, activate: bool
    ) -> None:
        for number, (method, args, options) in enumerate(operations):
            name = args[0]
            if isinstance(name, str) and name.startswith("#"):
                name = made[int(name[1:])]
            if method == "create_checkpoint":
                self.model.create(made[number], Checkpoint(name, 2, data=args[5]))
                self.model.activate(made[number])
            elif method == "delete_checkpoint":
                self.model.delete(name)
            elif method == "complete_checkpoint":
                assert self.model.change(name, "completed", data=args[1]) is True
            elif method == "fail_checkpoint":
                metadata = None if args[1] is None else {"error_info": args[1]}
                assert self.model.change(name, "failed", metadata=metadata) is True
            else:
                assert self.model.change(name, None, **options) is True

    # --- retries ---

    @rule(who=WHO, which=st.integers(0, 10**6))
    def retry(self, who: str, which: int) -> None:
        """Any earlier command again, whatever has happened since: the first answer, no event."""
        if not self.commands:
            return
        method, args, options, first = self.commands[which % len(self.commands)]
        answer = self.call(who, method, *args, **options)
        if method == "restore_checkpoint":
            living = self.model.living.get(args[0])
            assert answer == (living.facts() if living else None)
        else:
            assert answer == first

    @rule(who=WHO, which=st.integers(0, 10**6), name=ids)
    def reuse(self, who: str, which: int, name: str) -> None:
        """An id that was used, for something else."""
        if not self.commands:
            return
        method, args, options, _ = self.commands[which % len(self.commands)]
        if method == "run_batch":
            # Of its operations, a create is one that has left an event.
            kinds = [kind for kind, _, _ in args[0]]
            command = f"{args[1]}/{kinds.index('create_checkpoint')}"
        else:
            command = options["command_id"]
        answer = self.call(
            who, "update_checkpoint", name, data={"never": "sent"}, command_id=command
        )
        assert answer == ["error", "command.id_reused"]

    # --- life ---

    @rule()
    def reopen(self) -> None:
        """Close cleanly and open again."""
        self.managers["own"].close()
        self.managers["own"] = CheckpointManager(self.path)

    @rule()
    def kill(self) -> None:
        """Kill the other process; the next call there opens the store anew."""
        _remote[0].kill()

    @rule(what=st.sampled_from(["views", "views/chunks", "views/current.sqlite"]))
    def lose_views(self, what: str) -> None:
        """Throw away what is disposable."""
        self.close()
        path = Path(self.path, what)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        self.open()

    @rule()
    def rebuild(self) -> None:
        """Build the views anew, beside others that have them open."""
        assert self.managers["other"].store.rebuild_views() == self.model.position

    # --- questions ---

    @rule(who=WHO, name=ids)
    def get(self, who: str, name: str) -> None:
        """Read one checkpoint."""
        living = self.model.living.get(name)
        assert self.call(who, "get_checkpoint", name) == (living.facts() if living else None)

    @rule(who=WHO, name=ids, position=st.integers(-1, 100))
    def past(self, who: str, name: str, position: int) -> None:
        """Read a whole life, also of a deleted one, and one moment of it."""
        assert self.call(who, "lives", name) == self.model.past[name]
        found = self.call(who, "get_checkpoint_at", name, position)
        assert found == self.model.at(name, position)

    @rule(
        who=WHO,
        task=st.none() | TASKS,
        state=st.none() | STATES,
        worker=WORKERS,
        namespace=st.none() | SPACES,
        after=st.none() | ids,
        limit=st.none() | st.integers(0, 4),
        newest_first=st.booleans(),
    )
    def lists(self, who, task, state, worker, namespace, after, limit, newest_first):  # noqa: PLR0917
        """Read a page of a list."""
        wanted = {"task": task, "state": state, "worker": worker, "namespace": namespace}
        wanted = {word: value for word, value in wanted.items() if value is not None}
        page = {"after": after, "limit": limit, "newest_first": newest_first}
        names = {"task": "task_id", "worker": "worker_id"}
        found = self.call(
            who, "ids", **{names.get(word, word): value for word, value in wanted.items()}, **page
        )
        assert found == self.model.ids(**wanted, **page)

    @rule(who=WHO, task=TASKS, parent=ids)
    def latest(self, who: str, task: str, parent: str) -> None:
        """Read the newest of a task, and children."""
        names = self.model.ids(task=task, newest_first=True, limit=1)
        found = self.call(who, "get_latest_checkpoint", task)
        assert found == (self.model.living[names[0]].facts() if names else None)
        children = self.call(who, "ids", parent_checkpoint_id=parent)
        assert children == self.model.ids(parent=parent)

    @invariant()
    def nothing_else_was_written(self) -> None:
        """The log is as long as the model's, to the event."""
        if hasattr(self, "managers"):
            assert self.managers["own"].store.position == self.model.position

    def close(self) -> None:
        for manager in self.managers.values():
            manager.close()
        if self.uses_remote:
            _remote[0].call(self.path, "close")
            self.uses_remote = False

    def teardown(self) -> None:
        """Check every prefix of every history, and close."""
        if not hasattr(self, "managers"):
            return
        states: dict[str, str | None] = {}
        for position, entry in enumerate(self.managers["own"].store.events()):
            event = entry.event
            assert entry.position == position
            name = event.subject.checkpoint
            if name and event.type != "checkpoint.deleted":
                assert is_legal(states.get(name), event.state), (name, entry)
                states[name] = event.state
        problems = self.managers["own"].validate_checkpoint_integrity()
        assert problems == [], problems
        self.close()
        shutil.rmtree(self.path)


_profile = settings()
ManagerMachine.TestCase.settings = settings(
    max_examples=_profile.max_examples // 2, stateful_step_count=30, deadline=None
)
TestManagerMachine = ManagerMachine.TestCase


def test_a_closed_manager_says_so(tmp_path: Any) -> None:
    """Using a closed manager is a clear error."""
    manager = CheckpointManager(tmp_path / "store")
    manager.close()
    with pytest.raises(CheckpointError, match="was closed") as caught:
        manager.create_checkpoint("t", "T", 1)
    assert caught.value.code == "store.closed"
