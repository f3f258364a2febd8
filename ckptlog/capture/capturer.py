"""Capturer: takes captures of one system, and finds them again (specs/capture.md).

    cut (capture.cut) -> what is held (capture.held) -> written (capture.writing) -> one commit

Invariants:
- A capture is in the store whole, or not at all.
- No two captures of a system have one number, whoever takes them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from blake3 import blake3

from ckptlog.capture.catalogue import Catalogue
from ckptlog.capture.cut import Cut
from ckptlog.capture.failure import FailureLog
from ckptlog.capture.held import Held
from ckptlog.capture.worker import Part, Worker
from ckptlog.capture.writing import Stored, Writing, Written, stored_of
from ckptlog.errors import (
    ArgumentError,
    CaptureFailedError,
    ChangedError,
    CheckpointError,
    CommandReusedError,
)
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.capture import CaptureInfo, ComponentInfo, digest_of
from ckptlog.model.component import Component, Traits, in_order, traits_of
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted

ATTEMPTS_MAX: Final = 3
_NUMBERS_TRIED: Final = 1_000
_TAGS_MAX: Final = 100


class Capturer:
    """Captures a system: all of its components at one moment, as one checkpoint.

    Args:
        manager: Of the store; its namespace, actor and settings are used.
        system: The system's name, the task of its captures. One store may hold many systems.
        components: What it is made of; may be empty where captures are only read.
        batch_size: Components that are captured, or written, at once.
        deadline_s: How long the system may be held; a cut that takes longer is given up.
        write_deadline_s: How long the rest may take.
        attempts: Cuts, where what a component reads was changed meanwhile; the last one is written
            while the system is held.

    Raises:
        ComponentError: A component, or the set of them, is not what it must be.

    Durability: as the manager's: when `capture` returns, all of it survives a kill and a power cut.
    Threads: safe; one capture at a time. A forked child may go on with it.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        system: str,
        components: Sequence[Component] = (),
        *,
        batch_size: int = 5,
        deadline_s: float = 30.0,
        write_deadline_s: float = 600.0,
        attempts: int = ATTEMPTS_MAX,
    ) -> None:
        self.manager = manager
        self.system = check_id("system", system)
        given = list(components)
        traits = [traits_of(one) for one in given]
        by_name = {one.name: one for one in given}
        self.traits: list[Traits] = in_order(traits) if given else []
        self.components: dict[str, Component] = {one.name: by_name[one.name] for one in self.traits}
        self._batch_size = _count("batch_size", batch_size)
        self._deadline_s = _seconds("deadline_s", deadline_s)
        self._write_deadline_s = _seconds("write_deadline_s", write_deadline_s)
        self._attempts = _count("attempts", attempts)
        self._catalogue = Catalogue(manager.store, system)
        self._failures = FailureLog(manager, system)
        self._begin()

    def _begin(self) -> None:
        """Hold nothing: at first, and in a forked child, whose parent's threads are not here."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._left: list[Worker] = []

    # --- capturing ----------------------------------------------------------------------------

    def capture(
        self,
        *,
        description: str = "",
        tags: Iterable[str] = (),
        reason: str = "manual",
        skip_unchanged: bool = False,
        lease: Any = None,
    ) -> CaptureInfo | None:
        """Capture the system, durably.

        Args:
            reason: Why: manual, interval, signal, shutdown, safety, ...
            skip_unchanged: Write nothing where the state is that of the newest capture.
            lease: Refuse to write when it was lost.

        Returns:
            What was captured; None where nothing was written because nothing changed.

        Raises:
            CaptureFailedError: A component failed, hung, or was too slow; the context names it.
                Nothing was written, and every component goes on.
            ChangedError: What a component reads was changed each time.
            CheckpointStorageError: The store refused; nothing was captured.
        """
        if self._pid != os.getpid():
            self._begin()
        wanted = _Wanted(_text("description", description), _tags(tags), _reason(reason), lease)
        if not self.components:
            raise ArgumentError(
                f"The capturer of {self.system!r} has no components.",
                hint="Give it some: Capturer(manager, system, components).",
                argument="components",
            )
        if not self._lock.acquire(timeout=self._deadline_s + self._write_deadline_s):
            raise CaptureFailedError(
                f"Another thread captures {self.system!r} still.", reason="busy"
            )
        try:
            info = self._capture(wanted, skip_unchanged=skip_unchanged)
            self._failures.succeeded()
        except CaptureFailedError as error:
            self._failures.failed(error)
            raise
        finally:
            self._lock.release()
        return info

    def _capture(self, wanted: _Wanted, *, skip_unchanged: bool) -> CaptureInfo | None:
        for attempt in range(1, self._attempts + 1):
            self._refuse_hung()
            try:
                return self._attempt(
                    wanted, skip_unchanged=skip_unchanged, is_held=attempt == self._attempts > 1
                )
            except ChangedError:
                if attempt == self._attempts:
                    raise
        raise AssertionError  # the last attempt returns or raises

    def _attempt(
        self, wanted: _Wanted, *, skip_unchanged: bool, is_held: bool
    ) -> CaptureInfo | None:
        begin = time.monotonic()
        before = self._catalogue.latest()
        codecs = self.manager.store.codecs

        def hold(value: Any, traits: Traits) -> Held:
            return Held(value, traits, codecs)

        cut = Cut(
            [Part(traits, self.components[traits.name]) for traits in self.traits],
            hold,
            batch_size=self._batch_size,
            deadline_s=self._deadline_s,
        )
        try:
            with cut:
                writing = Writing(self.manager, before)
                cut.take(write=writing.write if is_held else None)
                if not is_held:
                    cut.write(writing.write, deadline_s=self._write_deadline_s)
                draft = _draft(cut, self.system, wanted, time.monotonic() - begin)
                if skip_unchanged and before is not None and before.digest == draft.digest:
                    return None
                return self._record(writing, cut, draft, before, wanted)
        finally:
            self._left += cut.left

    def _record(
        self,
        writing: Writing,
        cut: Cut,
        draft: CaptureInfo,
        before: CaptureInfo | None,
        wanted: _Wanted,
    ) -> CaptureInfo:
        """Commit, under the first number that no other process takes."""
        payloads = {traits.name: written for traits, _, written, _ in cut.results}
        number = 0
        for _ in range(_NUMBERS_TRIED):
            number = max(number + 1, 1 if before is None else before.number + 1)
            past = -1 if before is None else before.position
            command = _command(self.system, number, past)
            try:
                name = writing.commit(payloads, draft, number, command, wanted.lease)
                return self._catalogue.find(name)
            except CommandReusedError:
                before = self._catalogue.latest()
        raise CaptureFailedError(
            f"{_NUMBERS_TRIED} numbers for a capture of {self.system!r} were taken by others.",
            hint="Let fewer processes capture one system.",
            reason="conflict",
        )

    def _refuse_hung(self) -> None:
        self._left = [worker for worker in self._left if worker.is_at_work]
        for worker in self._left:
            raise CaptureFailedError(
                f"Component {worker.name!r} still hangs in {worker.step}() of an earlier cut; "
                "nothing was begun.",
                hint="Mend what it waits for; when it has ended, captures go on.",
                component=worker.name,
                step=worker.step,
                reason="hung",
            )

    # --- finding ------------------------------------------------------------------------------

    def captures(self, limit: int | None = None) -> list[CaptureInfo]:
        """Return the system's captures, newest first; payloads are not read."""
        return self._catalogue.list(limit)

    def find(
        self, capture_id: str | None = None, *, at: datetime | int | None = None
    ) -> CaptureInfo:
        """Return a capture by its id; the newest one without.

        Args:
            at: The newest one not after this time (aware), or this position.

        Raises:
            CheckpointNotFoundError: There is no such capture, or it was deleted.
        """
        return self._catalogue.find(capture_id, at=at)

    def stored(self, info: CaptureInfo) -> dict[str, Stored]:
        """Return what a capture holds, by component: read, and verified, when it is asked for.

        Raises:
            CheckpointNotFoundError: It was deleted.
        """
        return stored_of(self.manager, info)

    def check(self, info: CaptureInfo) -> list[str]:
        """Read a capture, every byte, and return what is wrong with it; [] where nothing is."""
        faults = []
        if digest_of(info.components) != info.digest:
            faults.append(f"The digest of {info.id} is not that of its components' roots.")
        try:
            stored = self.stored(info)
        except CheckpointError as error:
            return [*faults, error.message]
        for name, one in info.components.items():
            found = stored.get(name)
            if found is None:
                faults.append(f"Component {name!r} is not in the payload of {info.id}.")
                continue
            if (found.reference.root, found.reference.size) != (one.root, one.size):
                faults.append(f"Component {name!r} has another root than {info.id} says.")
            try:
                found.check()
            except CheckpointError as error:
                faults.append(f"Component {name!r}: {error.message}")
        return faults


