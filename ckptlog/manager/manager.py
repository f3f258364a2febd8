"""CheckpointManager: the specification's interface, and what users expect beyond it.

The one write path:

    arguments checked -> values sanitised, serialised, cut (Preparation) -> command -> round of
    group commit (repository.writer) -> durable event

Nothing is held between preparing and committing; a command whose preparation no longer fits
(another change came first) is prepared again, so an update never loses another's update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from weakref import WeakSet

from ckptlog.errors import (
    ArgumentError,
    CheckpointNotFoundError,
    ConflictError,
    InvalidCreationError,
    InvalidUpdateError,
    OutcomeUnknownError,
)
from ckptlog.manager import upkeep
from ckptlog.manager.batch import Batch
from ckptlog.manager.cleaner import Cleaner
from ckptlog.manager.context import Contexts
from ckptlog.manager.draft import (
    ChangeRequest,
    CreateRequest,
    Drafter,
    Identity,
    check_expected,
    check_record,
    subject_content,
)
from ckptlog.manager.interruption import Interruptions
from ckptlog.manager.lease import LeaseArgument, held_of
from ckptlog.manager.leasing import Leases
from ckptlog.manager.opening import open_for, refuse_other, refuse_wrong_type
from ckptlog.manager.planting import Planter
from ckptlog.manager.preparation import Preparation
from ckptlog.manager.reading import CheckpointReader
from ckptlog.manager.refusal import overtaken, renamed, unknown
from ckptlog.manager.retention import Retention, policy_in
from ckptlog.manager.unfinished import refuse_begun, refuse_needed
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.state import CheckpointState
from ckptlog.policy.command import AnyCommand, Delete, DeleteTask, Record
from ckptlog.policy.decide import Stale
from ckptlog.policy.sanitise import sanitiser_of
from ckptlog.repository.intent import Intent, Results, Step
from ckptlog.repository.report import Progress
from ckptlog.repository.store import Store

# Preparations of one change that others overtook; each time another one got through.
_ATTEMPTS_MAX = 1000

Answer = TypeVar("Answer")


class CheckpointManager(CheckpointReader, Retention, Leases, Contexts, Interruptions, Planter):
    """Creates, changes, finds and recovers the checkpoints of one store.

    Args:
        storage_dir: The store's directory; made where it is missing or empty.
        config: Settings; its storage_dir is used where storage_dir is left at its default.
        store: An open store to share instead; the caller closes it.
        namespace, actor: Defaults for every call.
        codecs: How objects of your own types are stored; with `store`, its own are used.

    Raises:
        SettingsError: storage_dir contradicts config or store; the codecs do not fit together.
        CheckpointStorageError: The store cannot be opened.

    Durability: when a call returns, its event and every byte it needs survive a kill and a power
        cut (durability="commit", the default), or will within interval_s ("interval").
    Threads: safe. A forked child that uses it opens the store anew.
    """

    def __init__(
        self,
        storage_dir: str | Path | None = None,
        *,
        config: CheckpointConfiguration | None = None,
        store: Store | None = None,
        namespace: str = "",
        actor: str | None = None,
        codecs: Codecs | Iterable[TypeCodec] = (),
    ) -> None:
        refuse_wrong_type("config", config, CheckpointConfiguration)
        refuse_wrong_type("store", store, Store)
        self.config = config or CheckpointConfiguration()
        self._owns_store = store is None
        # Arguments first: a refusal must not leave a store open.
        self.namespace = check_id("namespace", namespace) if namespace != "" else ""
        given = self.config.actor if actor is None else check_id("actor", actor)
        registry = Codecs.of(codecs)
        if store is not None:
            refuse_other(storage_dir, config, store, registry)
        sanitiser = sanitiser_of(self.config)
        policy_in(self.config)
        super().__init__(store or open_for(storage_dir, config, self.config, registry))
        self.actor = self.store.environment.actor() if given is None else given
        self._preparation = Preparation(
            self.store,
            sanitiser,
            size_bytes_max=self.config.checkpoint_size_bytes_max,
        )
        self._drafter = Drafter(self.store, self._preparation)
        self.kept_leases = WeakSet()
        self._cleaner: Cleaner | None = None
        if config is not None and config.cleanup_interval_hours > 0:
            self._cleaner = Cleaner(self, config)
        self._quota = upkeep.Quota(
            self.store,
            self.config.max_storage_size_gb,
            on_pressure=self._cleaner.wake if self._cleaner else None,
        )

    # --- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the store, if this manager opened it. Twice is fine.

        Its leases are renewed no more; those that nobody released are held until they expire.
        """
        if self._cleaner is not None:
            self._cleaner.stop()
        for lease in list(self.kept_leases):
            lease.let_expire()
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CheckpointManager {self.store.path}>"

    def _repr_html_(self) -> str:
        return self.store._repr_html_()

    # --- the specification's operations -------------------------------------------------------

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
        actor: str | None = None,
        command_id: str | None = None,
        checkpoint_id: str | None = None,
        lease: LeaseArgument = None,
    ) -> str:
        """Create a checkpoint in state `created` and return its id.

        Args:
            step_number: 1 or more; it may be lower than that of an earlier checkpoint.
            command_id: Makes the call idempotent: the same id again returns the first result.
            checkpoint_id: An explicit id instead of `cp_{task_id}_{step}_{timestamp}`.
            lease: Of the task (`acquire_lease`), or several: where it is lost, the call is
                refused. Every call that writes about a task takes it.

        Raises:
            CheckpointCreationError: Always the class of a refusal; the code tells which.
            CommandReusedError: The command id was used for something else.
            LeaseLostError, LeaseRequiredError: The task is another holder's.
            CheckpointStorageError: Nothing was created, or (commit.outcome_unknown) retry with
                the same command id.
        """
        request = CreateRequest(
            task=task_id,
            title=task_title,
            step=step_number,
            description=step_description,
            total=total_steps,
            data=data,
            metadata=metadata,
            worker=worker_id,
            parent=parent_checkpoint_id,
            namespace=self.namespace if namespace is None else namespace,
            checkpoint=checkpoint_id,
            actor=self.actor if actor is None else actor,
            command=command_id,
            leases=held_of(lease),
        )
        try:
            # A retry adds nothing, so a full store answers it.
            if command_id is None or self._is_new(command_id):
                self._quota.check()
            (result,) = self._commit(lambda: self._drafter.create(request))
        except ArgumentError as error:
            raise renamed(error, InvalidCreationError) from error
        return str(result)

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
        actor: str | None = None,
        command_id: str | None = None,
        expected: int | None = None,
        lease: LeaseArgument = None,
    ) -> bool:
        """Change a checkpoint; None leaves a field as it is. Returns True.

        data and metadata are merged at their top level, unless replace_data. Without `state`,
        a created or restored checkpoint becomes active.

        Args:
            expected: The position last seen (`CheckpointData.position`); another one is a conflict.

        Raises:
            CheckpointNotFoundError: No such checkpoint.
            CheckpointUpdateError: By code: illegal transition, conflict, invalid argument.
        """
        return self._change(
            ChangeRequest(
                checkpoint=checkpoint_id,
                state=state,
                step=step_number,
                total=total_steps,
                description=step_description,
                data=data,
                metadata=metadata,
                replaces_data=replace_data,
                actor=self.actor if actor is None else actor,
                command=command_id,
                expected=expected,
                leases=held_of(lease),
            )
        )

    def complete_checkpoint(
        self,
        checkpoint_id: str,
        final_data: dict[str, Any] | None = None,
        *,
        actor: str | None = None,
        command_id: str | None = None,
        expected: int | None = None,
        lease: LeaseArgument = None,
    ) -> bool:
        """Mark a checkpoint as completed, with final_data merged into its data. Returns True.

        Completing a completed one again with nothing new is True and changes nothing.

        Raises:
            CheckpointNotFoundError, CheckpointUpdateError: As `update_checkpoint`.
        """
        return self._change(
            ChangeRequest(
                checkpoint=checkpoint_id,
                state=CheckpointState.COMPLETED,
                data=final_data,
                actor=self.actor if actor is None else actor,
                command=command_id,
                expected=expected,
                leases=held_of(lease),
            )
        )

    def fail_checkpoint(
        self,
        checkpoint_id: str,
        error_info: dict[str, Any] | None = None,
        *,
        actor: str | None = None,
        command_id: str | None = None,
        expected: int | None = None,
        lease: LeaseArgument = None,
    ) -> bool:
        """Mark a checkpoint as failed, error_info under metadata["error_info"]. Returns True.

        Raises:
            CheckpointNotFoundError, CheckpointUpdateError: As `update_checkpoint`.
        """
        if error_info is not None and type(error_info) is not dict:
            raise InvalidUpdateError(
                f"error_info is a {type(error_info).__name__}; a dictionary (dict) is needed.",
                hint="Wrap it: error_info={'message': ...}.",
                argument="error_info",
            )
        return self._change(
            ChangeRequest(
                checkpoint=checkpoint_id,
                state=CheckpointState.FAILED,
                metadata=None if error_info is None else {"error_info": error_info},
                actor=self.actor if actor is None else actor,
                command=command_id,
                expected=expected,
                leases=held_of(lease),
            )
        )

    def restore_checkpoint(
        self,
        checkpoint_id: str,
        *,
        actor: str | None = None,
        command_id: str | None = None,
        expected: int | None = None,
        lease: LeaseArgument = None,
    ) -> CheckpointData | None:
        """Verify a checkpoint's bytes, move it to `restored`, and return it.

        Returns:
            None where there is no such checkpoint, or it was deleted.

        Raises:
            CheckpointCorruptionError: Its bytes are damaged; its state stays as it was.
        """
        while True:
            # Reading is the verification: every byte is hashed on the way.
            before = self.get_checkpoint(checkpoint_id)
            if before is None:
                return None
            request = ChangeRequest(
                checkpoint=checkpoint_id,
                state=CheckpointState.RESTORED,
                actor=self.actor if actor is None else actor,
                command=command_id,
                expected=before.position if expected is None else expected,
                leases=held_of(lease),
            )
            try:
                self._change(request)
            except CheckpointNotFoundError:  # deleted while it was read
                return None
            except ConflictError:
                if expected is not None:
                    raise
                continue  # changed while it was read: what is there now was not verified
            return self.get_checkpoint(checkpoint_id)

    def delete_checkpoint(
        self,
        checkpoint_id: str,
        *,
        actor: str | None = None,
        command_id: str | None = None,
        expected: int | None = None,
        lease: LeaseArgument = None,
    ) -> bool:
        """Delete a checkpoint for good; False where it was deleted before.

        Its id is never used again, and no late writer can bring it back.

        Raises:
            CheckpointNotFoundError: There never was such a checkpoint.
            ConflictError: It is not at the position `expected`.
            RecoveryUnfinishedError: A recovery that ended in the middle needs it.
        """
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        check_expected(expected)
        refuse_needed(self.store, checkpoint_id)
        identity = self.identity(command_id, "delete", checkpoint_id)
        command = Delete(
            actor=self._actor(actor),
            checkpoint=checkpoint_id,
            command=identity.command,
            expected=expected,
            fingerprint=identity.fingerprint,
            leases=held_of(lease),
        )
        return bool(self._submit_freeing(command))

    def delete_task(
        self,
        task_id: str,
        *,
        actor: str | None = None,
        command_id: str | None = None,
        lease: LeaseArgument = None,
    ) -> int:
        """Delete every checkpoint of a task; return how many there were.

        The task's id may be used again: a new incarnation. Writers of the old one are refused.

        Raises:
            RecoveryUnfinishedError: A recovery of it ended in the middle.
        """
        check_id("task_id", task_id)
        refuse_begun(self.store, task_id)
        identity = self.identity(command_id, "delete_task", task_id)
        actor, held = self._actor(actor), held_of(lease)
        last = Stale("")
        for _ in range(_ATTEMPTS_MAX):
            count, position = self.store.count_task(task_id)
            if count == 0 and command_id is None:
                return 0
            outcome = self._submit_freeing(
                DeleteTask(
                    actor=actor,
                    task=task_id,
                    based_on=position,
                    count=count,
                    command=identity.command,
                    fingerprint=identity.fingerprint,
                    leases=held,
                )
            )
            if not isinstance(outcome, Stale):
                return int(outcome)
            last = outcome
        raise overtaken("delete a task", last, _ATTEMPTS_MAX)

    # --- many at once -------------------------------------------------------------------------

    @contextmanager
    def batch(
        self,
        *,
        actor: str | None = None,
        command_id: str | None = None,
        lease: LeaseArgument = None,
    ) -> Iterator[Batch]:
        """Collect operations and commit them as one, durably, when the block ends.

        All of them happen or none. Nothing is committed when the block raises.

            with manager.batch() as batch:
                for item in items:
                    batch.create_checkpoint("task", "Title", 1, data=item)

        Args:
            command_id: Makes the commit idempotent: the same batch again, also in another
                process, changes nothing, and its creates return the ids of the first time.
        """
        held = held_of(lease)
        batch = Batch(self._drafter, self.namespace, self._actor(actor), command_id, leases=held)
        yield batch
        self.commit(batch)

    def commit(self, batch: Batch) -> None:
        """Commit what a batch has collected, once.

        Raises:
            ArgumentError: It was committed before.
        """
        if batch.has_creates:
            self._quota.check()
        batch.check_open()
        if not batch.is_empty:
            self._commit(batch.draft)
        batch.close()

    # --- upkeep -------------------------------------------------------------------------------

    def validate_checkpoint_integrity(self) -> list[str]:
        """Read and check everything: log, chunks, histories, views. Returns the problems found."""
        return [str(problem) for problem in self.store.verify("full").problems]

    def compact_checkpoint_storage(
        self, progress: Progress | None = None, **options: Unpack[upkeep.CompactOptions]
    ) -> dict[str, Any]:
        """Give back the room of what was deleted; return before and after (`upkeep.compact`)."""
        return upkeep.compact(self, progress, **options)

    def get_checkpoint_summary(self) -> dict[str, Any]:
        """Return how many checkpoints, tasks and events there are, by state, and sizes."""
        return upkeep.summary(self)

    def get_checkpoint_metrics(self) -> dict[str, Any]:
        """Return detailed figures: sizes, ratios, rates, ages, and the store's counters."""
        return upkeep.metrics(self)

    # --- the write path -----------------------------------------------------------------------

    def record(self, kind: str, facts: dict[str, int | str], *, task: str = "") -> None:
        """Append a fact that is about no single checkpoint (an import, a clean-up).

        Args:
            kind: One of `model.event.RECORDED_TYPES`.
            facts: Whole numbers and short texts, by ASCII names.

        Raises:
            ArgumentError: It is another kind, or the facts are something else.
        """
        check_record(kind, facts)
        if task != "":
            check_id("task", task)
        command = Record(
            actor=self.actor, command=self.new_command_id(), type=kind, facts=facts, task=task
        )
        self.submit(command)

    def submit(self, command: AnyCommand) -> str | bool | int:
        """Commit a command that brings no payload; return what was decided."""
        (result,) = self._commit(lambda: (Intent((Step(command),)), ()))
        return result

    def new_command_id(self) -> str:
        """Return an id for a command, as calls without command_id get one."""
        return self._preparation.command_id()

    def identity(self, command_id: str | None, *words: str) -> Identity:
        """Return a command's id, and the fingerprint of what it says in words."""
        return self._drafter.identity(command_id, subject_content, *words)

    def _actor(self, actor: str | None) -> str:
        return self.actor if actor is None else check_id("actor", actor)

    def _is_new(self, command_id: str) -> bool:
        return self.store.command(check_id("command_id", command_id)) is None

    def _change(self, request: ChangeRequest) -> bool:
        try:
            (result,) = self._commit(lambda: self._drafter.change(request))
        except ArgumentError as error:
            raise renamed(error, InvalidUpdateError) from error
        return bool(result)

    def _submit_freeing(self, command: AnyCommand) -> str | bool | int | Stale:
        outcome = self.store.submit_with_reserve(Intent((Step(command),)))
        return outcome if isinstance(outcome, Stale) else outcome[0]

    def _commit(self, prepare: Callable[[], tuple[Intent, Any]]) -> Results:
        """Prepare and submit, again where others came first; then fill the cache."""
        last = Stale("")
        for _ in range(_ATTEMPTS_MAX):
            intent, contents = prepare()
            try:
                outcome = self.store.submit(intent)
            except OutcomeUnknownError as error:
                raise unknown(error, intent) from error
            if not isinstance(outcome, Stale):
                for content in contents:
                    self._preparation.remember(content)
                return outcome
            last = outcome
        raise overtaken("change a checkpoint", last, _ATTEMPTS_MAX)
