"""What earlier events said of a checkpoint: its state, since when, and the time.

An event names the one before it by position, and the history has one row for each position. So
no map of living checkpoints is needed: the last two million rows are kept as plain columns in
memory (20 bytes each), and what lies further back is read from the files, where it stands anyway.
Memory does not grow with the number of checkpoints, however many of them stay open.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

RECENT_MAX: Final = 2_000_000
# A time that is not known; no clock shows it.
UNKNOWN_US: Final = -(2**63)
# Code of "no state": before a creation, after a deletion, of an event about something else.
NO_STATE: Final = 0


class Fact(NamedTuple):
    """What holds after an event.

    state: Of its checkpoint; None where it has none.
    since_us, time_us: Since when, and the event's own time; microseconds from 1970, UNKNOWN_US
        where they cannot be told.
    """

    state: str | None
    since_us: int
    time_us: int


# Returns the facts of positions in ascending order; those that are not there are left out.
ReadFacts = Callable[[Sequence[int]], dict[int, Fact]]


class Past:
    """Facts by position, up to where rows were made.

    Args:
        base: Position of the first row that will be added.
        read: Reads facts below it from files.

    Attributes:
        base: Position of the first row in memory.
        states: Codes of states; `state_codes` gives them.
        since_us, times_us: As in `Fact`.
        names: States by code.
    """

    def __init__(self, base: int, read: ReadFacts, *, recent_max: int = RECENT_MAX) -> None:
        self.base = base
        self.states = array("I")
        self.since_us = array("q")
        self.times_us = array("q")
        self.names: list[str | None] = [None]
        self._codes: dict[str | None, int] = {None: NO_STATE, "": NO_STATE}
        self._read = read
        self._recent_max = recent_max

    def code(self, state: str | None) -> int:
        """Return the number that stands for a state."""
        code = self._codes.setdefault(state, len(self.names))
        if code == len(self.names):
            self.names.append(state)
        return code

    def add(self, codes: bytes | pa.Buffer, times: bytes | pa.Buffer) -> int:
        """Add rows, each in its state since its own time; return the index of the first."""
        index = len(self.states)
        self.states.frombytes(codes)
        self.times_us.frombytes(times)
        self.since_us.frombytes(times)
        return index

    def far(self, previous: Iterable[int]) -> dict[int, Fact]:
        """Return the facts that are not in memory, of the positions that events name."""
        wanted = sorted({position for position in previous if 0 <= position < self.base})
        return self._read(wanted) if wanted else {}

    def trim(self) -> None:
        """Forget the older half of what is too much."""
        if len(self.states) > self._recent_max:
            surplus = len(self.states) - self._recent_max // 2
            for column in (self.states, self.since_us, self.times_us):
                del column[:surplus]
            self.base += surplus
