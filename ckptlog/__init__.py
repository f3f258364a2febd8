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
    from ckptlog.capture.arrays import ArraysComponent
    from ckptlog.capture.callables import CallableComponent, MappingComponent, state_component
    from ckptlog.capture.capturer import Capturer
    from ckptlog.capture.directory.component import DirectoryComponent
    from ckptlog.capture.environment import EnvironmentComponent
    from ckptlog.capture.file import FileComponent
    from ckptlog.capture.queue import AsyncQueueComponent, QueueComponent
    from ckptlog.capture.sqlite import SqliteComponent
    from ckptlog.errors import (
        AddressError,
        ArgumentError,
        BackupDamagedError,
        BackupDivergedError,
        BackupForeignError,
        BlobCorruptionError,
        BusyError,
        CaptureFailedError,
        CaptureTooLargeError,
        ChangedError,
        CheckpointCorruptionError,
        CheckpointCreationError,
        CheckpointError,
        CheckpointNotFoundError,
        CheckpointStorageError,
        CheckpointUpdateError,
        CircuitOpenError,
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
        EnvironmentDiffersError,
        ForeignPayloadError,
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
        LeaseHeldError,
        LeaseLostError,
        LeaseRequiredError,
        LockTimeoutError,
        LogCorruptionError,
        MissingBlobError,
        NoSuchPartError,
        NotAStoreError,
        OtherTimelineError,
        OutcomeUnknownError,
        PayloadCollectedError,
        PlantingStaleError,
        ProofError,
        QuotaError,
        ReadOnlyError,
        RecoveryBusyError,
        RecoveryCancelledError,
        RecoveryFailedError,
        RecoveryIncompleteError,
        RecoveryRefusedError,
        RecoveryUnfinishedError,
        RestoreConflictError,
        RewrittenError,
        RolledBackError,
        ServiceBusyError,
        ServiceStateError,
        SettingsError,
        SignatureError,
        SourceBusyError,
        SourceError,
        StoreClosedError,
        StoreMissingError,
        TaskGivenUpError,
        TooLargeError,
        UnacknowledgedError,
        UnregisteredTypeError,
        UnstorableError,
        UnsupportedError,
        WitnessError,
    )
    from ckptlog.integrations.orchestrator.orchestrator import EnhancedOrchestratorIntegration
    from ckptlog.integrations.orchestrator.protocol import (
        EnhancedClaudeOrchestrator,
        EnhancedTaskContext,
    )
    from ckptlog.integrations.orchestrator.worker import WorkerCheckpointIntegration
    from ckptlog.integrations.task_master.task_master import TaskMaster
    from ckptlog.manager.batch import Batch
    from ckptlog.manager.error_recovery import CheckpointErrorRecovery
    from ckptlog.manager.events import CheckpointEvent, CheckpointEvents
    from ckptlog.manager.importer import ArchiveImport, import_archive, verify_archive
    from ckptlog.manager.index import CheckpointIndex
    from ckptlog.manager.interruption import InterruptedTask
    from ckptlog.manager.lease import Lease
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
    from ckptlog.model.system_configuration import SystemConfiguration
    from ckptlog.monitor.alert import Alert
    from ckptlog.monitor.collector import MetricsCollector, PerformanceTrends
    from ckptlog.monitor.logger import LoggerFactory, LogLevel
    from ckptlog.monitor.monitoring import CheckpointMonitoring
    from ckptlog.monitor.performance import CheckpointPerformanceMonitor
    from ckptlog.monitor.prometheus import PrometheusCollector
    from ckptlog.monitor.telemetry import TelemetryMetrics
    from ckptlog.policy.anomaly import Anomaly
    from ckptlog.policy.sanitise import Sanitiser
    from ckptlog.recovery.progress import RecoveryProgress
    from ckptlog.recovery.recovery import Recovery
    from ckptlog.recovery.task_recovery import TaskRecovery
    from ckptlog.repository.archive import ArchiveReport
    from ckptlog.repository.audit import AuditEvent
    from ckptlog.repository.backup import BackupReport
    from ckptlog.repository.layout import LegacyLayoutWarning
    from ckptlog.repository.opening import open_store
    from ckptlog.repository.restoration import RestoreReport, restore_store
    from ckptlog.repository.store import Store
    from ckptlog.repository.verify import Report
    from ckptlog.service.asynchronous import AsyncCheckpointService
    from ckptlog.service.creation import create_checkpoint_system, load_configuration, quick_start
    from ckptlog.service.service import CheckpointService
    from ckptlog.service.tally import ServiceMetrics
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
    "ServiceBusyError",
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
)

