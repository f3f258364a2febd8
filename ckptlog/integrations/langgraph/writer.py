"""Writes of the saver: put and pending writes, as commands of the store's one path.

    prepared outside of every lock -> command -> decided and appended in one round

What a preparation relies on (how often the thread was deleted, the checkpoint as it was, the one
whose chunks are shared) is in the command and checked under the lock; where it no longer holds,
all is prepared again. No lock is held here at any time.

Late writes: what names a parent, or a checkpoint, that was deleted is refused; so is what names one
of a life of the thread that has ended. Only a put without a parent begins a new life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ckptlog.errors import (
    ArgumentError,
    BusyError,
    CheckpointCorruptionError,
    CheckpointNotFoundError,
    CreationRefusedError,
    DuplicateIdError,
)
from ckptlog.integrations.langgraph.address import Address
from ckptlog.integrations.langgraph.name import checkpoint_of, is_cut, label_of, task_of
from ckptlog.integrations.langgraph.record import Wiring, Write, merged, replaced, step_in_store
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.preparation import Content, Holder, Preparation, holder_of
from ckptlog.manager.quota import Quota
from ckptlog.model.entry import Entry
from ckptlog.model.event import Reference
from ckptlog.model.value import Prepared
from ckptlog.policy.command import AnyCommand, Change, Create
from ckptlog.policy.decide import Stale
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.store import Store

_ATTEMPTS_MAX: Final = 1000
_DELETED_HINT: Final = "What was deleted stays deleted; begin anew without a checkpoint_id."


class Rules(NamedTuple):
    """What a saver refuses.

    late_writes: Whether what belongs to something deleted is accepted.
    second_children: Whether a parent may get a second child in its namespace.
    """

    late_writes: bool = False
    second_children: bool = True


class Place(NamedTuple):
    """Where a checkpoint goes, in one life of its thread."""

    thread: str
    space: str
    life: int

    def checkpoint(self, identifier: str) -> str:
        """Return the id in the store of a checkpoint there."""
        return checkpoint_of(self.thread, self.space, self.life, identifier)


class Writer:
    """Writes for one saver.

    Threads: safe.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        preparation: Preparation,
        wiring: Wiring,
        quota: Quota,
        rules: Rules,
    ) -> None:
        self._manager = manager
        self._store: Store = manager.store
        self._preparation = preparation
        self._wiring = wiring
        self._quota = quota
        self._rules = rules

    # --- put --------------------------------------------------------------------------------

    def put(
        self,
        address: Address,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        writes: Sequence[Write] = (),
    ) -> None:
        """Store a checkpoint; one with its id is replaced, and keeps its writes.

        Args:
            writes: Writes that a new checkpoint has from the start; a replaced one gets none.

        Raises:
            CreationRefusedError: The parent, or a checkpoint of this id, was deleted.
            ConflictError: The parent has another child, and that is not wanted.
            UnstorableError: A value cannot be stored.
        """
        self._quota.check()
        data = self._wiring.checkpoint(checkpoint, writes)
        meta = meta_of(self._wiring, address.thread, address.space, metadata)
        step = step_in_store(metadata)
        is_single = not self._rules.second_children and metadata.get("source") != "fork"

        def attempt() -> bool:
            place = self._place(address)
            try:
                return self._create(place, address, (checkpoint["id"], data, meta), step, is_single)
            except DuplicateIdError:
                return self._replace(
                    place, address, (checkpoint["id"], data, meta), step, is_single
                )

        self._until_done(attempt)

    def _create(
        self,
        place: Place,
        address: Address,
        whole: tuple[str, Prepared, Prepared],
        step: int,
        is_single: bool,  # noqa: FBT001 - passed on within this class
    ) -> bool:
        identifier, data, meta = whole
        parent, entry = self._parent(place, address.checkpoint)
        content = self._preparation.content(data, meta, self._holder(entry, place.thread))
        return self._submit(
            Create(
                actor=self._manager.actor,
                checkpoint=place.checkpoint(identifier),
                command=self._manager.new_command_id(),
                incarnation=place.life,
                is_late_accepted=self._rules.late_writes,
                is_only_child=is_single,
                namespace=label_of(place.space),
                parent=parent,
                payloads=content.payloads,
                step=step,
                task=task_of(place.thread),
            ),
            content,
        )

    def _replace(
        self,
        place: Place,
        address: Address,
        whole: tuple[str, Prepared, Prepared],
        step: int,
        is_single: bool,  # noqa: FBT001 - passed on within this class
    ) -> bool:
        identifier, data, meta = whole
        name = place.checkpoint(identifier)
        found = self._store.read(name)
        if found is None:
            if self._store.newest_ever(name) is None:  # the thread was deleted meanwhile
                return False
            raise CreationRefusedError(
                f"The checkpoint {identifier!r} of thread {place.thread!r} was deleted.",
                hint="Put it under another id; this one is free again once the thread is deleted.",
                checkpoint_id=identifier,
                thread_id=place.thread,
            )
        entry, records = found
        parent, _ = self._parent(place, address.checkpoint)
        before = self._store.blobs.wire(_data_of(entry), records)
        data = Prepared(replaced(before, data.wire), data.sanitised_count)
        content = self._preparation.content(data, meta, holder_of(entry))
        return self._submit(
            Change(
                actor=self._manager.actor,
                based_on=entry.position,
                checkpoint=name,
                command=self._manager.new_command_id(),
                is_only_child=is_single,
                parent=parent,
                payloads=content.payloads,
                step=step,
            ),
            content,
        )

    def _parent(self, place: Place, identifier: str | None) -> tuple[str, Entry | None]:
        """Return the id in the store of a parent, and its newest event where it is living.

        Raises:
            CreationRefusedError: It belongs to a life of the thread that has ended. (Whether it
                was deleted in this one is asked under the lock.)
        """
        if identifier is None:
            return "", None
        name = place.checkpoint(identifier)
        found = self._store.read_known(name)
        if found is not None:
            return name, found[0]
        if not self._rules.late_writes and self._was_before(place, identifier):
            raise CreationRefusedError(
                f"The parent checkpoint {identifier!r} was deleted with its thread "
                f"{place.thread!r}.",
                hint=_DELETED_HINT,
                parent_checkpoint_id=identifier,
                thread_id=place.thread,
            )
        return name, None

    def _was_before(self, place: Place, identifier: str) -> bool:
        """Say whether a checkpoint that is unknown in this life of its thread was in one before."""
        if self._store.newest_ever(place.checkpoint(identifier)) is not None:
            return False
        lives = (place._replace(life=life) for life in reversed(range(place.life)))
        return any(
            self._store.newest_ever(life.checkpoint(identifier)) is not None for life in lives
        )

    def _holder(self, parent: Entry | None, thread: str) -> Holder | None:
        """Return whose chunks may be shared: the parent, else the thread's newest checkpoint."""
        if parent is not None:
            return holder_of(parent)
        try:
            return holder_of(self._store.latest_known(task_of(thread)))
        except CheckpointCorruptionError:
            return None  # a damaged neighbour must not stop new work

    # --- pending writes ---------------------------------------------------------------------

    def put_writes(self, address: Address, writes: Sequence[Write]) -> None:
        """Add writes to a checkpoint; they may come before it.

        Raises:
            CheckpointNotFoundError: The checkpoint, or its thread, was deleted.
            UnstorableError: A value cannot be stored.
        """
        identifier = address.checkpoint
        if identifier is None:
            raise ArgumentError(
                "The config has no checkpoint_id; writes belong to a checkpoint.",
                argument="checkpoint_id",
            )
        if not writes:
            return
        fresh = self._wiring.writes(writes)

        def attempt() -> bool:
            place = self._place(address)
            name = place.checkpoint(identifier)
            found = self._store.read_known(name)
            if found is not None:
                return self._add(found, writes, fresh)
            return self._add_early(place, identifier, fresh)

        self._until_done(attempt)

    def _add(
        self, found: tuple[Entry, dict[bytes, bytes]], writes: Sequence[Write], fresh: Prepared
    ) -> bool:
        entry, records = found
        before = self._store.blobs.wire(_data_of(entry), records)
        wire = merged(before, writes, fresh.wire)
        if wire is None:
            return True
        kept = entry.event.meta.size if entry.event.meta else 0
        content = self._preparation.content(
            Prepared(wire, fresh.sanitised_count), None, holder_of(entry), kept_bytes=kept
        )
        command = Change(
            actor=self._manager.actor,
            based_on=entry.position,
            checkpoint=entry.event.subject.checkpoint,
            command=self._manager.new_command_id(),
            payloads=content.payloads,
        )
        try:
            return self._submit(command, content)
        except CheckpointNotFoundError:  # deleted meanwhile: look again, and tell
            return False

    def _add_early(self, place: Place, identifier: str, fresh: Prepared) -> bool:
        name = place.checkpoint(identifier)
        was_there = self._store.newest_ever(name) is not None
        if was_there and self._store.newest(name) is not None:
            return False  # its put came between two looks
        if was_there or self._was_before(place, identifier):
            if self._rules.late_writes:
                return True  # as elsewhere: kept for nobody
            raise CheckpointNotFoundError(
                f"The checkpoint {identifier!r} of thread {place.thread!r} was deleted.",
                hint="Its writes are not stored. " + _DELETED_HINT,
                checkpoint_id=identifier,
                thread_id=place.thread,
            )
        content = self._preparation.content(fresh, None, self._holder(None, place.thread))
        command = Create(
            actor=self._manager.actor,
            checkpoint=name,
            command=self._manager.new_command_id(),
            incarnation=place.life,
            namespace=label_of(place.space),
            payloads=content.payloads,
            step=1,
            task=task_of(place.thread),
        )
        try:
            return self._submit(command, content)
        except DuplicateIdError:  # its put, or other writes, came first
            return False

    # --- the way into the log ---------------------------------------------------------------

    def _place(self, address: Address) -> Place:
        life = self._store.incarnation_known(task_of(address.thread))
        return Place(address.thread, address.space, life)

    def _submit(self, command: AnyCommand, content: Content) -> bool:
        step = Step(command, content.records)
        outcome = self._store.submit(Intent((step,), content.packs, content.placements))
        if isinstance(outcome, Stale):
            self._store.catch_up()
            return False
        self._preparation.remember(content)
        return True

    def _until_done(self, attempt: Callable[[], bool]) -> None:
        for _ in range(_ATTEMPTS_MAX):
            if attempt():
                return
        raise overtaken()


def meta_of(wiring: Wiring, thread: str, space: str, metadata: Mapping[str, Any]) -> Prepared:
    """Return the meta wire of a checkpoint; names stand in it where theirs in the store are cut."""
    title = thread if is_cut(task_of(thread)) else ""
    return wiring.meta(title, space if is_cut(label_of(space)) else "", metadata)


def overtaken() -> BusyError:
    """Return the error of a call that others came before again and again."""
    return BusyError(
        f"{_ATTEMPTS_MAX} attempts to write to a thread were overtaken.",
        hint="Let fewer writers change one thread at once.",
    )


def _data_of(entry: Entry) -> Reference:
    if entry.event.data is None:
        raise CheckpointCorruptionError(
            f"The checkpoint {entry.event.subject.checkpoint!r} has no data.",
            hint="Run ckptlog verify.",
        )
    return entry.event.data
