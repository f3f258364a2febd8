"""Who of several simulated processes does the next call: one at a time, drawn from a seed.

Each process is a thread that stops before each of its calls (`step`) and waits for its turn. A turn
is the call and all that follows up to the next one, so for one seed all happens in the same order
each time. Faults come at turns: the n-th turn is a process's last, or its call fails, or the power
goes for all of them.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from tools.crash.system import (
    INPUT_OUTPUT,
    NO_SPACE,
    Stopped,
    System,
    failure,
    partly,
)

TURNS_MAX: Final = 20_000
# Calls that a full disk refuses, and calls that a broken one lets fail.
_TAKE_SPACE: Final = ("create", "write", "pwrite", "fsync", "fsync folder", "mkdir", "rename")
_CAN_FAIL: Final = (*_TAKE_SPACE, "ftruncate", "unlink", "pread")
_WAIT_S: Final = 120.0


class Process:
    """One simulated process.

    Attributes:
        is_dead: Killed, or without power: it does no call any more.
        error: What ended it, where that is none of ours.
    """

    def __init__(self, scheduler: Scheduler, name: str, work: Callable[[Process], None]) -> None:
        self.name = name
        self.is_dead = False
        self.is_over = False
        self.error: BaseException | None = None
        self.turn = threading.Semaphore(0)
        self._scheduler = scheduler
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def step(self, call: str) -> None:
        """Wait for a turn; raise what happens instead of the call."""
        if self.is_dead:
            raise Stopped(call)
        self._scheduler.pause(self)
        if self.is_dead:
            raise Stopped(call)
        self._scheduler.strike(self, call)

    def _run(self) -> None:
        system = self._scheduler.system
        system.enter(self)
        try:
            self.step("begin")
            self._work(self)
        except Stopped:
            self.is_dead = True
        except BaseException as error:  # noqa: BLE001 - the episode tells of it
            self.error = error
        finally:
            system.enter(None)
            system.close_all(self)
            self.is_over = True
            self._scheduler.back.release()


class Scheduler:
    """Gives turns.

    Args:
        faults: Turn and kind ("kill", "power", "eio", "enospc") of each fault, in order; a call may
            follow the kind: it waits for that one.

    Attributes:
        turns: How many were given.
        struck: Faults that came, by kind and call.
        now_s: The clock of the simulated machine, seconds since it began.
    """

    def __init__(
        self, system: System, chance: random.Random, faults: list[tuple[int, str]]
    ) -> None:
        self.system = system
        self.chance = chance
        self.back = threading.Semaphore(0)
        self.turns = 0
        self.struck: Counter[str] = Counter()
        self.now_s = 0.0
        self.is_dark = False
        self._faults = faults
        self._due: list[str] = []
        self._living: list[Process] = []

    def begin(self, name: str, work: Callable[[Process], None]) -> Process:
        """Begin a process; it waits for its first turn."""
        process = Process(self, name, work)
        self._wait()
        self._living.append(process)
        return process

    def run(self) -> list[Process]:
        """Give turns until a process is over, or the power has gone; return those that are over."""
        while True:
            if self.turns > TURNS_MAX:
                raise AssertionError(f"{TURNS_MAX} turns, and no end: somebody waits for ever")
            self._give(self.chance.choice(self._living))
            if self.is_dark:
                self._darken()
            over = [process for process in self._living if process.is_over]
            if over:
                self._living = [process for process in self._living if not process.is_over]
                return over

    def _give(self, process: Process) -> None:
        self.turns += 1
        self.now_s += self.chance.choice((1e-6, 1e-5, 1e-3))
        process.turn.release()
        self._wait()

    def _wait(self) -> None:
        if not self.back.acquire(timeout=_WAIT_S):
            raise AssertionError("a process neither asked for a turn nor ended")

    def _darken(self) -> None:
        """Let every process end where it stands."""
        for process in self._living:
            process.is_dead = True
            if not process.is_over:
                self._give(process)

    # --- called in a process's thread -----------------------------------------------------------

    def pause(self, process: Process) -> None:
        """Give the turn back and wait for the next one."""
        self.back.release()
        process.turn.acquire()

    def sleep(self, process: Process, duration_s: float) -> None:
        """Let time pass, and others have their turns."""
        process.step("sleep")
        self.now_s += duration_s

    def strike(self, process: Process, call: str) -> None:
        """Raise what the plan has for this turn, if it can meet this call."""
        while self._faults and self._faults[0][0] <= self.turns:
            self._due.append(self._faults.pop(0)[1])
        for due in list(self._due):
            kind, _, wanted = due.partition(" ")
            if self._meets(kind, call) and wanted in ("", call):
                self._due.remove(due)
                self.struck[f"{kind} {call}"] += 1
                raise self._blow(kind, process, call)

    def _meets(self, kind: str, call: str) -> bool:
        if kind == "enospc":
            return call in _TAKE_SPACE
        if kind == "eio":
            return call in _CAN_FAIL
        # To stop before a call that changes nothing is to stop after the one before it.
        return call not in ("begin", "sleep", "pread")

    def _blow(self, kind: str, process: Process, call: str) -> BaseException:
        end: BaseException
        if kind in ("kill", "power"):
            process.is_dead = True
            self.is_dark = self.is_dark or kind == "power"
            end = Stopped(call)
        else:
            end = failure(INPUT_OUTPUT if kind == "eio" else NO_SPACE)
        if call == "pwrite":
            return partly(self.chance.choice((0.0, 0.3, 0.6, 1.0)), end)
        return end
