"""The file view: each living checkpoint as a JSON file, for tools that read files.

    FOLDER/active/checkpoint_<id>.json    completed/, failed/ likewise
    FOLDER/index.json                     who is where: by task, worker and state
    FOLDER/.register                      how far the view is, and what each file hashes to
    FOLDER/.new/                          files that are being written

Theory. Nothing is synced; every file is written aside and renamed, so that a reader meets whole
files only, whoever is killed when. One step of the view is

    1. files of checkpoints that have changed: written to their folder, taken from the others
    2. index.json
    3. files of checkpoints that are gone: removed
    4. the register: from here on the step has happened

so that the index never names a file that was not written. Parts 2 to 4 name every checkpoint, so
several steps may share them (`take_in` each, then `settle`), as if they were one. A step that is
cut off before 4 is done again from the old register, with the same events and later ones, and
touches every file that the cut-off one has touched; so nothing is left behind, and no journal is
needed.

After another boot the files may be of any age or torn: then each is read and compared with its
digest. Page: specs/view-files.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from xxhash import xxh3_64_digest

from ckptlog.errors import CheckpointCorruptionError, MissingBlobError
from ckptlog.model.cursor import Cursor
from ckptlog.model.entry import Entry
from ckptlog.model.event import CHECKPOINT_TYPES, CREATED, DELETED, TASK_DELETED
from ckptlog.storage.tree import NEW, Tree
from ckptlog.views import register as registers
from ckptlog.views.document import FOLDERS, folder_of, is_ours, name_of
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.register import UNREADABLE, FileRow, Register

INDEX: Final = "index.json"
REGISTER: Final = ".register"
LOCK: Final = ".lock"

Document = Callable[[Entry], bytes]
"""Returns the bytes of a checkpoint's file after an event.

