"""The one place that accepts or refuses: `decide(state, command, moment) -> Decision`.

Pure: what is true comes in as a `State`, and events go out; nothing else happens. The writer
calls it under the lock, after catching up with the log, for one command after the other, and
shows each command the events of those before it. So no interleaving of threads and processes can
put an illegal transition into the log.

Order of the checks: the command's id first (a retry is not a conflict), then existence, then the
task's lease, then the caller's expectation, then the state machine, then what the preparation
relied on. The last is no refusal: `Stale` asks the caller to prepare again from what is true now.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ckptlog.errors import (
    CheckpointNotFoundError,
    CommandReusedError,
    ConflictError,
    CreationRefusedError,
    DuplicateIdError,
    IllegalTransitionError,
)
from ckptlog.model import event as kinds
from ckptlog.model.entry import Entry
from ckptlog.model.event import Event, Reference, Subject
from ckptlog.model.identifier import checkpoint_id, id_time
from ckptlog.model.lease import Grant
from ckptlog.model.state import EVENT_OF_STATE, TRANSITIONS, CheckpointState, is_legal
from ckptlog.policy.command import (
    AnyCommand,
    Change,
    Claim,
    Command,
    Create,
    Delete,
    DeleteTask,
    Leasing,
    Moment,
    Payloads,
    Pin,
    Record,
    Settle,
)
from ckptlog.policy.leasing import decide_lease, refuse_write


class State(Protocol):
    """What is true at the tail, as decisions need it."""

    position: int
    id_time_max: int
    fence: int

    def living(self, checkpoint: str) -> Entry | None:
        """Return the newest event of a checkpoint that was not deleted."""

    def is_taken(self, checkpoint: str) -> bool:
        """Say whether an id was ever used, by a living or a deleted checkpoint."""

    def command(self, command: str) -> Event | None:
        """Return the event that carried a command id."""

    def may_have_changed(self, task: str, since: int) -> bool:
        """Say whether an event about a task may stand at position `since` or after it."""

    def incarnation(self, task: str) -> int:
        """Return how often a task was deleted."""

    def has_child(self, parent: str, task: str, namespace: str) -> bool:
        """Say whether a living checkpoint of a task has this parent; "" stands for none.

        One without `meta` is not whole yet and does not count.
        """

    def lease(self, task: str) -> Grant | None:
        """Return the lease of a task that was not released; it may have expired."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Events to append in one commit, in order, and what the caller is told."""

    events: tuple[Event, ...]
    result: str | bool | int


class Stale(msgspec.Struct, frozen=True, gc=False):
    """The preparation no longer fits; prepare again. why: For the error after many attempts."""

    why: str


def decide(state: State, command: AnyCommand, moment: Moment) -> Decision | Stale:
    """Return the events that carry out a command.

    Raises:
        CheckpointError: A refusal, by class; nothing is to be appended.
    """
    if command.fingerprint and (earlier := state.command(command.command)):
        return _repeat(earlier, command)
    if isinstance(command, Create):
        return _create(state, command, moment)
    if isinstance(command, Change):
        return _change(state, command, moment)
    if isinstance(command, Delete):
        return _delete(state, command, moment)
    if isinstance(command, DeleteTask):
        return _delete_task(state, command, moment)
    return _rare(state, command, moment)


def _repeat(earlier: Event, command: AnyCommand) -> Decision:
    """Answer a command that was already carried out as it was answered then."""
    # An id that we made ourselves has no fingerprint: its first use is known only by its kind.
    if earlier.fingerprint not in ("", command.fingerprint) or not _is_same_kind(earlier, command):
        raise CommandReusedError(
            f"The command id {command.command!r} was already used for a {earlier.type} of "
            f"{earlier.subject.checkpoint or earlier.subject.task!r} with other content.",
            hint="Use a new id for a new command, the same id only to retry.",
            command_id=command.command,
            checkpoint_id=earlier.subject.checkpoint,
        )
    if isinstance(command, Create):
        return Decision((), earlier.subject.checkpoint)
    if isinstance(command, DeleteTask):
        return Decision((), int(earlier.facts.get("checkpoints", 0)))
    if isinstance(command, Claim):
        return Decision((), int(earlier.facts.get("token", -1)))
    return Decision((), True)


