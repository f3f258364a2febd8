"""The part of a manager that takes checkpoints away by rules, and pins those that stay.

Policies: policy.retention. A clean-up: plan (manager.plan), sweep (manager.sweep). What it would
do, and what that would free: `plan_cleanup`. Page: specs/retention.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ckptlog.errors import (
    ArgumentError,
    BusyError,
    CheckpointNotFoundError,
    InvalidUpdateError,
    SettingsError,
)
from ckptlog.manager import upkeep
from ckptlog.manager.fact import pinned_wire
from ckptlog.manager.plan import Planner
from ckptlog.manager.preparation import Content, Preparation, holder_of
from ckptlog.manager.sweep import Outcome, Sweep
from ckptlog.manager.weight import Scale, Weight
from ckptlog.model.checkpoint import time_text
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.event import Reference
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.value import Prepared
from ckptlog.policy.command import Pin
from ckptlog.policy.decide import Stale
from ckptlog.policy.retention import Now, Policy
from ckptlog.policy.retention_form import form_of, policy_of
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.report import Progress
from ckptlog.repository.statistics import ask
from ckptlog.repository.store import Store
from ckptlog.views.query import Filter

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

AGE_DAYS: Final = 30
_PAGE_ROWS: Final = 1000
_ATTEMPTS_MAX: Final = 1000
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


class Retention:
    """What a manager inherits."""

    store: Store
    actor: str
    _preparation: Preparation

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

    # --- pins ---------------------------------------------------------------------------------

    def pin_checkpoint(self, checkpoint_id: str, *, actor: str | None = None) -> bool:
        """Keep clean-ups from deleting a checkpoint; False where it is pinned already.

        It stands in the metadata, as `pinned: True`, and an event says who did it. The state
        stays; a completed checkpoint can be pinned. `delete_checkpoint` still deletes it.

        Raises:
            CheckpointNotFoundError: There is no such checkpoint.
            CheckpointUpdateError: Its metadata has no place for it.
        """
        return self._pin(checkpoint_id, actor, is_pinned=True)

    def unpin_checkpoint(self, checkpoint_id: str, *, actor: str | None = None) -> bool:
        """Undo `pin_checkpoint`; False where it is not pinned."""
        return self._pin(checkpoint_id, actor, is_pinned=False)

    def _pin(self, checkpoint_id: str, actor: str | None, *, is_pinned: bool) -> bool:
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        actor = self.actor if actor is None else check_id("actor", actor)
        for _ in range(_ATTEMPTS_MAX):
            entry = self.store.newest(checkpoint_id)
            if entry is None:
                raise CheckpointNotFoundError(
                    f"There is no checkpoint {checkpoint_id!r}.",
                    hint="It may have been deleted; ckptlog list shows what is there.",
                    checkpoint_id=checkpoint_id,
                )
            meta = entry.event.meta
            before = b"" if meta is None else self.store.wire(meta)
            after = pinned_wire(before, is_pinned=is_pinned)
            if after is None:
                raise InvalidUpdateError(
                    f"The metadata of {checkpoint_id!r} has no place for a pin.",
                    hint="A checkpoint with only pending writes cannot be pinned yet.",
                    checkpoint_id=checkpoint_id,
                )
            if after == before:
                return False
            size = entry.event.data.size if entry.event.data else 0
            content = self._preparation.content(
                None, Prepared(after), holder_of(entry), kept_bytes=size
            )
            if self._commit_pin(content, checkpoint_id, entry.position, actor, is_pinned=is_pinned):
                return True
        raise BusyError(
            f"{_ATTEMPTS_MAX} attempts to pin a checkpoint were overtaken.",
            hint="Let fewer writers change one checkpoint at once.",
        )

    def _commit_pin(
        self, content: Content, checkpoint: str, position: int, actor: str, *, is_pinned: bool
    ) -> bool:
        command = Pin(
            actor=actor,
            based_on=position,
            checkpoint=checkpoint,
            command=self._preparation.command_id(),
            is_pinned=is_pinned,
            payloads=content.payloads,
        )
        step = Step(command, content.records)
        intent = Intent((step,), content.packs, content.placements)
        if isinstance(self.store.submit(intent), Stale):
            return False
        self._preparation.remember(content)
        return True


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
