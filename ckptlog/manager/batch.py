"""A batch: operations collected in order and committed as one.

Ids are given at once. What a batch has changed is seen by its own later operations, and by nobody
else before the commit. Preparing is repeated from the requests where another writer came first.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ckptlog.errors import ArgumentError, CheckpointNotFoundError
from ckptlog.formats.chunk import DIGEST_BYTES
from ckptlog.manager.draft import (
    ChangeRequest,
    CreateRequest,
    Current,
    Drafted,
    Drafter,
    check_step,
    subject_content,
)
from ckptlog.manager.joint import joined
from ckptlog.manager.preparation import Content, Holder
from ckptlog.manager.unfinished import refuse_needed
from ckptlog.model import value as values
from ckptlog.model.identifier import (
    CHECKPOINT_ID_CHARACTERS_MAX,
    check_id,
    checkpoint_id,
)
from ckptlog.model.lease import Held
from ckptlog.model.state import CheckpointState
from ckptlog.policy.command import Delete
from ckptlog.repository.intent import Step

# Bounds the bytes that one commit holds in memory, and how long others wait for it.
OPERATIONS_MAX = 10_000
# Room for the number of the operation behind it.
_COMMAND_CHARACTERS_MAX = 190


Request = TypeVar("Request", CreateRequest, ChangeRequest)


class _Pending(msgspec.Struct, frozen=True, gc=False):
    """A checkpoint as the batch will leave it: its payloads' names, and their wires."""

    holder: Holder
    data: bytes
    meta: bytes


