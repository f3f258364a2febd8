"""What is stored: the same values for every contestant, made from a seed.

- small: an agent's state of about 1 KB with one message; many tasks side by side.
- growing: one task's state, a list of messages that grows from 0.1 to 5 MB.
- transcripts: real runs of agents, the whole state after each step, from SWE-agent's `.traj`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.measure import ROOT

TASKS = 100
WORKERS = 50
# By how often they come in English; text that compresses like text.
_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
_WEIGHTS = [1 / (rank + 4) for rank in range(len(_LETTERS))]
TRANSCRIPTS = ROOT.parent / "shared" / "data" / "trajectories"

State = dict[str, Any]


def seeded(seed: int) -> random.Random:
    """Return a source of numbers that are the same in every run."""
    return random.Random(seed)  # noqa: S311 - nothing here is a secret


@dataclass(frozen=True)
class Small:
    """One checkpoint of the workload `small`."""

    task: str
    step: int
    state: State
    metadata: State
    worker: str


class SmallWorkload:
    """An endless series of states of about 1 KB, over TASKS tasks."""

    def __init__(self, seed: int = 7) -> None:
        self._random = seeded(seed)
        self._words = [
            "".join(self._random.choices(_LETTERS, _WEIGHTS, k=self._random.randint(2, 10)))
            for _ in range(4000)
        ]
        self._frequencies = [1 / (rank + 5) for rank in range(len(self._words))]
        self._next = 0

    def take(self, count: int) -> list[Small]:
        """Return the next `count`."""
        return [self._one() for _ in range(count)]

    def _one(self) -> Small:
        number, self._next = self._next, self._next + 1
        state = {"messages": [self._message(number)], "count": number, "phase": "plan"}
        step, worker = number // TASKS + 1, f"worker-{number % WORKERS}"
        metadata = {"source": "loop", "step": step, "worker": worker}
        return Small(f"task-{number % TASKS}", step, state, metadata, worker)

    def _message(self, number: int) -> State:
        text = " ".join(self._random.choices(self._words, self._frequencies, k=212))
        return {
            "id": f"{self._random.getrandbits(128):032x}",
            "type": ("human", "ai", "tool")[number % 3],
            "content": text[:850],
            "step": number,
        }


def growing(
    versions: int = 60, seed: int = 1, first_bytes: int = 100_000, last_bytes: int = 5_000_000
) -> Iterator[State]:
    """Yield versions of one growing state; its messages are shared between them.

    A small part changes each time, anywhere; the rest is a list that only grows.
    """
    source = seeded(seed)
    words = ["".join(source.choices(_LETTERS, k=source.randint(2, 11))) for _ in range(6000)]
    messages: list[State] = []
    size = 0
    for number in range(versions):
        target = first_bytes + (last_bytes - first_bytes) * number // max(1, versions - 1)
        while size < target:
            messages.append(_growing_message(source, words))
            size += len(json.dumps(messages[-1])) + 2
        scratch = {
            words[source.randrange(50)]: source.random() for _ in range(source.randint(3, 12))
        }
        yield {
            "task": f"task-{seed}",
            "step": number,
            "progress": number / versions,
            "status": "s" * source.randint(1, 60),
            "scratch": scratch,
            "messages": list(messages),
        }


def _growing_message(source: random.Random, words: list[str]) -> State:
    picks = [
        min(len(words) - 1, int(source.paretovariate(0.9))) for _ in range(source.randint(20, 400))
    ]
    return {
        "id": f"{source.getrandbits(128):032x}",
        "role": source.choice(["user", "assistant", "tool"]),
        "ts": 1.7e9 + source.random() * 1e7,
        "tokens": source.randint(5, 4000),
        "content": " ".join(words[pick] for pick in picks),
    }


def transcripts(folder: Path) -> list[Path]:
    """Return the transcripts in a folder; none, with a line that says so, where it is absent."""
    found = sorted(folder.glob("*.traj"))
    if not found:
        print(f"skipped: no transcripts (*.traj) in {folder}; name a folder with --transcripts")
    return found


def transcript_states(path: Path) -> list[State]:
    """Return the whole state after each step of a transcript."""
    from ckptlog.integrations.transcript import steps

    return [step.state for step in steps(path)]


def as_text(state: State) -> bytes:
    """Return a state as the shortest plain JSON: what a whole copy of it costs."""
    return json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode()
