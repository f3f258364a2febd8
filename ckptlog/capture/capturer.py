"""Capturer: takes captures of one system, and finds them again (specs/capture.md).

    cut (capture.cut) -> what is held (capture.held) -> written (capture.writing) -> one commit

Invariants:
- A capture is in the store whole, or not at all.
- No two captures of a system have one number, whoever takes them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from blake3 import blake3

from ckptlog.blobs.tree_reader import Stored
from ckptlog.capture.catalogue import Catalogue
from ckptlog.capture.checking import check_chunks, check_sample
from ckptlog.capture.cut import Cut
from ckptlog.capture.failure import FailureLog
from ckptlog.capture.held import Held
from ckptlog.capture.place import place_of
from ckptlog.capture.roll import SAFETY
from ckptlog.capture.worker import Part, Worker
from ckptlog.capture.writing import Recollection, Writing, Written
from ckptlog.errors import (
    ArgumentError,
    CaptureFailedError,
    ChangedError,
    CheckpointError,
    PlantingStaleError,
)
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.reading import OnDamage
from ckptlog.model.capture import CaptureInfo, ComponentInfo, digest_of
from ckptlog.model.component import Component, Traits, in_order, traits_of
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted
from ckptlog.storage.mutex import Mutex

ATTEMPTS_MAX: Final = 3
_NUMBERS_TRIED: Final = 1_000
_STALES_MAX: Final = 5
_TAGS_MAX: Final = 100


class Capturer:
    """Captures a system: all of its components at one moment, as one checkpoint.

    Args:
        manager: Of the store; its namespace, actor and settings are used.
        system: The system's name, the task of its captures. One store may hold many systems.
        components: What it is made of; None where captures are only read.
        batch_size: Components that are captured, or written, at once.
        deadline_s: How long the system may be held; a cut that takes longer is given up.
        write_deadline_s: How long what comes before, and what comes behind, may take.
        attempts: Cuts, where what a component reads was changed meanwhile; the last one is written
            while the system is held.
        size_bytes_max: Limit of a capture (its `bytes_logical`); None for none. Safety captures
            have none: a system that grew must be recoverable.

    Raises:
        ComponentError: A component, or the set of them, is not what it must be.

    Durability: as the manager's: when `capture` returns, all of it survives a kill and a power cut.
    Threads: safe; one capture at a time. A forked child may go on with it.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        system: str,
        components: Sequence[Component] | None = None,
        *,
        batch_size: int = 5,
        deadline_s: float = 30.0,
        write_deadline_s: float = 600.0,
        attempts: int = ATTEMPTS_MAX,
        size_bytes_max: int | None = None,
    ) -> None:
        self.manager = manager
        self.system = check_id("system", system)
        given = [] if components is None else list(components)
        own = [path for one in given for path in getattr(one, "own_files", ())]
        for one in given:
            if hasattr(one, "leave_out"):  # first: where they lie says what is left out
                one.leave_out(own)
        self.traits: list[Traits] = (
            [] if components is None else in_order([traits_of(one) for one in given])
        )
        by_name = {one.name: one for one in given}
        self.components: dict[str, Component] = {one.name: by_name[one.name] for one in self.traits}
        for one in given:
            if hasattr(one, "keep_in"):  # what it has read it need not read again
                one.keep_in(place_of(manager.store.path, system))
        self._batch_size = _count("batch_size", batch_size)
        self._deadline_s = _seconds("deadline_s", deadline_s)
        self._write_deadline_s = _seconds("write_deadline_s", write_deadline_s)
        self._attempts = _count("attempts", attempts)
        self._size_bytes_max = None if size_bytes_max is None else _size(size_bytes_max)
        self._catalogue = Catalogue(manager.store, system)
        self._failures = FailureLog(manager, system)
        self._memos = Recollection()
        self._begin()

    def of(self, components: Sequence[Component]) -> Capturer:
        """Return a capturer of the same system, with the same settings and other components."""
        return Capturer(
            self.manager,
            self.system,
            components,
            batch_size=self._batch_size,
            deadline_s=self._deadline_s,
            write_deadline_s=self._write_deadline_s,
            attempts=self._attempts,
            size_bytes_max=self._size_bytes_max,
        )

    def _begin(self) -> None:
        """Hold nothing: at first, and in a forked child, whose parent's threads are not here."""
        self._pid = os.getpid()
        self._mutex = Mutex()
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
            lease: Refuse to write when it was lost. Without one, a lease that a dead process has
                left is ended; where a living one has the system, nothing is written.

        Returns:
            What was captured; None where nothing was written because nothing changed.

        Raises:
            CaptureFailedError: A component failed, hung, or was too slow; the context names it.
                Nothing was written, and every component goes on.
            ChangedError: What a component reads was changed each time.
            CaptureTooLargeError: It is larger than its limit.
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
        if lease is None:
            self.manager.end_dead_lease(self.system)
        with self._mutex.held(self._deadline_s + self._write_deadline_s) as is_ours:
            if not is_ours:
                raise CaptureFailedError(
                    f"Another thread captures {self.system!r} still.", reason="busy"
                )
            try:
                info = self._capture(wanted, skip_unchanged=skip_unchanged)
                self._failures.succeeded()
            except CaptureFailedError as error:
                self._failures.failed(error)
                raise
        return info

    def _capture(self, wanted: _Wanted, *, skip_unchanged: bool) -> CaptureInfo | None:
        changes = stales = 0
        while True:
            self._refuse_hung()
            is_held = changes + 1 == self._attempts > 1
            try:
                return self._attempt(wanted, skip_unchanged=skip_unchanged, is_held=is_held)
            except ChangedError:
                changes += 1
                if changes == self._attempts:
                    raise
            except PlantingStaleError:
                stales += 1
                if stales == _STALES_MAX:
                    raise

    def _attempt(
        self, wanted: _Wanted, *, skip_unchanged: bool, is_held: bool
    ) -> CaptureInfo | None:
        begin = time.monotonic()
        before = self._catalogue.latest()
        codecs = self.manager.store.codecs

        def hold(value: Any, traits: Traits) -> Held:
            return Held(value, traits, codecs)

        parts = [Part(traits, self.components[traits.name]) for traits in self.traits]
        limit = None if wanted.reason == SAFETY else self._size_bytes_max
        with Writing(
            self.manager, before, self._memos, self.system, size_bytes_max=limit
        ) as writing:
            cut = Cut(parts, hold, batch_size=self._batch_size, deadline_s=self._deadline_s)
            try:
                with cut:
                    cut.look_ahead(deadline_s=self._write_deadline_s)
                    cut.take(write=writing.write if is_held else None)
                    if not is_held:
                        cut.write(writing.write, deadline_s=self._write_deadline_s)
                    draft = _draft(cut, self.system, wanted, time.monotonic() - begin)
                    written = {traits.name: one for traits, _, one, _ in cut.results}
            finally:
                self._left += cut.left
            if skip_unchanged and before is not None and before.digest == draft.digest:
                return None
            numbers = _Numbers(self._catalogue, self.system, before)
            name = writing.commit(written, draft, numbers, wanted.lease)
        return self._catalogue.find(name)

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

    def captures(
        self, limit: int | None = None, *, on_damage: OnDamage | None = None
    ) -> list[CaptureInfo]:
        """Return the system's captures, newest first; payloads are not read.

        Args:
            on_damage: Called with the id of each one that cannot be read, and the error; without
                it such a one ends the call.
        """
        return self._catalogue.list(limit, on_damage=on_damage)

    def each(self, *, on_damage: OnDamage | None = None) -> Iterator[CaptureInfo]:
        """Yield the system's captures, newest first, each when it is asked for.

        Args:
            on_damage: As of `captures`.
        """
        return self._catalogue.each(on_damage=on_damage)

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
        top = self.manager.stored(info.id)
        return {name: top.get(name) for name in info.components}

    def check(self, info: CaptureInfo, *, sample: int | None = None) -> list[str]:
        """Read a capture, every byte, and return what is wrong with it; [] where nothing is.

        Args:
            sample: Read no more than about so many chunks of each component, chosen at random.
        """
        faults = []
        read = self.manager.store.blobs.raw
        if digest_of(info.components) != info.digest:
            faults.append(f"The digest of {info.id} is not that of its components' roots.")
        try:
            top = self.manager.stored(info.id)
        except CheckpointError as error:
            return [*faults, error.message]
        for name, one in info.components.items():
            try:
                if top.get(name).reference != one.reference:
                    faults.append(f"Component {name!r} has another root than {info.id} says.")
                if sample is None:
                    check_chunks(one.reference, read)
                else:
                    check_sample(one.reference, read, sample, self._choose)
            except CheckpointError as error:
                faults.append(f"Component {name!r}: {error.message}")
        return faults

    def _choose(self, below: int) -> int:
        return int.from_bytes(self.manager.store.environment.random_bytes(16)) % below


