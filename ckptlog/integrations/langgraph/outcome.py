"""What a migration did: numbers, bytes, and what was not copied, where and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

FAULTS_MAX: Final = 1000


@dataclass(frozen=True)
class Fault:
    """A checkpoint that was not copied, or is not the same here; path: where in it."""

    thread: str
    space: str
    checkpoint: str
    path: str
    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return the fields, safe for JSON."""
        return {
            "thread_id": self.thread,
            "checkpoint_ns": self.space,
            "checkpoint_id": self.checkpoint,
            "path": self.path,
            "code": self.code,
            "message": self.message,
        }


@dataclass
class MigrationReport:
    """What a migration did, or with is_dry_run would do.

    threads, checkpoints: Those of the source that were looked at.
    copied: Checkpoints that are new here. completed: That got writes which the source has got
        since. unchanged: That were here whole. deleted: That were deleted here, and stay so.
    writes: Pending writes that are new here.
    verified: Checkpoints that were read back and are the same.
    failed: Checkpoints with a fault; by_code: their numbers, by code; faults: the first 1,000.
    copied_bytes: What the copied checkpoints take in the source's rows.
    stored_bytes: By how much this store has grown for them, views not counted.
    source_size_bytes, store_size_bytes: Of the whole database, and of the whole store.
    """

    source: str
    is_dry_run: bool
    threads: int = 0
    checkpoints: int = 0
    copied: int = 0
    completed: int = 0
    unchanged: int = 0
    deleted: int = 0
    writes: int = 0
    verified: int = 0
    failed: int = 0
    by_code: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    copied_bytes: int = 0
    stored_bytes: int = 0
    source_size_bytes: int = 0
    store_size_bytes: int = 0
    took_s: float = 0.0

    @property
    def saved_bytes(self) -> int:
        """How much less the copies take."""
        return self.copied_bytes - self.stored_bytes

    def add(self, fault: Fault) -> None:
        """Count a fault."""
        self.failed += 1
        self.by_code[fault.code] = self.by_code.get(fault.code, 0) + 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, safe for JSON."""
        fields = {name: value for name, value in vars(self).items() if name != "is_dry_run"}
        return {
            **fields,
            "dry_run": self.is_dry_run,
            "saved_bytes": self.saved_bytes,
            "took_s": round(self.took_s, 3),
            "faults": [fault.to_dict() for fault in self.faults],
        }
