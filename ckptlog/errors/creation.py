"""What refuses to make something."""

from __future__ import annotations

from ckptlog.errors.base import CheckpointError


class CheckpointCreationError(CheckpointError):
    """A checkpoint could not be created."""

    code = "create.failed"


class InvalidCreationError(CheckpointCreationError, ValueError):
    """An argument of create is wrong, or its data cannot be stored."""

    code = "create.invalid"


class CreationRefusedError(CheckpointCreationError):
    """What the new checkpoint would belong to was deleted."""

    code = "create.refused"


class DuplicateIdError(CheckpointCreationError):
    """The explicit checkpoint id is taken, by a living or a deleted checkpoint."""

    code = "create.duplicate_id"


class QuotaError(CheckpointCreationError):
    """The store has reached max_storage_size_gb."""

    code = "create.quota"


class CaptureFailedError(CheckpointCreationError):
    """A system was not captured; `context` names the component and the reason. Nothing changed."""

    code = "capture.failed"
    retryable = True


class ChangedError(CaptureFailedError):
    """What a component reads is not what it was at the barrier, however often it was tried."""

    code = "capture.changed"


class CaptureTooLargeError(CaptureFailedError):
    """A capture is larger than the limit that its capturer was given; nothing was captured."""

    code = "capture.too_large"
    retryable = False