class _Numbers:
    """Gives numbers for a capture, each with the command id that only one capture can have.

    Args:
        before: The newest capture when this one was begun.
    """

    def __init__(self, catalogue: Catalogue, system: str, before: CaptureInfo | None) -> None:
        self._catalogue, self._system, self._before = catalogue, system, before
        self._number = 0
        self._tried = 0

    def __call__(self) -> tuple[int, str]:
        """Return the next number and its command id (specs/capture.md, section 4).

        Raises:
            CaptureFailedError: Too many were taken by others.
        """
        self._tried += 1
        if self._tried > _NUMBERS_TRIED:
            raise CaptureFailedError(
                f"{_NUMBERS_TRIED} numbers for a capture of {self._system!r} were taken by others.",
                hint="Let fewer processes capture one system.",
                reason="conflict",
            )
        if self._tried > 1:
            self._before = self._catalogue.latest()
        past = -1 if self._before is None else self._before.position
        least = 1 if self._before is None else self._before.number + 1
        self._number = max(self._number + 1, least)
        name = blake3(f"{self._system} {self._number} {past}".encode()).hexdigest()[:32]
        return self._number, f"capture/{self._number}/{name}"


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


def _size(value: int) -> int:
    if type(value) is int and 0 < value < 1 << 62:
        return value
    raise ArgumentError(
        f"size_bytes_max is {quoted(value)}; a whole number of bytes above 0 is needed, or None.",
        argument="size_bytes_max",
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
