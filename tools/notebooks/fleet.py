"""A fleet of agents over two days, replayed in seconds: the store that the notebook looks at.

Each agent does the run of the shipped transcript: a checkpoint at each step, with its whole state.
Time is a clock of its own that only the replay moves, so the history shows two days. Steps fail
now and then, and often while "the model's service" is overloaded on the second day; a supervisor
restores the task some minutes later and it goes on.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointManager, TaskCheckpointWrapper
from ckptlog.integrations.transcript import Step, steps
from ckptlog.storage.environment import Environment

AGENTS = 60
WORKERS = 6
BEGIN = datetime(2026, 3, 2, 6, tzinfo=UTC)
DAYS = 2
OUTAGE = (BEGIN + timedelta(hours=28), BEGIN + timedelta(hours=31))
_TRANSCRIPT = Path(ckptlog.__file__).parent / "cli" / "demo_transcript.json"


class Clock(Environment):
    """A clock that is set, and then only counts microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._us = 0

    def set(self, time: datetime) -> None:
        """Go on to a time; never back."""
        self._us = max(self._us, round(time.timestamp() * 1e6))

    def now_us(self) -> int:
        """Return the time, one microsecond later at each look."""
        self._us += 1
        return self._us


@dataclass
class Agent:
    """One task on its way through the transcript."""

    number: int
    run: list[Step]
    worker: str
    done: int = 0
    is_down: bool = False
    wrapper: TaskCheckpointWrapper | None = field(default=None, repr=False)

    @property
    def task(self) -> str:
        """Its name."""
        return f"fix-{self.number:02d}"


class Fleet:
    """Moves the agents in the order of time."""

    def __init__(self, manager: CheckpointManager, clock: Clock, seed: int) -> None:
        self._manager = manager
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - nothing here is a secret
        self._waiting: list[tuple[datetime, int, Agent]] = []

    def replay(self) -> None:
        """Let every agent run to its end."""
        run = steps(_TRANSCRIPT)
        for number in range(AGENTS):
            worker = f"worker-{self._random.randrange(WORKERS)}"
            start = BEGIN + timedelta(days=DAYS) * (self._random.random() * 0.9)
            self._push(start, Agent(number, run, worker))
        while self._waiting:
            time, _, agent = heapq.heappop(self._waiting)
            self._clock.set(time)
            self._act(time, agent)

    def _act(self, time: datetime, agent: Agent) -> None:
        if agent.wrapper is None or agent.is_down:
            self._start(agent)
        wrapper = agent.wrapper
        if wrapper is None:
            return
        if agent.done and self._random.random() < self._risk(time):
            wrapper.fail_task(self._error(time))
            agent.is_down = True
            self._push(time + timedelta(minutes=self._random.lognormvariate(2.2, 0.8)), agent)
        elif agent.done == len(agent.run):
            wrapper.complete_task({"result": "fixed"})
        else:
            step = agent.run[agent.done]
            wrapper.checkpoint(step.description, {**step.state, "agent": agent.number})
            agent.done += 1
            slow = 3 if agent.worker == "worker-5" else 1
            minutes = self._random.lognormvariate(1.0, 0.7) * slow
            self._push(time + timedelta(minutes=minutes), agent)

    def _start(self, agent: Agent) -> None:
        title = f"Fix the bug of report {agent.number}"
        agent.wrapper = TaskCheckpointWrapper(
            self._manager, agent.task, title, agent.worker, recover=agent.is_down
        )
        agent.wrapper.set_total_steps(len(agent.run))
        if agent.wrapper.recovered is not None:  # what it knows of is what it goes on from
            agent.done = agent.wrapper.recovered.step_number
        agent.is_down = False

    def _risk(self, time: datetime) -> float:
        return 0.35 if OUTAGE[0] <= time < OUTAGE[1] else 0.02

    def _error(self, time: datetime) -> dict[str, Any]:
        if OUTAGE[0] <= time < OUTAGE[1]:
            return {"type": "RateLimitError", "message": "the model's service is overloaded"}
        kind = self._random.choice(["TimeoutError", "ToolError"])
        return {"type": kind, "message": "a step failed"}

    def _push(self, time: datetime, agent: Agent) -> None:
        heapq.heappush(self._waiting, (time, agent.number, agent))


def make(folder: Path, seed: int = 7) -> None:
    """Make a store in a new folder, and replay the fleet into it."""
    clock = Clock()
    clock.set(BEGIN)
    store = ckptlog.open(folder, create=True, environment=clock)
    with store, CheckpointManager(store=store, actor="fleet@example") as manager:
        Fleet(manager, clock, seed).replay()
