"""Flags what deserves a look, event by event: a pure fold in bounded memory (specs/audit.md).

    Detector = clock + actors + deletes + tasks + open checkpoints

Each watch remembers what its own rules need and no more; what is remembered for each name of a
kind is held in a `_Recent`, which lets go of the names that were quiet longest. Forgetting may
hide an anomaly and never makes one up: what was let go is counted in `forgotten`.

This runs for every event of a log, so an event without an anomaly makes nothing but the record of
its checkpoint.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

import msgspec
from xxhash import xxh3_128_intdigest

from ckptlog.model import event as kinds
from ckptlog.model.checkpoint import time_text
from ckptlog.model.entry import Entry
from ckptlog.model.event import CHECKPOINT_TYPES, Event, Subject
from ckptlog.policy import anomaly
from ckptlog.policy.anomaly import Anomaly, Occasion, Thresholds, occasion_of

_OUTCOMES: Final = frozenset({kinds.COMPLETED, kinds.FAILED, kinds.RESTORED})
_STUCK: Final = {"active": anomaly.STUCK_ACTIVE, "restored": anomaly.STUCK_RESTORED}

# 1 MiB: after a million names were let go, one new name in 37 is taken for one of them.
_FILTER_BITS: Final = 1 << 23

Kept = TypeVar("Kept")


class _Recent(OrderedDict[str, Kept], Generic[Kept]):
    """What is known of the names seen last; at most `most` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self.forgotten = 0

    def keep(self, name: str, kept: Kept) -> tuple[str, Kept] | None:
        """Remember a name as the one seen last; return what was let go for it."""
        self[name] = kept
        self.move_to_end(name)
        if len(self) <= self._most:
            return None
        self.forgotten += 1
        return self.popitem(last=False)


class _Names:
    """A set of names in a fixed room (a Bloom filter): who is not in it was never added."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, name: str) -> None:
        self._bits = self._bits or bytearray(_FILTER_BITS // 8)
        for bit in _bits(name):
            self._bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, name: str) -> bool:
        bits = self._bits
        return bool(bits) and all(bits[bit >> 3] & 1 << (bit & 7) for bit in _bits(name))


def _bits(name: str) -> Iterator[int]:
    number = xxh3_128_intdigest(name.encode(errors="surrogatepass"))
    return (number >> shift & _FILTER_BITS - 1 for shift in (0, 32, 64))


class _Task(msgspec.Struct, gc=False):
    """The run of a task so far.

    step: The greatest. failures, restores: Since the last completion. size: Of the data after its
    last event that has any, bytes; 0 for none. is_whole: Whether its beginning is known.
    """

    step: int = 0
    failures: int = 0
    restores: int = 0
    size: int = 0
    is_beyond: bool = False
    is_sanitised: bool = False
    is_whole: bool = True


class _Deletes(msgspec.Struct):
    """An actor's latest deletes: times and numbers; whether their burst was told."""

    recent: deque[tuple[datetime, int]]
    count: int = 0
    is_told: bool = False


