"""Payloads that cannot be read: found by joining claims with facts, then named by their events.

    Claims.unmet -> keys of broken chunks -> what is above them -> references -> checkpoints

A key is the first half of a chunk's digest, or a name that is made of a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from xxhash import xxh3_128_digest

from ckptlog.errors import BlobCorruptionError, CheckpointError, MissingBlobError
from ckptlog.model.entry import Commit, Entry
from ckptlog.model.event import Reference
from ckptlog.repository import claim
from ckptlog.repository.report import Book, Problem

# What is told of in detail, and kept in memory for it.
_REASONS_MAX: Final = 10_000
_PAYLOADS_MAX: Final = 100_000


class Broken(msgspec.Struct):
    """A payload that cannot be read, and by which events it is named.

    uses: How many events name it. last: For each checkpoint the last of them.
    """

    error: CheckpointError
    first: Entry
    role: str
    uses: int = 0
    last: dict[str, int] = {}

    def present(self, newest: Callable[[str], int]) -> list[str]:
        """Return the checkpoints whose present state needs it."""
        return [name for name, position in self.last.items() if newest(name) == position]


class Breakage:
    """What is broken.

    Attributes:
        missing: Keys of chunks that payloads name and that are nowhere whole. known: Of those that
            repairs have told of.
        payloads: Broken ones, once `name` was given the log; losses: those that only lack what a
            repair has told of.
    """

    def __init__(self, claims: claim.Claims) -> None:
        self._claims = claims
        self._reasons: dict[bytes, CheckpointError] = {}
        self._bad: dict[bytes, bytes] = {}
        self._lost: dict[bytes, bytes] = {}
        self.missing: set[bytes] = set()
        self.known: frozenset[bytes] = frozenset()
        self.payloads: dict[bytes, Broken] = {}
        self.losses: dict[bytes, Broken] = {}

    def bad_chunk(self, digest: bytes, error: CheckpointError) -> None:
        """Take note of why a record of a chunk is no good."""
        if len(self._reasons) < _REASONS_MAX:
            self._reasons.setdefault(digest[: claim.KEY_BYTES], error)

    def bad_payload(self, key: bytes, error: CheckpointError) -> None:
        """Take note that a payload, whose chunks may be whole, is none."""
        self._reasons[key] = error
        self._bad[key] = key

    def join(self, known_losses: frozenset[bytes]) -> None:
        """Find every payload that cannot be read."""
        self.known = known_losses
        for one in self._claims.unmet():
            if one.found is None:
                self.missing.add(one.child)
            if one.found is None and one.child in known_losses:
                self._lost[one.parent] = one.child
                continue
            self._bad.setdefault(one.parent, one.child)
            if one.found is not None and len(self._reasons) < _REASONS_MAX:
                self._reasons.setdefault(one.child, _other_shape(one.child))
        if self._bad:
            self._claims.above(self._bad)
        if self._lost:
            self._claims.above(self._lost)

    @property
    def is_empty(self) -> bool:
        """Whether everything is whole."""
        return not self._bad and not self._lost

    def name(
        self,
        commits: Iterable[Commit],
        may_be_gone: Callable[[Entry], bool] = lambda _entry: False,
    ) -> None:
        """Find the events that name broken payloads: the log is read once more.

        Args:
            may_be_gone: Says whether a collection may have let go of what an event names; then it
                counts for nothing.
        """
        was_collected = False
        for commit in commits:
            for entry in commit.entries:
                event = entry.event
                if may_be_gone(entry):
                    was_collected = True
                    continue
                for role, reference in (("data", event.data), ("meta", event.meta)):
                    if reference is not None:
                        self._name(entry, role, reference)
        if was_collected:
            self.missing &= self._claims.below(set(self.payloads) | set(self.losses))

    def _name(self, entry: Entry, role: str, reference: Reference) -> None:
        key = name_of(reference)
        child = self._bad.get(key)
        kept = self.payloads
        if child is None:
            child, kept = self._lost.get(key), self.losses
        if child is None:
            return
        broken = kept.get(key)
        if broken is None:
            if len(kept) >= _PAYLOADS_MAX:
                return
            broken = kept[key] = Broken(self._reason(child), entry, role, last={})
        broken.uses += 1
        broken.last[entry.event.subject.checkpoint] = entry.position

    def _reason(self, key: bytes) -> CheckpointError:
        error = self._reasons.get(key)
        if error is not None:
            return error
        return MissingBlobError(f"Chunk {key.hex()}... is in no container that the log knows.")

    def report(
        self,
        book: Book,
        newest: Callable[[str], int],
    ) -> None:
        """Enter what is broken.

        Args:
            newest: Returns the position of a checkpoint's last event; -1 where it is deleted.
        """
        for broken in self.payloads.values():
            problem = _problem(broken, newest)
            book.problem(
                problem.code,
                problem.message,
                problem.where,
                position=problem.position,
                checkpoints=problem.checkpoints,
            )
        for broken in self.losses.values():
            book.loss(_problem(broken, newest))


def name_of(reference: Reference) -> bytes:
    """Return the key of a reference."""
    return xxh3_128_digest(f"{reference.kind} {reference.root} {reference.size}".encode())


def _other_shape(key: bytes) -> CheckpointError:
    return BlobCorruptionError(
        f"Chunk {key.hex()}... has another size or domain than what names it says."
    )


def _uses(count: int) -> str:
    return "1 event names it." if count == 1 else f"{count} events name it."


def _problem(broken: Broken, newest: Callable[[str], int]) -> Problem:
    present = broken.present(newest)
    shown = ", ".join(present[:3]) + (", ..." if len(present) > 3 else "")
    needed = f"Present state of: {shown}." if present else "Only past states need it."
    first = broken.first
    return Problem(
        broken.error.code,
        f"The {broken.role} of {first.event.subject.checkpoint!r} after event {first.position} "
        f"cannot be read: {broken.error.message} {_uses(broken.uses)} {needed}",
        f"{first.container}:{first.offset}",
        first.position,
        tuple(present),
    )
