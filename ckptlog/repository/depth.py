"""How deep a verification goes: its level, and which chunks it decodes."""

from __future__ import annotations

from typing import Final, get_args

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.errors import ArgumentError
from ckptlog.formats import chunk
from ckptlog.model.quotation import quoted
from ckptlog.repository.report import Level

SHARE_DEFAULT: Final = 0.05
CONFIDENCE: Final = 0.95
_HASHES: Final = 1 << 64


class Depth(msgspec.Struct, frozen=True):
    """What is asked for.

    share: Of the leaves that "sampled" decodes; above 0, at most 1. seed: Chooses them.
    is_resuming: Whether "full" goes on where an interrupted run has stopped.
    """

    level: Level = "full"
    share: float = SHARE_DEFAULT
    seed: int = 0
    is_resuming: bool = False

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ArgumentError: No such level, a share out of range, resume with another level.
        """
        levels = get_args(Level)
        if self.level not in levels:
            raise ArgumentError(
                f"There is no level {quoted(self.level)}.",
                hint=f"Use {', '.join(levels[:-1])} or {levels[-1]}.",
                argument="level",
            )
        is_number = type(self.share) in (int, float)
        if not is_number or not 0 < self.share <= 1:  # NaN is in no range
            raise ArgumentError(
                f"share is {quoted(self.share)}; a number above 0, at most 1, is needed.",
                argument="share",
            )
        if type(self.seed) is not int or not 0 <= self.seed < _HASHES:
            raise ArgumentError(
                f"seed is {quoted(self.seed)}; a whole number from 0 to 2**64 - 1 is needed.",
                argument="seed",
            )
        if self.is_resuming and self.level != "full":
            raise ArgumentError(
                f"A run of the level {self.level} cannot be resumed.",
                hint="Use the level full.",
                argument="resume",
            )

    def takes(self, digest: bytes, domain: int) -> bool:
        """Say whether a chunk is decoded: nodes and branches always, leaves by the level."""
        if self.level == "full" or domain != chunk.LEAF:
            return True
        if self.level == "sampled":
            return xxh3_64_intdigest(digest, self.seed) < self.share * _HASHES
        return False


def damaged_share_max(taken: int, confidence: float = CONFIDENCE) -> float:
    """Return the largest share of damaged leaves that a sound sample leaves possible.

    Args:
        taken: Leaves that were taken by chance. What is read always (branches, nodes) is no sample,
            and says nothing of the leaves.
    """
    return 1.0 if taken == 0 else 1.0 - (1.0 - confidence) ** (1.0 / taken)