def _is_same_kind(earlier: Event, command: AnyCommand) -> bool:
    subject = earlier.subject
    if isinstance(command, Create):
        return earlier.type == kinds.CREATED and subject.task == command.task
    if isinstance(command, Change | Pin | Delete):
        return subject.checkpoint == command.checkpoint and earlier.type != kinds.CREATED
    if isinstance(command, Settle):
        return earlier.type == kinds.SETTLED
    if isinstance(command, Claim):
        return earlier.type == kinds.LEASE_CLAIMED and subject.task == command.task
    return subject.task == command.task


def _create(state: State, command: Create, moment: Moment) -> Decision | Stale:
    if command.incarnation not in (None, state.incarnation(command.task)):
        return Stale(f"the task {command.task} was deleted meanwhile")
    _refuse_unleased(state, command.task, command, moment)
    if command.checkpoint and not _is_unused(state, command.checkpoint):
        raise DuplicateIdError(
            f"The checkpoint id {command.checkpoint!r} is already used.",
            hint="Ids are never used twice, not even after a delete; choose another.",
            checkpoint_id=command.checkpoint,
        )
    if not command.is_late_accepted:
        _refuse_deleted_parent(state, command)
    if command.is_only_child:
        _refuse_second_child(
            state, Subject(parent=command.parent, task=command.task, namespace=command.namespace)
        )
    if stale := _stale_witness(state, command.payloads):
        return stale
    identifier = command.checkpoint or _unused_id(state, command, moment)
    created = Event(
        actor=command.actor,
        data=command.payloads.data,
        fingerprint=command.fingerprint,
        id=command.command,
        meta=command.payloads.meta,
        new=command.payloads.new,
        sanitised=command.payloads.sanitised,
        schema=moment.schema,
        state="created",
        step=command.step,
        subject=Subject(
            identifier, command.namespace, command.parent, command.task, command.worker
        ),
        time=moment.iso,
        total=command.total,
        type=kinds.CREATED,
    )
    if not command.is_active:
        return Decision((created,), identifier)
    return Decision((created, _activation(created, state.position)), identifier)


def _activation(created: Event, position: int) -> Event:
    """Return the step from created to active that follows a creation at position."""
    return msgspec.structs.replace(
        created,
        created=created.time,
        fingerprint="",
        # No caller can give an id that ends in a blank, so nobody's command is taken for this.
        id=f"{created.id} ",
        new=0,
        origin=position,
        previous=position,
        sanitised=0,
        state="active",
        type=kinds.UPDATED,
    )


def _refuse_deleted_parent(state: State, command: Create) -> None:
    parent = command.parent
    if parent and state.living(parent) is None and state.is_taken(parent):
        raise CreationRefusedError(
            f"The parent checkpoint {parent!r} was deleted.",
            hint="Begin anew without a parent; what was deleted stays deleted.",
            parent_checkpoint_id=parent,
        )


def _refuse_second_child(state: State, subject: Subject) -> None:
    parent = subject.parent
    if not state.has_child(parent, subject.task, subject.namespace):
        return
    where = f"on the parent {parent!r}" if parent else "without a parent"
    raise ConflictError(
        f"Another writer was first: task {subject.task!r} has a checkpoint {where} already.",
        hint="Read the newest checkpoint, and go on from there.",
        task_id=subject.task,
        parent_checkpoint_id=parent,
    )


def _unused_id(state: State, command: Create, moment: Moment) -> str:
    time_us = moment.us
    identifier = checkpoint_id(command.task, command.step, time_us)
    # Above every timestamp in the store no look-up is needed.
    while time_us <= state.id_time_max and state.is_taken(identifier):
        time_us += 1
        identifier = checkpoint_id(command.task, command.step, time_us)
    return identifier


def _is_unused(state: State, identifier: str) -> bool:
    return id_time(identifier) > state.id_time_max or not state.is_taken(identifier)


def _stale_witness(state: State, payloads: Payloads) -> Stale | None:
    for witness in payloads.witnesses:
        entry = state.living(witness.checkpoint)
        if entry is None or witness.root not in _roots(entry.event):
            return Stale(f"the payload of {witness.checkpoint} that holds shared chunks is gone")
    return None


