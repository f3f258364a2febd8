"""CheckpointPerformanceMonitor: latencies, throughput, memory, storage, beside what is required.

By hand: the four `track_*` methods. By itself: `attach()` times the calls of its manager (and only
of that object; whoever opened another one is not seen), `follow(service)` takes a service's
captures and recoveries. Memory is bounded: a sketch for each operation, `OPERATIONS_MAX` of them;
what comes under further names counts as "other". Page: specs/monitoring.md.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

from ckptlog.errors import ArgumentError, CheckpointError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.opening import refuse_wrong_type
from ckptlog.model.configuration import MEBIBYTE
from ckptlog.model.quotation import quoted
from ckptlog.model.requirement import CheckpointPerformanceRequirements
from ckptlog.model.state import CheckpointState
from ckptlog.monitor.face import service_of
from ckptlog.monitor.name import check_name
from ckptlog.monitor.sketch import ERROR, Sketch, not_negative
from ckptlog.repository.statistics import ask, measure
from ckptlog.storage.fork import free_in_child

OPERATIONS_MAX: Final = 256
OTHER: Final = "other"
_STATM: Final = Path("/proc/self/statm")
# Calls of a manager that are timed, and what they are counted as.
TIMED: Final = {
    "create_checkpoint": "create",
    "update_checkpoint": "update",
    "complete_checkpoint": "complete",
    "fail_checkpoint": "fail",
    "restore_checkpoint": "restore",
    "delete_checkpoint": "delete",
    "get_checkpoint": "query",
    "get_task_checkpoints": "query",
    "get_latest_checkpoint": "query",
    "get_checkpoints_by_state": "query",
    "get_checkpoints_by_worker": "query",
    "get_recovery_point": "query",
}
_LIMITS_MS: Final = {
    "create": "MAX_CHECKPOINT_CREATION_TIME_MS",
    "update": "MAX_CHECKPOINT_UPDATE_TIME_MS",
    "query": "MAX_CHECKPOINT_QUERY_TIME_MS",
}
_OPEN: Final = (CheckpointState.CREATED, CheckpointState.ACTIVE, CheckpointState.RESTORED)
# Whose checkpoint is looked at afterwards, for its size: the first argument, or what is returned.
_SAVING: Final = frozenset({"create_checkpoint", "update_checkpoint", "complete_checkpoint"})


class Told(Protocol):
    """What tells of its events, as a service does."""

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function for each event of a name; return what ends that."""


class _Operation:
    """How one kind of operation went."""

    def __init__(self) -> None:
        self.sketch = Sketch()
        self.failed = 0
        self.over = 0


