"""The part of a manager that pins checkpoints, which clean-ups spare (specs/retention.md, 2).

A pin is a fact of the history: an event, with new metadata. Whoever pins for a purpose of his own
(a recovery, which needs what it goes back to) tells of the purpose in the same commit, and of its
end in the commit that unpins: `record_pinning`, `record_unpinning`. So no kill leaves a pin that
nobody knows of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from ckptlog.errors import (
    BusyError,
    CheckpointError,
    CheckpointNotFoundError,
    InvalidUpdateError,
)
from ckptlog.formats.chunk import DIGEST_BYTES
from ckptlog.manager.draft import check_record
from ckptlog.manager.fact import pinned_wire
from ckptlog.manager.joint import joined
from ckptlog.manager.lease import LeaseArgument, held_of
from ckptlog.manager.preparation import Content, Preparation, holder_of
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.lease import Held
from ckptlog.model.value import Prepared
from ckptlog.policy.command import Pin, Record
from ckptlog.policy.decide import Stale
from ckptlog.repository.intent import Step
from ckptlog.repository.store import Store

_ATTEMPTS_MAX: Final = 1000

Facts = dict[str, int | str]


class Pinning:
    """What a manager inherits."""

    store: Store
    actor: str
    _preparation: Preparation

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

    def record_pinning(
        self,
        kind: str,
        facts: Callable[[tuple[str, ...]], Facts],
        pins: Iterable[str],
        *,
        task: str = "",
        lease: LeaseArgument = None,
    ) -> tuple[str, ...]:
        """Pin checkpoints and append a fact that tells of it, in one commit.

        Args:
            kind: As of `record`.
            facts: Returns the facts, given the ids of those that were not pinned before.
            lease: Of the task; the start of a recovery is refused beside another's.

        Returns:
            These ids: whoever unpins the others takes somebody else's pin.

        Raises:
            CheckpointNotFoundError: One of them is not there; nothing was pinned or told.
            LeaseLostError, LeaseRequiredError: The task is another holder's; the same.

        Durability: all of it, or nothing.
        """

        def prepared() -> _Joint:
            joint = self._joint(names, is_pinned=True)
            record = self._record(kind, facts(joint.names), task, held_of(lease))
            joint.steps.append(Step(record))
            return joint

        names = tuple(dict.fromkeys(pins))
        return self._commit_joint(prepared)

    def record_unpinning(
        self,
        kind: str,
        facts: Facts,
        pins: Iterable[str],
        *,
        task: str = "",
        on_fault: Callable[[str, CheckpointError], object] = lambda _name, _error: None,
    ) -> tuple[str, ...]:
        """Append a fact and unpin checkpoints, in one commit; return those that were pinned.

        Args:
            on_fault: Told of each that cannot be unpinned, which is no reason not to tell the
                fact; one that was deleted is none.

        Durability: all of it, or nothing.
        """

        def prepared() -> _Joint:
            joint = self._joint(names, is_pinned=False, on_fault=on_fault)
            joint.steps.insert(0, Step(self._record(kind, facts, task)))
            return joint

        names = tuple(dict.fromkeys(pins))
        return self._commit_joint(prepared)

    def _record(self, kind: str, facts: Facts, task: str, leases: Held = ()) -> Record:
        check_record(kind, facts)
        if task != "":
            check_id("task", task)
        command = self._preparation.command_id()
        return Record(
            actor=self.actor, command=command, type=kind, facts=facts, task=task, leases=leases
        )

    def _pin(self, checkpoint_id: str, actor: str | None, *, is_pinned: bool) -> bool:
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        actor = self.actor if actor is None else check_id("actor", actor)

        def prepared() -> _Joint:
            joint = _Joint()
            self._add(joint, checkpoint_id, actor, is_pinned=is_pinned)
            return joint

        return bool(self._commit_joint(prepared))

    def _joint(
        self,
        names: Iterable[str],
        *,
        is_pinned: bool,
        on_fault: Callable[[str, CheckpointError], object] | None = None,
    ) -> _Joint:
        joint = _Joint()
        for name in names:
            try:
                self._add(joint, name, self.actor, is_pinned=is_pinned)
            except CheckpointError as error:
                if on_fault is None:
                    raise
                if not isinstance(error, CheckpointNotFoundError):
                    on_fault(name, error)
        return joint

    def _add(self, joint: _Joint, checkpoint_id: str, actor: str, *, is_pinned: bool) -> None:
        """Add what pins or unpins a checkpoint; nothing where it is so already."""
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
            return
        size = entry.event.data.size if entry.event.data else 0
        content = self._preparation.content(
            None, Prepared(after), holder_of(entry), kept_bytes=size
        )
        command = Pin(
            actor=actor,
            based_on=entry.position,
            checkpoint=checkpoint_id,
            command=self._preparation.command_id(),
            is_pinned=is_pinned,
            payloads=content.payloads,
        )
        joint.add(checkpoint_id, command, content)

    def _commit_joint(self, prepared: Callable[[], _Joint]) -> tuple[str, ...]:
        """Commit what is prepared, again where others came first; return what it changed."""
        for _ in range(_ATTEMPTS_MAX):
            joint = prepared()
            if not joint.steps:
                return ()
            intent = joined(self.store, joint.steps, joint.contents)
            if isinstance(self.store.submit(intent), Stale):
                continue
            for content in joint.contents:
                self._preparation.remember(content)
            return joint.names
        raise BusyError(
            f"{_ATTEMPTS_MAX} attempts to pin a checkpoint were overtaken.",
            hint="Let fewer writers change one checkpoint at once.",
        )


class _Joint:
    """What one commit pins or unpins, and more steps.

    Attributes:
        names: Of the checkpoints, without those where nothing is to be done.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.steps: list[Step] = []
        self.contents: list[Content] = []
        self._own: set[bytes] = set()

    def add(self, name: str, command: Pin, content: Content) -> None:
        """Add one; a chunk that two of them bring comes with the first."""
        records = [one for one in content.records if one[:DIGEST_BYTES] not in self._own]
        self._own.update(one[:DIGEST_BYTES] for one in records)
        self.names += (name,)
        self.steps.append(Step(command, records))
        self.contents.append(content)
