"""What the demo proves at its end, in a process that had no part in the writing.

The transcript itself is the witness: what the store holds is compared with it, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptlog.cli.demo_run import Job, Run
from ckptlog.cli.text import count, size

if TYPE_CHECKING:
    from ckptlog.integrations.transcript import Step
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.model.checkpoint import CheckpointData
    from ckptlog.model.entry import Entry


@dataclass(frozen=True)
class Check:
    """One thing that must be so. detail: What was found."""

    name: str
    is_ok: bool
    detail: str


@dataclass(frozen=True)
class StepRow:
    """One step in the store after the job: its checkpoint, who made it, and what it took."""

    number: int
    worker: str
    description: str
    checkpoint_id: str
    state: str
    logical_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Proof:
    """The outcome.

    logical_bytes: Sum of the whole states, as JSON. stored_bytes: Everything in the closed store
        but views and reserve.
    """

    checks: tuple[Check, ...]
    steps: tuple[StepRow, ...]
    events: int
    logical_bytes: int
    stored_bytes: int

    @property
    def is_ok(self) -> bool:
        """Whether everything is as it must be."""
        return all(check.is_ok for check in self.checks)


def prove(job: Job, run: Sequence[Step], workers: Sequence[Run]) -> Proof:
    """Open the store anew, read everything, and compare it with the transcript."""
    import ckptlog
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.repository.statistics import measure

    expected = {step.number: _expected(step.state) for step in run}
    with ckptlog.open(job.store) as store, CheckpointManager(store=store) as manager:
        entries = list(store.events())
        checkpoints = manager.get_task_checkpoints(job.task)
        checks = (
            *(_check_worker(worker) for worker in workers),
            _check_acknowledged(manager, workers, expected),
            _check_steps(checkpoints, expected),
            _check_positions(entries),
            _check_transitions(entries),
            _check_store(manager),
        )
    rows = tuple(_rows(run, checkpoints, entries))
    logical_bytes = sum(row.logical_bytes for row in rows)
    return Proof(checks, rows, len(entries), logical_bytes, measure(job.store).stored)


def _expected(state: dict[str, Any]) -> bytes:
    """Return a state's wire as the manager stores it: without what looks like a secret."""
    from ckptlog.model.value import prepare
    from ckptlog.policy.sanitise import Sanitiser

    return prepare(state, sanitiser=Sanitiser()).wire


def _found(checkpoint: CheckpointData) -> bytes:
    """Return the wire of what a checkpoint gives back: 1, 1.0 and true differ, order counts."""
    from ckptlog.model.value import prepare

    return prepare(checkpoint.data).wire


def _check_worker(worker: Run) -> Check:
    if worker.error:
        return Check(f"worker {worker.number}", is_ok=False, detail=worker.error)
    number = count(len(worker.acknowledged), "step")
    end = f"killed by signal {worker.signal}" if worker.signal else "finished"
    return Check(f"worker {worker.number}", is_ok=True, detail=f"{number} acknowledged, {end}")


def _check_acknowledged(
    manager: CheckpointManager, workers: Sequence[Run], expected: Mapping[int, bytes]
) -> Check:
    wrong, total = [], 0
    for worker in workers:
        for number, identifier in worker.acknowledged.items():
            total += 1
            found = manager.get_checkpoint(identifier)
            if found is None or _found(found) != expected[number]:
                wrong.append(number)
    detail = f"lost or changed: {wrong}" if wrong else f"{total} of {total} there, data equal"
    return Check("acknowledged steps", not wrong, detail)


def _check_steps(checkpoints: Sequence[CheckpointData], expected: Mapping[int, bytes]) -> Check:
    right = sorted(
        checkpoint.step_number
        for checkpoint in checkpoints
        if checkpoint.state.value == "completed"
        and _found(checkpoint) == expected.get(checkpoint.step_number)
    )
    is_ok = right == sorted(expected) and len(checkpoints) == len(expected)
    detail = f"{len(right)} of {len(expected)} completed with equal data"
    if len(checkpoints) != len(expected):
        detail += f", {len(checkpoints)} checkpoints"
    return Check("all steps", is_ok, detail)


def _check_positions(entries: Sequence[Entry]) -> Check:
    is_dense = [entry.position for entry in entries] == list(range(len(entries)))
    return Check("positions", is_dense, f"0 to {len(entries) - 1}, none missing, none twice")


def _check_transitions(entries: Sequence[Entry]) -> Check:
    from ckptlog.model.event import DELETED
    from ckptlog.model.state import is_legal

    states: dict[str, str] = {}
    illegal = []
    for entry in entries:
        name, state = entry.event.subject.checkpoint, entry.event.state
        if not state or entry.event.type == DELETED:  # legal from every state
            continue
        if not is_legal(states.get(name), state):
            illegal.append(entry.position)
        states[name] = state
    detail = f"illegal at {illegal}" if illegal else f"{len(entries)} of {len(entries)} legal"
    return Check("state changes", not illegal, detail)


def _check_store(manager: CheckpointManager) -> Check:
    report = manager.store.verify(level="full")
    detail = f"{count(report.chunks, 'chunk')}, {size(report.bytes_read)} hashed and equal"
    if not report.ok:
        first = report.problems[0]
        detail = f"{count(len(report.problems), 'problem')}, first: {first.code} at {first.where}"
    return Check("full verify", report.ok, detail)


def _rows(
    run: Sequence[Step], checkpoints: Sequence[CheckpointData], entries: Sequence[Entry]
) -> Iterator[StepRow]:
    by_number = {checkpoint.step_number: checkpoint for checkpoint in checkpoints}
    stored: dict[str, int] = {}
    logical: dict[str, int] = {}
    for entry in entries:
        name = entry.event.subject.checkpoint
        stored[name] = stored.get(name, 0) + entry.event.new
        if entry.event.data is not None:
            logical[name] = entry.event.data.size
    for step in run:
        if (found := by_number.get(step.number)) is None:
            yield StepRow(step.number, "-", step.description, "", "missing", 0, 0)
        else:
            name = found.checkpoint_id
            yield StepRow(
                step.number,
                found.worker_id or "-",
                step.description,
                name,
                found.state.value,
                logical.get(name, 0),
                stored.get(name, 0),
            )
