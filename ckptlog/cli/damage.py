"""What a listing tells of checkpoints that cannot be read, behind those that can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.cli.command import Context
from ckptlog.cli.exit_status import status_of
from ckptlog.cli.removal import told_failures

if TYPE_CHECKING:
    from ckptlog.errors import CheckpointError


class Damages:
    """Takes in each one, as an `on_damage`."""

    def __init__(self) -> None:
        self._failed: list[dict[str, Any]] = []
        self._statuses: set[int] = set()

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._failed)

    def __call__(self, identifier: str, error: CheckpointError) -> None:
        """Note one."""
        self._statuses.add(status_of(error))
        fields = error.to_dict()
        message = f"{identifier} cannot be read: {fields['message']}"
        self._failed.append({"checkpoint_id": identifier, **fields, "message": message})

    def told(self, context: Context, done: int) -> int:
        """Tell of them; return the exit status of a listing that told of so many others."""
        return told_failures(context, done, self._failed, self._statuses, verb="listed whole")
