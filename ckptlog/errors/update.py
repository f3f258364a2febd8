"""What refuses to change something."""

from __future__ import annotations

from ckptlog.errors.base import CheckpointError


class CheckpointNotFoundError(CheckpointError, LookupError):
    """No such checkpoint, or it was deleted."""

    code = "checkpoint.not_found"


class CheckpointUpdateError(CheckpointError):
    """A checkpoint could not be changed."""

    code = "update.failed"


class InvalidUpdateError(CheckpointUpdateError, ValueError):
    """An argument of a change is wrong, or its data cannot be stored."""

    code = "update.invalid"


class IllegalTransitionError(CheckpointUpdateError):
    """The state machine does not allow this change from the present state."""

    code = "update.illegal_transition"


class ConflictError(CheckpointUpdateError):
    """The checkpoint has moved past the position named by `expected`."""

    code = "update.conflict"


class ServiceStateError(CheckpointUpdateError):
    """A service is not in the state that a call needs: not started, closed, another process's."""

    code = "service.state"


class ServiceBusyError(CheckpointUpdateError):
    """Another operation of the service is at work, and was waited for in vain."""

    code = "service.busy"
    retryable = True


class CommandReusedError(CheckpointUpdateError):
    """The command id was already used for a command with other content."""

    code = "command.id_reused"


class LeaseHeldError(CheckpointUpdateError):
    """Another holder has a live lease on the task."""

    code = "lease.held"
    retryable = True


class LeaseLostError(CheckpointUpdateError):
    """The lease that a write was made under is not the task's any more: another took it over."""

    code = "lease.lost"


class LeaseRequiredError(CheckpointUpdateError):
    """A write without a lease, into a task that another holder has a live lease on."""

    code = "lease.required"


class TaskGivenUpError(CheckpointUpdateError):
    """An interrupted task had its attempts, all or this worker's, or nothing of it verifies."""

    code = "task.given_up"


class RecoveryFailedError(CheckpointUpdateError):
    """A system was not recovered; what was touched was rolled back. `component` says where."""

    code = "recovery.failed"


class RecoveryIncompleteError(RecoveryFailedError):
    """A system is neither what was captured nor what it was before; the hint says what to do."""

    code = "recovery.incomplete"


class RecoveryCancelledError(RecoveryFailedError):
    """A recovery was cancelled; what was touched was rolled back."""

    code = "recovery.cancelled"


class RecoveryRefusedError(CheckpointUpdateError):
    """A recovery was not begun: a payload, a component or a dependency is not fit for it."""

    code = "recovery.refused"


class RecoveryUnfinishedError(CheckpointUpdateError):
    """An earlier recovery of the system ended in the middle: finish it or roll it back first."""

    code = "recovery.unfinished"