Raises CheckpointCorruptionError or MissingBlobError where its payloads are damaged or gone; any
other error is not about them, and ends the step.
"""


class Change:
    """What a run of events makes of the checkpoints that it touches: only the outcome counts.

    Args:
        register: What is there before it.
    """

    def __init__(self, register: Register) -> None:
        self._register = register
        self.last: dict[str, Entry] = {}
        self.gone: set[str] = set()
        self.last_updated = register.last_updated
        self._of_task: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self.last) + len(self.gone)

    def add(self, entry: Entry) -> None:
        """Take in the next event."""
        event = entry.event
        self.last_updated = event.time
        if event.type == TASK_DELETED:
            self._end_task(event.subject.task)
        elif event.type == DELETED:
            self._end(event.subject.checkpoint)
        elif event.type in CHECKPOINT_TYPES:
            self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        name, task = entry.event.subject.checkpoint, entry.event.subject.task
        is_known = name in self.last or self._register.get(name) is not None
        # What follows an end is not legal: a late writer brings nothing back.
        if name in self.gone or not (is_known or entry.event.type == CREATED):
            return
        self.last[name] = entry
        self._of_task.setdefault(task, set()).add(name)

    def _end(self, name: str) -> None:
        self.last.pop(name, None)
        self.gone.add(name)

    def _end_task(self, task: str) -> None:
        for name in {*self._register.of_task(task), *self._of_task.pop(task, ())}:
            self._end(name)


class FilesView:
    """The files of one store in one folder.

    Args:
        store_id: 16 bytes.
        boot: Bytes that differ after a reboot; zeros where the system does not tell.

    Raises (every method):
        CheckpointStorageError: The operating system refused.

    Threads: one at a time, in one process at a time; the owner sees to it.
    Durability: none; what matters is in the log.
    """

    def __init__(self, folder: Path, store_id: bytes, boot: bytes) -> None:
        self.tree = Tree(folder)
        self._store_id = store_id
        self._boot = boot
        self.register = Register(store_id, boot)
        # Their files stay until index.json names them no more.
        self._gone: set[str] = set()
        self.is_settled = True

    # --- opening ------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the register.

        Raises:
            ViewDamagedError: There is none that can be believed: `clear`, and begin anew.
        """
        data = self.tree.read(REGISTER)
        if data is None:
            raise ViewDamagedError("The file view has no register that can be read.")
        register = registers.decode(data)
        if register.store_id != self._store_id:
            raise ViewDamagedError("The file view is another store's.")
        self._begin_with(register)

    def _begin_with(self, register: Register) -> None:
        self.register = register
        self._gone = set()
        self.is_settled = True

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the files were written since the machine was started, so that none is torn."""
        return any(self._boot) and self.register.boot == self._boot

    def clear(self) -> None:
        """Begin anew: what is there counts no more, and goes once the new files are there."""
        self.tree.prepare(FOLDERS)
        self.tree.remove(INDEX)
        self._begin_with(Register(self._store_id, self._boot))
        self.register.is_whole = False
        self.tree.put(REGISTER, self.register.encode())

    # --- writing ------------------------------------------------------------------------------

    def apply(self, change: Change, cursor: Cursor, document: Document) -> None:
        """Let the files show a run of events: all parts of a step.

        Args:
            cursor: Behind the last of them.

        Raises:
            CheckpointStorageError: Some files may be new; the register is as it was, and the same
                events (and later ones) can be applied again.
        """
        self.take_in(change, cursor, document)
        self.settle()

    def take_in(self, change: Change, cursor: Cursor, document: Document) -> None:
        """Do the first part of a step; `settle` does the others, of this and those before it.

        Raises:
            CheckpointStorageError: As `apply`; then `load` before the next step.

        Cost: of the files that it writes, however many there are.
        """
        self.is_settled = False
        self.tree.prepare(FOLDERS)
        fresh = [self._place(entry, document) for entry in change.last.values()]
        for row in fresh:
            self.register.put(row)
        for name in change.gone:
            self.register.drop(name)
        self._gone |= change.gone
        self.register.cursor = cursor
        self.register.last_updated = change.last_updated

    def settle(self) -> None:
        """Write index.json, remove the files of what is gone, write the register.

        Cost: index and register name every checkpoint.
        """
        self._write_index()
        for name in self._gone:
            self._take_from(name_of(name), FOLDERS)
        self._save()

    def finish(self) -> None:
        """Say that every file is there, after `clear` and `apply`; remove what does not belong."""
        self.tree.prepare(FOLDERS)
        self._sweep()
        self.register.is_whole = True
        self._write_index()
        self._save()

    def strip(self) -> None:
        """Leave only what readers look at: for files that nobody will keep current."""
        self.tree.remove(REGISTER)
        self.tree.drop(NEW)

    def _place(self, entry: Entry, document: Document) -> FileRow:
        """Write a checkpoint's file to its folder and take it from the others; return its row."""
        event, subject = entry.event, entry.event.subject
        folder, name = folder_of(event.state), name_of(subject.checkpoint)
        try:
            content = document(entry)
        except (CheckpointCorruptionError, MissingBlobError):
            # One that is damaged must not hide the others; index.json names it.
            digest = UNREADABLE
            self._take_from(name, FOLDERS)
        else:
            digest = xxh3_64_digest(content)
            self.tree.put(f"{folder}/{name}", content)
            self._take_from(name, (one for one in FOLDERS if one != folder))
        return FileRow(
            subject.checkpoint,
            subject.task,
            subject.worker,
            event.state,
            entry.origin,
            entry.position,
            digest,
        )

    def _write_index(self) -> None:
        register = self.register
        content = registers.index_of(
            register.in_order(), register.last_updated, register.cursor.position
        )
        data = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        self.tree.put(INDEX, data)
        register.index = xxh3_64_digest(data)

    def _save(self) -> None:
        self.register.boot = self._boot
        self.tree.put(REGISTER, self.register.encode())
        self._gone = set()
        self.is_settled = True

    # --- checking -----------------------------------------------------------------------------

    def faults(self, *, is_thorough: bool) -> list[str]:
        """Return the checkpoints whose files are not as they were written; "" for the index.

        Args:
            is_thorough: Read every file and compare its bytes, not only look for its name.
        """
        there = {folder: set(self.tree.names(folder)) for folder in FOLDERS}
        found = []
        for row in self.register:
            folder, _, name = row.path.partition("/")
            is_there = name in there[folder]
            if row.digest == UNREADABLE:
                found += [row.id] if is_thorough or is_there else []
            elif not is_there or (is_thorough and self._digest(row.path) != row.digest):
                found.append(row.id)
        if self._digest(INDEX) != self.register.index:
            found.append("")
        return found

    def repair(self, entries: Iterable[Entry], document: Document) -> None:
        """Write the files of checkpoints anew, as they were after these events, and the rest."""
        self.tree.prepare(FOLDERS)
        for entry in entries:
            self.register.put(self._place(entry, document))
        self.finish()

    def has_strangers(self) -> bool:
        """Say whether files of ours lie where no row has one."""
        return next(self._strangers(), None) is not None

    def _strangers(self) -> Iterator[str]:
        expected = {row.path for row in self.register if row.digest != UNREADABLE}
        for folder in FOLDERS:
            for name in self.tree.names(folder):
                if is_ours(name) and f"{folder}/{name}" not in expected:
                    yield f"{folder}/{name}"
        yield from (f"{NEW}/{name}" for name in self.tree.names(NEW))

    def _sweep(self) -> None:
        for path in self._strangers():
            self.tree.remove(path)

    def _take_from(self, name: str, folders: Iterable[str]) -> None:
        for folder in folders:
            self.tree.remove(f"{folder}/{name}")

    def _digest(self, path: str) -> bytes:
        content = self.tree.read(path)
        return b"unread" if content is None else xxh3_64_digest(content)
