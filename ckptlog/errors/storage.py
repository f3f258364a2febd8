"""The storage, and whoever else is at work in it, cannot serve."""

from __future__ import annotations

from ckptlog.errors.base import CheckpointError


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


class RestoreConflictError(CheckpointStorageError):
    """Something stands where a restore would write: what no capture holds, or another's files.

    Nothing was changed.
    """

    code = "restore.conflict"


class OutcomeUnknownError(CheckpointStorageError):
    """The commit may or may not be durable: retry with the same command id."""

    code = "commit.outcome_unknown"
    retryable = True


class WitnessError(CheckpointStorageError):
    """A witness remembers another head of a log than the one that a request begins from."""

    code = "witness.conflict"


class SourceError(CheckpointStorageError):
    """What a component captures, or restores to, is not there or not what it should be."""

    code = "component.source"


class SourceBusyError(SourceError):
    """What a component captures, or restores to, is held or changed by others for too long."""

    code = "component.source_busy"
    retryable = True


class EnvironmentDiffersError(SourceError):
    """The environment is not the captured one, in something that must match."""

    code = "component.environment_differs"


class MissingBlobError(CheckpointStorageError, LookupError):
    """A chunk is in no container that the log knows."""

    code = "blob.missing"


class PayloadCollectedError(MissingBlobError):
    """A compaction let go of a past payload, as it was told to; nothing is damaged."""

    code = "payload.collected"


class RecoveryBusyError(CheckpointStorageError):
    """Another process, or thread, recovers the system, or restores the directory."""

    code = "recovery.busy"
    retryable = True


class CircuitOpenError(CheckpointStorageError):
    """A component, or the storage, failed too often in a row and is left alone for a while."""

    code = "recovery.suspended"
    retryable = True
