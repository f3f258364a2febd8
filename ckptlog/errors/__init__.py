"""Every error that ckptlog raises: one tree, stable codes, and what to do next.

The six classes of the specification are the branches; each leaf has one code, `room.reason`,
that never changes its meaning. A handler picks a branch; a program picks a code.

    CheckpointError
    |-- ArgumentError (ValueError)              argument.invalid
    |   |-- AddressError (KeyError)             argument.address
    |   |-- NoSuchPartError (LookupError)       argument.no_such_part
    |   |-- TooLargeError                       argument.too_large
    |   |-- UnstorableError (TypeError)         argument.unstorable
    |   |-- ForeignPayloadError                 component.foreign_payload
    |   |-- SettingsError                       argument.settings
    |   `-- ComponentError                      component.invalid
    |-- CheckpointCreationError
    |   |-- InvalidCreationError (ValueError)   create.invalid
    |   |-- CreationRefusedError                create.refused
    |   |-- DuplicateIdError                    create.duplicate_id
    |   |-- QuotaError                          create.quota
    |   `-- CaptureFailedError                  capture.failed
    |       |-- ChangedError                    capture.changed
    |       `-- CaptureTooLargeError            capture.too_large
    |-- CheckpointNotFoundError (LookupError)   checkpoint.not_found
    |-- CheckpointUpdateError
    |   |-- InvalidUpdateError (ValueError)     update.invalid
    |   |-- IllegalTransitionError              update.illegal_transition
    |   |-- ConflictError                       update.conflict
    |   |-- ServiceStateError                   service.state
    |   |-- CommandReusedError                  command.id_reused
    |   |-- LeaseHeldError                      lease.held
    |   |-- LeaseLostError                      lease.lost
    |   |-- LeaseRequiredError                  lease.required
    |   |-- RecoveryFailedError                 recovery.failed
    |   |   |-- RecoveryIncompleteError         recovery.incomplete
    |   |   `-- RecoveryCancelledError          recovery.cancelled
    |   |-- RecoveryRefusedError                recovery.refused
    |   |-- RecoveryUnfinishedError             recovery.unfinished
    |   `-- TaskGivenUpError                    task.given_up
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
        |-- RestoreConflictError                restore.conflict
        |-- RecoveryBusyError                   recovery.busy
        |-- CircuitOpenError                    recovery.suspended
        |-- UnacknowledgedError                 consumer.unacknowledged
        |-- OutcomeUnknownError                 commit.outcome_unknown
        |-- WitnessError                        witness.conflict
        |-- SourceError                         component.source
        |   |-- SourceBusyError                 component.source_busy
        |   `-- EnvironmentDiffersError         component.environment_differs
        `-- MissingBlobError (LookupError)      blob.missing
            `-- PayloadCollectedError           payload.collected

Foreign errors (OSError, sqlite3.Error, zstandard.ZstdError) cross into this tree at one door
per library; `operating_system_door` is the one for OSError.
"""

from ckptlog.errors.argument import (
    AddressError,
    ArgumentError,
    ComponentError,
    ForeignPayloadError,
    NoSuchPartError,
    SettingsError,
    TooLargeError,
    UnstorableError,
)
from ckptlog.errors.base import (
    CheckpointError,
)
from ckptlog.errors.corruption import (
    BackupDamagedError,
    BlobCorruptionError,
    CheckpointCorruptionError,
    ConsumerDamagedError,
    FormatError,
    LogCorruptionError,
    ProofError,
    RewrittenError,
    RolledBackError,
    SignatureError,
)
from ckptlog.errors.creation import (
    CaptureFailedError,
    CaptureTooLargeError,
    ChangedError,
    CheckpointCreationError,
    CreationRefusedError,
    DuplicateIdError,
    InvalidCreationError,
    QuotaError,
)
from ckptlog.errors.door import from_os_error, operating_system_door
from ckptlog.errors.storage import (
    BackupDivergedError,
    BackupForeignError,
    BusyError,
    CheckpointStorageError,
    CircuitOpenError,
    CollectionBusyError,
    ConsumerBusyError,
    ConsumerForeignError,
    DeliveryError,
    DeniedError,
    EnvironmentDiffersError,
    ForkedError,
    FullError,
    ImportConflictError,
    InputOutputError,
    KeyMissingError,
    KeyUnsafeError,
    LockTimeoutError,
    MissingBlobError,
    NotAStoreError,
    OtherTimelineError,
    OutcomeUnknownError,
    PayloadCollectedError,
    PlantingStaleError,
    ReadOnlyError,
    RecoveryBusyError,
    RestoreConflictError,
    SourceBusyError,
    SourceError,
    StoreClosedError,
    StoreMissingError,
    UnacknowledgedError,
    UnregisteredTypeError,
    UnsupportedError,
    WitnessError,
)
from ckptlog.errors.update import (
    CheckpointNotFoundError,
    CheckpointUpdateError,
    CommandReusedError,
    ConflictError,
    IllegalTransitionError,
    InvalidUpdateError,
    LeaseHeldError,
    LeaseLostError,
    LeaseRequiredError,
    RecoveryCancelledError,
    RecoveryFailedError,
    RecoveryIncompleteError,
    RecoveryRefusedError,
    RecoveryUnfinishedError,
    ServiceStateError,
    TaskGivenUpError,
)

__all__ = [
    "AddressError",
    "ArgumentError",
    "BackupDamagedError",
    "BackupDivergedError",
    "BackupForeignError",
    "BlobCorruptionError",
    "BusyError",
    "CaptureFailedError",
    "CaptureTooLargeError",
    "ChangedError",
    "CheckpointCorruptionError",
    "CheckpointCreationError",
    "CheckpointError",
    "CheckpointNotFoundError",
    "CheckpointStorageError",
    "CheckpointUpdateError",
    "CircuitOpenError",
    "CollectionBusyError",
    "CommandReusedError",
    "ComponentError",
    "ConflictError",
    "ConsumerBusyError",
    "ConsumerDamagedError",
    "ConsumerForeignError",
    "CreationRefusedError",
    "DeliveryError",
    "DeniedError",
    "DuplicateIdError",
    "EnvironmentDiffersError",
    "ForeignPayloadError",
    "ForkedError",
    "FormatError",
    "FullError",
    "IllegalTransitionError",
    "ImportConflictError",
    "InputOutputError",
    "InvalidCreationError",
    "InvalidUpdateError",
    "KeyMissingError",
    "KeyUnsafeError",
    "LeaseHeldError",
    "LeaseLostError",
    "LeaseRequiredError",
    "LockTimeoutError",
    "LogCorruptionError",
    "MissingBlobError",
    "NoSuchPartError",
    "NotAStoreError",
    "OtherTimelineError",
    "OutcomeUnknownError",
    "PayloadCollectedError",
    "PlantingStaleError",
    "ProofError",
    "QuotaError",
    "ReadOnlyError",
    "RecoveryBusyError",
    "RecoveryCancelledError",
    "RecoveryFailedError",
    "RecoveryIncompleteError",
    "RecoveryRefusedError",
    "RecoveryUnfinishedError",
    "RestoreConflictError",
    "RewrittenError",
    "RolledBackError",
    "ServiceStateError",
    "SettingsError",
    "SignatureError",
    "SourceBusyError",
    "SourceError",
    "StoreClosedError",
    "StoreMissingError",
    "TaskGivenUpError",
    "TooLargeError",
    "UnacknowledgedError",
    "UnregisteredTypeError",
    "UnstorableError",
    "UnsupportedError",
    "WitnessError",
    "from_os_error",
    "operating_system_door",
]
