"""The request: what a caller asks of a recovery, checked for its form before anything is begun."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, ClassVar, Protocol

from ckptlog.capture.catalogue import check_moment
from ckptlog.errors import ArgumentError
from ckptlog.model.callback import refuse_deferred
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.quotation import quoted
from ckptlog.recovery.progress import RecoveryProgress
from ckptlog.recovery.target import wanted

OnProgress = Callable[[RecoveryProgress], object]
_FLAGS = ("partial", "dry_run", "verify", "safety")


class Cancel(Protocol):
    """Says whether to stop; a threading.Event is one."""

    def is_set(self) -> bool:
        """Say whether to stop."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `Recovery.recover`.

    Class attributes:
        ID: How the caller calls capture_id; errors say it.

    Raises:
        ArgumentError: One of them is of a wrong type, or two contradict each other.
    """

    ID: ClassVar[str] = "capture_id"

    capture_id: str | None = None
    at: datetime | int | None = None
    components: Iterable[str] | None = None
    partial: bool = False
    dry_run: bool = False
    to: str | os.PathLike[str] | None = None
    on_progress: OnProgress | None = None
    cancel: Cancel | None = None
    verify: bool = True
    safety: bool = True

    def __post_init__(self) -> None:
        for name in _FLAGS:
            if type(getattr(self, name)) is not bool:
                raise _wrong(name, getattr(self, name), "True or False")
        object.__setattr__(self, "components", wanted(self.components, partial=self.partial).names)
        self._check_which()
        place: object = self.to
        if place is not None and not (isinstance(place, str | os.PathLike) and str(place)):
            raise _wrong("to", self.to, "the path of a directory")
        check_watchers(self.on_progress, self.cancel)

    def _check_which(self) -> None:
        if self.capture_id is not None:
            if self.at is not None:
                raise ArgumentError(f"Give either {self.ID} or at, not both.", argument="at")
            check_id(self.ID, self.capture_id, CHECKPOINT_ID_CHARACTERS_MAX)
        check_moment(self.at)

    def with_watchers(self, on_progress: OnProgress, cancel: Cancel) -> Request:
        """Return the same request, watched by somebody else."""
        return replace(self, on_progress=on_progress, cancel=cancel)

    def options(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


class ServiceRequest(Request):
    """The arguments of `CheckpointService.recover_from_checkpoint`."""

    ID = "checkpoint_id"


def check_watchers(on_progress: object, cancel: object) -> None:
    """Refuse a callback that cannot be called, and a cancel that cannot be asked.

    Raises:
        ArgumentError: One is not what it must be.
    """
    if on_progress is not None and not callable(on_progress):
        raise _wrong("on_progress", on_progress, "a function of one argument")
    refuse_deferred("on_progress", on_progress)
    if cancel is not None and not callable(getattr(cancel, "is_set", None)):
        raise _wrong("cancel", cancel, "an object with is_set(), such as a threading.Event")


def _wrong(name: str, value: object, wanted_is: str) -> ArgumentError:
    return ArgumentError(f"{name} is {quoted(value)}; {wanted_is} is needed.", argument=name)