class Detector:
    """Folds the events of a log, in order from position 0 on.

    Args:
        now: The present, UTC and aware.

    Threads: one.        Cost: O(1) an event; memory as `Thresholds.tracked_max` says.
    """

    def __init__(self, now: datetime, thresholds: Thresholds | None = None) -> None:
        thresholds = thresholds or Thresholds()
        thresholds.check()
        self._thresholds = thresholds
        self._now = now
        self._ahead = time_text(_later(now, thresholds.clock_ahead_s))
        self._time = ""
        self._is_ahead = False
        self._events = 0
        most = thresholds.tracked_max
        self._actors: set[str] = set()
        self._actors_forgotten = 0
        self._deletes: _Recent[_Deletes] = _Recent(most)
        self._tasks: _Recent[_Task] = _Recent(most)
        self._tasks_let_go = _Names()
        self._open: _Recent[tuple[Occasion, str]] = _Recent(most)
        self._open_of: dict[str, set[str]] = {}
        self._found: list[Anomaly] = []

    @property
    def forgotten(self) -> dict[str, int]:
        """How often something was let go or not followed, by kind; empty where nothing was."""
        counts = {
            "actors": self._actors_forgotten + self._deletes.forgotten,
            "checkpoints": self._open.forgotten,
            "tasks": self._tasks.forgotten,
        }
        return {kind: count for kind, count in counts.items() if count}

    def apply(self, entry: Entry) -> Sequence[Anomaly]:
        """Take in the next event; return the anomalies that are told by now.

        They stand at this event, or (a checkpoint that is let go) at an earlier one.
        """
        if self._found:
            self._found = []
        event = entry.event
        self._watch_clock(entry, event)
        self._watch_actor(entry, event)
        kind = event.type
        if kind in CHECKPOINT_TYPES:
            self._watch_task(entry, event)
            self._watch_open(entry, event)
            if kind == kinds.DELETED and not event.cause:
                self._watch_deletes(entry, 1)
        elif kind == kinds.TASK_DELETED:
            self._end_task(entry)
        elif kind == kinds.STORAGE_PRESSURE:
            self._tell(anomaly.STORAGE_PRESSURE, entry, "The store neared its limit.", event.facts)
        self._events += 1
        return self._found

    def finish(self) -> list[Anomaly]:
        """Return what only the end shows: the checkpoints that are stuck, oldest event first."""
        limit_s = self._thresholds.stuck_after_s
        found = []
        for last, state in self._open.values():
            quiet_s = _seconds_between(last.time, self._now)
            if quiet_s is not None and quiet_s > limit_s:
                found.append(_stuck(last, state, quiet_s))
        return sorted(found, key=lambda one: one.at.position)

    def _tell(
        self, name: str, entry: Entry, message: str, facts: dict[str, int | str] | None = None
    ) -> None:
        self._found.append(Anomaly(name, occasion_of(entry), message, dict(facts or {})))

    # --- clock and actors -----------------------------------------------------------------------

    def _watch_clock(self, entry: Entry, event: Event) -> None:
        before, self._time = self._time, event.time
        if event.time < before:
            self._step_back(entry, before)
        is_ahead = event.time > self._ahead
        if is_ahead and not self._is_ahead:
            self._tell(anomaly.CLOCK_AHEAD, entry, "Its time is in the future.")
        self._is_ahead = is_ahead

    def _step_back(self, entry: Entry, before: str) -> None:
        now = _moment(entry.event.time)
        back_s = None if now is None else _seconds_between(entry.event.time, _moment(before))
        if back_s is not None and back_s > self._thresholds.clock_tolerance_s:
            self._tell(
                anomaly.CLOCK_BACKWARDS,
                entry,
                f"The clock went back by {_duration(back_s)}, from {before}.",
                {"back_s": round(back_s), "before": before},
            )

    def _watch_actor(self, entry: Entry, event: Event) -> None:
        actor = event.actor
        if actor in self._actors:
            return
        if len(self._actors) >= self._thresholds.tracked_max:
            self._actors_forgotten += 1
            return
        self._actors.add(actor)
        if self._events and self._events >= self._thresholds.actor_grace_events:
            self._tell(
                anomaly.NEW_ACTOR,
                entry,
                f"{actor} was in none of the {self._events:,} events before.",
            )

    def _watch_deletes(self, entry: Entry, number: int) -> None:
        time = _moment(entry.event.time)
        if time is None or not number:
            return
        limits = self._thresholds
        mine = self._deletes.get(entry.event.actor) or _Deletes(deque(maxlen=limits.deletes_min))
        self._deletes.keep(entry.event.actor, mine)
        recent = mine.recent
        while recent and (time - recent[0][0]).total_seconds() > limits.deletes_window_s:
            mine.count -= recent.popleft()[1]
        if mine.count < limits.deletes_min:
            mine.is_told = False
        if (
            len(recent) == limits.deletes_min
        ):  # each stands for one at least: older ones add nothing
            mine.count -= recent[0][1]
        recent.append((time, number))
        mine.count += number
        if mine.count >= limits.deletes_min and not mine.is_told:
            mine.is_told = True
            self._tell(
                anomaly.DELETE_BURST,
                entry,
                f"{entry.event.actor} deleted {mine.count:,} checkpoints within "
                f"{_duration(limits.deletes_window_s)}.",
                {"deletes": mine.count},
            )

    # --- tasks ----------------------------------------------------------------------------------

    def _watch_task(self, entry: Entry, event: Event) -> None:
        if event.type == kinds.DELETED:  # it repeats the facts of the event before it
            return
        name = event.subject.task
        task = self._tasks.get(name) or _Task(is_whole=name not in self._tasks_let_go)
        gone = self._tasks.keep(name, task)
        if gone is not None:
            self._tasks_let_go.add(gone[0])
        step = event.step
        if step > task.step:
            if step > task.step + 1 and task.is_whole:
                self._tell_gap(entry, task.step, step)
            task.step = step
        is_beyond = 0 < event.total < step
        if is_beyond and not task.is_beyond:
            self._tell(
                anomaly.STEP_BEYOND_TOTAL,
                entry,
                f"Step {step} of {event.total}.",
                {"step": step, "total": event.total},
            )
        task.is_beyond = is_beyond
        if event.sanitised and not task.is_sanitised:
            task.is_sanitised = True
            self._tell(
                anomaly.SECRETS_REPLACED,
                entry,
                f"{event.sanitised} secret(s) replaced before they were stored.",
                {"sanitised": event.sanitised},
            )
        if event.type in _OUTCOMES:
            self._count_outcome(entry, event, task)
        if event.data is not None and event.data.size != task.size:
            self._compare_size(entry, task.size, event.data.size)
            task.size = event.data.size

    def _tell_gap(self, entry: Entry, before: int, step: int) -> None:
        missing = f"{before + 1}" if step == before + 2 else f"{before + 1} to {step - 1}"
        self._tell(
            anomaly.STEP_GAP,
            entry,
            f"Step {step} follows {before or 'nothing'}: {missing} missing.",
            {"missing_from": before + 1, "missing_to": step - 1},
        )

    def _count_outcome(self, entry: Entry, event: Event, task: _Task) -> None:
        limits = self._thresholds
        if event.type == kinds.COMPLETED:
            task.failures = task.restores = 0
        elif event.type == kinds.FAILED:
            task.failures += 1
            if task.failures == limits.failures_min:
                message = f"The task failed {task.failures} times without a completion."
                self._tell(anomaly.REPEATED_FAILURES, entry, message, {"failures": task.failures})
        elif event.type == kinds.RESTORED:
            task.restores += 1
            if task.restores == limits.restores_min:
                message = f"The task was restored {task.restores} times without a completion."
                self._tell(anomaly.REPEATED_RESTORES, entry, message, {"restores": task.restores})

    def _compare_size(self, entry: Entry, before: int, after: int) -> None:
        small, large = min(before, after), max(before, after)
        limits = self._thresholds
        if large - small < limits.size_min_bytes or large < small * limits.size_ratio:
            return
        if not before:  # the first event of a task has nothing to compare with
            return
        name = anomaly.SIZE_JUMP if after > before else anomaly.SIZE_DROP
        message = f"The data went from {before:,} to {after:,} bytes."
        self._tell(name, entry, message, {"before_bytes": before, "after_bytes": after})

    def _end_task(self, entry: Entry) -> None:
        event = entry.event
        name = event.subject.task
        self._tasks.pop(name, None)
        for checkpoint in self._open_of.pop(name, ()):
            del self._open[checkpoint]
        number = event.facts.get("checkpoints", 0)
        if type(number) is int and not event.cause:
            self._watch_deletes(entry, number)

    # --- open checkpoints -----------------------------------------------------------------------

    def _watch_open(self, entry: Entry, event: Event) -> None:
        name = event.subject.checkpoint
        before = self._open.pop(name, None)
        if before is not None:
            self._leave(before[0].subject)
        if event.state not in _STUCK or event.type == kinds.DELETED:
            return
        gone = self._open.keep(name, (occasion_of(entry), event.state))
        self._open_of.setdefault(event.subject.task, set()).add(name)
        if gone is not None:
            self._let_go(*gone[1], event.time)

    def _leave(self, subject: Subject) -> None:
        names = self._open_of[subject.task]
        names.remove(subject.checkpoint)
        if not names:
            del self._open_of[subject.task]

    def _let_go(self, last: Occasion, state: str, time: str) -> None:
        self._leave(last.subject)
        quiet_s = _seconds_between(last.time, _moment(time))
        if quiet_s is not None and quiet_s > self._thresholds.stuck_after_s:
            self._found.append(_stuck(last, state, quiet_s))


def _stuck(last: Occasion, state: str, quiet_s: float) -> Anomaly:
    message = f"It has been {state} for {_duration(quiet_s)} without an event."
    return Anomaly(_STUCK[state], last, message, {"quiet_s": round(quiet_s)})


def _moment(text: str) -> datetime | None:
    """Return an event's time; None for text that no writer of ours makes (verify reports it)."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _seconds_between(earlier: str, later: datetime | None) -> float | None:
    begin = _moment(earlier)
    return None if begin is None or later is None else (later - begin).total_seconds()


def _later(time: datetime, seconds: float) -> datetime:
    try:
        return time + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _duration(seconds: float) -> str:
    """Return a duration for people, in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.6g} s"
