"""From a request in the caller's words to an intent: arguments checked, values merged, cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointNotFoundError,
)
from ckptlog.manager.preparation import (
    Content,
    Holder,
    Preparation,
    Texts,
    holder_of,
    kept,
    texts_of,
)
from ckptlog.model.event import INTEGER_MAX, RECORDED_TYPES
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.lease import Held
from ckptlog.model.position import POSITION_MAX
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.model.value import Prepared
from ckptlog.policy.command import Change, Create, Payloads
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.store import Store

# Above every real number of steps, and far below 2**53, the largest integer in an event.
STEPS_MAX = 2**31

Drafted = tuple[Intent, tuple[Content, ...]]


class CreateRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a caller says to create a checkpoint.

    batch: Operations of the batch that it is part of, where that has a command id; else 0.
    leases: Tokens that the caller has; no part of what makes two requests the same.
    is_clean: Title, description and metadata are stored as they are (of what was planted): the
        caller has replaced what is a secret in them, and the rest is read again as it was written.
    """

    task: str
    title: str
    step: int
    actor: str
    description: str = ""
    total: int | None = None
    data: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    worker: str | None = None
    parent: str | None = None
    namespace: str = ""
    checkpoint: str | None = None
    command: str | None = None
    is_active: bool = False
    prepared: tuple[Prepared, Prepared] | None = None
    batch: int = 0
    leases: Held = ()
    is_clean: bool = False


class ChangeRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a caller says to change a checkpoint; None leaves a field as it is.

    batch, leases: As in `CreateRequest`.
    """

    checkpoint: str
    actor: str
    state: CheckpointState | None = None
    step: int | None = None
    total: int | None = None
    description: str | None = None
    data: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    replaces_data: bool = False
    command: str | None = None
    expected: int | None = None
    batch: int = 0
    leases: Held = ()

    @property
    def is_bare(self) -> bool:
        """Whether payloads stay as they are."""
        return self.data is None and self.metadata is None and self.description is None


class Current(msgspec.Struct, frozen=True):
    """What a change starts from: the payloads that are there and, where needed, their values.

    based_on: Position of the newest event; None where it is not committed yet (inside a batch).
    """

    holder: Holder
    based_on: int | None
    data: dict[str, Any]
    meta: dict[str, Any]


class Identity(NamedTuple):
    """A command's id, and the fingerprint of its content; "" where we made the id."""

    command: str
    fingerprint: str


