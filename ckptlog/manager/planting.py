"""The part of a manager that commits what was planted piece by piece (specs/capture-tree.md).

    with manager.planting("task") as planting:
        writer = planting.writer()
        files = writer.mapping()
        files.add("a.bin", writer.raw(open("a.bin", "rb")))
        manager.create_planted(planting, {"files": writer.root(files.finish())}, title="Snapshot")

One commit: `checkpoint.created` and `checkpoint.completed`. There is no second attempt here: what
was planted for a log that has moved on in the wrong way must be planted again, by who has the
content (`PlantingStaleError`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from ckptlog.blobs.pieces import Pieces, Root
from ckptlog.errors import (
    ArgumentError,
    CommandReusedError,
    InvalidCreationError,
    OutcomeUnknownError,
    PlantingStaleError,
)
from ckptlog.formats.frame import HEADER_BYTES
from ckptlog.manager.draft import CreateRequest, Drafter, check_create, create_content
from ckptlog.manager.preparation import Content, Holder, Preparation, Texts
from ckptlog.model.identifier import check_id, checkpoint_id
from ckptlog.model.state import CheckpointState
from ckptlog.policy.command import Change, Create, Payloads, Witness
from ckptlog.policy.decide import Stale
from ckptlog.repository.intent import Intent, Outcome, Step
from ckptlog.repository.planting import Before, Planting
from ckptlog.repository.store import Store

if TYPE_CHECKING:
    from ckptlog.manager.quota import Quota

PLANTED_BYTES_UNCHECKED: Final = 4 * 1024 * 1024
"""Whoever plants asks `check_room` after so many bytes."""


class Planter:
    """What a manager inherits."""

    store: Store
    actor: str
    namespace: str
    _preparation: Preparation
    _drafter: Drafter
    _quota: Quota

    def planting(self, task_id: str) -> Planting:
        """Begin to write a checkpoint's data piece by piece; its newest one is the witness.

        Use it as a context: what was not committed is removed at its end.

        Raises:
            QuotaError: The store is full.
            ReadOnlyError: It is open for reading only.
        """
        check_id("task_id", task_id)
        self.store.refuse_read_only()
        self.store.check_plantable()
        self._quota.check()
        self.store.catch_up()
        holder = self._drafter.witness(task_id)
        before = None
        if holder is not None and holder.data is not None:
            before = Before(holder.checkpoint, holder.data)
        return Planting(self.store, before, sanitiser=self._preparation.sanitiser)

    def check_room(self) -> None:
        """Refuse to go on planting in a store that is full by now; for who plants much.

        Raises:
            QuotaError: It is.
        """
        self._quota.check(is_due=True)

    def create_planted(
        self,
        planting: Planting,
        roots: Mapping[str, Root],
        request: CreateRequest,
        *,
        instead: Callable[[CreateRequest], CreateRequest] | None = None,
    ) -> str:
        """Create a completed checkpoint of what was planted, and return its id.

        Args:
            roots: The data: a dict of these values.
            request: All but the data; `data`, `prepared`, `is_active` stay unset.
            instead: Returns another step and command id, where the command id was used for
                something else: what was planted serves for that one, too.

        Raises:
            PlantingStaleError: The witness is gone, or a collection began meanwhile: plant again.
            CheckpointCreationError: Refused, as by `create_checkpoint`.
            CheckpointStorageError: Nothing was created, or (commit.outcome_unknown) it may have.

        Durability: as `create_checkpoint`; all chunks are durable before the event is.
        """
        try:
            check_create(request)
            intent, content = self._intent(planting, roots, request)
            # Packs are on the disk by now, and are measured with the rest.
            records = (record for step in intent.steps for record in step.records)
            more_bytes = sum(len(record) + HEADER_BYTES for record in records)
            self._quota.check(more_bytes, is_due=bool(intent.packs))
        except ArgumentError as error:
            planting.discard()
            raise InvalidCreationError(error.message, hint=error.hint, **error.context) from error
        except BaseException:
            planting.discard()
            raise
        try:
            outcome = self._submitted(intent, request, instead)
        except OutcomeUnknownError:
            planting.keep()
            raise
        except BaseException:
            planting.discard()
            raise
        if isinstance(outcome, Stale):
            planting.discard()
            raise PlantingStaleError(
                f"What was planted for {request.task!r} cannot be committed: {outcome.why}.",
                hint="Plant it again.",
                task_id=request.task,
            )
        planting.keep()
        self._preparation.remember(content)
        return str(outcome[0])

    def _submitted(
        self,
        intent: Intent,
        request: CreateRequest,
        instead: Callable[[CreateRequest], CreateRequest] | None,
    ) -> Outcome:
        while True:
            try:
                return self.store.submit(intent)
            except CommandReusedError:
                if instead is None:
                    raise
            request = instead(request)
            check_create(request)
            first = intent.steps[0].command
            records = tuple(intent.steps[0].records)
            steps = self._steps(request, first.payloads, records)  # type: ignore[union-attr]
            intent = Intent(steps, intent.packs, intent.placements)

    def _intent(
        self, planting: Planting, roots: Mapping[str, Root], request: CreateRequest
    ) -> tuple[Intent, Content]:
        writer = planting.writer()
        top = writer.mapping()
        for name in sorted(roots):
            top.add(name, Pieces((roots[name].link,)))
        data = writer.root(top.finish()).reference
        self.store.check_plantable(data.size)
        texts = Texts(
            request.title,
            request.description,
            {} if request.metadata is None else request.metadata,
        )
        meta = self._preparation.meta(texts, is_clean=request.is_clean)
        holder = self._meta_holder(planting)
        content = self._preparation.content(None, meta, holder)
        planting.put_records((record[:32], record) for record in content.records)
        planted = planting.finish()
        payloads = Payloads(
            data,
            content.payloads.meta,
            planted.new + (content.payloads.new if content.packs else 0),
            content.payloads.sanitised + planting.sanitised,
            content.payloads.witnesses + _witnesses(planting),
        )
        steps = self._steps(request, payloads, planted.records)
        packs = content.packs + planted.packs
        return Intent(steps, packs, content.placements + planted.placements), content

    def _meta_holder(self, planting: Planting) -> Holder | None:
        before = planting.before
        if before is None:
            return None
        entry = self.store.newest(before.checkpoint)
        if entry is None:
            return None
        return Holder(before.checkpoint, entry.event.data, entry.event.meta)

    def _steps(
        self, request: CreateRequest, payloads: Payloads, records: tuple[bytes, ...]
    ) -> tuple[Step, ...]:
        identifier = request.checkpoint or self._unused_id(request.task, request.step)
        identity = self._drafter.identity(request.command, create_content, request, payloads)
        create = Create(
            actor=request.actor,
            checkpoint=identifier,
            command=identity.command,
            fingerprint=identity.fingerprint,
            namespace=request.namespace,
            parent=request.parent or "",
            payloads=payloads,
            step=request.step,
            task=request.task,
            total=request.total or 0,
            worker=request.worker or "",
            leases=request.leases,
        )
        complete = Change(
            actor=request.actor,
            checkpoint=identifier,
            command=self._preparation.command_id(),
            state=CheckpointState.COMPLETED,
            leases=request.leases,
        )
        return Step(create, records), Step(complete)

    def _unused_id(self, task: str, step: int) -> str:
        store = self.store
        time_us = store.environment.now_us()
        identifier = checkpoint_id(task, step, time_us)
        while store.is_taken(identifier):
            time_us += 1
            identifier = checkpoint_id(task, step, time_us)
        return identifier


def _witnesses(planting: Planting) -> tuple[Witness, ...]:
    before = planting.before
    return () if before is None else (Witness(before.checkpoint, before.data.root),)