class CheckpointPerformanceMonitor:
    """Measures one manager.

    Args:
        checkpoint_manager: Whose storage is measured, and whose calls `attach` times; None measures
            by hand alone.
        requirements: A class, or an object, with the nine constants; the specification's stand
            for those that it lacks.

    Threads: safe.
    """

    def __init__(
        self,
        checkpoint_manager: CheckpointManager | None = None,
        *,
        requirements: Any = CheckpointPerformanceRequirements,
    ) -> None:
        refuse_wrong_type("checkpoint_manager", checkpoint_manager, CheckpointManager)
        self.checkpoint_manager = checkpoint_manager
        self.requirements = requirements
        self._lock = Lock()
        free_in_child(self, "_lock")
        self._operations: dict[str, _Operation] = {}
        self._throughput, self._memory, self._storage = Sketch(), Sketch(), Sketch()
        self._cache, self._open, self._sizes = Sketch(), Sketch(), Sketch()
        self._told_rate, self._seen_rate = Sketch(), Sketch()
        self._began_s = self._sampled_s = time.monotonic()
        self._done = self._sampled = self._created = self._sampled_created = 0
        self._ends: list[Callable[[], None]] = []

    # --- the specification's methods ----------------------------------------------------------

    def track_operation_latency(self, operation: str, duration_ms: float) -> None:
        """Take in how long an operation took.

        Raises:
            ArgumentError: operation is no name, or duration_ms no number of 0 or more.
        """
        self._track(operation, not_negative("duration_ms", duration_ms), is_failed=False)

    def track_throughput(self, operations_per_second: float) -> None:
        """Take in how many operations were done in a second, by a program that was busy."""
        rate = not_negative("operations_per_second", operations_per_second)
        self._throughput.add(rate)
        self._told_rate.add(rate)

    def track_memory_usage(self, memory_mb: float) -> None:
        """Take in the memory of the process, MiB."""
        self._memory.add(not_negative("memory_mb", memory_mb))

    def track_storage_usage(self, storage_mb: float) -> None:
        """Take in the size of the store, MiB."""
        self._storage.add(not_negative("storage_mb", storage_mb))

    def get_performance_report(self) -> dict[str, Any]:
        """Return everything, safe for JSON; what each field means: specs/monitoring.md."""
        requirements = self._required()
        return {
            "seconds": round(time.monotonic() - self._began_s, 3),
            "operations": {name: self._told(name, one) for name, one in self._each()},
            "throughput": self._throughput.summary("per_s"),
            "memory": self._memory.summary("mb"),
            "storage": self._storage.summary("mb"),
            "now": self.measured(),
            "requirements": requirements,
            "violations": [one["name"] for one in requirements if one["met"] is False],
            "percentile_error": ERROR,
        }

    # --- by itself ----------------------------------------------------------------------------

    def measured(self) -> dict[str, float | None]:
        """Measure memory, storage, cache and open checkpoints now, without tracking.

        Returns:
            memory_mb, storage_mb, cache_mb (MiB), open_checkpoints; None where it cannot be told.
        """
        memory = memory_bytes()
        found: dict[str, float | None] = {
            "memory_mb": None if memory is None else memory / MEBIBYTE,
            "storage_mb": None,
            "cache_mb": None,
            "open_checkpoints": None,
        }
        if self.checkpoint_manager is not None:
            store = self.checkpoint_manager.store
            with suppress(CheckpointError):
                sizes = measure(store.path)
                found["storage_mb"] = (sizes.total - sizes.reserve) / MEBIBYTE
                found["cache_mb"] = store.blobs.cached_bytes / MEBIBYTE
                counts = ask(store, lambda view: view.counts_by_state())
                found["open_checkpoints"] = float(sum(counts.get(one.value, 0) for one in _OPEN))
        return found

    def sample(self) -> dict[str, float | None]:
        """Measure and track what `measured` tells, and the throughput since the sample before."""
        found = self.measured()
        tracked = {
            "memory_mb": self._memory,
            "storage_mb": self._storage,
            "cache_mb": self._cache,
            "open_checkpoints": self._open,
        }
        for name, sketch in tracked.items():
            value = found[name]
            if value is not None:
                sketch.add(value)
        now_s = time.monotonic()
        with self._lock:
            done, seconds = self._done - self._sampled, now_s - self._sampled_s
            created = self._created - self._sampled_created
            self._sampled, self._sampled_created = self._done, self._created
            self._sampled_s = now_s
        rate = done / seconds if seconds > 0 else None
        if rate is not None:
            self._throughput.add(rate)
            self._seen_rate.add(created / seconds)
        return {**found, "operations_per_second": rate}

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Time a block; one that raises counts as failed too."""
        check_name("operation", operation)
        begin_s, is_failed = time.perf_counter(), True
        try:
            yield
            is_failed = False
        finally:
            self._track(operation, (time.perf_counter() - begin_s) * 1000, is_failed=is_failed)

    def attach(self, manager: CheckpointManager | None = None) -> Callable[[], None]:
        """Time the calls of a manager (by default its own) from now on; return what ends that.

        Raises:
            ArgumentError: There is no manager, or it is timed by a monitor already.
        """
        refuse_wrong_type("manager", manager, CheckpointManager)
        target = manager or self.checkpoint_manager
        if target is None:
            raise ArgumentError("There is no manager to attach to.", argument="manager")
        if vars(target).keys() & TIMED.keys():
            raise ArgumentError(
                f"{target!r} is timed already.",
                hint="Detach that monitor first.",
                argument="manager",
            )
        for name, operation in TIMED.items():
            # On the object, over the class's method: other managers are not touched.
            wrapped = self._wrapped(getattr(target, name), operation)
            if name in _SAVING:
                wrapped = self._weighed(wrapped, target)
            setattr(target, name, wrapped)

        def end() -> None:
            for name in TIMED:
                vars(target).pop(name, None)

        return self._ending(end)

    def _wrapped(self, call: Callable[..., Any], operation: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.timed(operation):
                return call(*arguments, **options)

        return timed

    def _weighed(self, call: Callable[..., Any], manager: CheckpointManager) -> Callable[..., Any]:
        """Return a call after which the size of its checkpoint is tracked."""

        @functools.wraps(call)
        def weighed(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            is_new = type(result) is str
            given = arguments[0] if arguments else options.get("checkpoint_id")
            with suppress(CheckpointError):
                self._weigh(manager, result if is_new else given)
            return result

        return weighed

    def _weigh(self, manager: CheckpointManager, checkpoint: Any) -> None:
        entry = manager.store.newest(checkpoint)
        if entry is not None:
            parts = (entry.event.data, entry.event.meta)
            self._sizes.add(sum(one.size for one in parts if one is not None) / MEBIBYTE)

    def follow(self, service: Told) -> Callable[[], None]:
        """Take in a service's captures and recoveries, as its events tell; return what ends that.

        They count as `capture` and `recovery`; what failed as `capture`, `recovery`, `cleanup`.
        """
        service = service_of(service)
        if not callable(getattr(service, "on", None)):
            raise ArgumentError(f"{quoted(service)} tells of no events.", argument="service")
        ends = [
            service.on("checkpoint_created", self._captured),
            service.on("recovery_completed", self._recovered),
            service.on("operation_failed", self._failed),
        ]

        def end() -> None:
            for one in ends:
                one()

        return self._ending(end)

    def close(self) -> None:
        """End everything that was attached or followed. Twice is fine."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            end()

    def _ending(self, end: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            self._ends.append(end)
        return end

    def _captured(self, info: Any) -> None:
        self._track("capture", info.seconds * 1000, is_failed=False)

    def _recovered(self, progress: Any) -> None:
        if progress.started_at and progress.finished_at and not progress.plans:  # no dry run
            seconds = (progress.finished_at - progress.started_at).total_seconds()
            self._track("recovery", max(0.0, seconds) * 1000, is_failed=False)

    def _failed(self, operation: Any) -> None:
        self._track(operation.kind, operation.seconds * 1000, is_failed=True)

    # --- what was tracked ---------------------------------------------------------------------

    def operations(self) -> dict[str, tuple[Sketch, int]]:
        """Return the sketch of each operation's milliseconds, and how many failed."""
        return {name: (one.sketch, one.failed) for name, one in self._each()}

    def _each(self) -> list[tuple[str, _Operation]]:
        with self._lock:
            return sorted(self._operations.items())

    def _track(self, name: str, duration_ms: float, *, is_failed: bool) -> None:
        check_name("operation", name)
        limit_ms = self._limit_ms(name)
        with self._lock:
            if name not in self._operations and len(self._operations) >= OPERATIONS_MAX:
                name = OTHER
            one = self._operations.setdefault(name, _Operation())
            self._done += 1
            self._created += name == "create" and not is_failed
            one.failed += is_failed
            one.over += limit_ms is not None and duration_ms > limit_ms
        one.sketch.add(duration_ms)

    def _limit_ms(self, name: str) -> float | None:
        constant = _LIMITS_MS.get(name)
        return None if constant is None else self._limit(constant)

    def _limit(self, constant: str) -> float:
        standard = getattr(CheckpointPerformanceRequirements, constant)
        found: float = getattr(self.requirements, constant, standard)
        return found

    def _told(self, name: str, one: _Operation) -> dict[str, Any]:
        return {
            **one.sketch.summary("ms"),
            "failed": one.failed,
            "limit_ms": self._limit_ms(name),
            "over_limit": one.over,
        }

    def _required(self) -> list[dict[str, Any]]:
        """Return each of the nine constants beside what was measured for it."""
        found = []
        for name, constant in _LIMITS_MS.items():
            one = self._operations.get(name)
            value = None if one is None else one.sketch.quantile(0.99)
            found.append(_requirement(constant, self._limit(constant), value))
        found.append(self._rate())
        storage = self._storage.last / 1024 if self._storage.count else None
        values = {
            "MAX_CONCURRENT_CHECKPOINTS": _greatest(self._open),
            "MAX_CHECKPOINT_SIZE_MB": _greatest(self._sizes),
            "MAX_TOTAL_STORAGE_GB": storage,
            "MAX_MEMORY_USAGE_MB": _greatest(self._memory),
            "MAX_CACHE_SIZE_MB": _greatest(self._cache),
        }
        return [*found, *(_requirement(name, self._limit(name), values[name]) for name in values)]

    def _rate(self) -> dict[str, Any]:
        """Return how many checkpoints a second there were, beside the least that there must be.

        Only whoever tracked it knows whether the program was busy. What samples saw proves that so
        many are possible, never that more are not: a program that has little to save creates few.
        """
        least = self._limit("MIN_CHECKPOINTS_PER_SECOND")
        told, seen = _greatest(self._told_rate), _greatest(self._seen_rate)
        value = seen if told is None else told
        met = None if value is None or (told is None and value < least) else value >= least
        return {"name": "MIN_CHECKPOINTS_PER_SECOND", "limit": least, "value": value, "met": met}


def _greatest(sketch: Sketch) -> float | None:
    return sketch.greatest if sketch.count else None


def _requirement(name: str, limit: float, value: float | None) -> dict[str, Any]:
    met = None if value is None else value <= limit
    return {"name": name, "limit": limit, "value": value, "met": met}


def memory_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
