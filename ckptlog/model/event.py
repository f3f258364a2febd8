"""The event: one immutable fact in the log.

Every `checkpoint.*` event carries the whole set of public facts of its checkpoint after the
change (a snapshot, not a difference) and the roots of its payloads, so that the newest event
alone tells the state. User text lives in payloads only; an event holds ids, numbers and digests.

Fields stand in alphabetical order: that makes the encoder's output canonical (specs/event.md).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

# How an event is written: what it says is the same in both (specs/event.md).
SCHEMA: Final = 2
SCHEMAS: Final = (1, 2)
# Beyond it a reader that holds numbers as IEEE doubles, as RFC 8785 does, sees another number.
INTEGER_MAX: Final = 2**53 - 1

Natural = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
"""A number of an event; the range is checked where events are read (and, by hand, written)."""

Link = Annotated[int, msgspec.Meta(ge=-1, le=INTEGER_MAX)]
"""A position, or -1 for none."""

CREATED: Final = "checkpoint.created"
UPDATED: Final = "checkpoint.updated"
COMPLETED: Final = "checkpoint.completed"
FAILED: Final = "checkpoint.failed"
RESTORED: Final = "checkpoint.restored"
PINNED: Final = "checkpoint.pinned"
UNPINNED: Final = "checkpoint.unpinned"
DELETED: Final = "checkpoint.deleted"
TASK_DELETED: Final = "task.deleted"
CLEANUP_STARTED: Final = "cleanup.started"
CLEANED: Final = "cleanup.finished"
IMPORTED: Final = "import.finished"
STORAGE_PRESSURE: Final = "storage.pressure"
FORKED: Final = "audit.forked"
# What repairs leave (specs/repair.md): a tombstone at a lost position, and what was done.
LOST: Final = "repair.lost"
REPAIRED: Final = "repair.finished"
# What an automatic recovery from an error has done (CheckpointErrorRecovery).
RECOVERED: Final = "recovery.finished"
SETTLED: Final = "gc.settled"
# Captures of systems, what brings one back, and the service that takes them (specs/capture.md).
CAPTURE_FAILED: Final = "capture.failed"
RECOVERY_STARTED: Final = "recovery.started"
RECOVERY_STEP: Final = "recovery.step"
RECOVERY_COMPLETED: Final = "recovery.completed"
RECOVERY_FAILED: Final = "recovery.failed"
SERVICE_STARTED: Final = "service.started"
SERVICE_STOPPED: Final = "service.stopped"
ALERT_RAISED: Final = "alert.raised"
ALERT_CLEARED: Final = "alert.cleared"
# Who alone may write about a task (specs/lease.md); decided, never recorded by themselves.
LEASE_CLAIMED: Final = "lease.claimed"
LEASE_RENEWED: Final = "lease.renewed"
LEASE_RELEASED: Final = "lease.released"
# Its fact: packs whose preparation began before this position are registered no more.
FENCE: Final = "fence"

# What is recorded about no single checkpoint, by itself.
CAPTURE_TYPES: Final = frozenset(
    {
        CAPTURE_FAILED,
        RECOVERY_STARTED,
        RECOVERY_STEP,
        RECOVERY_COMPLETED,
        RECOVERY_FAILED,
        SERVICE_STARTED,
        SERVICE_STOPPED,
        ALERT_RAISED,
        ALERT_CLEARED,
    }
)
RECORDED_TYPES: Final = CAPTURE_TYPES | {
    CLEANUP_STARTED,
    CLEANED,
    IMPORTED,
    RECOVERED,
    STORAGE_PRESSURE,
}
# What changes the metadata of a checkpoint in whatever state it is, and leaves the state.
PIN_TYPES: Final = frozenset({PINNED, UNPINNED})
CHECKPOINT_TYPES: Final = PIN_TYPES | {CREATED, UPDATED, COMPLETED, FAILED, RESTORED, DELETED}
LEASE_TYPES: Final = frozenset({LEASE_CLAIMED, LEASE_RENEWED, LEASE_RELEASED})
TYPES: Final = (
    CHECKPOINT_TYPES
    | RECORDED_TYPES
    | LEASE_TYPES
    | {TASK_DELETED, FORKED, LOST, REPAIRED, SETTLED}
)


class Reference(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Names a payload: how it is laid out, the digest of its root, its size in bytes.

    kind: `leaf` (one chunk is the value's wire) or `list` (a node over chunks; specs/payload.md).
    root: 64 lower-case hexadecimal digits.
    size: Bytes of the value's wire form, before chunking and compression.
    """

    kind: str
    root: str
    size: Natural


class Subject(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    """The public ids that an event is about."""

    checkpoint: str = ""
    namespace: str = ""
    parent: str = ""
    task: str = ""
    worker: str = ""


class PackEntry(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Registers a pack: the log position at which its preparation began, size, name's id."""

    base: int
    bytes: int
    id: str


class Event(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """One fact. Fields in alphabetical order.

    actor: Who did it.
    cause: Id of the event that made this one follow (a clean-up); empty otherwise.
    created: Time of the checkpoint's creation; empty in the creation itself.
    data: Root of the checkpoint's data after the event; None where there is none.
    facts: Numbers and short words of event types that are not about one checkpoint; sorted keys.
    fingerprint: Digest of the command's content; only where the caller gave a command id.
    id: The command's id; unique in a store.
    meta: Root of title, description, metadata and error after the event.
    new: Bytes that this event added to the store for its payloads, as stored.
    origin: Position of the checkpoint's creation; -1 in the creation itself.
    packs: Packs that this commit registers; only in the last event of a commit.
    previous: Position of the checkpoint's event before this one; -1 where there is none.
    removes: Containers whose chunks count no more (specs/collection.md); in `gc.settled` only.
    sanitised: Secrets replaced in this event's payloads.
    schema: In which form it is written.
    state: The checkpoint's state after the event.
    step, total: Progress; total is 0 where unknown.
    subject: The public ids.
    time: UTC, ISO 8601 with microseconds and Z.
    type: What happened.
    """

    actor: str
    cause: str = ""
    created: str = ""
    data: Reference | None = None
    facts: dict[str, int | str] = {}
    fingerprint: str = ""
    id: str
    meta: Reference | None = None
    new: Natural = 0
    origin: Link = -1
    packs: tuple[PackEntry, ...] = ()
    previous: Link = -1
    removes: tuple[str, ...] = ()
    sanitised: Natural = 0
    schema: int
    state: str = ""
    step: Natural = 0
    subject: Subject
    time: str
    total: Natural = 0
    type: str


def saved_bytes(event: Event) -> int:
    """Return the bytes that a whole copy of the state would take at an event that saved it.

    A change of state alone saves nothing, so a checkpoint that is created, activated and
    completed counts once.
    """
    size = 0
    if event.new or event.type == CREATED:
        if event.data is not None:
            size = event.data.size
        if event.meta is not None:
            size += event.meta.size
    return size


def fence_of(event: Event) -> int:
    """Return the fence that a `gc.settled` sets; 0 for any other event."""
    fence = event.facts.get(FENCE, 0) if event.type == SETTLED else 0
    return fence if type(fence) is int else 0
