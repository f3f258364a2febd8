"""What simulated processes were told, and what they have seen: what every answer is compared with.

* an acknowledged value is there, until somebody changes it; one in doubt may be there or not;
* what anybody was shown is durable: neither an older value nor another event ever takes its place;
* a deleted checkpoint stays deleted;
* each event has one position, for everyone and for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tools.crash.diary import ABSENT, DELETED, Diary

SHARED = "shared"


class Wrong(AssertionError):  # noqa: N818 - what the episode is then
    """A promise was broken."""


@dataclass
class Truth:
    """The model.

    Attributes:
        possible: For each checkpoint the values that it may have, oldest first.
        begun: Every value that was asked for, in order.
        shown: Ids of the events that somebody has read, by position.
        counted: Numbers that were acknowledged for the shared checkpoint; tried: asked for.
    """

    possible: dict[str, list[str]] = field(default_factory=dict)
    begun: dict[str, list[str]] = field(default_factory=dict)
    together: list[dict[str, str]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    counted: set[int] = field(default_factory=set)
    tried: set[int] = field(default_factory=set)

    def begin(self, wanted: dict[str, str]) -> None:
        """An act is about to ask for these values, in one commit."""
        self.together = [group for group in self.together if not group.keys() & wanted.keys()]
        for name, value in wanted.items():
            values = self.possible.setdefault(name, [ABSENT])
            if value not in values:
                values.append(value)
            self.begun.setdefault(name, []).append(value)
        if len(wanted) > 1:
            self.together.append(wanted)

    def done(self, wanted: dict[str, str]) -> None:
        """It was acknowledged."""
        for name, value in wanted.items():
            self.possible[name] = [value]

    def refused(self, wanted: dict[str, str]) -> None:
        """It has failed, and told that nothing was written."""
        for name, value in wanted.items():
            self.possible[name] = [one for one in self.possible[name] if one != value]
        self.together = [group for group in self.together if group != wanted]

    def look(self, name: str) -> tuple[list[str], int]:
        """Return what a reader that begins now may find: keep it for `saw`."""
        return list(self.possible.get(name, [ABSENT])), len(self.begun.get(name, []))

    def saw(self, name: str, value: str, before: tuple[list[str], int]) -> None:
        """A reader has found a value."""
        may_be, count = before
        since = self.begun.get(name, [])[count:]
        if value not in may_be and value not in since:
            raise Wrong(f"{name} was read as {value}; {may_be or since} was told")
        values = self.possible.get(name, [])
        # Shown is durable: what is older cannot come back.
        if not since and value in values:
            self.possible[name] = values[values.index(value) :]

    def saw_events(self, identifiers: Sequence[str]) -> None:
        """Somebody has read the log from its beginning."""
        for position, (identifier, known) in enumerate(zip(identifiers, self.shown, strict=False)):
            if identifier != known:
                raise Wrong(f"position {position} was shown as {known} and is {identifier} now")
        if len(set(identifiers)) != len(identifiers):
            raise Wrong("an event stands in the log twice")
        self.shown += identifiers[len(self.shown) :]

    def count(self, number: int) -> None:
        """A change of the shared checkpoint to this number was acknowledged."""
        if number in self.counted:
            raise Wrong(f"two processes were told that they counted {number}")
        self.counted.add(number)

    def check_count(self, number: int, changes: int) -> None:
        """Judge the shared checkpoint: the number that it holds, and its changes in the log."""
        if number != changes:
            raise Wrong(f"the shared checkpoint was changed {changes} times and holds {number}")
        if number < max(self.counted, default=0) or number > max(self.tried, default=0):
            raise Wrong(f"the shared checkpoint holds {number}; {max(self.counted)} was told")

    def diary(self, shared: str) -> Diary:
        """Return what a judge has to know; the shared checkpoint is judged apart."""
        diary = Diary(
            possible={name: list(values) for name, values in self.possible.items()},
            ever={name: {ABSENT, DELETED, *values} for name, values in self.begun.items()},
            together=list(self.together),
            acts=1,
        )
        diary.possible[SHARED] = [shared]
        diary.ever.setdefault(SHARED, {ABSENT}).add(shared)
        return diary
