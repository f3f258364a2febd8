"""Every error that ckptlog raises: one tree, stable codes, and what to do next.

The six classes of the specification are the branches; each leaf has one code, `room.reason`,
that never changes its meaning. A handler picks a branch; a program picks a code.

    CheckpointError
    |-- ArgumentError (ValueError)              argument.invalid
    |   |-- AddressError (KeyError)             argument.address
    |   |-- NoSuchPartError (LookupError)       argument.no_such_part
    |   |-- UnstorableError (TypeError)         argument.unstorable
    |   |-- TooLargeError                       argument.too_large
    |   |-- SettingsError                       argument.settings
    |   `-- ComponentError                      component.invalid
    |-- CheckpointCreationError
    |   |-- InvalidCreationError (ValueError)   create.invalid
    |   |-- CreationRefusedError                create.refused
    |   |-- DuplicateIdError                    create.duplicate_id
    |   |-- QuotaError                          create.quota
    |   `-- CaptureFailedError                  capture.failed
    |       `-- ChangedError                    capture.changed
    |-- CheckpointNotFoundError (LookupError)   checkpoint.not_found
    |-- CheckpointUpdateError
    |   |-- InvalidUpdateError (ValueError)     update.invalid
    |   |-- IllegalTransitionError              update.illegal_transition
    |   |-- ConflictError                       update.conflict
    |   `-- CommandReusedError                  command.id_reused
    |-- CheckpointCorruptionError
    |   |-- BackupDamagedError                  backup.damaged
    |   |-- ConsumerDamagedError                consumer.damaged
    |   |-- FormatError                         format.malformed
    |   |-- LogCorruptionError                  log.corrupt
    |   |-- ProofError                          proof.invalid
    |   |-- RewrittenError                      head.rewritten
    |   |-- RolledBackError                     head.rolled_back
    |   |-- SignatureError                      signature.invalid
    |   `-- BlobCorruptionError                 blob.corrupt
    `-- CheckpointStorageError (OSError's cousins end here)
        |-- StoreMissingError (LookupError)     store.missing
        |-- NotAStoreError                      store.not_a_store
        |-- UnsupportedError                    store.unsupported
        |   `-- UnregisteredTypeError           value.unregistered_type
        |-- PlantingStaleError                  planting.stale
        |-- ReadOnlyError                       store.read_only
        |-- BackupDivergedError                 backup.diverged
        |-- BackupForeignError                  backup.foreign
        |-- ImportConflictError                 import.conflict
        |-- StoreClosedError                    store.closed
        |-- FullError                           storage.full
        |-- DeniedError                         storage.denied
        |-- InputOutputError                    storage.io
        |-- LockTimeoutError                    lock.timeout
        |-- CollectionBusyError                 store.collection_busy
        |-- BusyError                           commit.busy
        |-- ConsumerBusyError                   consumer.busy
        |-- ConsumerForeignError                consumer.foreign
        |-- DeliveryError                       delivery.failed
        |-- ForkedError                         head.forked
        |-- KeyMissingError (LookupError)       key.missing
        |-- KeyUnsafeError                      key.unsafe
        |-- OtherTimelineError                  log.other_timeline
        |-- UnacknowledgedError                 consumer.unacknowledged
        |-- OutcomeUnknownError                 commit.outcome_unknown
        |-- WitnessError                        witness.conflict
        `-- MissingBlobError (LookupError)      blob.missing
            `-- PayloadCollectedError           payload.collected

Foreign errors (OSError, sqlite3.Error, zstandard.ZstdError) cross into this tree at one door
per library; `operating_system_door` is the one for OSError.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class CheckpointError(Exception):
    """Base of the tree.

    Attributes:
        code: Stable `room.reason`; the same for every instance of a class.
        message: What went wrong and where.
        hint: What to do next; may be empty.
        context: JSON-safe facts (path, offset, id, ...) for programs.
        retryable: Whether the same call may succeed later, unchanged.
    """

    code: ClassVar[str] = "checkpoint.error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip() if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.context)

    def to_dict(self) -> dict[str, Any]:
        """Return code, message, hint, retryable and context, safe for JSON."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "context": self.context,
        }