class Drafter:
    """Makes intents for one manager.

    Threads: safe.
    """

    def __init__(self, store: Store, preparation: Preparation) -> None:
        self.store = store
        self.preparation = preparation

    def create(self, request: CreateRequest) -> Drafted:
        """Return the intent of one create."""
        step, content = self.create_step(request, self.witness(_task(request)))
        return Intent((step,), content.packs, content.placements), (content,)

    def change(self, request: ChangeRequest) -> Drafted:
        """Return the intent of one change."""
        try:
            current = self.current(request)
        except CheckpointNotFoundError:
            if request.command is None:
                raise
            # A retry: it may have been carried out before the checkpoint was deleted.
            return Intent((Step(self.late(request)),)), ()
        step, content = self.change_step(request, current)
        return Intent((step,), content.packs, content.placements), (content,)

    def late(self, request: ChangeRequest) -> Change:
        """Return the command of a change of what is gone: it can be answered, never carried out."""
        _check_change(request)
        identity = self.identity(request.command, self._change_content, request)
        return Change(
            actor=request.actor,
            # Of no state: where the checkpoint is there after all, it is prepared again.
            based_on=-1,
            checkpoint=request.checkpoint,
            command=identity.command,
            fingerprint=identity.fingerprint,
        )

    def witness(self, task: str) -> Holder | None:
        """Return the task's newest checkpoint, whose chunks may be reused.

        As this process last saw it: whether it still holds is checked under the lock.
        """
        try:
            return holder_of(self.store.latest_known(task))
        except CheckpointCorruptionError:
            # A damaged neighbour must not stop new work: everything is written fresh.
            return None

    def prepare(
        self,
        title: str,
        description: str,
        data: dict[str, Any] | None,
        metadata: dict[str, Any] | None,
    ) -> tuple[Prepared, Prepared]:
        """Return the payloads of a create: checked, sanitised and serialised copies."""
        metadata = {} if metadata is None else metadata
        return (
            self.preparation.data({} if data is None else data),
            self.preparation.meta(Texts(title, description, metadata)),
        )

    def create_step(self, request: CreateRequest, holder: Holder | None) -> tuple[Step, Content]:
        """Return the command of a create, and its content."""
        check_create(request)
        data, meta = request.prepared or self.prepare(
            request.title, request.description, request.data, request.metadata
        )
        content = self.preparation.content(data, meta, holder)
        payloads = content.payloads
        identity = self.identity(request.command, create_content, request, payloads)
        command = Create(
            actor=request.actor,
            checkpoint=request.checkpoint or "",
            command=identity.command,
            fingerprint=identity.fingerprint,
            is_active=request.is_active,
            leases=request.leases,
            namespace=request.namespace,
            parent=request.parent or "",
            payloads=payloads,
            step=request.step,
            task=request.task,
            total=request.total or 0,
            worker=request.worker or "",
        )
        return Step(command, content.records), content

    def change_step(self, request: ChangeRequest, current: Current) -> tuple[Step, Content]:
        """Return the command of a change of what is there now, and its content."""
        _check_change(request)
        preparation = self.preparation
        data = meta = None
        if request.data is not None:
            merged = request.data if request.replaces_data else {**current.data, **request.data}
            data = preparation.data(merged)
        if request.metadata is not None or request.description is not None:
            meta = preparation.meta(_merged_texts(request, texts_of(current.meta)))
        size = kept(current.holder, data=data is not None, meta=meta is not None)
        content = (
            Content(Payloads())
            if request.is_bare
            else preparation.content(data, meta, current.holder, kept_bytes=size)
        )
        identity = self.identity(request.command, self._change_content, request)
        command = Change(
            actor=request.actor,
            based_on=None if request.is_bare else current.based_on,
            checkpoint=request.checkpoint,
            command=identity.command,
            expected=request.expected,
            fingerprint=identity.fingerprint,
            leases=request.leases,
            payloads=content.payloads,
            state=request.state,
            step=request.step,
            total=request.total,
        )
        return Step(command, content.records), content

    def _change_content(self, request: ChangeRequest) -> tuple[Any, ...]:
        """Return what makes two changes the same command: the request, not what it led to.

        Secrets are replaced first: not even a digest of one is written.
        """
        data, wire = request.data, self.preparation.wire
        return (
            ("change", request.checkpoint, request.state and request.state.value, request.batch),
            (request.step, request.total, request.replaces_data),
            None if data is None else wire(data, "data"),
            wire({"description": request.description, "metadata": request.metadata}, ""),
        )

    def current(self, request: ChangeRequest) -> Current:
        """Read what a change starts from.

        Raises:
            CheckpointNotFoundError: There is no such checkpoint.
        """
        check_id("checkpoint_id", request.checkpoint, CHECKPOINT_ID_CHARACTERS_MAX)
        found = self.store.read_known(request.checkpoint)
        if found is None:
            raise CheckpointNotFoundError(
                f"There is no checkpoint {request.checkpoint!r}.",
                hint="It may have been deleted; ckptlog list shows what is there.",
                checkpoint_id=request.checkpoint,
            )
        entry, records = found
        value, event, codecs = self.store.blobs.value, entry.event, self.store.codecs
        data: dict[str, Any] = {}
        meta: dict[str, Any] = {}
        if request.data is not None and not request.replaces_data and event.data is not None:
            data = value(event.data, codecs, records)
        if (request.metadata is not None or request.description is not None) and event.meta:
            meta = value(event.meta, codecs, records)
        holder = Holder(request.checkpoint, event.data, event.meta)
        return Current(holder, entry.position, data, meta)

    def identity(
        self, command: str | None, content: Callable[..., tuple[Any, ...]], *parts: Any
    ) -> Identity:
        """Return a command's id and, where the caller gave it, the fingerprint of its content.

        content(*parts) is what makes two commands the same; it is asked only where it matters.
        """
        if command is None:
            return Identity(self.preparation.command_id(), "")
        check_id("command_id", command)
        return Identity(command, blake3(repr(content(*parts)).encode()).hexdigest()[:32])


def _task(request: CreateRequest) -> str:
    return check_id("task_id", request.task)


