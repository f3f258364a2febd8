"""What an audit flags: the names, what each is worth, and the thresholds (specs/audit.md)."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import msgspec

from ckptlog.errors import ArgumentError
from ckptlog.model.entry import Entry
from ckptlog.model.event import Subject

Worth = Literal["info", "warning"]

CLOCK_BACKWARDS: Final = "clock-backwards"
CLOCK_AHEAD: Final = "clock-ahead"
STEP_GAP: Final = "step-gap"
STEP_BEYOND_TOTAL: Final = "step-beyond-total"
STUCK_ACTIVE: Final = "stuck-active"
STUCK_RESTORED: Final = "stuck-restored"
REPEATED_FAILURES: Final = "repeated-failures"
REPEATED_RESTORES: Final = "repeated-restores"
DELETE_BURST: Final = "delete-burst"
NEW_ACTOR: Final = "new-actor"
SECRETS_REPLACED: Final = "secrets-replaced"
SIZE_JUMP: Final = "size-jump"
SIZE_DROP: Final = "size-drop"
STORAGE_PRESSURE: Final = "storage-pressure"

LEVELS: Final[dict[str, Worth]] = {
    CLOCK_BACKWARDS: "warning",
    CLOCK_AHEAD: "warning",
    STEP_GAP: "warning",
    STEP_BEYOND_TOTAL: "info",
    STUCK_ACTIVE: "warning",
    STUCK_RESTORED: "warning",
    REPEATED_FAILURES: "warning",
    REPEATED_RESTORES: "warning",
    DELETE_BURST: "warning",
    NEW_ACTOR: "info",
    SECRETS_REPLACED: "info",
    SIZE_JUMP: "info",
    SIZE_DROP: "info",
    STORAGE_PRESSURE: "warning",
}


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where on something is an anomaly; the table of specs/audit.md says what each bounds.

    Times in seconds, sizes in bytes. tracked_max bounds memory: tasks, open checkpoints, actors.
    """

    clock_tolerance_s: float = 1
    clock_ahead_s: float = 60
    stuck_after_s: float = 86_400
    failures_min: int = 3
    restores_min: int = 3
    deletes_min: int = 20
    deletes_window_s: float = 60
    actor_grace_events: int = 100
    size_ratio: float = 10
    size_min_bytes: int = 1_048_576
    tracked_max: int = 65_536

    def check(self) -> None:
        """Refuse what bounds nothing.

        Raises:
            ArgumentError: A value is no number, negative, or too small to mean anything.
        """
        least = {"failures_min": 1, "restores_min": 1, "deletes_min": 1, "tracked_max": 1}
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            is_whole = field.type is int
            is_number = type(value) is int or (type(value) is float and not is_whole)
            lowest = least.get(field.name, 0)
            if not is_number or not math.isfinite(value) or value < lowest:
                kind = "a whole number" if is_whole else "a number"
                raise ArgumentError(
                    f"{field.name} is {value!r}; {kind} from {lowest} on is needed.",
                    argument=field.name,
                )


class Occasion(msgspec.Struct, frozen=True, gc=False):
    """What names an event: a selection looks at no more, and a watch keeps no more of it."""

    position: int
    time: str
    type: str
    actor: str
    subject: Subject


class Anomaly(msgspec.Struct, frozen=True, gc=False):
    """Something that deserves a look.

    name: One of `LEVELS`. at: The event that it stands at. message: For people.
    facts: Numbers and ids for programs.
    """

    name: str
    at: Occasion
    message: str
    facts: dict[str, int | str] = {}

    @property
    def level(self) -> Worth:
        """How much it deserves: "warning" means that something is probably wrong."""
        return LEVELS[self.name]

    def to_dict(self) -> dict[str, Any]:
        """Return the record of specs/audit.md, safe for JSON."""
        return {
            "kind": "anomaly",
            "name": self.name,
            "level": self.level,
            "position": self.at.position,
            "time": self.at.time,
            "actor": self.at.actor,
            "task": self.at.subject.task or None,
            "checkpoint": self.at.subject.checkpoint or None,
            "action": self.at.type,
            "message": self.message,
            "facts": dict(self.facts),
        }


def occasion_of(entry: Entry) -> Occasion:
    """Return what names an entry's event."""
    event = entry.event
    return Occasion(entry.position, event.time, event.type, event.actor, event.subject)
