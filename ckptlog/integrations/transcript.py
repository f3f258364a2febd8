"""Reads the transcript of an agent's run: SWE-agent's `.traj` files.

A transcript is a JSON object with `history`, the messages that went to and came from the model,
and `trajectory`, one object a step (action, observation, response, thought, state). The run as a
long job has one checkpoint a step; the whole state after step k is

    {"history": messages up to and with the k-th answer of the run, "step": fields of step k}

`history` may begin with demonstrations, whose answers are no steps; so answers and steps are
matched from the end. The reader is strict: a file that is not of this form is refused with the
place of the fault, and nothing is guessed. Memory: the states share the messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptlog.errors import ArgumentError, ConflictError, operating_system_door
from ckptlog.integrations.source import open_regular
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.model.event import Event

# Real runs have some hundred kilobytes; the bound keeps a wrong file from filling the memory.
SIZE_BYTES_MAX: Final = 256 * 1024 * 1024
STEPS_MAX: Final = 100_000
_DESCRIPTION_CHARACTERS = 100


@dataclass(frozen=True)
class Step:
    """One step of a run.

    number: 1-based.
    description: The action's first line, or the thought's where there is no action.
    state: The whole state after the step; messages are shared between steps, do not change them.
    """

    number: int
    description: str
    state: dict[str, Any]


def steps(path: Path) -> list[Step]:
    """Return the steps of a transcript, with the whole state after each.

    Raises:
        ArgumentError: The file is missing, too large, or not a transcript; the message says where.
        CheckpointStorageError: It cannot be read.
    """
    return _steps(_read(path), path)


def _steps(raw: bytes, path: Path) -> list[Step]:
    document = _parse(raw, path)
    history = _objects(document, "history", path)
    trajectory = _objects(document, "trajectory", path)
    answers = _answers(history, path)
    if not trajectory:
        raise _fault(path, "trajectory is empty; there is no step to replay")
    if len(trajectory) > STEPS_MAX:
        raise _fault(path, f"trajectory has {len(trajectory)} steps; at most {STEPS_MAX} are read")
    if len(answers) < len(trajectory):
        raise _fault(
            path,
            f"history has {len(answers)} assistant messages for {len(trajectory)} steps of "
            "trajectory; each step needs its own",
        )
    ends = answers[len(answers) - len(trajectory) :]
    return [
        Step(number, _describe(fields), {"history": history[: end + 1], "step": fields})
        for number, (end, fields) in enumerate(zip(ends, trajectory, strict=True), 1)
    ]


def import_transcript(manager: CheckpointManager, path: Path, *, task_id: str = "") -> list[str]:
    """Store a transcript as a finished task: one completed checkpoint a step.

    Called again with the same file and task it goes on where it was stopped; where it had come
    to its end, nothing changes. After the task was deleted it is imported anew.

    Args:
        task_id: What to call the task; empty: the file's name without its ending.

    Returns:
        The ids of the checkpoints, in order.

    Raises:
        ArgumentError: The file is not a transcript.
        ConflictError: The task has checkpoints of another origin; nothing was written.
        CheckpointStorageError: The store refused; what was imported so far is there.

    Durability: each step is one commit.
    """
    raw = _read(path)
    run = _steps(raw, path)
    task = check_id("task_id", task_id or path.stem)
    job = _begin(manager, task, sha256(f"{task}\n".encode() + raw).hexdigest()[:40])
    identifiers: list[str] = []
    for step in run:
        identifiers.append(job.store(step, len(run), identifiers[-1:]))
    manager.complete_checkpoint(identifiers[-1], command_id=f"{job.name}-end")
    return identifiers


@dataclass(frozen=True)
class _Job:
    """An import of a file as a task; name is what its command ids begin with."""

    manager: CheckpointManager
    task: str
    name: str

    def store(self, step: Step, total: int, before: list[str]) -> str:
        """Complete the step before, if there is one, and create this one; return its id."""
        if (done := self.event(step.number, len(before))) is not None:
            return done.subject.checkpoint
        with self.manager.batch(command_id=f"{self.name}-{step.number}") as batch:
            for identifier in before:
                batch.complete_checkpoint(identifier)
            return batch.create_checkpoint(
                self.task,
                self.task,
                step.number,
                step.description,
                total,
                step.state,
                activate=True,
            )

    def event(self, number: int, operation: int) -> Event | None:
        """Return the event of an operation of a step's batch; None where it was not committed."""
        return self.manager.store.command(f"{self.name}-{number}/{operation}")


def _begin(manager: CheckpointManager, task: str, digest: str) -> _Job:
    """Return the import that goes on, or a new one.

    One whose first checkpoint was deleted is over: the next one has another number.
    """
    for number in count(1):
        job = _Job(manager, task, f"import-{digest}-{number}")
        first = job.event(1, 0)
        if first is None:
            break
        if manager.store.newest(first.subject.checkpoint) is not None:
            return job
    if manager.get_latest_entry(task) is not None:
        raise ConflictError(
            f"The task {quoted(task)} has checkpoints already.",
            hint="Choose another name for the task (--task), or delete the old one first.",
            task_id=task,
        )
    return job


def _read(path: Path) -> bytes:
    if not path.exists():
        raise ArgumentError(f"There is no file {path}.", hint="Check the name.", path=str(path))
    if path.is_dir():
        raise ArgumentError(
            f"{path} is a directory.", hint="Name one transcript (.traj).", path=str(path)
        )
    with operating_system_door("Reading a transcript failed"), open_regular(path) as file:
        data = file.read(SIZE_BYTES_MAX + 1)
    if len(data) > SIZE_BYTES_MAX:
        raise _fault(path, f"it has more than {SIZE_BYTES_MAX} bytes")
    return data


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"it is not JSON in UTF-8: {error}") from error
    if not isinstance(document, dict):
        raise _fault(path, f"it is a JSON {type(document).__name__}, not an object")
    return document


def _objects(document: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    if name not in document:
        raise _fault(path, f"it has no {name!r}")
    values = document[name]
    if not isinstance(values, list):
        raise _fault(path, f"{name} is a {type(values).__name__}, not a list")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise _fault(path, f"{name}[{index}] is a {type(value).__name__}, not an object")
    return values


def _answers(history: list[dict[str, Any]], path: Path) -> list[int]:
    """Return where the assistant's messages stand."""
    for index, message in enumerate(history):
        if not isinstance(message.get("role"), str):
            raise _fault(path, f"history[{index}] has no role")
    return [index for index, message in enumerate(history) if message["role"] == "assistant"]


def _describe(fields: dict[str, Any]) -> str:
    for name in ("action", "thought", "response"):
        value = fields.get(name)
        if isinstance(value, str) and (line := _first_line(value)):
            return line
    return "(no action)"


def _first_line(value: str) -> str:
    for line in value.splitlines():
        if joined := " ".join(line.split()):
            return joined[:_DESCRIPTION_CHARACTERS]
    return ""


def _fault(path: Path, reason: str) -> ArgumentError:
    return ArgumentError(
        f"{path} is not a transcript: {reason}.",
        hint="A SWE-agent .traj file is needed: a JSON object with `history` and `trajectory`.",
        path=str(path),
    )
