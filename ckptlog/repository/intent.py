"""What the manager hands to the writer: commands of one commit, and the chunks they bring."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry
from ckptlog.policy.command import AnyCommand
from ckptlog.policy.decide import Stale

Results = tuple[str | bool | int, ...]


class Step(msgspec.Struct, frozen=True, gc=False):
    """One command and the chunk records that ride in front of its first event."""

    command: AnyCommand
    records: Sequence[bytes] = ()


class Intent(msgspec.Struct, frozen=True, gc=False):
    """Commands for one commit: all are carried out, or none.

    packs, placements: Packs written beforehand that the commit registers, and their chunks.
    """

    steps: tuple[Step, ...]
    packs: tuple[PackEntry, ...] = ()
    placements: tuple[Placement, ...] = ()


Outcome = Results | Stale