def _roots(event: Event) -> tuple[str, ...]:
    return tuple(ref.root for ref in (event.data, event.meta) if ref is not None)


def _change(state: State, command: Change, moment: Moment) -> Decision | Stale:
    entry = _require(state, command, moment)
    before = entry.event
    target = command.state or CheckpointState.ACTIVE
    if _is_repetition(command, before, target):
        return Decision((), True)
    is_stale = command.based_on is not None and command.based_on != entry.position
    # Whether it repeats what is there can only be told from what is there now.
    if is_stale and (is_legal(before.state, target.value) or _is_ended_as(before, target)):
        return Stale("another change of the checkpoint came first")
    if not is_legal(before.state, target.value):
        raise _illegal(before, target)
    subject = _subject(command, before)
    # One that is not whole yet has taken nobody's place.
    if command.is_only_child and (subject != before.subject or before.meta is None):
        _refuse_second_child(state, subject)
    if stale := _stale_witness(state, command.payloads):
        return stale
    payloads = command.payloads
    event = Event(
        actor=command.actor,
        created=entry.created,
        data=payloads.data or before.data,
        fingerprint=command.fingerprint,
        id=command.command,
        meta=payloads.meta or before.meta,
        new=payloads.new,
        origin=entry.origin,
        previous=entry.position,
        sanitised=payloads.sanitised,
        schema=moment.schema,
        state=target.value,
        step=before.step if command.step is None else command.step,
        subject=subject,
        time=moment.iso,
        total=before.total if command.total is None else command.total,
        type=EVENT_OF_STATE[target],
    )
    return Decision((event,), True)


def _subject(command: Change, before: Event) -> Subject:
    if command.parent in (None, before.subject.parent):
        return before.subject
    return msgspec.structs.replace(before.subject, parent=command.parent)


def _is_repetition(command: Change, before: Event, target: CheckpointState) -> bool:
    """Say whether a completed (failed) checkpoint is completed (failed) again with nothing new."""
    if not _is_ended_as(before, target):
        return False
    if command.step not in (None, before.step) or command.total not in (None, before.total):
        return False
    payloads = command.payloads
    return _is_same(payloads.data, before.data) and _is_same(payloads.meta, before.meta)


def _is_ended_as(before: Event, target: CheckpointState) -> bool:
    return target.value == before.state and before.state in ("completed", "failed")


def _is_same(new: Reference | None, old: Reference | None) -> bool:
    return new is None or new == old


def _illegal(before: Event, target: CheckpointState) -> IllegalTransitionError:
    name = before.subject.checkpoint
    allowed = ", ".join(state.value for state in TRANSITIONS[CheckpointState(before.state)])
    hint = f"From {before.state} it may become: {allowed}."
    if allowed == "restored":
        hint += " Restore it first."
    return IllegalTransitionError(
        f"Checkpoint {name!r} is {before.state} and cannot become {target.value}.",
        hint=hint,
        checkpoint_id=name,
        state=before.state,
        target=target.value,
    )


def _pin(state: State, command: Pin, moment: Moment) -> Decision | Stale:
    entry = _existing(state, command.checkpoint)
    if entry.position != command.based_on:
        return Stale("another change of the checkpoint came first")
    if stale := _stale_witness(state, command.payloads):
        return stale
    event = msgspec.structs.replace(
        entry.event,
        actor=command.actor,
        cause="",
        created=entry.created,
        facts={},
        fingerprint=command.fingerprint,
        id=command.command,
        meta=command.payloads.meta,
        new=command.payloads.new,
        origin=entry.origin,
        packs=(),
        previous=entry.position,
        sanitised=0,
        schema=moment.schema,
        time=moment.iso,
        type=kinds.PINNED if command.is_pinned else kinds.UNPINNED,
    )
    return Decision((event,), True)


