"""Which checkpoints stay: rules over the facts of a task's checkpoints (specs/retention.md); pure.

    policy = rules, each for the tasks that its patterns name
    a checkpoint stays if any rule of its task keeps it, or one of the guards does:
        it is pinned; it is not whole yet; its facts cannot be read;
        it is the newest of a thread's namespace, or the task's recovery point

Invariants:
- No rule for a task: all of it stays. A clean-up takes only what a policy speaks of.
- A rule keeps and never takes: more rules keep more. So their order says nothing.
- Asking again is asking once: what was kept is kept by the same rules when the rest is gone. That
  is why `keep_every` looks at a checkpoint's step and does not count checkpoints.
- Order is that of creation, except for ranked ids (model.rank), where it is that of their ranks.
  Rules that count (`keep_last`, `keep_best`) count in each namespace of a task by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from ckptlog.policy.recovery_point import FAILED

Order = Literal["min", "max"]
Key = tuple[str, int]

PINNED: Final = "pinned"
UNFINISHED: Final = "not whole yet"
UNREADABLE: Final = "metadata cannot be read"
HEAD: Final = "newest of its thread"
RECOVERY: Final = "recovery point"
OPEN: Final = "newest of an unfinished task"
NEEDED: Final = "needed by one that stays"
RECOVERING: Final = "needed by an unfinished recovery"
GOES: Final = ""


class Best(msgspec.Struct, frozen=True):
    """Keep the n checkpoints with the least ("min") or the greatest value under a metadata key."""

    metric: str
    order: Order
    n: int = 1


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What stays of the tasks that match. None and empty mean: nothing by this.

    tasks: Patterns of task ids (`fnmatch`, case matters). except_tasks: And not one of these.
    keep_last: The newest N. keep_every: Whose step is a multiple of K.
    keep_days: What was changed within so many days.
    keep_states: What is in one of these states.
    keep_best: The best by values of metadata.
    """

    tasks: tuple[str, ...] = ("*",)
    except_tasks: tuple[str, ...] = ()
    keep_last: int | None = None
    keep_every: int | None = None
    keep_days: float | None = None
    keep_states: tuple[str, ...] = ()
    keep_best: tuple[Best, ...] = ()

    def is_for(self, task: str) -> bool:
        """Say whether the rule speaks of a task."""
        return _matches(task, self.tasks) and not _matches(task, self.except_tasks)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Rules, and the guards that may be switched off.

    keep_recovery_points: What a task resumes from stays, and the newest of each thread.
    keep_pinned: What is pinned stays.
    """

    rules: tuple[Rule, ...]
    keep_recovery_points: bool = True
    keep_pinned: bool = True

    def rules_for(self, task: str) -> tuple[Rule, ...]:
        """Return the rules that speak of a task."""
        return tuple(rule for rule in self.rules if rule.is_for(task))

    @property
    def metrics(self) -> frozenset[str]:
        """The metadata keys that some rule compares."""
        return frozenset(best.metric for rule in self.rules for best in rule.keep_best)


class Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What rules know of one checkpoint.

    order: Rank ("" where it has none) and position of the creation; greater is newer.
    updated: Of the last change; UTC, ISO 8601 as events have it.
    metrics: Values of metadata that rules ask for, of those that are numbers.
    is_whole: Whether it has been put, not only writes to it.
    is_read: Whether its metadata could be read; the rest of it is worth nothing otherwise.
    """

    id: str
    order: Key
    state: str
    step: int
    total: int
    updated: str
    namespace: str = ""
    metrics: dict[str, float] = {}
    is_pinned: bool = False
    is_whole: bool = True
    is_read: bool = True


def reasons(policy: Policy, rules: Sequence[Rule], facts: Sequence[Fact], now: Now) -> list[str]:
    """Return why each checkpoint of one task stays; GOES where nothing keeps it.

    The recovery point is not among the reasons: whether bytes verify is no fact (`resume_order`).

    Args:
        rules: Those for this task, at least one.
        now: Turns a number of days into the time that lies so far back.

    Cost: O(n log n).
    """
    found = [_guard(policy, fact) for fact in facts]
    spaces: dict[str, list[int]] = {}
    for number, fact in enumerate(facts):
        if fact.is_whole and fact.is_read:
            spaces.setdefault(fact.namespace, []).append(number)
    for numbers in spaces.values():
        numbers.sort(key=lambda number: facts[number].order, reverse=True)
        head = numbers[0]
        if policy.keep_recovery_points and facts[head].order[0]:
            found[head] = found[head] or HEAD
        for rule in rules:
            for number, reason in _kept(rule, facts, numbers, now):
                found[number] = found[number] or reason
    return found


Now = Callable[[float], str]
"""Returns the time, as events have it, that lies so many days back."""


def _guard(policy: Policy, fact: Fact) -> str:
    if not fact.is_whole:
        return UNFINISHED
    if not fact.is_read:
        return UNREADABLE
    return PINNED if fact.is_pinned and policy.keep_pinned else GOES


def _kept(
    rule: Rule, facts: Sequence[Fact], newest_first: Sequence[int], now: Now
) -> Iterable[tuple[int, str]]:
    """Yield the numbers of the facts of one namespace that a rule keeps, and by what."""
    for number in newest_first[: rule.keep_last or 0]:
        yield number, "last"
    since = None if rule.keep_days is None else now(rule.keep_days)
    for number in newest_first:
        fact = facts[number]
        if rule.keep_every is not None and fact.step % rule.keep_every == 0:
            yield number, "every"
        if since is not None and fact.updated >= since:
            yield number, "age"
        if fact.state in rule.keep_states:
            yield number, "state"
    for best in rule.keep_best:
        for number in _best(best, facts, newest_first):
            yield number, f"best {best.metric}"


def _best(best: Best, facts: Sequence[Fact], newest_first: Sequence[int]) -> Sequence[int]:
    """Return the best ones; of equal ones the newer. NaN is no value."""
    sign = 1 if best.order == "min" else -1
    valued = [
        (sign * value, number)
        for number in newest_first
        if (value := facts[number].metrics.get(best.metric)) is not None and not math.isnan(value)
    ]
    valued.sort(key=lambda pair: pair[0])  # stable: newer ones stay in front of their equals
    return [number for _, number in valued[: best.n]]


def is_finished(facts: Sequence[Fact]) -> bool:
    """Say whether a task is complete, so that nothing is to be resumed (as `can_recover_task`)."""
    if not facts:
        return True
    latest = newest(facts)
    return latest.state == "completed" and (not latest.total or latest.step >= latest.total)


def newest(facts: Sequence[Fact]) -> Fact:
    """Return the one that was created last."""
    return max(facts, key=_created)


def resume_order(facts: Sequence[Fact]) -> list[Fact]:
    """Return a task's checkpoints as candidates to resume from, the best first.

    The first of them whose bytes verify is the recovery point (policy.recovery_point).
    """
    newest_first = sorted(facts, key=_created, reverse=True)
    return sorted(newest_first, key=lambda fact: fact.state == FAILED)


def _created(fact: Fact) -> int:
    return fact.order[1]


def _matches(task: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(task, pattern) for pattern in patterns)
