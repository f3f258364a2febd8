"""Signed heads beside the log that a verification reads: does the past still have their trees?

    heads: those in STORE/heads, the last one that was signed here (kept apart), the user's own
      -> each signature, by the key that is kept apart, else the user's, else the published one
      -> in one pass over the events, the root at each of their sizes

A head that does not hold is one of three things, which no byte can tell apart for sure, but which
need different answers: the log is shorter than the head (`head.rolled_back`), it has another past
(`head.rewritten`), or an event of the log itself says that this origin was given up
(`head.forked`). Where a repair has put a tombstone for an event whose leaf hash nobody knew, no
head over it can be compared: that is said, and is no such finding. Nothing is read but the events
that are handed over: no cache, no view.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptlog.errors import (
    CheckpointError,
    DeniedError,
    FormatError,
    InputOutputError,
    KeyMissingError,
    SignatureError,
)
from ckptlog.formats.head import Head
from ckptlog.formats.merkle import Frontier
from ckptlog.formats.note import Note, VerifierKey
from ckptlog.model.entry import Commit
from ckptlog.model.event import FORKED, LOST, Event
from ckptlog.repository.head_shelf import FOLDER as HEADS
from ckptlog.repository.head_shelf import HeadShelf, signed_head
from ckptlog.repository.keyring import KeyRing, keys_folder, read_note
from ckptlog.repository.report import Book
from ckptlog.storage.environment import Environment

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_APART: Final = "the head that was signed last"
_FORKED = "head.forked"
_ROLLED_BACK = "head.rolled_back"
_REWRITTEN = "head.rewritten"
_INCOMPARABLE = "head.incomparable"
_OTHER_BRANCH = "head.other_branch"
BRANCHES: Final = frozenset({_FORKED, _OTHER_BRANCH})
"""Of a backup: it may be of another copy of the store, that was written on or forked elsewhere."""


class Claim(NamedTuple):
    """A head to compare. where: Its file. is_asked: Whether the user brought it."""

    head: Head
    where: str
    is_asked: bool


class KeptHeads(NamedTuple):
    """What a user brings: files of heads, and the verifier keys that they were given.

    is_backup: The log is a backup's: that more was signed since, or that the origin was given up
        since, is what becomes of a backup, and no fault of it.
    """

    heads: tuple[Path, ...] = ()
    keys: tuple[VerifierKey, ...] = ()
    is_backup: bool = False


NONE_KEPT: Final = KeptHeads()


class _Fork(NamedTuple):
    position: int
    actor: str
    origin: str
    size: int


class HeadCheck:
    """Compares heads with the events of one pass over a log.

    Args:
        root, store_id: Of the store.
        kept: Heads that the user has kept, and keys, which go before all others.

    Threads: one at a time.        Cost: two hashes an event; nothing where there is no head.
    """

    def __init__(
        self,
        root: Path,
        store_id: str,
        environment: Environment,
        kept: KeptHeads = NONE_KEPT,
    ) -> None:
        self._root = root
        self._shelf = HeadShelf(root)
        self._own_name = ""
        self._is_backup = kept.is_backup
        self._remembered: list[Path] = []
        self._faults: list[tuple[str, str, str]] = []
        self._notes: list[str] = []
        self._keys, self._published = self._trusted(store_id, environment, kept.keys)
        self._claims = sorted(self._read(kept.heads), key=lambda one: one.head.size)
        self._frontier = Frontier()
        self._roots: dict[int, bytes] = {}
        self._is_broken = False
        self._forks: dict[str, _Fork] = {}
        self._unknown: list[int] = []  # positions of tombstones that do not know what stood there
        self._sizes = {claim.head.size for claim in self._claims}
        if 0 in self._sizes:
            self._roots[0] = self._frontier.root

    @property
    def heads(self) -> list[Head]:
        """The heads whose signatures hold, the smallest first."""
        return [claim.head for claim in self._claims]

    @property
    def binding(self) -> list[Head]:
        """The heads that this log answers for, once it was read, the smallest first.

        Not those of what followed where an event of it gave their origin up: they are of another
        branch. Whoever can write to the log can write such an event; the key kept apart knows.
        """
        return [head for head in self.heads if not self._is_of_another_branch(head)]

    def _is_of_another_branch(self, head: Head) -> bool:
        fork = self._forks.get(head.origin)
        return fork is not None and head.size > fork.position and head.origin != self._own_name

    # --- what is there to compare -------------------------------------------------------------

    def _trusted(
        self, store_id: str, environment: Environment, given: tuple[VerifierKey, ...]
    ) -> tuple[dict[str, VerifierKey], bool]:
        """Return keys by origin, and whether the present one is known from the store alone."""
        published: tuple[VerifierKey, ...] = ()
        try:
            published = self._shelf.verifier_keys()
        except CheckpointError as error:
            self._faults.append((error.code, error.message, "heads/keys"))
        keys = {key.name: key for key in published}
        own = self._own_key(store_id, environment)
        for key in (*([own] if own else []), *given):
            if keys.get(key.name, key) != key:
                message = f"It says that {key.name} signs by another key than {key}."
                self._faults.append((SignatureError.code, message, "heads/keys"))
            keys[key.name] = key
        if own is not None and published and published[-1].name != own.name:
            message = (
                f"It names {published[-1].name} as the present origin; the key kept apart signs "
                f"as {own.name}. If the store was forked elsewhere, bring that key here."
            )
            if self._is_backup and self._was_given_up(published[-1], store_id, environment):
                self._notes.append(f"The origin {published[-1].name} was given up since.")
            else:
                self._faults.append((_FORKED, message, "heads/keys"))
        return keys, own is None and not given and bool(published)

    def _was_given_up(self, key: VerifierKey, store_id: str, environment: Environment) -> bool:
        ring = KeyRing(keys_folder(environment) / store_id, environment)
        with suppress(CheckpointError):
            return ring.was_given_up(key)
        return False

    def _own_key(self, store_id: str, environment: Environment) -> VerifierKey | None:
        try:
            ring = KeyRing(keys_folder(environment) / store_id, environment)
            self._remembered.append(ring.folder / "head")
            own = ring.signing_key()
        except CheckpointError as error:
            self._notes.append(f"The key kept apart cannot be read: {error.message}")
            return None
        if own is None:
            return None
        self._own_name = own.verifier.name
        return own.verifier

    def _read(self, heads: Iterable[Path]) -> Iterator[Claim]:
        asked = [(path, str(path), True) for path in heads]
        own = [(path, str(path.relative_to(self._root)), False) for path in self._shelf.paths()]
        apart = [(path, _APART, False) for path in self._remembered]
        seen: set[str] = set()
        # What a backup brings itself is its own to answer for.
        there = (*asked, *own, *apart) if self._is_backup else (*asked, *apart, *own)
        for path, where, is_asked in there:
            try:
                found = read_note(path)
                if found is None:
                    if is_asked:
                        raise FormatError(f"There is no head in {path}.")
                    continue
                head = self._signed(found)
            except (DeniedError, InputOutputError) as error:  # another user's keys, for one
                if is_asked:
                    self._faults.append((error.code, error.message, where))
                else:
                    self._notes.append(f"Not compared, as it cannot be read: {error.message}")
                continue
            except CheckpointError as error:
                self._faults.append((error.code, f"{error.message}{_remedy(error, where)}", where))
                continue
            if found.text not in seen:
                seen.add(found.text)
                yield Claim(head, where, is_asked)

    def _signed(self, found: Note) -> Head:
        from ckptlog.crypto.signature import verify_note

        head = signed_head(found).head
        key = self._keys.get(head.origin)
        if key is None:
            raise KeyMissingError(
                f"No verifier key of {head.origin} is known.", hint="Give it with --vkey."
            )
        verify_note(found, key)
        return head

    # --- the pass -----------------------------------------------------------------------------

    def add(self, commit: Commit) -> None:
        """Take in the next commit."""
        for entry in commit.entries:
            kind = entry.event.type
            if kind == FORKED:
                self._note_fork(entry.position, entry.event.actor, entry.event.facts)
            elif kind == LOST and _is_unknown(entry.event):
                self._unknown.append(entry.position)
        if self._is_broken or not self._claims:
            return
        frontier, sizes = self._frontier, self._sizes
        if commit.entries[0].position != frontier.size:  # what lies between is lost
            self._is_broken = True
            return
        for leaf in commit.leaves:
            frontier.add(leaf)
            if frontier.size in sizes:
                self._roots[frontier.size] = frontier.root

    def _note_fork(self, position: int, actor: str, facts: dict[str, int | str]) -> None:
        former, size = str(facts.get("former", "")), facts.get("former_size", 0)
        size = size if isinstance(size, int) else 0
        self._forks[former] = _Fork(position, actor, str(facts.get("origin", "")), size)

    # --- what was found -----------------------------------------------------------------------

    def report(self, book: Book, *, is_whole: bool = True) -> None:
        """Enter what is wrong, and what is worth knowing.

        Args:
            is_whole: Whether the pass came to the log's end; else what is missing says nothing.
        """
        for code, message, where in self._faults:
            book.problem(code, message, where)
        agreed = 0
        for claim in self._claims:
            root = self._roots.get(claim.head.size)
            if root == claim.head.root:
                agreed = claim.head.size
            elif root is None and (self._is_broken or not is_whole):
                book.notes.append(f"{claim.where} was not compared: a part of the log is lost.")
            else:
                self._enter(book, claim, agreed)
        book.notes += self._notes
        if self._claims:
            book.notes.append(self._summary(agreed))
        if self._published and self._claims:
            book.notes.append(
                "The verifier key comes from the store itself: whoever can write there could have "
                "changed both. Give the one that you kept (--vkey)."
            )

    def _summary(self, agreed: int) -> str:
        if not agreed:
            return "No signed head agrees with the log."
        behind = self._frontier.size - agreed
        return f"Signed heads agree up to {agreed} events; {behind} came after."

    def _enter(self, book: Book, claim: Claim, agreed: int) -> None:
        fork = self._forks.get(claim.head.origin)
        if fork is not None:
            self._enter_fork(book, claim, fork)
        elif claim.head.size > self._frontier.size:
            self._enter_rolled_back(book, claim, agreed)
        elif (lost := self._unknown_in(agreed, claim.head.size)) is not None:
            self._enter_incomparable(book, claim, lost)
        elif self._is_backup and claim.where == _APART and not self._is_own_broken():
            book.problem(_OTHER_BRANCH, self._other_branch(claim.head, agreed), claim.where)
        else:
            book.problem(_REWRITTEN, self._rewritten(claim.head, agreed), claim.where)

    def _enter_rolled_back(self, book: Book, claim: Claim, agreed: int) -> None:
        if self._is_backup and claim.where == _APART:
            book.notes.append(
                f"Heads of {claim.head.size} events were signed since, and this is the state with "
                f"{self._frontier.size}. Should the newer one be lost, let the restored store "
                "sign again: ckptlog audit fork."
            )
        else:
            book.problem(_ROLLED_BACK, self._rolled_back(claim.head, agreed), claim.where)

    def _unknown_in(self, start: int, stop: int) -> int | None:
        """Return the first tombstone that hides a leaf hash among events; None for none."""
        index = bisect_left(self._unknown, start)
        is_there = index < len(self._unknown) and self._unknown[index] < stop
        return self._unknown[index] if is_there else None

    def _enter_incomparable(self, book: Book, claim: Claim, lost: int) -> None:
        """Say that a head cannot be compared: a problem only where the user asked for just that.

        Whoever can write to the log can write a tombstone, so it must not answer for a head that
        was kept against such a one.
        """
        message = (
            f"The head of {claim.head.size} events cannot be compared: event {lost} was lost, and "
            "the repair found nothing that told its leaf hash (repair.lost). A backup from before "
            "can be compared; `ckptlog audit fork` lets this store sign again."
        )
        if claim.is_asked:
            book.problem(_INCOMPARABLE, message, claim.where, position=lost)
        else:
            book.notes.append(f"{claim.where}: {message}")

    def _enter_fork(self, book: Book, claim: Claim, fork: _Fork) -> None:
        message = (
            f"The head of {claim.head.size} events is of {claim.head.origin}, which was given up: "
            f"event {fork.position}, by {fork.actor}, names {fork.origin} instead."
        )
        if claim.head.size > fork.size:
            message += f" That event knows only {fork.size} of them."
        # Anybody who can write to the log can write such an event: the key here was not told of it.
        is_news = claim.head.origin == self._own_name
        if is_news:
            message += " The key that is kept apart still signs for the former."
        if claim.is_asked or is_news or claim.head.size > fork.size:
            book.problem(_FORKED, message, claim.where)
        else:
            book.notes.append(message)

    def _is_own_broken(self) -> bool:
        """Say whether a head of the backup itself does not hold: then its past was changed."""
        own = (one for one in self._claims if one.where != _APART)
        return any(self._roots.get(one.head.size) != one.head.root for one in own)

    def _other_branch(self, head: Head, agreed: int) -> str:
        size = self._frontier.size
        return (
            f"The {size} events agree with every head that the backup has, and not with the one of "
            f"{head.size} events that was signed here: they part somewhere from event {agreed} on. "
            "It is of another copy of the store, which was written on by itself; or somebody "
            "changed what no head of the backup vouches for."
        )

    def _rolled_back(self, head: Head, agreed: int) -> str:
        size = self._frontier.size
        return (
            f"The head signs {head.size} events, and the log has {size}: {head.size - size} are "
            f"missing. Up to {agreed} it agrees with earlier heads. It was cut, or set back to a "
            "backup; if it was set back on purpose, `ckptlog audit fork` says so."
        )

    def _rewritten(self, head: Head, agreed: int) -> str:
        return (
            f"The log's first {head.size} events are not those that the head signs: they part "
            f"somewhere from event {agreed} on. Its past was changed, or it is a backup that was "
            "written on; if it is one, `ckptlog audit fork` says so."
        )


def _remedy(error: CheckpointError, where: str) -> str:
    """Return what to do about a damaged head of the store's own: no repair writes such a file."""
    if not isinstance(error, FormatError | SignatureError):
        return ""
    if where == f"{HEADS}/latest":
        return " Where the signing key is, `ckptlog audit head` writes it anew."
    if where.startswith(f"{HEADS}/"):
        return " Restore this file from a backup; or remove it: no other head needs it."
    return ""


def _is_unknown(event: Event) -> bool:
    """Say whether a tombstone has the leaf hash of its own bytes (specs/repair.md)."""
    return not event.facts


def check_heads(store: Store, book: Book, kept: KeptHeads = NONE_KEPT) -> None:
    """Compare all heads with a store's log in a pass of its own; enter what is found.

    For who does not read the log anyway; a verification that does feeds a `HeadCheck`.
    """
    check = HeadCheck(store.path, store.id, store.environment, kept)
    for commit in store.log.reader.commits():
        check.add(commit)
    check.report(book)
