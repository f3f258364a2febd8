"""The part of a manager that runs a block of code as one checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ckptlog.errors import CheckpointError
from ckptlog.manager.draft import check_type
from ckptlog.manager.lease import LeaseArgument
from ckptlog.manager.refusal import told
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.repository.store import Store

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager


class Contexts:
    """What a manager inherits."""

    store: Store

    @contextmanager
    def checkpoint_context(
        self,
        task_id: str,
        task_title: str,
        step_number: int,
        step_description: str = "",
        **options: Any,
    ) -> Iterator[str]:
        """Run a block as one checkpoint and yield its id.

        Active on entry, completed on a normal exit, failed with the exception's type and message
        on an exception, which goes on. Options are those of `create_checkpoint`. A child that is
        forked in the block, and leaves it, ends nothing: the checkpoint is its parent's.
        """
        manager = cast("CheckpointManager", self)
        own = {name: options.pop(name, None) for name in ("actor", "command_id", "lease")}
        with manager.batch(**own) as batch:
            identifier = batch.create_checkpoint(
                task_id, task_title, step_number, step_description, activate=True, **options
            )
        pid = os.getpid()
        try:
            yield identifier
        except BaseException as error:
            if os.getpid() == pid:
                self.fail_after(identifier, error, lease=own["lease"])
            raise
        if os.getpid() == pid and self._is_open(identifier):
            manager.complete_checkpoint(identifier, lease=own["lease"])

    def fail_after(
        self, checkpoint_id: str, error: BaseException, *, lease: LeaseArgument = None
    ) -> None:
        """Mark a checkpoint as failed because of an exception, unless it has ended or is gone.

        What goes wrong is added to the exception as a note, as it is about to go on.

        Raises:
            ArgumentError: error is no exception.
        """
        check_type("error", error, BaseException)
        try:
            check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
            if self._is_open(checkpoint_id):
                manager = cast("CheckpointManager", self)
                manager.fail_checkpoint(checkpoint_id, told(error), lease=lease)
        except CheckpointError as trouble:
            name = quoted(checkpoint_id)
            error.add_note(f"Checkpoint {name} was not marked as failed: {trouble}")

    def _is_open(self, identifier: str) -> bool:
        entry = self.store.newest(identifier)
        ended = (CheckpointState.COMPLETED.value, CheckpointState.FAILED.value)
        return entry is not None and entry.event.state not in ended
