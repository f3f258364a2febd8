"""What a simulated episode is made of: plain data, drawn from a number or read from a line of text.

    {"seed": 5, "scripts": [["create", "read"], ["batch"]], "faults": [[40, "power"], [90, "kill"]]}

seed: of the scheduler, of torn writes, of what a power cut leaves. scripts: the acts of each
process. faults: turn and kind of each, in order of turns; `power pwrite` waits for the next such
call. A line may also be the number alone.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Final

ACTS: Final = ("create", "create", "create", "update", "update", "complete", "delete", "batch",
               "batch", "pack", "read", "read", "follow", "count", "count", "list", "reopen",
               "rebuild", "compact")  # fmt: skip
FAULTS: Final = ("kill", "kill", "power", "power", "eio", "enospc")
# Most faults wait for one of these, which are few and matter; others take the call that comes.
CALLS: Final = ("pwrite", "pwrite", "fsync", "fsync", "fsync folder", "rename", "ftruncate")
# How far apart faults are, in turns: within one commit, or so that things go on in between.
GAPS: Final = (3, 15, 60, 200)


@dataclass(frozen=True)
class Scenario:
    """One episode."""

    seed: int
    scripts: tuple[tuple[str, ...], ...]
    faults: tuple[tuple[int, str], ...]

    @classmethod
    def drawn(cls, seed: int) -> Scenario:
        """Return the episode of a number; always the same."""
        chance = random.Random(f"scenario {seed}")  # noqa: S311 - the same each time
        scripts = tuple(
            tuple(chance.choice(ACTS) for _ in range(chance.randint(2, 9)))
            for _ in range(chance.choice((1, 2, 2, 3)))
        )
        turn, faults = 0, []
        for _ in range(chance.choice((0, 1, 2, 4, 8))):
            turn += chance.randint(1, chance.choice(GAPS))
            kind = chance.choice(FAULTS)
            call = chance.choice(CALLS) if chance.random() < 0.7 else ""
            faults.append((turn, f"{kind} {call}".strip()))
        return cls(seed, scripts, tuple(faults))

    @classmethod
    def of(cls, line: str) -> Scenario:
        """Read a line."""
        entry = json.loads(line)
        if isinstance(entry, int):
            return cls.drawn(entry)
        scripts = tuple(tuple(script) for script in entry["scripts"])
        return cls(entry["seed"], scripts, tuple((turn, kind) for turn, kind in entry["faults"]))

    def __str__(self) -> str:
        return json.dumps({"seed": self.seed, "scripts": self.scripts, "faults": self.faults})
