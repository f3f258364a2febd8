"""A tasks.json of Task Master: read strictly, changed without losing what others write into it.

    {"tasks": [...]}                                   the old form
    {"master": {"tasks": [...], ...}, "other": {...}}  tags, each with its own list

A change is read - changed - compared - renamed, under Task Master's own lock: a program that does
not know the lock, and wrote meanwhile, is noticed by the bytes, and the change made again on what
it wrote. Whatever is not understood stays as it is, in its place. Page: specs/task-master.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ckptlog.errors import ArgumentError, BusyError, operating_system_door
from ckptlog.integrations.source import open_regular
from ckptlog.integrations.task_master.document import plain, read, written
from ckptlog.integrations.task_master.lock import file_lock
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted
from ckptlog.storage import files
from ckptlog.storage.likeness import take_likeness

MASTER: Final = "master"
STATUSES: Final = (
    "pending",
    "in-progress",
    "done",
    "review",
    "deferred",
    "cancelled",
    "blocked",
)
BYTES_MAX: Final = 64 * 1024 * 1024
_ATTEMPTS_MAX: Final = 20
_ID_CHARACTERS_MAX: Final = 64


class TaskEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A task or a subtask of the file.

    ref: "3", or "3.1" of a subtask, as Task Master's commands take it.
    parent: The task's ref, where it is a subtask.
    fields: All that the file has of it; a copy without its subtasks.
    subtasks: How many.
    """

    ref: str
    title: str
    description: str
    status: str
    parent: str | None
    fields: dict[str, Any]
    subtasks: int