class _Wanted:
    """What a caller says of a capture."""

    def __init__(self, description: str, tags: tuple[str, ...], reason: str, lease: Any) -> None:
        self.description, self.tags, self.reason, self.lease = description, tags, reason, lease


def _draft(cut: Cut, system: str, wanted: _Wanted, seconds: float) -> CaptureInfo:
    """Return what is known before the commit."""
    infos = {
        traits.name: _component(traits, held, written, spent)
        for traits, held, written, spent in cut.results
    }
    return CaptureInfo(
        id="",
        system=system,
        number=0,
        position=-1,
        created_at=datetime.fromtimestamp(0, UTC),
        digest=digest_of(infos),
        components=infos,
        description=wanted.description,
        tags=wanted.tags,
        reason=wanted.reason,
        bytes_logical=sum(one.size for one in infos.values()),
        bytes_new=sum(one.bytes_new for one in infos.values()),
        stopped_s=cut.stopped_s,
        seconds=seconds,
    )


def _component(traits: Traits, held: Held, written: Written, seconds: float) -> ComponentInfo:
    reference = written.reference
    return ComponentInfo(
        kind=traits.kind,
        schema=traits.schema_version,
        form=reference.kind,
        root=reference.root,
        size=reference.size,
        bytes_new=written.bytes_new,
        seconds=seconds,
        stability=held.stability,
        depends_on=traits.depends_on,
        location=traits.location,
    )


