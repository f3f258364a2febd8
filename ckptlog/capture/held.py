"""What is held of a component between the barrier and the commit.

live                    its frozen parts, everything read inside the barrier
copied, immutable       the value, frozen when it is written
fork                    a child's pipe (capture.offspring)
snapshot, reread        a snapshot, which writes itself
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ckptlog.capture.frozen import Frozen, freeze
from ckptlog.capture.offspring import Offspring, fork
from ckptlog.model.codec import NO_CODECS, Codecs
from ckptlog.model.component import (
    COPIED,
    FORK,
    IMMUTABLE,
    LIVE,
    SNAPSHOT,
    STABILITIES,
    Snapshot,
    Traits,
    is_snapshot,
)


class Held:
    """A component's state, as it was at the barrier.

    Attributes:
        name, stability: Of the component; a snapshot has its own stability.
        snapshot: What writes itself, or None.

    Threads: one at a time, the component's own.
    """

    def __init__(self, value: Any, traits: Traits, codecs: Codecs = NO_CODECS) -> None:
        self.name = traits.name
        self.snapshot: Snapshot | None = None
        self.stability = traits.stability if traits.stability in _OF_VALUES else LIVE
        self._codecs = codecs
        self._value: Any = None
        self._frozen: Frozen | None = None
        self._offspring: Offspring | None = None
        if is_snapshot(value):
            self.snapshot = value
            own = getattr(value, "stability", None)
            self.stability = own if own in STABILITIES else SNAPSHOT
        elif self.stability == LIVE:
            self._frozen = freeze(value, path=self.name, codecs=codecs, is_live=True)
        else:
            self._value = value

    @property
    def needs_fork(self) -> bool:
        """Whether a child must take over the value before the system goes on (`inherit`)."""
        is_kept = self._offspring is not None or self._frozen is not None
        return self.stability == FORK and not is_kept

    @property
    def value(self) -> Any:
        """What capture() returned, where it stays as it is; else None."""
        return self._value

    def frozen(self) -> Frozen:
        """Return the stored form in parts; of a fork this can be done once.

        Raises:
            UnstorableError: As `freeze`.
            CaptureFailedError: The child died.
        """
        if self._offspring is not None:
            return self._offspring.frozen()
        if self._frozen is not None:
            return self._frozen
        return freeze(self._value, path=self.name, codecs=self._codecs)

    def inherit(self, offspring: Offspring) -> None:
        """Leave the value to a child."""
        self._offspring, self._value = offspring, None

    def freeze_now(self) -> None:
        """Read everything of the value, as of one that is live.

        Raises:
            UnstorableError: As `freeze`.
        """
        frozen = freeze(self._value, path=self.name, codecs=self._codecs, is_live=True)
        self._frozen, self._value = frozen, None

    def close(self) -> None:
        """Let go of everything. Twice is fine."""
        snapshot, self.snapshot = self.snapshot, None
        offspring, self._offspring = self._offspring, None
        self._value = self._frozen = None
        if offspring is not None:
            offspring.close()
        if snapshot is not None:
            snapshot.close()


def fork_for(helds: Iterable[Held]) -> None:
    """Let one child take over all values that need one.

    Raises:
        CaptureFailedError: The process could not be forked.
        UnstorableError: As `freeze`, where the interpreter ends: it forks no longer (Python 3.12).
    """
    waiting = [held for held in helds if held.needs_fork]
    if not waiting:
        return
    try:
        offsprings = fork([one.frozen for one in waiting])
    except RuntimeError:
        for held in waiting:
            held.freeze_now()
        return
    for held, offspring in zip(waiting, offsprings, strict=True):
        held.inherit(offspring)


_OF_VALUES = frozenset({LIVE, COPIED, IMMUTABLE, FORK})
