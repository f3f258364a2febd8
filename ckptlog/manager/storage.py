"""FileSystemCheckpointStorage: the specification's storage, as a view over the log.

What is saved goes through the log; the files are its view (views/files, specs/view-files.md), kept
current by a thread that follows the log for as long as the storage is open. When a call that
changes something returns, its event is durable and its file shows it; the index of many
checkpoints follows a moment later (specs/view-files.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event as Signal
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Final, Self

from ckptlog.errors import (
    ArgumentError,
    BusyError,
    CheckpointError,
    CheckpointNotFoundError,
    ConflictError,
    IllegalTransitionError,
    InvalidUpdateError,
)
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model import value as values
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.state import CheckpointState
from ckptlog.policy.route import route
from ckptlog.policy.sanitise import Sanitiser
from ckptlog.repository.file_view import FileView, Refreshed
from ckptlog.storage.fork import renewed_in_child
from ckptlog.views.document import FOLDERS, folder_of
from ckptlog.views.query import Filter

_PAGE_ROWS: Final = 1000
_ATTEMPTS_MAX: Final = 100
_NEVER_CHANGE: Final = (
    "task_id",
    "task_title",
    "worker_id",
    "parent_checkpoint_id",
    "namespace",
)


_logger = logging.getLogger("ckptlog")


class FileSystemCheckpointStorage:
    """Checkpoints of one store, and each as a JSON file in active/, completed/ or failed/.

    Args:
        base_dir: The store's directory; made where it is missing or empty. The files lie below it,
            in `folder`.
        manager: An open manager to share instead; the caller closes it.
        follow: Whether a thread keeps the files current with what others do, too. Without, they
            are current after each call that changes something, and after `refresh`.

    Durability: as the manager's calls.        Threads: safe. A forked child may go on using it.
    """

    def __init__(
        self,
        base_dir: str | Path | None = None,
        *,
        manager: CheckpointManager | None = None,
        follow: bool = True,
    ) -> None:
        if (base_dir is None) == (manager is None):
            raise ArgumentError(
                "A storage needs a directory, or the manager of an open store.",
                hint="FileSystemCheckpointStorage('.ckptlog'), for example.",
                argument="base_dir",
            )
        self._owns_manager = manager is None
        self.manager = manager or CheckpointManager(base_dir)
        self.base_dir = self.manager.store.path
        self._sanitiser = Sanitiser(enabled=self.manager.config.sanitise)
        self._follows = follow
        self._is_closed = False
        self._begin()
        renewed_in_child(self)
        self._ensure_following()

    # --- life ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Make what belongs to one process: a forked child's threads and locks are its own."""
        self.view = FileView(self.manager.store)
        self.folder = self.view.folder
        self._stop = Signal()
        self._lock = Lock()
        self._thread: Thread | None = None

    def renew_in_child(self) -> None:
        """Begin anew in a forked child; the thread starts with the next call."""
        self._begin()

    def close(self) -> None:
        """Let the files show everything, stop following, close what was opened here.

        Twice is fine. Files that cannot be written are no reason to fail: the next one writes them.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self._follows:
                self.view.refresh()
        except CheckpointError as error:
            _logger.warning("The file view was not refreshed: %s (%s)", error, error.code)
        finally:
            if self._owns_manager:
                self.manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FileSystemCheckpointStorage {self.folder}>"

    def _ensure_following(self) -> None:
        """Have a thread that follows the log."""
        if not self._follows or self._thread is not None or self._is_closed:
            return
        with self._lock:
            if self._thread is None:
                self._thread = Thread(
                    target=self.view.run, args=(self._stop,), name="ckptlog-files", daemon=True
                )
                self._thread.start()

    def refresh(self) -> Refreshed:
        """Let the files show everything that was acknowledged.

        A file that somebody removed alone comes back with its next change or the next opening.

        Raises:
            CheckpointStorageError: The system refused, or the store is open for reading only.
        """
        return self._refreshed(is_lazy=False)

    def _refreshed(self, *, is_lazy: bool) -> Refreshed:
        self._ensure_following()
        self.manager.store.opened()
        # Without a thread nobody would write the index later.
        return self.view.refresh(is_lazy=is_lazy and self._follows)

    # --- the specification's operations -------------------------------------------------------

    def save_checkpoint(self, checkpoint: CheckpointData) -> bool:
        """Append what leads to this checkpoint, in one commit, or nothing where it is so. True.

        Its times are not looked at: the log has its own. Its `position` is set to that of its
        last event; where it had one (it was loaded), nobody else may have changed it since.

        Raises:
            CheckpointCreationError, CheckpointUpdateError: It cannot be reached; the message names
                what is in the way.
        """
        if not isinstance(checkpoint, CheckpointData):
            raise ArgumentError(
                f"checkpoint is of type {type(checkpoint).__name__}; CheckpointData is needed.",
                argument="checkpoint",
            )
        for _ in range(_ATTEMPTS_MAX):
            before = self.manager.get_checkpoint(checkpoint.checkpoint_id)
            try:
                if before is None:
                    self._create(checkpoint)
                else:
                    self._change(before, checkpoint)
                break
            except ConflictError:
                if checkpoint.position >= 0:
                    raise
        else:
            raise BusyError(
                f"{_ATTEMPTS_MAX} attempts to save {checkpoint.checkpoint_id!r} were overtaken.",
                hint="Let fewer writers change one checkpoint at once.",
            )
        entry = self.manager.store.newest(checkpoint.checkpoint_id)
        checkpoint.position = -1 if entry is None else entry.position
        self._refreshed(is_lazy=True)
        return True

    def load_checkpoint(self, checkpoint_id: str) -> CheckpointData | None:
        """Return a checkpoint, verified, from the store; None where there is none."""
        self._ensure_following()
        return self.manager.get_checkpoint(checkpoint_id)

    def delete_checkpoint(self, checkpoint_id: str) -> bool:
        """Delete a checkpoint for good; False where there is none."""
        try:
            is_deleted = self.manager.delete_checkpoint(checkpoint_id)
        except CheckpointNotFoundError:
            return False
        self._refreshed(is_lazy=True)
        return is_deleted

    def list_checkpoints(self, state: CheckpointState | None = None) -> list[str]:
        """Return the ids of all checkpoints, or of those in a state, in the order of creation."""
        if state is not None and not isinstance(state, CheckpointState):
            raise ArgumentError(
                f"state is {state!r}, which is no CheckpointState.",
                hint="Use CheckpointState.ACTIVE, for example.",
                argument="state",
            )
        self._ensure_following()
        return list(self.find(Filter(state=None if state is None else state.value)))

    def get_storage_stats(self) -> dict[str, Any]:
        """Return figures, safe for JSON.

        folder: Of the files. position: After the last event that they show; store_position: After
        the last of the store. total_checkpoints, by_state: Living checkpoints. by_folder: Files
        that they have there. files_bytes: Of these files and the index.
        store: As `Store.stats`.
        """
        self._ensure_following()
        store = self.manager.store
        figures = store.stats()
        by_folder = dict.fromkeys(FOLDERS, 0)
        for state, number in figures["states"].items():
            by_folder[folder_of(state)] += number
        return {
            "folder": str(self.folder),
            "position": self.view.position,
            "store_position": store.position,
            "total_checkpoints": figures["checkpoints"],
            "by_state": figures["states"],
            "by_folder": by_folder,
            "files_bytes": self.view.size_bytes(),
            "store": figures,
        }

    def find(self, wanted: Filter) -> Iterator[str]:
        """Yield the ids of the checkpoints that match, in the order of creation."""
        after = None
        while True:
            rows = self.manager.store.select(wanted, after=after, limit=_PAGE_ROWS)
            yield from (row.id for row in rows)
            if len(rows) < _PAGE_ROWS:
                return
            after = rows[-1].origin

    # --- saving -------------------------------------------------------------------------------

    def _create(self, checkpoint: CheckpointData) -> None:
        states = route(CheckpointState.CREATED, _state_of(checkpoint), must_move=False) or ()
        with self.manager.batch() as batch:
            batch.create_checkpoint(
                checkpoint.task_id,
                checkpoint.task_title,
                checkpoint.step_number,
                checkpoint.step_description,
                checkpoint.total_steps,
                checkpoint.data,
                checkpoint.metadata,
                checkpoint.worker_id,
                checkpoint.parent_checkpoint_id,
                namespace=checkpoint.namespace,
                checkpoint_id=checkpoint.checkpoint_id,
            )
            for state in states:
                batch.update_checkpoint(checkpoint.checkpoint_id, state=state)

    def _change(self, before: CheckpointData, after: CheckpointData) -> None:
        changed = self._changed(before, after)
        if changed.keys() <= {"state"} and after.state is before.state:
            return
        _refuse_fixed(before, changed)
        states = route(before.state, _state_of(after), must_move=bool(changed.keys() - {"state"}))
        if states is None:
            raise IllegalTransitionError(
                f"Checkpoint {before.checkpoint_id!r} is {before.state.value} and cannot be saved "
                f"as {after.state.value}: a checkpoint that is changed is active.",
                hint="Set its state to CheckpointState.ACTIVE.",
                checkpoint_id=before.checkpoint_id,
                state=before.state.value,
                target=after.state.value,
            )
        expected: int | None = before.position if after.position < 0 else after.position
        with self.manager.batch() as batch:
            for state in states[:-1]:
                batch.update_checkpoint(before.checkpoint_id, state=state, expected=expected)
                expected = None
            batch.update_checkpoint(
                before.checkpoint_id,
                after.step_number,
                after.step_description,
                after.data if "data" in changed else None,
                after.metadata if "metadata" in changed else None,
                states[-1],
                total_steps=after.total_steps,
                replace_data=True,
                expected=expected,
            )

    def _changed(self, before: CheckpointData, after: CheckpointData) -> dict[str, Any]:
        """Return the fields that differ, as they are to be; secrets as they would be stored."""
        old, new = self._comparable(before), self._comparable(after)
        return {name: new[name] for name in new if new[name] != old[name]}

    def _comparable(self, checkpoint: CheckpointData) -> dict[str, Any]:
        fields = {
            name: getattr(checkpoint, name)
            for name in (*_NEVER_CHANGE, "state", "step_number", "total_steps", "step_description")
        }
        for name in ("data", "metadata"):
            prepared = values.prepare(
                getattr(checkpoint, name),
                path=name,
                sanitiser=self._sanitiser,
                codecs=self.manager.store.codecs,
            )
            fields[name] = prepared.wire
        return fields


def _state_of(checkpoint: CheckpointData) -> CheckpointState:
    if not isinstance(checkpoint.state, CheckpointState):
        raise InvalidUpdateError(
            f"state is {checkpoint.state!r}, which is no CheckpointState.",
            hint="Use CheckpointState.ACTIVE, for example.",
            argument="state",
        )
    return checkpoint.state


def _refuse_fixed(before: CheckpointData, changed: dict[str, Any]) -> None:
    """Refuse what no event can express."""
    name = before.checkpoint_id
    for field in _NEVER_CHANGE:
        if field in changed:
            raise InvalidUpdateError(
                f"{field} of checkpoint {name!r} is {getattr(before, field)!r} and never changes; "
                f"it was saved with {changed[field]!r}.",
                hint="Create another checkpoint.",
                argument=field,
            )
    if changed.get("total_steps", 0) is None:
        raise InvalidUpdateError(
            f"total_steps of checkpoint {name!r} is {before.total_steps} and cannot be taken away.",
            hint="Save it with a number.",
            argument="total_steps",
        )
    if "metadata" in changed:
        lost = sorted(set(before.metadata) - set(values.decode(changed["metadata"], opaque=True)))
        if lost:
            raise InvalidUpdateError(
                f"The metadata of checkpoint {name!r} has {lost[0]!r}, which cannot be taken away.",
                hint="Keep the key; its value may be None.",
                argument="metadata",
            )
