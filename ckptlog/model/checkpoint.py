"""CheckpointData: one checkpoint as its user sees it, a plain record that belongs to the caller.

Nothing here refers to a store: changing a field changes nothing stored. Times are UTC and aware;
`from_dict` reads a time without a zone as UTC. Making one is cheap, as lists of thousands are made:
`__init__` checks nothing, `validate` does. The clock is read only where a caller gives no time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ckptlog.errors import ArgumentError, UnstorableError
from ckptlog.model import html
from ckptlog.model.codec import NO_CODECS, OPAQUE, Codecs
from ckptlog.model.identifier import (
    CHECKPOINT_ID_CHARACTERS_MAX,
    ID_CHARACTERS_MAX,
    id_fault,
)
from ckptlog.model.quotation import quoted
from ckptlog.model.requirement import CheckpointPerformanceRequirements
from ckptlog.model.state import CheckpointState
from ckptlog.model.tag import DEPTH_MAX
from ckptlog.model.value import lift, lower, prepare

_MEBIBYTE: Final = 1024 * 1024
_STATES: Final = {state.value: state for state in CheckpointState}


def utc_now() -> datetime:
    """Return the present time, UTC and aware."""
    return datetime.now(UTC)


def time_text(time: datetime) -> str:
    """Return a time as stored: UTC, ISO 8601 with microseconds and Z; naive means UTC."""
    return as_utc(time).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def as_utc(time: datetime) -> datetime:
    """Return the same time in UTC; a time without a zone is taken as UTC."""
    return _aware(time).astimezone(UTC)


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


@dataclass(slots=True)
class CheckpointData:
    """One checkpoint.

    checkpoint_id: Unique id, cp_{task_id}_{step}_{timestamp} unless the caller gave one.
    task_id: The task that it belongs to.
    task_title: The task's name for people.
    state: What the checkpoint is at present.
    step_number: 1-based.
    total_steps: None where unknown.
    step_description: The step's name for people.
    data: The task's own state, any storable values.
    metadata: What the system keeps beside it; `error_info` of a failed one.
    created_at, updated_at: UTC, aware.
    worker_id, parent_checkpoint_id: None where there is none.
    position: Position in the log of its last event; -1 where unknown. `expected=` takes it.
    namespace: "" unless the caller uses namespaces.
    """

    checkpoint_id: str
    task_id: str
    task_title: str
    state: CheckpointState
    step_number: int
    total_steps: int | None = None
    step_description: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)
    worker_id: str | None = None
    parent_checkpoint_id: str | None = None
    position: int = -1
    namespace: str = ""

    def _repr_html_(self) -> str:
        """Show it in a notebook: its fields, and an outline of data and metadata."""
        facts = {
            "state": self.state,
            "task": self.task_id,
            "title": self.task_title,
            "step": f"{self.step_number}/{self.total_steps or '?'}",
            "description": self.step_description,
            "worker": self.worker_id,
            "parent": self.parent_checkpoint_id,
            "created": self.created_at,
            "updated": self.updated_at,
        }
        values = [
            (f"{name}.{key}", value)
            for name, held in (("data", self.data), ("metadata", self.metadata))
            if type(held) is dict
            for key, value in held.items()
        ]
        values_shown = html.table(("name", "value"), values, total=len(values))
        return html.card(f"Checkpoint {self.checkpoint_id}", facts, values_shown)

    @property
    def error_info(self) -> dict[str, Any] | None:
        """What was said when it failed; None where nothing was."""
        return self.metadata.get("error_info")

    def to_dict(self, *, codecs: Codecs = OPAQUE) -> dict[str, Any]:
        """Return every field, safe for JSON and reversible through from_dict.

        Values that JSON lacks stand as tags (specs/values.md); the copy is the caller's own.

        Args:
            codecs: For objects of registered types: the store's (`store.codecs`).

        Raises:
            UnstorableError: data or metadata hold what cannot be stored.
        """
        return {
            "checkpoint_id": self.checkpoint_id,
            "task_id": self.task_id,
            "task_title": self.task_title,
            "state": self.state.value,
            "step_number": self.step_number,
            "total_steps": self.total_steps,
            "step_description": self.step_description,
            "data": lower(self.data, codecs=codecs),
            "metadata": lower(self.metadata, path="metadata", codecs=codecs),
            "created_at": time_text(self.created_at),
            "updated_at": time_text(self.updated_at),
            "worker_id": self.worker_id,
            "parent_checkpoint_id": self.parent_checkpoint_id,
            "position": self.position,
            "namespace": self.namespace,
        }

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, is_plain: bool = False, codecs: Codecs = NO_CODECS
    ) -> CheckpointData:
        """Return the checkpoint of what to_dict gave, or of a file of the old layout.

        Fields that may be absent or None: all but the ids of checkpoint and task, state,
        step_number and created_at. Values are not judged further: validate does that.

        Args:
            is_plain: data and metadata are JSON without tags, as in the old layout, where
                {"$bytes": ...} is what it says and nothing else.
            codecs: Make the objects of registered types.

        Raises:
            ArgumentError: A field is missing, unknown, or cannot be read; the message names it.
            FormatError: A tag in data or metadata is malformed.
        """
        if not isinstance(data, Mapping):
            raise ArgumentError(
                f"A checkpoint is made of a dict, not of type {type(data).__name__}.",
                argument="data",
            )
        if unknown := [name for name in data if name not in _READERS]:
            raise ArgumentError(
                f"A checkpoint has no field {quoted(unknown[0])}.",
                hint=f"Its fields are: {', '.join(_READERS)}.",
                argument=quoted(unknown[0]).strip("'"),
            )
        if missing := [name for name in _REQUIRED if data.get(name) is None]:
            raise ArgumentError(
                f"The checkpoint's field {missing[0]!r} is missing.", argument=missing[0]
            )
        given = {name: value for name, value in data.items() if value is not None}
        given.setdefault("task_title", "")
        given.setdefault("updated_at", given["created_at"])
        read = {name: _READERS[name](name, value) for name, value in given.items()}
        for name in ("data", "metadata"):
            read[name] = _mapping(name, read.get(name, {}), None if is_plain else codecs)
        return cls(**read)

    def is_stale(self, max_age_hours: float = 24, *, now: datetime | None = None) -> bool:
        """Say whether the last update is more than max_age_hours ago."""
        seconds = _hours("max_age_hours", max_age_hours) * 3600
        return _since(self.updated_at, _moment("now", now)).total_seconds() > seconds

    def validate(
        self,
        *,
        now: datetime | None = None,
        size_mb_max: float = CheckpointPerformanceRequirements.MAX_CHECKPOINT_SIZE_MB,
        codecs: Codecs = OPAQUE,
    ) -> list[str]:
        """Return what is wrong with the checkpoint, each in a sentence; empty when nothing is.

        Args:
            now: Times after it (by more than a minute, as clocks differ) are in the future.
            size_mb_max: Limit of data and metadata together, MiB.
            codecs: For objects of registered types: the store's (`store.codecs`).
        """
        return [
            *self._id_problems(),
            *self._step_problems(),
            *self._time_problems(_moment("now", now)),
            *self._payload_problems(size_mb_max, codecs),
        ]

    def _id_problems(self) -> list[str]:
        ids = {
            "checkpoint_id": (self.checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX),
            "task_id": (self.task_id, ID_CHARACTERS_MAX),
        }
        if self.worker_id is not None:
            ids["worker_id"] = (self.worker_id, ID_CHARACTERS_MAX)
        if (parent := self.parent_checkpoint_id) is not None:
            ids["parent_checkpoint_id"] = (parent, CHECKPOINT_ID_CHARACTERS_MAX)
        if self.namespace != "":
            ids["namespace"] = (self.namespace, ID_CHARACTERS_MAX)
        faults = {name: id_fault(value, most) for name, (value, most) in ids.items()}
        return [f"{name} {fault}." for name, fault in faults.items() if fault]

    def _step_problems(self) -> list[str]:
        problems: list[str] = []
        state, step, total = self.state, self.step_number, self.total_steps
        if type(state) is not CheckpointState:
            problems.append(f"state is {quoted(state)}, which is no CheckpointState.")
        if not _is_count(step):
            problems.append(f"step_number is {quoted(step)}; it must be an int from 1.")
        if total is not None and not _is_count(total):
            problems.append(f"total_steps is {quoted(total)}; it must be an int from 1.")
        elif total is not None and _is_count(step) and step > total:
            problems.append(f"step_number {step} is greater than total_steps {total}.")
        return problems

    def _time_problems(self, now: datetime) -> list[str]:
        problems: list[str] = []
        times: dict[str, Any] = {"created_at": self.created_at, "updated_at": self.updated_at}
        for name, time in times.items():
            if not isinstance(time, datetime):
                return [*problems, f"{name} is of type {type(time).__name__}, not a datetime."]
            if time.tzinfo is None:
                problems.append(f"{name} has no time zone; UTC is assumed.")
            if _since(now, time) > _CLOCKS_DIFFER:
                problems.append(f"{name} ({time.isoformat()}) is in the future.")
        if _since(self.created_at, self.updated_at) < timedelta(0):
            problems.append("updated_at is before created_at.")
        return problems

    def _payload_problems(self, size_mb_max: float, codecs: Codecs) -> list[str]:
        problems: list[str] = []
        size = 0
        for name, value in (("data", self.data), ("metadata", self.metadata)):
            if type(value) is not dict:
                problems.append(f"{name} is of type {type(value).__name__}, not dict.")
                continue
            try:
                size += len(prepare(value, path=name, codecs=codecs).wire)
            except UnstorableError as error:
                problems.append(str(error))
        if size > size_mb_max * _MEBIBYTE:
            problems.append(
                f"data and metadata have {size:,} bytes; the limit is {size_mb_max:g} MiB."
            )
        return problems


_CLOCKS_DIFFER: Final = timedelta(minutes=1)


def _since(earlier: datetime, later: datetime) -> timedelta:
    # A difference, as a time at the end of the calendar cannot be written in another zone.
    return _aware(later) - _aware(earlier)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _hours(name: str, value: Any) -> float:
    if isinstance(value, int | float) and value >= 0:
        return value
    raise ArgumentError(
        f"{name} is {quoted(value)}; it must be a number, 0 or more.", argument=name
    )


def _moment(name: str, value: Any) -> datetime:
    """Return a caller's time, or the present where none is given."""
    if value is None:
        return utc_now()
    if isinstance(value, datetime):
        return value
    raise ArgumentError(f"{name} is {quoted(value)}, no datetime.", argument=name)