def _rebuild(
    kind: type[CheckpointError], message: str, hint: str, context: dict[str, Any]
) -> CheckpointError:
    return kind(message, hint=hint, **context)


class ArgumentError(CheckpointError, ValueError):
    """An argument of a call that only reads, or of a function below the manager, is wrong."""

    code = "argument.invalid"


class AddressError(ArgumentError, KeyError):
    """A configuration of LangGraph's names no thread, or a part of it is of a wrong type."""

    code = "argument.address"


class NoSuchPartError(ArgumentError, LookupError):
    """A value has nothing at the path that was asked for."""

    code = "argument.no_such_part"


class UnstorableError(ArgumentError, TypeError):
    """A value cannot be stored exactly; the message names the path to it."""

    code = "argument.unstorable"


class TooLargeError(ArgumentError):
    """A value is too large to be put together in memory; it is read by parts."""

    code = "argument.too_large"


class SettingsError(ArgumentError):
    """A configuration value is out of range, unknown, or contradicts another."""

    code = "argument.settings"


class ComponentError(ArgumentError):
    """A component, or a set of them, is not what it must be; the message names it."""

    code = "component.invalid"


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


class CommandReusedError(CheckpointUpdateError):
    """The command id was already used for a command with other content."""

    code = "command.id_reused"


class CheckpointCorruptionError(CheckpointError):
    """Stored bytes are not what was written."""

    code = "corruption.detected"


class BackupDamagedError(CheckpointCorruptionError):
    """A backup is not as it was written, or has no whole state."""

    code = "backup.damaged"


class ConsumerDamagedError(CheckpointCorruptionError):
    """The file that says how far a consumer has come cannot be read."""

    code = "consumer.damaged"


class FormatError(CheckpointCorruptionError):
    """Bytes do not follow their format."""

    code = "format.malformed"


class LogCorruptionError(CheckpointCorruptionError):
    """The log is damaged at or before a position that was durable."""

    code = "log.corrupt"


class ProofError(CheckpointCorruptionError):
    """A proof does not prove what it says."""

    code = "proof.invalid"


class RewrittenError(CheckpointCorruptionError):
    """A signed head covers other events than the log has: its past was changed."""

    code = "head.rewritten"


class RolledBackError(CheckpointCorruptionError):
    """A signed head covers more events than the log has: it was cut, or set back to a backup."""

    code = "head.rolled_back"


class SignatureError(CheckpointCorruptionError):
    """A head or a cosignature is not signed by the key that it should be signed by."""

    code = "signature.invalid"


class BlobCorruptionError(CheckpointCorruptionError):
    """A chunk's bytes do not hash to its name."""

    code = "blob.corrupt"


class CheckpointStorageError(CheckpointError):
    """The store or the medium below it refused."""

    code = "storage.failed"


class StoreMissingError(CheckpointStorageError, LookupError):
    """There is no store at the path."""

    code = "store.missing"


class NotAStoreError(CheckpointStorageError):
    """The directory holds something else."""

    code = "store.not_a_store"


class UnsupportedError(CheckpointStorageError):
    """The store, or the file system below it, needs what this version does not have."""

    code = "store.unsupported"


class UnregisteredTypeError(UnsupportedError):
    """A value holds an object whose type has no codec here; the bytes may well be sound."""

    code = "value.unregistered_type"


class PlantingStaleError(CheckpointStorageError):
    """What was written piece by piece does not fit the log any more; it must be written again."""

    code = "planting.stale"


class ReadOnlyError(CheckpointStorageError):
    """A change was asked of a store that is open for reading only."""

    code = "store.read_only"


class BackupDivergedError(CheckpointStorageError):
    """A backup holds what the store does not have: the store was set back, or is another copy."""

    code = "backup.diverged"


class BackupForeignError(CheckpointStorageError):
    """A directory is another store's backup, or no backup."""

    code = "backup.foreign"


class ImportConflictError(CheckpointStorageError):
    """What an archive holds cannot be brought into this store beside what is there."""

    code = "import.conflict"


