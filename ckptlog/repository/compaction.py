"""What is asked of a collection, and what it answers (repository.collection)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

# A shorter segment stays: a folder of tiny ones helps nobody. A short run of an agent has more, and
# its events are a sixth of it.
SEAL_BYTES_MIN: Final = 16 * 1024
GARBAGE_MIN: Final = 0.05


class CollectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to collect.

    drop_superseded: Also let go of payloads that a later event of their checkpoint replaced: what
        is there now can be read, what was there before only in its outlines.
    garbage_min: Share of a container that must be garbage, 0 to 1; a segment of which a tenth and
        more are events is emptied for their sake, and with 0 every one is.
    seal_bytes_min: The segment that is being written is finished first where it has so many bytes.
    dry_run: Change nothing; say what could be given back.
    upgrade: A store that was made by an older version becomes one that only this version and newer
        ones open.
    actor: Who asks.
    """

    drop_superseded: bool = False
    garbage_min: float = GARBAGE_MIN
    seal_bytes_min: int = SEAL_BYTES_MIN
    dry_run: bool = False
    upgrade: bool = False
    actor: str = ""


class Collected(msgspec.Struct, kw_only=True):
    """What a collection did, or would do.

    bytes_before, bytes_after: Of log and packs. position: What was marked at.
    chunks_kept, chunks_dropped, bytes_dropped: Met in the containers that were emptied.
    segments, packs: Containers that were emptied. packs_written: New ones.
    orphans: Files that no event registers, or that an earlier collection had no time to remove.
    is_dry_run: Whether nothing was changed.
    """

    bytes_before: int
    bytes_after: int = 0
    position: int = 0
    chunks_kept: int = 0
    chunks_dropped: int = 0
    bytes_dropped: int = 0
    segments: int = 0
    packs: int = 0
    packs_written: int = 0
    orphans: int = 0
    is_dry_run: bool = False

    @property
    def bytes_freed(self) -> int:
        """How much smaller log and packs became; negative where they grew."""
        return self.bytes_before - self.bytes_after

    def to_dict(self) -> dict[str, Any]:
        """Return it safe for JSON."""
        return {**msgspec.to_builtins(self), "bytes_freed": self.bytes_freed}


def add(found: Collected, before: Collected) -> None:
    """Let what a collection did tell of the one right before it too."""
    found.bytes_before = before.bytes_before
    for name in ("chunks_kept", "chunks_dropped", "bytes_dropped", "segments", "packs"):
        setattr(found, name, getattr(found, name) + getattr(before, name))
    found.packs_written += before.packs_written
    found.orphans += before.orphans
