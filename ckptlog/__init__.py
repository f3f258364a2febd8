"""ckptlog: durable, deduplicated, verifiable checkpoints for agents and other long-running work.

    >>> import tempfile, ckptlog
    >>> with ckptlog.CheckpointManager(tempfile.mkdtemp()) as manager:
    ...     name = manager.create_checkpoint("task-1", "Summarise", 1, data={"messages": []})
    ...     manager.get_checkpoint(name).state.value
    'created'

Everything here is loaded when it is first used, so that `import ckptlog` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptlog.capture.capturer import Capturer
    from ckptlog.errors import (
        AddressError,
        ArgumentError,
        BackupDamagedError,
        BackupDivergedError,
        BackupForeignError,
        BlobCorruptionError,
        BusyError,
        CaptureFailedError,
        ChangedError,
        CheckpointCorruptionError,
        CheckpointCreationError,
        CheckpointError,
        CheckpointNotFoundError,
        CheckpointStorageError,
        CheckpointUpdateError,
        CollectionBusyError,
        CommandReusedError,
        ComponentError,
        ConflictError,
        ConsumerBusyError,
        ConsumerDamagedError,
        ConsumerForeignError,
        CreationRefusedError,
        DeliveryError,
        DeniedError,
        DuplicateIdError,
        ForkedError,
        FormatError,
        FullError,
        IllegalTransitionError,
        ImportConflictError,
        InputOutputError,
        InvalidCreationError,
        InvalidUpdateError,
        KeyMissingError,
        KeyUnsafeError,
        LockTimeoutError,
        LogCorruptionError,
        MissingBlobError,
        NoSuchPartError,
        NotAStoreError,
        OtherTimelineError,
        OutcomeUnknownError,
        PayloadCollectedError,
        ProofError,
        QuotaError,
        ReadOnlyError,
        RestoreConflictError,
        RewrittenError,
        RolledBackError,
        SettingsError,
        SignatureError,
        StoreClosedError,
        StoreMissingError,
        UnacknowledgedError,
        UnregisteredTypeError,
        UnstorableError,
        UnsupportedError,
        WitnessError,
    )
    from ckptlog.manager.batch import Batch
    from ckptlog.manager.error_recovery import CheckpointErrorRecovery
    from ckptlog.manager.events import CheckpointEvent, CheckpointEvents
    from ckptlog.manager.importer import ArchiveImport, import_archive, verify_archive
    from ckptlog.manager.index import CheckpointIndex
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.manager.reading import HistoryEntry
    from ckptlog.manager.storage import FileSystemCheckpointStorage
    from ckptlog.manager.wrapper import TaskCheckpointWrapper
    from ckptlog.model.capture import CaptureInfo, ComponentInfo
    from ckptlog.model.checkpoint import CheckpointData
    from ckptlog.model.codec import Codecs, TypeCodec, Typed
    from ckptlog.model.component import Change, Component, Plan, Snapshot
    from ckptlog.model.configuration import CheckpointConfiguration
    from ckptlog.model.difference import Difference
    from ckptlog.model.requirement import CheckpointPerformanceRequirements
    from ckptlog.model.state import CheckpointState
    from ckptlog.monitor.collector import MetricsCollector, PerformanceTrends
    from ckptlog.policy.anomaly import Anomaly
    from ckptlog.policy.sanitise import Sanitiser
    from ckptlog.repository.archive import ArchiveReport
    from ckptlog.repository.audit import AuditEvent
    from ckptlog.repository.backup import BackupReport
    from ckptlog.repository.layout import LegacyLayoutWarning
    from ckptlog.repository.opening import open_store
    from ckptlog.repository.restoration import RestoreReport, restore_store
    from ckptlog.repository.store import Store
    from ckptlog.repository.verify import Report
    from ckptlog.watch.bus import EventBus, InProcessEventBus
    from ckptlog.watch.event import WatchEvent
    from ckptlog.watch.subscription import Subscription

    open = open_store

__version__ = "0.1.0"

_ERRORS = (
    "AddressError",
    "ArgumentError",
    "BackupDamagedError",
    "BackupDivergedError",
    "BackupForeignError",
    "BlobCorruptionError",
    "BusyError",
    "CaptureFailedError",
    "ChangedError",
    "CheckpointCorruptionError",
    "CheckpointCreationError",
    "CheckpointError",
    "CheckpointNotFoundError",
    "CheckpointStorageError",
    "CheckpointUpdateError",
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
    "LockTimeoutError",
    "LogCorruptionError",
    "MissingBlobError",
    "NoSuchPartError",
    "NotAStoreError",
    "OtherTimelineError",
    "OutcomeUnknownError",
    "PayloadCollectedError",
    "ProofError",
    "QuotaError",
    "ReadOnlyError",
    "RestoreConflictError",
    "RewrittenError",
    "RolledBackError",
    "SettingsError",
    "SignatureError",
    "StoreClosedError",
    "StoreMissingError",
    "UnacknowledgedError",
    "UnregisteredTypeError",
    "UnstorableError",
    "UnsupportedError",
    "WitnessError",
)

_HOMES = {
    "Anomaly": "policy.anomaly",
    "ArchiveImport": "manager.importer",
    "ArchiveReport": "repository.archive",
    "AuditEvent": "repository.audit",
    "BackupReport": "repository.backup",
    "Batch": "manager.batch",
    "CaptureInfo": "model.capture",
    "Capturer": "capture.capturer",
    "Change": "model.component",
    "CheckpointConfiguration": "model.configuration",
    "CheckpointData": "model.checkpoint",
    "CheckpointErrorRecovery": "manager.error_recovery",
    "CheckpointEvent": "manager.events",
    "CheckpointEvents": "manager.events",
    "CheckpointIndex": "manager.index",
    "CheckpointManager": "manager.manager",
    "CheckpointPerformanceRequirements": "model.requirement",
    "CheckpointState": "model.state",
    "Codecs": "model.codec",
    "Component": "model.component",
    "ComponentInfo": "model.capture",
    "Difference": "model.difference",
    "EventBus": "watch.bus",
    "FileSystemCheckpointStorage": "manager.storage",
    "HistoryEntry": "manager.reading",
    "InProcessEventBus": "watch.bus",
    "LegacyLayoutWarning": "repository.layout",
    "MetricsCollector": "monitor.collector",
    "PerformanceTrends": "monitor.collector",
    "Plan": "model.component",
    "Report": "repository.verify",
    "RestoreReport": "repository.restoration",
    "Sanitiser": "policy.sanitise",
    "Snapshot": "model.component",
    "Store": "repository.store",
    "Subscription": "watch.subscription",
    "TaskCheckpointWrapper": "manager.wrapper",
    "TypeCodec": "model.codec",
    "Typed": "model.codec",
    "WatchEvent": "watch.event",
    "import_archive": "manager.importer",
    "restore_store": "repository.restoration",
    "verify_archive": "manager.importer",
    **dict.fromkeys(_ERRORS, "errors"),
}

__all__ = [
    "AddressError",
    "Anomaly",
    "ArchiveImport",
    "ArchiveReport",
    "ArgumentError",
    "AuditEvent",
    "BackupDamagedError",
    "BackupDivergedError",
    "BackupForeignError",
    "BackupReport",
    "Batch",
    "BlobCorruptionError",
    "BusyError",
    "CaptureFailedError",
    "CaptureInfo",
    "Capturer",
    "Change",
    "ChangedError",
    "CheckpointConfiguration",
    "CheckpointCorruptionError",
    "CheckpointCreationError",
    "CheckpointData",
    "CheckpointError",
    "CheckpointErrorRecovery",
    "CheckpointEvent",
    "CheckpointEvents",
    "CheckpointIndex",
    "CheckpointManager",
    "CheckpointNotFoundError",
    "CheckpointPerformanceRequirements",
    "CheckpointState",
    "CheckpointStorageError",
    "CheckpointUpdateError",
    "Codecs",
    "CollectionBusyError",
    "CommandReusedError",
    "Component",
    "ComponentError",
    "ComponentInfo",
    "ConflictError",
    "ConsumerBusyError",
    "ConsumerDamagedError",
    "ConsumerForeignError",
    "CreationRefusedError",
    "DeliveryError",
    "DeniedError",
    "Difference",
    "DuplicateIdError",
    "EventBus",
    "FileSystemCheckpointStorage",
    "ForkedError",
    "FormatError",
    "FullError",
    "HistoryEntry",
    "IllegalTransitionError",
    "ImportConflictError",
    "InProcessEventBus",
    "InputOutputError",
    "InvalidCreationError",
    "InvalidUpdateError",
    "KeyMissingError",
    "KeyUnsafeError",
    "LegacyLayoutWarning",
    "LockTimeoutError",
    "LogCorruptionError",
    "MetricsCollector",
    "MissingBlobError",
    "NoSuchPartError",
    "NotAStoreError",
    "OtherTimelineError",
    "OutcomeUnknownError",
    "PayloadCollectedError",
    "PerformanceTrends",
    "Plan",
    "ProofError",
    "QuotaError",
    "ReadOnlyError",
    "Report",
    "RestoreConflictError",
    "RestoreReport",
    "RewrittenError",
    "RolledBackError",
    "Sanitiser",
    "SettingsError",
    "SignatureError",
    "Snapshot",
    "Store",
    "StoreClosedError",
    "StoreMissingError",
    "Subscription",
    "TaskCheckpointWrapper",
    "TypeCodec",
    "Typed",
    "UnacknowledgedError",
    "UnregisteredTypeError",
    "UnstorableError",
    "UnsupportedError",
    "WatchEvent",
    "WitnessError",
    "__version__",
    "import_archive",
    "restore_store",
    "verify_archive",
]
# Not `open`: `from ckptlog import *` would put it in the place of the builtin.
_BY_NAME_ONLY = ("open",)


def __getattr__(name: str) -> Any:
    if name == "open":
        value = import_module("ckptlog.repository.opening").open_store
    elif name in _HOMES:
        value = getattr(import_module(f"ckptlog.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'ckptlog' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *_BY_NAME_ONLY]