def _command(system: str, number: int, past: int) -> str:
    """Return the command id that only one capture can have (specs/capture.md, section 4)."""
    return f"capture/{number}/{blake3(f'{system} {number} {past}'.encode()).hexdigest()[:32]}"


def _seconds(name: str, value: float) -> float:
    if type(value) in {int, float} and 0 < value < 1e9:
        return value
    raise ArgumentError(f"{name} is {quoted(value)}; a number above 0 is needed.", argument=name)


def _count(name: str, value: int) -> int:
    if type(value) is int and 0 < value < 1_000_000:
        return value
    raise ArgumentError(
        f"{name} is {quoted(value)}; a whole number above 0 is needed.", argument=name
    )


def _text(name: str, value: object) -> str:
    if type(value) is str:
        return value
    raise ArgumentError(
        f"{name} is of type {type(value).__name__}; text (str) is needed.", argument=name
    )


def _reason(reason: object) -> str:
    if type(reason) is str and 1 <= len(reason) <= 64:
        return reason
    raise ArgumentError(
        f"reason is {quoted(reason)}; a text of 1 to 64 characters is needed.", argument="reason"
    )


def _tags(tags: object) -> tuple[str, ...]:
    if isinstance(tags, Iterable) and not isinstance(tags, str | bytes):
        found = tuple(tags)
        if len(found) <= _TAGS_MAX:
            return tuple(dict.fromkeys(check_id("tag", tag) for tag in found))
    raise ArgumentError(
        f"tags is {quoted(tags)}; a list of at most {_TAGS_MAX} texts is needed.", argument="tags"
    )