def _delete(state: State, command: Delete, moment: Moment) -> Decision | Stale:
    if command.based_on is not None and _has_changed(state, command, command.based_on):
        return Stale(f"the task of {command.checkpoint} has changed")
    if state.living(command.checkpoint) is None and state.is_taken(command.checkpoint):
        return Decision((), False)
    entry = _require(state, command, moment)
    before = entry.event
    event = Event(
        actor=command.actor,
        cause=command.cause,
        created=entry.created,
        fingerprint=command.fingerprint,
        id=command.command,
        origin=entry.origin,
        previous=entry.position,
        schema=moment.schema,
        state=before.state,
        step=before.step,
        subject=before.subject,
        time=moment.iso,
        total=before.total,
        type=kinds.DELETED,
    )
    return Decision((event,), True)


def _has_changed(state: State, command: Delete, since: int) -> bool:
    entry = state.living(command.checkpoint)
    return entry is None or state.may_have_changed(entry.event.subject.task, since)


def _delete_task(state: State, command: DeleteTask, moment: Moment) -> Decision | Stale:
    if state.may_have_changed(command.task, command.based_on):
        return Stale(f"the checkpoints of {command.task} were counted too early")
    _refuse_unleased(state, command.task, command, moment)
    facts: dict[str, int | str] = {"checkpoints": command.count}
    event = _plain(command, moment, kinds.TASK_DELETED, facts, command.task)
    return Decision((event,), command.count)


def _rare(
    state: State, command: Pin | Record | Settle | Leasing, moment: Moment
) -> Decision | Stale:
    if isinstance(command, Pin):
        return _pin(state, command, moment)
    if isinstance(command, Settle):
        return _settle(state, command, moment)
    if isinstance(command, Record):
        return _record(state, command, moment)
    return _lease(state, command, moment)


def _lease(state: State, command: Leasing, moment: Moment) -> Decision:
    step = decide_lease(state.lease(command.task), command, moment.us, state.position)
    if step is None:
        return Decision((), False)
    event = _plain(command, moment, step.type, step.facts, command.task)
    return Decision((event,), step.answer)


def _record(state: State, command: Record, moment: Moment) -> Decision:
    if command.type == kinds.RECOVERY_STARTED:  # from here on the system is another one
        _refuse_unleased(state, command.task, command, moment)
    event = _plain(command, moment, command.type, command.facts, command.task)
    if command.data is not None:
        event = msgspec.structs.replace(event, data=command.data, new=command.new)
    return Decision((event,), True)


def _settle(state: State, command: Settle, moment: Moment) -> Decision | Stale:
    if command.fence < state.fence:
        return Stale("another collection was faster")
    facts: dict[str, int | str] = {**command.facts, kinds.FENCE: command.fence}
    event = _plain(command, moment, kinds.SETTLED, facts, "")
    return Decision((msgspec.structs.replace(event, removes=command.removes),), True)


def _plain(
    command: Command, moment: Moment, kind: str, facts: dict[str, int | str], task: str
) -> Event:
    return Event(
        actor=command.actor,
        facts=dict(sorted(facts.items())),
        fingerprint=command.fingerprint,
        id=command.command,
        schema=moment.schema,
        subject=Subject(task=task),
        time=moment.iso,
        type=kind,
    )


def _refuse_unleased(state: State, task: str, command: Command, moment: Moment) -> None:
    grant = state.lease(task)
    if grant is not None or command.leases:  # mostly neither
        refuse_write(task, command.leases, grant, moment.us)


def _require(state: State, command: Change | Delete, moment: Moment) -> Entry:
    """Return the checkpoint that a command may change: it is there, and the caller's to change."""
    entry = _existing(state, command.checkpoint)
    # A clean-up is not about the task's work, and spares what that goes on from.
    if isinstance(command, Change) or not command.cause:
        _refuse_unleased(state, entry.event.subject.task, command, moment)
    expected = command.expected
    if expected is not None and entry.position != expected:
        raise ConflictError(
            f"Checkpoint {command.checkpoint!r} is at position {entry.position}; "
            f"{expected} was expected.",
            hint="Read it again, and decide anew.",
            checkpoint_id=command.checkpoint,
            position=entry.position,
            expected=expected,
        )
    return entry


def _existing(state: State, checkpoint: str) -> Entry:
    entry = state.living(checkpoint)
    if entry is None:
        raise CheckpointNotFoundError(
            f"There is no checkpoint {checkpoint!r}.",
            hint="It may have been deleted; ckptlog list shows what is there.",
            checkpoint_id=checkpoint,
        )
    return entry