class TasksFile:
    """One tag's tasks in one file.

    Args:
        wait_s: How long to wait for another program's lock.

    Threads: safe; so are other processes, and Task Master.
    """

    def __init__(self, path: Path, tag: str = MASTER, *, wait_s: float = 30.0) -> None:
        self.path = path
        self.tag = tag
        self._wait_s = wait_s

    def entries(self) -> list[TaskEntry]:
        """Return all tasks and subtasks, in the file's order.

        Raises:
            ArgumentError: The file is missing or not of this form; the message says where.
        """
        document = self._parsed(self._read())
        return [_entry(ref, parent, fields) for ref, parent, fields in self._nodes(document)]

    def set_statuses(self, decide: Callable[[TaskEntry], str | None]) -> list[tuple[str, str, str]]:
        """Set statuses; return (ref, before, after) of each that was changed.

        Args:
            decide: Returns a task's new status, or None to leave it. It may be asked again, where
                the file changes meanwhile.

        Raises:
            ArgumentError: As `entries`; or a status that Task Master does not have.
            LockTimeoutError, BusyError: Others change the file all the time.

        Durability: on the medium when it returns; killed anywhere, the file is the old or the new.
        """
        for _ in range(_ATTEMPTS_MAX):
            before = self._read()
            document = self._parsed(before)
            changed = self._decided(document, decide)
            if not changed:
                return []
            with self._locked():
                if self._read() == before:
                    self._write(document, before)
                    return changed
        raise BusyError(f"{self.path} was changed by others {_ATTEMPTS_MAX} times.")

    def _decided(
        self, document: dict[str, Any], decide: Callable[[TaskEntry], str | None]
    ) -> list[tuple[str, str, str]]:
        changed = []
        for ref, parent, fields in self._nodes(document):
            entry = _entry(ref, parent, fields)
            status = decide(entry)
            if status is None or status == entry.status:
                continue
            check_status(status)
            fields["status"] = status
            changed.append((ref, entry.status, status))
        return changed

    # --- bytes --------------------------------------------------------------------------------

    def _target(self) -> Path:
        """Return the file itself, where the path is a symbolic link."""
        return Path(os.path.realpath(self.path))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the locks of the file, and of the link to it: who follows it and who does not."""
        target = self._target()
        with ExitStack() as locks:
            for path in (self.path, target) if self.path.is_symlink() else (target,):
                locks.enter_context(file_lock(path, self._wait_s))
            yield

    def _read(self) -> bytes:
        with operating_system_door("Cannot read the tasks"):
            try:
                with open_regular(self.path) as file:
                    raw = file.read(BYTES_MAX + 1)
            except FileNotFoundError:
                raise ArgumentError(
                    f"{self.path} is not there.",
                    hint="`task-master init` makes one.",
                    path=str(self.path),
                ) from None
        if len(raw) > BYTES_MAX:
            raise self._fault(f"is larger than {BYTES_MAX} bytes")
        return raw

    def _write(self, document: dict[str, Any], before: bytes) -> None:
        text = written(document) + (b"\n" if before.endswith(b"\n") else b"")
        target = self._target()
        with operating_system_door("Cannot write the tasks"):
            mode = stat.S_IMODE(target.stat().st_mode)
            fd, temporary = files.create_temporary(target)
            try:
                files.write_all(fd, text, 0)
                take_likeness(fd, target)
                os.fchmod(fd, mode)
                files.sync_file(fd)
                files.publish(temporary, target)
            except BaseException:
                files.remove(temporary)
                raise
            finally:
                os.close(fd)

    # --- form ---------------------------------------------------------------------------------

    def _parsed(self, raw: bytes) -> dict[str, Any]:
        try:
            document = read(raw)
        except (ValueError, RecursionError) as error:
            raise self._fault(f"is no JSON: {error}") from error
        if type(document) is not dict:
            raise self._fault("is no JSON object")
        return document

    def _nodes(self, document: dict[str, Any]) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        seen: set[str] = set()
        for ref, parent, fields in self._walk(document):
            if ref in seen:
                raise self._fault(f"has two tasks {ref}")
            seen.add(ref)
            yield ref, parent, fields

    def _walk(self, document: dict[str, Any]) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        for place, task in self._listed(*self._tasks(document)):
            ref = self._id(task, place)
            yield ref, None, task
            below = task.get("subtasks") or []
            for inner, subtask in self._listed(f"{place}.subtasks", below):
                # A subtask's own id is a number, or (in some versions) already "3.1".
                own = self._id(subtask, inner)
                yield (own if own.startswith(f"{ref}.") else f"{ref}.{own}"), ref, subtask

    def _tasks(self, document: dict[str, Any]) -> tuple[str, object]:
        if isinstance(document.get("tasks"), list):
            if self.tag != MASTER:
                raise self._fault(f"has no tags, so no tag {self.tag!r}")
            return "tasks", document["tasks"]
        tags = [name for name, one in document.items() if isinstance(one, dict) and "tasks" in one]
        if self.tag not in tags:
            raise self._fault(f"has no tag {self.tag!r}; its tags are: {', '.join(tags) or 'none'}")
        return f"{self.tag}.tasks", document[self.tag]["tasks"]

    def _listed(self, place: str, value: object) -> Iterator[tuple[str, dict[str, Any]]]:
        if not isinstance(value, list):
            raise self._fault(f"has no list at {place}")
        for number, one in enumerate(value):
            if not isinstance(one, dict):
                raise self._fault(f"has no object at {place}[{number}]")
            yield f"{place}[{number}]", one

    def _id(self, fields: dict[str, Any], place: str) -> str:
        found = fields.get("id")
        told = str(found) if type(found) is int and found >= 0 else found
        with suppress(ArgumentError):
            return check_id("id", told, _ID_CHARACTERS_MAX)
        raise self._fault(f"has no id at {place}")

    def _fault(self, fault: str) -> ArgumentError:
        return ArgumentError(
            f"{self.path} {fault}.",
            hint="It must be a tasks.json of Task Master; nothing was changed.",
            path=str(self.path),
        )


def check_status(status: object) -> None:
    """Raise if Task Master has no such status.

    Raises:
        ArgumentError: It has not.
    """
    if status not in STATUSES:
        raise ArgumentError(
            f"{quoted(status)} is no status of Task Master.",
            hint=f"Statuses are: {', '.join(STATUSES)}.",
            argument="status",
        )


def _entry(ref: str, parent: str | None, fields: dict[str, Any]) -> TaskEntry:
    below = fields.get("subtasks")
    return TaskEntry(
        ref=ref,
        title=_text(fields, "title"),
        description=_text(fields, "description"),
        status=_text(fields, "status") or "pending",
        parent=parent,
        fields=plain({name: value for name, value in fields.items() if name != "subtasks"}),
        subtasks=len(below) if isinstance(below, list) else 0,
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return str(plain(value)) if isinstance(value, str) else ""