def check_create(request: CreateRequest) -> None:
    """Refuse a create whose names or numbers cannot be.

    Raises:
        ArgumentError: One is wrong; the message says which.
    """
    check_id("task_id", request.task)
    check_step("step_number", request.step)
    if request.total is not None:
        check_step("total_steps", request.total)
    if request.worker is not None:
        check_id("worker_id", request.worker)
    if request.parent is not None:
        check_id("parent_checkpoint_id", request.parent, CHECKPOINT_ID_CHARACTERS_MAX)
    if request.checkpoint is not None:
        check_id("checkpoint_id", request.checkpoint, CHECKPOINT_ID_CHARACTERS_MAX)
    if request.namespace != "":
        check_id("namespace", request.namespace)
    check_id("actor", request.actor)


def _check_change(request: ChangeRequest) -> None:
    check_expected(request.expected)
    if request.data is not None:
        _check_dictionary("data", request.data)
    if request.metadata is not None:
        _check_dictionary("metadata", request.metadata)
    if request.step is not None:
        check_step("step_number", request.step)
    if request.total is not None:
        check_step("total_steps", request.total)
    if request.state is not None and not isinstance(request.state, CheckpointState):
        raise ArgumentError(
            f"state is {quoted(request.state)}, which is no CheckpointState.",
            hint="Use CheckpointState.ACTIVE, for example.",
            argument="state",
        )
    check_id("actor", request.actor)


def check_step(name: str, number: object) -> None:
    """Refuse what cannot count steps.

    Raises:
        ArgumentError: It is no integer from 1 on.
    """
    if type(number) is not int or not 1 <= number <= STEPS_MAX:
        raise ArgumentError(
            f"{name} is {quoted(number)}; a whole number from 1 on is needed.", argument=name
        )


def check_record(kind: object, facts: object) -> None:
    """Refuse what must not be recorded by itself, or could not be read again.

    Raises:
        ArgumentError: kind is none of RECORDED_TYPES, or facts are no numbers and texts by name.
    """
    if not isinstance(kind, str) or kind not in RECORDED_TYPES:
        raise ArgumentError(
            f"An event of type {ascii(kind)[:80]} cannot be recorded by itself.",
            hint=f"Types are: {', '.join(sorted(RECORDED_TYPES))}.",
            argument="kind",
        )
    is_sound = type(facts) is dict and all(
        type(name) is str
        and name.isascii()
        and (type(value) is str or (type(value) is int and abs(value) <= INTEGER_MAX))
        for name, value in facts.items()
    )
    if not is_sound:
        raise ArgumentError(
            "facts must be whole numbers below 2**53 and texts, by ASCII names.", argument="facts"
        )


def check_expected(expected: object) -> None:
    """Refuse what cannot be a position that the caller has seen.

    Raises:
        ArgumentError: It is neither None nor an integer that a position can be.
    """
    if expected is None:
        return
    if type(expected) is not int or not -POSITION_MAX <= expected <= POSITION_MAX:
        raise ArgumentError(
            f"expected is {quoted(expected)}; a position (int) is needed.",
            hint="Use CheckpointData.position.",
            argument="expected",
        )


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse an argument of another class.

    Raises:
        ArgumentError: It is of another class.
    """
    if not isinstance(value, kind):
        raise ArgumentError(
            f"{name} is of type {type(value).__name__}; {kind.__name__} is needed.", argument=name
        )


def _check_dictionary(name: str, value: object) -> None:
    if type(value) is not dict:
        raise ArgumentError(
            f"{name} is of type {type(value).__name__}; a dictionary (dict) is needed.",
            argument=name,
        )


def _merged_texts(request: ChangeRequest, old: Texts) -> Texts:
    metadata = old.metadata
    if request.metadata is not None:
        metadata = {**metadata, **request.metadata}
    description = old.description if request.description is None else request.description
    return Texts(old.title, description, metadata)


def create_content(request: CreateRequest, payloads: Payloads) -> tuple[Any, ...]:
    """Return what makes two creates the same command."""
    return (
        ("create", request.task, request.step, request.total, request.checkpoint, request.batch),
        (request.worker, request.parent, request.namespace, request.is_active),
        tuple(part.root for part in (payloads.data, payloads.meta) if part is not None),
    )


def subject_content(*words: str) -> tuple[str, ...]:
    """Return what makes two commands about one name the same: the verb and the name."""
    return words