class Batch:
    """Collects operations; make one with `CheckpointManager.batch()`.

    Threads: one.
    """

    def __init__(
        self,
        drafter: Drafter,
        namespace: str,
        actor: str,
        command: str | None = None,
        *,
        leases: Held = (),
    ) -> None:
        self._drafter = drafter
        self._namespace = namespace
        self._actor = actor
        self._command = command
        self._leases = leases
        if command is not None:
            check_id("command_id", command, _COMMAND_CHARACTERS_MAX)
        self._requests: list[CreateRequest | ChangeRequest | Delete] = []
        self._time_us = 0
        self._created: set[str] = set()
        self._is_committed = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was collected."""
        return not self._requests

    @property
    def has_creates(self) -> bool:
        """Whether a checkpoint is to be created."""
        return bool(self._created)

    def close(self) -> None:
        """Take no more: the batch was committed."""
        self._is_committed = True

    def check_open(self) -> None:
        """Refuse to go on with a batch that was committed.

        Raises:
            ArgumentError: It was.
        """
        if self._is_committed:
            raise ArgumentError(
                "The batch was committed; nothing more can be added to it.",
                hint="Begin another: with manager.batch() as batch.",
            )

    def create_checkpoint(  # noqa: PLR0917 - the specification's signature
        self,
        task_id: str,
        task_title: str,
        step_number: int,
        step_description: str = "",
        total_steps: int | None = None,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        worker_id: str | None = None,
        parent_checkpoint_id: str | None = None,
        *,
        namespace: str | None = None,
        checkpoint_id: str | None = None,
        activate: bool = False,
    ) -> str:
        """Add a create and return the id that the checkpoint will have.

        Args:
            activate: Let it be active at once.
        """
        check_id("task_id", task_id)
        check_step("step_number", step_number)
        if checkpoint_id is not None:
            check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        command = self._next_command()
        identifier = checkpoint_id
        if identifier is None:
            identifier = self._id_then(command) or self._new_id(task_id, step_number)
        request = CreateRequest(
            task=task_id,
            title=task_title,
            step=step_number,
            description=step_description,
            total=total_steps,
            worker=worker_id,
            parent=parent_checkpoint_id,
            namespace=self._namespace if namespace is None else namespace,
            checkpoint=identifier,
            actor=self._actor,
            command=command,
            is_active=activate,
            leases=self._leases,
            # Now, because the caller may change the values before the commit, and once.
            prepared=self._drafter.prepare(task_title, step_description, data, metadata),
        )
        self._add(request)
        self._created.add(identifier)
        return identifier

    def update_checkpoint(  # noqa: PLR0917 - the specification's signature
        self,
        checkpoint_id: str,
        step_number: int | None = None,
        step_description: str | None = None,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        state: CheckpointState | None = None,
        *,
        total_steps: int | None = None,
        replace_data: bool = False,
        expected: int | None = None,
    ) -> None:
        """Add an update, as `CheckpointManager.update_checkpoint`."""
        self._add(
            ChangeRequest(
                checkpoint=checkpoint_id,
                state=state,
                step=step_number,
                total=total_steps,
                description=step_description,
                data=self._copy("data", data),
                metadata=self._copy("metadata", metadata),
                replaces_data=replace_data,
                expected=expected,
                actor=self._actor,
                command=self._next_command(),
                leases=self._leases,
            )
        )

    def complete_checkpoint(
        self, checkpoint_id: str, final_data: dict[str, Any] | None = None
    ) -> None:
        """Add a completion."""
        self._add(
            ChangeRequest(
                checkpoint=checkpoint_id,
                state=CheckpointState.COMPLETED,
                data=self._copy("final_data", final_data),
                actor=self._actor,
                command=self._next_command(),
                leases=self._leases,
            )
        )

    def fail_checkpoint(self, checkpoint_id: str, error_info: dict[str, Any] | None = None) -> None:
        """Add a failure."""
        info = self._copy("error_info", error_info)
        self._add(
            ChangeRequest(
                checkpoint=checkpoint_id,
                state=CheckpointState.FAILED,
                metadata=None if info is None else {"error_info": info},
                actor=self._actor,
                command=self._next_command(),
                leases=self._leases,
            )
        )

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Add a delete.

        Raises:
            RecoveryUnfinishedError: A recovery that ended in the middle needs it.
        """
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        refuse_needed(self._drafter.store, checkpoint_id)
        identity = self._drafter.identity(
            self._next_command(), subject_content, "delete", checkpoint_id
        )
        self._add(
            Delete(
                actor=self._actor,
                checkpoint=checkpoint_id,
                command=identity.command,
                fingerprint=identity.fingerprint,
                leases=self._leases,
            )
        )

    def draft(self) -> Drafted:
        """Prepare everything collected, from what is true now."""
        size = len(self._requests) if self._command is not None else 0
        return _Drafting(self._drafter, size).run(self._requests)

    def _next_command(self) -> str | None:
        """Return the id of the command to come, where the caller gave the batch one."""
        return None if self._command is None else f"{self._command}/{len(self._requests)}"

    def _id_then(self, command: str | None) -> str | None:
        """Return the id that a create got when this batch was committed before."""
        earlier = None if command is None else self._drafter.store.command(command)
        return None if earlier is None else earlier.subject.checkpoint or None

    def _add(self, request: CreateRequest | ChangeRequest | Delete) -> None:
        self.check_open()
        # Now: at the commit it would be too late to tell which call was wrong.
        check_id("checkpoint_id", request.checkpoint, CHECKPOINT_ID_CHARACTERS_MAX)
        if len(self._requests) >= OPERATIONS_MAX:
            raise ArgumentError(
                f"A batch holds at most {OPERATIONS_MAX} operations.",
                hint="Commit it and begin another.",
            )
        self._requests.append(request)

    def _copy(self, name: str, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return a copy of the caller's value, which may change before the commit.

        Raises:
            UnstorableError: It cannot be stored; better told now than at the commit.
        """
        codecs = self._drafter.store.codecs
        lowered = values.lower(value, path=name, codecs=codecs)
        copied: dict[str, Any] | None = values.lift(lowered, codecs)
        return copied

    def _new_id(self, task: str, step: int) -> str:
        if self._time_us == 0:
            self._drafter.store.catch_up()
        now_us = self._drafter.store.environment.now_us()
        self._time_us = max(now_us, self._time_us)
        identifier = checkpoint_id(task, step, self._time_us)
        while identifier in self._created or self._drafter.store.is_taken(identifier):
            self._time_us += 1
            identifier = checkpoint_id(task, step, self._time_us)
        return identifier


class _Drafting:
    """One preparation of a batch: its own picture of what the batch does."""

    def __init__(self, drafter: Drafter, size: int) -> None:
        self._drafter = drafter
        self._size = size
        self._pending: dict[str, _Pending | None] = {}
        self._newest: dict[str, str] = {}
        self._steps: list[Step] = []
        self._own: set[bytes] = set()
        self._contents: list[Content] = []

    def run(self, requests: list[CreateRequest | ChangeRequest | Delete]) -> Drafted:
        for request in requests:
            if isinstance(request, CreateRequest):
                self._create(self._sized(request))
            elif isinstance(request, ChangeRequest):
                self._change(self._sized(request))
            else:
                self._steps.append(Step(request))
                self._pending[request.checkpoint] = None
        store = self._drafter.store
        return joined(store, self._steps, self._contents), tuple(self._contents)

    def _sized(self, request: Request) -> Request:
        """Return a request that knows the size of its batch, where that is part of its identity."""
        if self._size == 0:
            return request
        return msgspec.structs.replace(request, batch=self._size)

    def _create(self, request: CreateRequest) -> None:
        step, content = self._drafter.create_step(request, self._witness(request.task))
        self._keep(step, content)
        name = request.checkpoint or ""
        (data, data_draft), (meta, meta_draft) = content.cacheable
        holder = Holder(name, data_draft.reference, meta_draft.reference, is_pending=True)
        self._pending[name] = _Pending(holder, data, meta)
        self._newest[request.task] = name

    def _change(self, request: ChangeRequest) -> None:
        try:
            current = self._current(request)
        except CheckpointNotFoundError:
            if request.command is None:
                raise
            self._steps.append(Step(self._drafter.late(request)))
            return
        step, content = self._drafter.change_step(request, current)
        # Also where this one keeps the payloads: a later one of the batch may merge into them.
        command = msgspec.structs.replace(step.command, based_on=current.based_on)
        self._keep(Step(command, step.records), content)
        before, payloads = current.holder, content.payloads
        data_now, meta_now = payloads.data or before.data, payloads.meta or before.meta
        after = Holder(before.checkpoint, data_now, meta_now, is_pending=True)
        fresh = iter([wire for wire, _ in content.cacheable])
        data = next(fresh) if payloads.data else self._wire(current.data)
        meta = next(fresh) if payloads.meta else self._wire(current.meta)
        self._pending[request.checkpoint] = _Pending(after, data, meta)

    def _current(self, request: ChangeRequest) -> Current:
        if request.checkpoint not in self._pending:
            # Later changes in the batch may need what this one does not: read all of it.
            whole = msgspec.structs.replace(
                request,
                data=request.data or {},
                metadata=request.metadata or {},
                replaces_data=False,
            )
            return self._drafter.current(whole)
        pending = self._pending[request.checkpoint]
        if pending is None:
            raise CheckpointNotFoundError(
                f"The batch has deleted {request.checkpoint!r} before.",
                checkpoint_id=request.checkpoint,
            )
        data, meta = self._decoded(pending.data), self._decoded(pending.meta)
        return Current(pending.holder, None, data, meta)

    def _witness(self, task: str) -> Holder | None:
        """Return the task's newest checkpoint as the batch leaves it; None where it deletes it."""
        name = self._newest.get(task, "")
        if self._pending.get(name) is None:
            latest = self._drafter.witness(task)
            if latest is None or latest.checkpoint not in self._pending:
                return latest
            name = latest.checkpoint
        pending = self._pending[name]
        return None if pending is None else pending.holder

    def _keep(self, step: Step, content: Content) -> None:
        # A chunk that two operations bring (one state for two tasks) comes with the first.
        records = [one for one in step.records if one[:DIGEST_BYTES] not in self._own]
        self._own.update(one[:DIGEST_BYTES] for one in records)
        self._steps.append(Step(step.command, records))
        self._contents.append(content)
        self._drafter.preparation.learn(content)

    def _wire(self, value: dict[str, Any]) -> bytes:
        codecs = self._drafter.store.codecs
        return values.encode(values.lower(value, codecs=codecs))

    def _decoded(self, wire: bytes) -> Any:
        return values.decode(wire, self._drafter.store.codecs)
