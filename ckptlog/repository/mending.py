"""What a repair did, or would do: a report for people and programs (specs/repair.md)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

_RECORDED: Final = (
    "files",
    "lost_positions",
    "lost_chunks",
    "positions_back",
    "chunks_back",
    "affected",
    "past",
    "named",
    "copy",
)


class MendedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file.

    action: "mended", "made" (it was missing), "moved" (it only kept the store from being opened),
        "refused" (left as it is). quarantine: Where the original is, below the store's root.
    bits, copied: Frames brought back by turning one bit, or from the second copy.
    """

    container: str
    action: str
    bits: int = 0
    copied: int = 0
    events_lost: int = 0
    chunks_lost: int = 0
    quarantine: str = ""
    message: str = ""


class Affected(msgspec.Struct, frozen=True):
    """A checkpoint whose present state cannot be read.

    position: Of its last event. recovery_point: What its task can go on from, "" if nothing.
    """

    checkpoint: str
    task: str
    position: int
    recovery_point: str


class Mending(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and done.

    is_applied: Whether it was done. ok: Whether the store is sound afterwards, but for losses.
    problems_before, problems_after: Of verifications; "after" of the mended files.
    lost_positions: Stretches (first, last) of events that are tombstones, and that nobody has told.
    lost_chunks: First halves of the digests of chunks that payloads name and nobody has.
    positions_back: Stretches of events that an earlier repair had told lost, and a copy had.
    chunks_back: Chunks likewise.
    affected: Present states that cannot be read. past: Those of which only past states cannot.
    named: Ids of checkpoints that could be read in the lost events' bytes.
    notes: What else is worth knowing. views: "rebuilt", "kept", or "would be rebuilt".
    position: Of the event that records it; -1 where there is none.
    """

    store: str
    is_applied: bool
    files: tuple[MendedFile, ...] = ()
    problems_before: tuple[str, ...] = ()
    problems_before_total: int = 0
    problems_after: tuple[str, ...] = ()
    problems_after_total: int = 0
    lost_positions: tuple[tuple[int, int], ...] = ()
    lost_chunks: tuple[str, ...] = ()
    positions_back: tuple[tuple[int, int], ...] = ()
    chunks_back: tuple[str, ...] = ()
    affected: tuple[Affected, ...] = ()
    past: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    packs_registered: tuple[str, ...] = ()
    copy: str = ""
    notes: tuple[str, ...] = ()
    views: str = "kept"
    position: int = -1

    @property
    def ok(self) -> bool:
        """Whether nothing is left to be mended."""
        return not self.problems_after_total and not self.refused

    @property
    def refused(self) -> tuple[MendedFile, ...]:
        """The files that are left as they are; `message` says why."""
        return tuple(one for one in self.files if one.action == "refused")

    @property
    def left(self) -> tuple[str, ...]:
        """Problems that are left, but for those of refused files."""
        names = [one.container for one in self.refused]
        return tuple(one for one in self.problems_after if not any(n in one for n in names))

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to do."""
        return not self.files and not self.has_news and self.views == "kept"

    @property
    def has_news(self) -> bool:
        """Whether anything is lost, or is back, that no earlier event has told of."""
        return bool(
            self.lost_positions or self.lost_chunks or self.positions_back or self.chunks_back
        )

    @property
    def events_lost(self) -> int:
        """How many events are told lost by this repair."""
        return _total(self.lost_positions)

    def facts(self) -> dict[str, int | str]:
        """Return what the event says in public."""
        return {
            "bits": sum(one.bits for one in self.files),
            "chunks_back": len(self.chunks_back),
            "chunks_lost": len(self.lost_chunks),
            "events_back": _total(self.positions_back),
            "events_lost": self.events_lost,
            "files": len(self.files),
            "from_copy": sum(one.copied for one in self.files),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        named = {name: _listed(value) for name, value in fields.items()}
        return {"ok": self.ok, **self.facts(), **named}

    def record(self) -> dict[str, Any]:
        """Return what the event's payload lists."""
        whole = self.to_dict()
        return {name: whole[name] for name in _RECORDED}


def _total(stretches: tuple[tuple[int, int], ...]) -> int:
    return sum(last - first + 1 for first, last in stretches)


def _listed(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_listed(one) for one in value]
    return value
