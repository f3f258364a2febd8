"""TaskMaster: tasks of a Task Master file seed checkpoints; checkpoints' states set statuses.

    tasks.json --seed--> checkpoints, created        checkpoints --sync--> statuses in tasks.json

The task "3.1" of the tag "master" is the checkpoint task "master/3.1". Page: specs/task-master.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from ckptlog.errors import ArgumentError, CheckpointError, CommandReusedError
from ckptlog.integrations.task_master.tasks_file import MASTER, TaskEntry, TasksFile, check_status
from ckptlog.manager.draft import check_type
from ckptlog.manager.lease import LeaseArgument
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.entry import Entry
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.policy.retrial import SEED, gave_up

TASKS_FILE: Final = ".taskmaster/tasks/tasks.json"
# A person has decided: no checkpoint takes that back.
_DECIDED: Final = frozenset({"done", "cancelled", "review", "blocked"})
_DEFERRED: Final = "deferred"
_TO_DO: Final = frozenset({"pending", "in-progress"})
_TITLE_CHARACTERS_MAX: Final = 1_000
_COMMAND_CHARACTERS_MAX: Final = 200


class StatusChange(msgspec.Struct, frozen=True):
    """A status that was set. ref: "3" or "3.1"."""

    ref: str
    before: str
    after: str


class TaskMaster:
    """The tasks of one tag of a Task Master file, beside the checkpoints of a store.

        tasks = TaskMaster(manager)
        tasks.seed()                                     # a checkpoint for each open task
        worker.start_task_execution(tasks.task_id("3"), "Write the parser")
        tasks.sync()                                     # 3 is in-progress

    Args:
        path: The file; `.taskmaster/tasks/tasks.json` below the working directory by default.
        tag: Whose tasks; a file of the old form, without tags, has "master" only.
        wait_s: How long to wait while Task Master has the file locked.

    Threads: safe; so are several processes, and Task Master itself.
    """

    def __init__(
        self,
        checkpoint_manager: CheckpointManager,
        path: str | os.PathLike[str] = TASKS_FILE,
        *,
        tag: str = MASTER,
        wait_s: float = 30.0,
    ) -> None:
        check_type("checkpoint_manager", checkpoint_manager, CheckpointManager)
        self._manager = checkpoint_manager
        given: object = path
        if not isinstance(given, str | os.PathLike) or not os.fspath(given):
            raise ArgumentError(
                f"path is {quoted(path)}; the path of a tasks.json is needed.", argument="path"
            )
        if type(wait_s) not in (int, float) or not wait_s >= 0:
            raise ArgumentError(
                f"wait_s is {quoted(wait_s)}; seconds from 0 on are needed.", argument="wait_s"
            )
        self.tag = check_id("tag", tag)
        self._file = TasksFile(Path(path).absolute(), tag, wait_s=wait_s)

    def task_id(self, ref: str | int) -> str:
        """Return the checkpoint task of a task ("3", 3) or subtask ("3.1")."""
        return check_id("task", f"{self.tag}/{ref}")

    def tasks(self) -> list[TaskEntry]:
        """Return all tasks and subtasks of the file, in its order.

        Raises:
            ArgumentError: The file is missing, or not of this form; the message says where.
        """
        return self._file.entries()

    def seed(
        self, refs: Iterable[str | int] | None = None, *, lease: LeaseArgument = None
    ) -> dict[str, str]:
        """Create a first checkpoint for each open task that has none; return ids by ref.

        Its title and description are the task's, its data is {"task_master": all the file says of
        it}, its total steps are the subtasks, its parent is the parent task's checkpoint. Doing it
        again, also at once in another process, changes nothing.

        Args:
            refs: Only these, whatever their status; by default those pending or in-progress.

        Raises:
            ArgumentError: The file is not of this form, or has no such task.
            CheckpointError: A checkpoint could not be created; those before it stay.
        """
        wanted = _chosen(refs)
        entries = self._file.entries()
        if wanted is not None and (unknown := wanted - {entry.ref for entry in entries}):
            raise ArgumentError(
                f"{self._file.path} has no task {quoted(min(unknown))} under {self.tag!r}.",
                argument="refs",
            )
        seeded: dict[str, str] = {}
        for entry in entries:
            is_wanted = entry.status in _TO_DO if wanted is None else entry.ref in wanted
            if is_wanted and self._latest(entry.ref) is None:
                name = self._seed(entry, lease)
                if name is not None:
                    seeded[entry.ref] = name
        return seeded

    def _seed(self, entry: TaskEntry, lease: LeaseArgument) -> str | None:
        task = self.task_id(entry.ref)
        command = _command(self._manager.store.incarnation(task), task)
        while True:
            try:
                name, is_ours = self._create(entry, command, lease), True
            except CommandReusedError as error:  # from another state of the file
                name, is_ours = str(error.context["checkpoint_id"]), False
                if not name:
                    raise
            if self._manager.store.newest(name) is not None:
                return name if is_ours else None  # another seeded it just now
            command = _following(command, name)  # that one was deleted

    def _create(self, entry: TaskEntry, command: str, lease: LeaseArgument) -> str:
        task = self.task_id(entry.ref)
        parent = None if entry.parent is None else self._latest(entry.parent)
        return self._manager.create_checkpoint(
            task,
            entry.title[:_TITLE_CHARACTERS_MAX] or task,
            1,
            entry.description[:_TITLE_CHARACTERS_MAX],
            entry.subtasks or None,
            {"task_master": {"ref": entry.ref, "tag": self.tag, **entry.fields}},
            {**SEED},
            parent_checkpoint_id=None if parent is None else parent.event.subject.checkpoint,
            command_id=command,
            lease=lease,
        )

    def sync(self, refs: Iterable[str | int] | None = None) -> list[StatusChange]:
        """Set the statuses that the checkpoints' states mean; return those that changed.

        | the task's latest checkpoint | status |
        | --- | --- |
        | created (seeded, nothing done) | stays |
        | active, restored; completed, with steps to come | in-progress |
        | completed, the last step | done |
        | failed | pending: to be taken again |
        | failed, given up by recovery | deferred |

        What a person decided stays: done, cancelled, review and blocked are never taken back, nor
        is deferred, unless it is ours: recovery gave the task up. Tasks without checkpoints stay.

        Raises:
            ArgumentError: The file is missing, or not of this form.
            LockTimeoutError, BusyError: Others change the file all the time.
            CheckpointStorageError: It cannot be written; the old file is there.
        """
        wanted = _chosen(refs)

        def decide(entry: TaskEntry) -> str | None:
            if wanted is not None and entry.ref not in wanted:
                return None
            return self._status(entry)

        return [StatusChange(*one) for one in self._file.set_statuses(decide)]

    def _status(self, entry: TaskEntry) -> str | None:
        if entry.status in _DECIDED:
            return None
        latest = self._latest(entry.ref)
        if latest is None or (entry.status == _DEFERRED and not self._was_given_up(entry.ref)):
            return None
        return self._meaning(latest)

    def _was_given_up(self, ref: str) -> bool:
        """Say whether recovery ever gave the task up, so that "deferred" was set by us."""
        every = self._manager.iterate(
            task_id=self.task_id(ref), newest_first=True, on_damage=lambda *_: None
        )
        return any(gave_up(one.metadata) is not None for one in every)

    def _meaning(self, latest: Entry) -> str | None:
        event = latest.event
        state = CheckpointState(event.state)
        if state is CheckpointState.CREATED:
            return None
        if state is CheckpointState.COMPLETED:
            is_last = not event.total or event.step >= event.total
            return "done" if is_last else "in-progress"
        if state is CheckpointState.FAILED:
            return _DEFERRED if gave_up(self._metadata(latest)) else "pending"
        return "in-progress"

    def _metadata(self, entry: Entry) -> dict[str, Any]:
        try:
            about = self._manager.store.value(entry.event.meta)
        except CheckpointError:  # damaged: then it is a failed one like others
            return {}
        found = about.get("metadata") if isinstance(about, dict) else None
        return found if isinstance(found, dict) else {}

    def set_status(self, ref: str | int, status: str) -> bool:
        """Set a task's status whatever it was; False where it has it already.

        Raises:
            ArgumentError: There is no such task, or no such status; or as `sync`.
        """
        check_status(status)
        wanted = str(ref)
        if all(entry.ref != wanted for entry in self._file.entries()):
            raise ArgumentError(
                f"{self._file.path} has no task {quoted(wanted)} under {self.tag!r}.",
                argument="ref",
            )
        return bool(self._file.set_statuses(lambda one: status if one.ref == wanted else None))

    def _latest(self, ref: str) -> Entry | None:
        return self._manager.get_latest_entry(self.task_id(ref))


def _chosen(refs: object) -> set[str] | None:
    """Return the refs that a caller names; None for all of them."""
    if refs is None:
        return None
    if isinstance(refs, Iterable) and not isinstance(refs, str | bytes):
        return {str(ref) for ref in refs}
    raise ArgumentError(
        f"refs is {quoted(refs)}; a list of refs is needed.",
        hint='One task: refs=["3.1"].',
        argument="refs",
    )


def _command(life: object, task: str) -> str:
    """Return the command id of a task's seed; one that is too long has the task's digest in it."""
    found = f"task-master/{life}/{task}"
    if len(found) <= _COMMAND_CHARACTERS_MAX:
        return found
    return f"task-master/{life}/sha256:{sha256(task.encode()).hexdigest()}"


def _following(command: str, deleted: str) -> str:
    """Return the command id of the seed that comes after one that was deleted."""
    return f"task-master/sha256:{sha256(f'{command} {deleted}'.encode()).hexdigest()}"
