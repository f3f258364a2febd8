"""What the store says of a command: one checkpoint for each attempt of the task.

    created and active, at once     before the command is started
    active, updated                 after each capture: output so far, newest capture
    completed | failed              at the end, in one commit with all that is known

An attempt that is active and whose lease nobody holds was interrupted.
"""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import Any, Final

from ckptlog.errors import CheckpointError
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.state import CheckpointState
from ckptlog.service.command.process import Ended

KEY: Final = "run"
FORMAT: Final = 1
_INTERRUPTED: Final = {
    "type": "Interrupted",
    "message": "ckptlog run was killed, or the machine stopped.",
}
_ENDED: Final = (CheckpointState.COMPLETED, CheckpointState.FAILED)


class Record:
    """The attempts of one task.

    Threads: one call at a time.        Durability: as the manager's.
    """

    def __init__(self, manager: CheckpointManager, task: str) -> None:
        self._manager = manager
        self._task = task
        self._id = ""

    @property
    def id(self) -> str:
        """The present attempt's checkpoint; "" before it has begun."""
        return self._id

    def last(self) -> CheckpointData | None:
        """Return the last attempt of the task; None where there was none.

        Checkpoints that the command itself has made are passed over.
        """
        found = self._manager.iterate(task_id=self._task, newest_first=True)
        return next((one for one in found if KEY in one.metadata), None)

    def begin(
        self, title: str, data: dict[str, Any], *, last: CheckpointData | None, lease: Lease
    ) -> str:
        """Record that an attempt begins, and that the one before was interrupted, if it was."""
        attempt, step = data["attempt"], 1 if last is None else last.step_number + 1
        with self._manager.batch(lease=lease) as batch:
            if last is not None and is_open(last):
                reason = "ckptlog run was killed, or the machine stopped"
                batch.fail_checkpoint(
                    last.checkpoint_id, {"type": "Interrupted", "message": reason}
                )
            self._id = batch.create_checkpoint(
                self._task,
                title,
                step,
                f"attempt {attempt}",
                None,
                data,
                {KEY: {"format": FORMAT, "attempt": attempt}},
                lease.holder,
                parent_checkpoint_id=None if last is None else last.checkpoint_id,
                activate=True,
            )
        return self._id

    def update(self, data: dict[str, Any], *, lease: Lease) -> None:
        """Record what is known by now."""
        self._manager.update_checkpoint(self._id, data=data, lease=lease)

    def end(self, data: dict[str, Any], error_info: dict[str, Any] | None, *, lease: Lease) -> None:
        """Record the end: completed, or failed with a reason."""
        with self._manager.batch(lease=lease) as batch:
            if error_info is None:
                batch.complete_checkpoint(self._id, data)
            else:
                batch.update_checkpoint(self._id, data=data)
                batch.fail_checkpoint(self._id, error_info)


def is_open(last: CheckpointData) -> bool:
    """Say whether an attempt has no end in the store: it was interrupted, if nobody is at it."""
    return last.state not in _ENDED


def is_done(last: CheckpointData) -> bool:
    """Say whether there is nothing to resume: it ended well, is saved, and nobody stopped it."""
    is_cut_short = last.data.get("stopped_by") or last.data.get("capture_fault")
    return last.state is CheckpointState.COMPLETED and not is_cut_short


def end_facts(ended: Ended) -> dict[str, Any]:
    """Return what is recorded of a command's end."""
    usage = ended.usage
    return {
        "exit_code": ended.exit_code,
        "signal": None if ended.signal is None else signal_name(ended.signal),
        "resources": {
            "user_s": usage.ru_utime,
            "system_s": usage.ru_stime,
            "max_rss_bytes": usage.ru_maxrss * 1024,
        },
    }


def failure_of(ended: Ended) -> dict[str, Any] | None:
    """Return why a command failed; None where it did not."""
    if ended.signal is not None:
        name = signal_name(ended.signal)
        return {"type": "Signal", "message": f"The command was ended by {name}.", "signal": name}
    if ended.exit_code:
        message = f"The command ended with exit code {ended.exit_code}."
        return {"type": "ExitCode", "message": message, "exit_code": ended.exit_code}
    return None


def not_started(error: OSError) -> dict[str, Any]:
    """Return why a command failed that could not be started."""
    return {"type": "NotStarted", "message": error.strerror or str(error), "errno": error.errno}


def signal_name(number: int) -> str:
    """Return what a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else str(number)


def now() -> str:
    """Return the time, as it is recorded."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def told(error: BaseException) -> str:
    """Return an error in one line."""
    code = f" [{error.code}]" if isinstance(error, CheckpointError) else ""
    return f"{error}{code}"
