"""The part of a manager that takes checkpoints away by rules.

Policies: policy.retention. A clean-up: plan (manager.plan), sweep (manager.sweep). What it would
do, and what that would free: `plan_cleanup`. What is pinned stays (manager.pinning). Page:
specs/retention.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ckptlog.errors import ArgumentError, SettingsError
from ckptlog.manager import upkeep
from ckptlog.manager.pinning import Pinning
from ckptlog.manager.plan import Planner
from ckptlog.manager.sweep import Outcome, Sweep
from ckptlog.manager.weight import Scale, Weight
from ckptlog.model.checkpoint import time_text
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.event import Reference
from ckptlog.policy.retention import Now, Policy
from ckptlog.policy.retention_form import form_of, policy_of
from ckptlog.repository.report import Progress
from ckptlog.repository.statistics import ask
from ckptlog.repository.store import Store
from ckptlog.views.query import Filter

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

AGE_DAYS: Final = 30
_PAGE_ROWS: Final = 1000
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTE: Final = (
    "Space comes back with compaction (ckptlog compact). Chunks that stay, but are stored as "
    "differences from chunks that go, may hold some of it until they are stored anew."
)


class CleanupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a clean-up would do now.

    policy: The rules, as a dictionary. position: Of the log when it was planned.
    checkpoints: Ids of what would go, task by task, the oldest first.
    kept: Number of those that stay, by the first reason.
    bytes, chunks: What only those that go hold, as stored; estimates where is_estimate says so
        (one chunk in `sample` was looked at, or `unread` payloads could not be read).
    note: What the bytes do not tell.
    """

    policy: dict[str, Any]
    position: int
    checkpoints: tuple[str, ...]
    kept: dict[str, int]
    bytes: int
    chunks: int
    is_estimate: bool
    sample: int
    unread: int
    note: str = _NOTE

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return {**fields, "checkpoints": list(self.checkpoints)}


class Retention(Pinning):
    """What a manager inherits."""

    def cleanup_old_checkpoints(
        self,
        max_age_days: int = AGE_DAYS,
        *,
        dry_run: bool = False,
        retention: object = None,
        progress: Progress | None = None,
    ) -> int:
        """Delete what has ended and was last updated over max_age_days ago; or by a policy.

        What is pinned stays. With `retention`, checkpoints of any state go that no rule keeps; what
        a task can be resumed from stays too, unless the policy says otherwise. Without it, the
        age decides alone, also over the last checkpoint of a task that failed.

        Args:
            dry_run: Only count. `plan_cleanup` tells which, and how many bytes.
            retention: A policy as a dictionary (specs/retention.md): {"keep_last": 5, ...}. It
                stands instead of max_age_days; `keep_days` is its rule by age.
            progress: Called with checkpoints examined and checkpoints in all.

        Returns:
            How many were deleted, or would be.

        Raises:
            ArgumentError: The policy or the age is wrong; the message names the key.
            ReadOnlyError, CheckpointStorageError: What was deleted before stays deleted.

        Durability: each commit of up to 200 deletions is as durable as any other.
        Threads: safe, and beside other writers: what they change meanwhile is judged anew.
        """
        manager = cast("CheckpointManager", self)
        if retention is None:
            return upkeep.clean_up(manager, max_age_days, dry_run=dry_run)
        policy = _policy(retention, max_age_days)
        if dry_run:
            plans = Planner(manager, policy, _now(self.store)).plans()
            return sum(len(plan.doomed) for plan in plans)
        return sweep(manager, policy, progress=progress).deleted

    def plan_cleanup(
        self,
        max_age_days: int = AGE_DAYS,
        *,
        retention: object = None,
        progress: Progress | None = None,
    ) -> CleanupPlan:
        """Return what `cleanup_old_checkpoints` would delete now, and the bytes that only that has.

        Args:
            progress: Called with checkpoints examined (twice: to plan, then to weigh) and in all.

        Cost: reads the nodes of all payloads in the store, each once; nothing where nothing goes.
        """
        manager = cast("CheckpointManager", self)
        if retention is None:
            policy = upkeep.age_policy(self.store, max_age_days)
        else:
            policy = _policy(retention, max_age_days)
        return _Dry(manager, policy, progress).plan()


def policy_in(config: CheckpointConfiguration) -> Policy | None:
    """Return the policy that a configuration asks for.

    Raises:
        SettingsError: There is a fault in it; the message names the key.
    """
    if config.retention is None:
        return None
    try:
        return policy_of(config.retention)
    except ArgumentError as error:
        raise SettingsError(
            f"The setting retention is wrong: {error.message}",
            hint=error.hint,
            argument="retention",
        ) from error


def sweep(
    manager: CheckpointManager,
    policy: Policy,
    *,
    is_stopping: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Outcome:
    """Delete what a policy lets go; see `Retention.cleanup_old_checkpoints`."""
    store = manager.store
    planner = Planner(manager, policy, _now(store))
    run = Sweep(manager, planner, policy, is_stopping)
    run.run(planner.plans(), progress, _living(store) if progress else 0)
    return run.outcome


class _Dry:
    """A clean-up that only tells."""

    def __init__(
        self, manager: CheckpointManager, policy: Policy, progress: Progress | None
    ) -> None:
        self._store = manager.store
        self._policy = policy
        self._planner = Planner(manager, policy, _now(manager.store))
        self._progress = progress
        self._total = 2 * _living(manager.store) if progress else 0
        self._done = 0

    def plan(self) -> CleanupPlan:
        """Plan, then weigh."""
        store = self._store.opened()
        position = store.position
        scale, kept = Scale(store), Counter[str]()
        names: list[str] = []
        origins: set[int] = set()
        for plan in self._planner.plans():
            kept.update(plan.kept)
            for target in plan.doomed:
                names.append(target.id)
                origins.add(target.origin)
                scale.take(target.payloads)
            self._tell(plan.examined)
        weight = self._weight(scale, origins)
        return CleanupPlan(
            policy=form_of(self._policy),
            position=position,
            checkpoints=tuple(names),
            kept=dict(sorted(kept.items())),
            bytes=weight.bytes,
            chunks=weight.chunks,
            is_estimate=weight.is_estimate,
            sample=weight.sample,
            unread=weight.unread,
        )

    def _weight(self, scale: Scale, origins: set[int]) -> Weight:
        after = None
        scale.begin_keeping()
        while origins and (rows := self._store.select(Filter(), after=after, limit=_PAGE_ROWS)):
            for row in rows:
                if row.origin not in origins:
                    data = Reference(row.data_kind, row.data_root, row.data_size)
                    meta = Reference(row.meta_kind, row.meta_root, row.meta_size)
                    scale.keep(one for one in (data, meta) if one.root)
            after = rows[-1].origin
            self._tell(len(rows))
        return scale.weight()

    def _tell(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)


def _policy(retention: object, max_age_days: object) -> Policy:
    if type(max_age_days) is not int or max_age_days != AGE_DAYS:
        raise ArgumentError(
            "max_age_days and retention were both given.",
            hint="Say it in the policy: retention={'keep_days': ...}.",
            argument="max_age_days",
        )
    return policy_of(retention)


def _now(store: Store) -> Now:
    now = datetime.fromtimestamp(store.environment.now_us() / 1e6, UTC)

    def ago(days: float) -> str:
        age = timedelta(days=days)
        return time_text(now - age if now - _EARLIEST > age else _EARLIEST)

    return ago


def _living(store: Store) -> int:
    return ask(store, lambda view: view.totals()).checkpoints