def _mapping(name: str, value: Any, codecs: Codecs | None) -> dict[str, Any]:
    """Return the lifted value; where there are no codecs, a copy of JSON without tags."""
    _refuse_other_keys(name, value, DEPTH_MAX)
    if codecs is None and type(value) is dict:
        return copy.deepcopy(value)
    lifted = lift(value, codecs or NO_CODECS)
    if type(lifted) is not dict:
        raise ArgumentError(f"{name} is of type {type(lifted).__name__}, not dict.", argument=name)
    return lifted


def _refuse_other_keys(name: str, value: Any, depth: int) -> None:
    """Refuse a key that is no text, as JSON has none; what is deeper is refused when lifted."""
    if depth < 0 or type(value) not in {dict, list}:
        return
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                raise ArgumentError(
                    f"{name} has the key {quoted(key)}; keys must be of type str.", argument=name
                )
    for item in value.values() if type(value) is dict else value:
        _refuse_other_keys(name, item, depth - 1)


def _text(name: str, value: Any) -> str:
    if type(value) is not str:
        raise ArgumentError(f"{name} is of type {type(value).__name__}, not str.", argument=name)
    return value


def _number(name: str, value: Any) -> int:
    if type(value) is not int:
        raise ArgumentError(f"{name} is of type {type(value).__name__}, not int.", argument=name)
    return value


def _state(name: str, value: Any) -> CheckpointState:
    if isinstance(value, CheckpointState):
        return value
    if type(value) is str and value in _STATES:
        return _STATES[value]
    raise ArgumentError(
        f"{name} is {quoted(value)}; it must be one of {', '.join(_STATES)}.", argument=name
    )


def _time(name: str, value: Any) -> datetime:
    try:
        return as_utc(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(
            f"{name} is {quoted(value)}, which is no ISO 8601 time.", argument=name
        ) from error


def _as_it_is(name: str, value: Any) -> Any:  # noqa: ARG001 - one signature for all readers
    return value


_READERS: Final = {
    "checkpoint_id": _text,
    "task_id": _text,
    "task_title": _text,
    "state": _state,
    "step_number": _number,
    "total_steps": _number,
    "step_description": _text,
    "data": _as_it_is,
    "metadata": _as_it_is,
    "created_at": _time,
    "updated_at": _time,
    "worker_id": _text,
    "parent_checkpoint_id": _text,
    "position": _number,
    "namespace": _text,
}
_REQUIRED: Final = ("checkpoint_id", "task_id", "state", "step_number", "created_at")