_HOMES = {
    "Alert": "monitor.alert",
    "Anomaly": "policy.anomaly",
    "ArchiveImport": "manager.importer",
    "ArchiveReport": "repository.archive",
    "ArraysComponent": "capture.arrays",
    "AsyncCheckpointService": "service.asynchronous",
    "AsyncQueueComponent": "capture.queue",
    "AuditEvent": "repository.audit",
    "BackupReport": "repository.backup",
    "Batch": "manager.batch",
    "CallableComponent": "capture.callables",
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
    "CheckpointMonitoring": "monitor.monitoring",
    "CheckpointPerformanceMonitor": "monitor.performance",
    "CheckpointPerformanceRequirements": "model.requirement",
    "CheckpointService": "service.service",
    "CheckpointState": "model.state",
    "Codecs": "model.codec",
    "Component": "model.component",
    "ComponentInfo": "model.capture",
    "Difference": "model.difference",
    "DirectoryComponent": "capture.directory.component",
    "EnhancedClaudeOrchestrator": "integrations.orchestrator.protocol",
    "EnhancedOrchestratorIntegration": "integrations.orchestrator.orchestrator",
    "EnhancedTaskContext": "integrations.orchestrator.protocol",
    "EnvironmentComponent": "capture.environment",
    "EventBus": "watch.bus",
    "FileComponent": "capture.file",
    "FileSystemCheckpointStorage": "manager.storage",
    "HistoryEntry": "manager.reading",
    "InProcessEventBus": "watch.bus",
    "InterruptedTask": "manager.interruption",
    "Lease": "manager.lease",
    "LegacyLayoutWarning": "repository.layout",
    "LogLevel": "monitor.logger",
    "LoggerFactory": "monitor.logger",
    "MappingComponent": "capture.callables",
    "MetricsCollector": "monitor.collector",
    "PerformanceTrends": "monitor.collector",
    "Plan": "model.component",
    "PrometheusCollector": "monitor.prometheus",
    "QueueComponent": "capture.queue",
    "Recovery": "recovery.recovery",
    "RecoveryProgress": "recovery.progress",
    "Report": "repository.verify",
    "RestoreReport": "repository.restoration",
    "Sanitiser": "policy.sanitise",
    "ServiceMetrics": "service.tally",
    "Snapshot": "model.component",
    "SqliteComponent": "capture.sqlite",
    "Store": "repository.store",
    "Subscription": "watch.subscription",
    "SystemConfiguration": "model.system_configuration",
    "TaskCheckpointWrapper": "manager.wrapper",
    "TaskMaster": "integrations.task_master.task_master",
    "TaskRecovery": "recovery.task_recovery",
    "TelemetryMetrics": "monitor.telemetry",
    "TypeCodec": "model.codec",
    "Typed": "model.codec",
    "WatchEvent": "watch.event",
    "WorkerCheckpointIntegration": "integrations.orchestrator.worker",
    "create_checkpoint_system": "service.creation",
    "import_archive": "manager.importer",
    "load_configuration": "service.creation",
    "quick_start": "service.creation",
    "restore_store": "repository.restoration",
    "state_component": "capture.callables",
    "verify_archive": "manager.importer",
    **dict.fromkeys(_ERRORS, "errors"),
}

__all__ = [
    "AddressError",
    "Alert",
    "Anomaly",
    "ArchiveImport",
    "ArchiveReport",
    "ArgumentError",
    "ArraysComponent",
    "AsyncCheckpointService",
    "AsyncQueueComponent",
    "AuditEvent",
    "BackupDamagedError",
    "BackupDivergedError",
    "BackupForeignError",
    "BackupReport",
    "Batch",
    "BlobCorruptionError",
    "BusyError",
    "CallableComponent",
    "CaptureFailedError",
    "CaptureInfo",
    "CaptureTooLargeError",
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
    "CheckpointMonitoring",
    "CheckpointNotFoundError",
    "CheckpointPerformanceMonitor",
    "CheckpointPerformanceRequirements",
    "CheckpointService",
    "CheckpointState",
    "CheckpointStorageError",
    "CheckpointUpdateError",
    "CircuitOpenError",
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
    "DirectoryComponent",
    "DuplicateIdError",
    "EnhancedClaudeOrchestrator",
    "EnhancedOrchestratorIntegration",
    "EnhancedTaskContext",
    "EnvironmentComponent",
    "EnvironmentDiffersError",
    "EventBus",
    "FileComponent",
    "FileSystemCheckpointStorage",
    "ForeignPayloadError",
    "ForkedError",
    "FormatError",
    "FullError",
    "HistoryEntry",
    "IllegalTransitionError",
    "ImportConflictError",
    "InProcessEventBus",
    "InputOutputError",
    "InterruptedTask",
    "InvalidCreationError",
    "InvalidUpdateError",
    "KeyMissingError",
    "KeyUnsafeError",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "LeaseRequiredError",
    "LegacyLayoutWarning",
    "LockTimeoutError",
    "LogCorruptionError",
    "LogLevel",
    "LoggerFactory",
    "MappingComponent",
    "MetricsCollector",
    "MissingBlobError",
    "NoSuchPartError",
    "NotAStoreError",
    "OtherTimelineError",
    "OutcomeUnknownError",
    "PayloadCollectedError",
    "PerformanceTrends",
    "Plan",
    "PlantingStaleError",
    "PrometheusCollector",
    "ProofError",
    "QueueComponent",
    "QuotaError",
    "ReadOnlyError",
    "Recovery",
    "RecoveryBusyError",
    "RecoveryCancelledError",
    "RecoveryFailedError",
    "RecoveryIncompleteError",
    "RecoveryProgress",
    "RecoveryRefusedError",
    "RecoveryUnfinishedError",
    "Report",
    "RestoreConflictError",
    "RestoreReport",
    "RewrittenError",
    "RolledBackError",
    "Sanitiser",
    "ServiceBusyError",
    "ServiceMetrics",
    "ServiceStateError",
    "SettingsError",
    "SignatureError",
    "Snapshot",
    "SourceBusyError",
    "SourceError",
    "SqliteComponent",
    "Store",
    "StoreClosedError",
    "StoreMissingError",
    "Subscription",
    "SystemConfiguration",
    "TaskCheckpointWrapper",
    "TaskGivenUpError",
    "TaskMaster",
    "TaskRecovery",
    "TelemetryMetrics",
    "TooLargeError",
    "TypeCodec",
    "Typed",
    "UnacknowledgedError",
    "UnregisteredTypeError",
    "UnstorableError",
    "UnsupportedError",
    "WatchEvent",
    "WitnessError",
    "WorkerCheckpointIntegration",
    "__version__",
    "create_checkpoint_system",
    "import_archive",
    "load_configuration",
    "quick_start",
    "restore_store",
    "state_component",
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
