"""What a process told before and after each act, and what may be true of its store because of it.

One line of JSON for each step:

    {"try": {"a": "3/500/active"}, "whole": true}    about to make `a` hold that; null: deleted;
                                                      `act` names what is done
    {"ack": true}                                     it returned: durable from here on
    {"refused": true}                                 it raised, and said that nothing was written
    {"unknown": true}                                 it raised "outcome unknown"

Other lines, and one that was cut off, are left out.
An act that neither returned nor raised (the process was stopped) is in doubt like an unknown one.
`whole` says that the act is one commit: all of its checkpoints change, or none.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ABSENT = "absent"
_OUTCOMES = frozenset({"ack", "refused", "unknown"})
DELETED = "deleted"
WRONG_DATA = "with wrong data"
# How faults begin, for counts.
LOST, MISREAD, UNOPENED = "lost", "wrong read", "needs repair"
PROMISES = (LOST, MISREAD, UNOPENED)


def data_of(value: str) -> dict[str, Any]:
    """Return the data that stands for a value: `serial/bytes/state`, the same each time.

    Those of 0 bytes are all stored in one size: parts of commits can take each other's place.
    """
    size = int(value.split("/")[1])
    words = random.Random(value).randbytes(size // 2).hex()  # noqa: S311 - the same each time
    return {"value": value, "rows": [words[at : at + 400] for at in range(0, size, 400)]}


def state_of(value: str) -> str:
    """Return the state that stands for a value."""
    return value.split("/")[2]


@dataclass
class Diary:
    """What may be true.

    Attributes:
        possible: For each checkpoint the values that it may have now; one where that is certain.
        ever: All values that it may have had, for readers of an older state.
        together: Checkpoints that one commit in doubt would have changed, and to what.
        acts: Acts that were acknowledged.
        act: The name of the last that was begun.
    """

    possible: dict[str, list[str]] = field(default_factory=dict)
    ever: dict[str, set[str]] = field(default_factory=dict)
    together: list[dict[str, str]] = field(default_factory=list)
    acts: int = 0
    act: str = ""

    @classmethod
    def of(cls, lines: Iterable[str]) -> Diary:
        """Read what was told."""
        diary = cls()
        tried: Mapping[str, Any] | None = None
        for line in lines:
            if not line.startswith("{") or not line.rstrip().endswith("}"):
                continue
            entry = json.loads(line)
            if "try" in entry:
                diary._doubt(tried)
                tried = entry
                diary.act = str(entry.get("act", ""))
            elif tried is not None and _OUTCOMES & entry.keys():
                diary._settle(tried, entry)
                tried = None
        diary._doubt(tried)
        return diary

    def _settle(self, tried: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
        if "unknown" in entry:
            self._doubt(tried)
        elif "ack" in entry:
            self.acts += 1
            for name, value in tried["try"].items():
                self.possible[name] = [value or DELETED]
                self._remember(name, value or DELETED)

    def _doubt(self, tried: Mapping[str, Any] | None) -> None:
        if tried is None:
            return
        wanted = {name: value or DELETED for name, value in tried["try"].items()}
        for name, value in wanted.items():
            self.possible[name] = [*self.possible.get(name, [ABSENT]), value]
            self._remember(name, value)
        if tried.get("whole") and len(wanted) > 1:
            self.together.append(wanted)

    def _remember(self, name: str, value: str) -> None:
        self.ever.setdefault(name, {ABSENT}).add(value)

    def faults(self, found: Mapping[str, str]) -> list[str]:
        """Return what is wrong with the values that were found in a recovered store."""
        wrong = []
        for name, values in self.possible.items():
            there = found.get(name, ABSENT)
            if there not in values:
                kind = MISREAD if WRONG_DATA in there else LOST
                wrong.append(f"{kind}: {name} is {there}; {' or '.join(values)} was told")
        wrong += [
            f"{MISREAD}: {name} was never made" for name in found if name not in self.possible
        ]
        for wanted in self.together:
            done = {name: found.get(name, ABSENT) == value for name, value in wanted.items()}
            if len(set(done.values())) > 1:
                wrong.append(f"{LOST}: a commit is there in part: {done}")
        return wrong

    def reader_faults(self, found: Mapping[str, str]) -> list[str]:
        """Return what is wrong with what a reader saw, which may be older."""
        return [
            f"{MISREAD}: a reader was shown {name} as {value}, which it never was"
            for name, value in found.items()
            if value not in self.ever.get(name, {ABSENT})
        ]