class StoreClosedError(CheckpointStorageError):
    """The store was closed."""

    code = "store.closed"


class FullError(CheckpointStorageError):
    """No space is left; nothing was written."""

    code = "storage.full"
    retryable = True


class DeniedError(CheckpointStorageError):
    """The operating system denied access."""

    code = "storage.denied"


class InputOutputError(CheckpointStorageError):
    """The medium reported an error."""

    code = "storage.io"


class LockTimeoutError(CheckpointStorageError):
    """Another process held a lock (the writer's, a history's) for too long."""

    code = "lock.timeout"
    retryable = True


class CollectionBusyError(CheckpointStorageError):
    """Another collection of the store is at work, or was faster."""

    code = "store.collection_busy"
    retryable = True


class BusyError(CheckpointStorageError):
    """Too many operations wait for a commit."""

    code = "commit.busy"
    retryable = True


class ConsumerBusyError(CheckpointStorageError):
    """Another process, or another subscription of this one, reads as this consumer."""

    code = "consumer.busy"
    retryable = True


class ConsumerForeignError(CheckpointStorageError):
    """A consumer's file is of another store, or of another consumer."""

    code = "consumer.foreign"


class DeliveryError(CheckpointStorageError):
    """An event could not be delivered to a command or a webhook, in spite of repetitions."""

    code = "delivery.failed"
    retryable = True


class ForkedError(CheckpointStorageError):
    """A head is of a history that was given up: the log says itself that it was forked."""

    code = "head.forked"


class KeyMissingError(CheckpointStorageError, LookupError):
    """The key that signs this store's heads is not on this machine, or there is none yet."""

    code = "key.missing"


class KeyUnsafeError(CheckpointStorageError):
    """A private key's file can be read by others."""

    code = "key.unsafe"


class UnacknowledgedError(CheckpointStorageError):
    """A consumer has taken as many events as it may without acknowledging any."""

    code = "consumer.unacknowledged"
    retryable = True


class OtherTimelineError(CheckpointStorageError):
    """A consumer's cursor is not of this log's past: the store is another, or was set back."""

    code = "log.other_timeline"


class OutcomeUnknownError(CheckpointStorageError):
    """The commit may or may not be durable: retry with the same command id."""

    code = "commit.outcome_unknown"
    retryable = True


class WitnessError(CheckpointStorageError):
    """A witness remembers another head of a log than the one that a request begins from."""

    code = "witness.conflict"


class MissingBlobError(CheckpointStorageError, LookupError):
    """A chunk is in no container that the log knows."""

    code = "blob.missing"


class PayloadCollectedError(MissingBlobError):
    """A compaction let go of a past payload, as it was told to; nothing is damaged."""

    code = "payload.collected"


_BY_ERRNO: dict[int, type[CheckpointStorageError]] = {
    errno.ENOSPC: FullError,
    errno.EDQUOT: FullError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
    errno.EROFS: ReadOnlyError,
}

_HINTS: dict[type[CheckpointStorageError], str] = {
    FullError: "Free some space and call again; nothing was lost.",
    DeniedError: "Check the owner and the permissions of the directory (ckptlog doctor).",
    ReadOnlyError: "The medium is read-only; open the store with read_only=True.",
    InputOutputError: "Check the medium (ckptlog doctor, ckptlog verify).",
}


def from_os_error(error: OSError, doing: str) -> CheckpointStorageError:
    """Translate an OSError met while `doing` something into the tree."""
    kind = _BY_ERRNO.get(error.errno or 0, InputOutputError)
    where = f" ({error.filename})" if error.filename else ""
    name = errno.errorcode.get(error.errno or 0, "no errno")
    return kind(
        f"{doing}{where}: {error.strerror or error} [{name}].",
        hint=_HINTS[kind],
        errno=error.errno,
        path=str(error.filename) if error.filename else None,
    )


@contextmanager
def operating_system_door(doing: str) -> Iterator[None]:
    """Turn every OSError of the block into one of ours; `doing` starts the message."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing) from error
