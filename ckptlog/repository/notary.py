"""The notary: signs what the log says of itself, and proves what was signed.

    sign    = memory of what was signed -> tree, tied to it -> root -> signed head -> remembered,
              then published in STORE/heads
    prove   = newest head -> tree, tied to it -> hashes -> verified once more -> proof

The rule that everything else hangs on: **a key never signs two heads that contradict each other.**
So a head is only signed when the log still has the tree of the last one. Where it has not, the log
was cut or set back (RolledBackError) or has another past (RewrittenError), and the only way on is
`fork`: another origin, another key, and an event that says so. Page: specs/transparency.md.

Nothing here runs under the log's lock; only events that are durable are ever signed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptlog.errors import (
    ArgumentError,
    CheckpointStorageError,
    FormatError,
    KeyMissingError,
    ProofError,
    RolledBackError,
    SignatureError,
)
from ckptlog.formats import head as head_format
from ckptlog.formats import merkle
from ckptlog.formats.head import ConsistencyProof, Head, InclusionProof
from ckptlog.formats.note import Note, VerifierKey
from ckptlog.model.event import FORKED
from ckptlog.model.leaf import leaf_hash
from ckptlog.policy.command import Record
from ckptlog.repository.head_shelf import HeadShelf, SignedHead, signed_head
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.keyring import KeyRing, keys_folder
from ckptlog.repository.tree import EventTree
from ckptlog.storage.fork import renewed_in_child

if TYPE_CHECKING:
    from ckptlog.crypto.signature import SigningKey
    from ckptlog.repository.store import Store
    from ckptlog.views.tiles import Tree

ORIGIN: Final = "ckptlog"
_FORK_DIGITS = 8
_Prover = Callable[["Tree"], tuple[bytes, ...]]


class Fork(NamedTuple):
    """What a fork came to. former: The last head of the origin that was given up."""

    key: VerifierKey
    former: Head | None
    head: SignedHead


class Notary:
    """Signs and proves for one open store. Get it as `store.notary`.

    Threads: safe. Who uses `tree` holds `lock`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.renew_in_child()
        renewed_in_child(self)
        self.ring = KeyRing(keys_folder(store.environment) / store.id, store.environment)
        self.shelf = HeadShelf(store.path)

    def renew_in_child(self) -> None:
        """Have a tree that is whole: in a forked child a thread may have been at work on it."""
        self.lock = RLock()
        self.tree = EventTree(self._store)

    @property
    def store_path(self) -> Path:
        """Where the store lies."""
        return self._store.path

    # --- keys ---------------------------------------------------------------------------------

    @property
    def key(self) -> VerifierKey | None:
        """The verifier key of this store's heads: of the key kept apart, else the published one."""
        own = self.ring.signing_key()
        if own is not None:
            return own.verifier
        published = self.shelf.verifier_keys()
        return published[-1] if published else None

    def make_key(self) -> VerifierKey:
        """Make the signing key where there is none, and publish its verifier key.

        Raises:
            KeyMissingError: The store has one, and it is not here.
            ReadOnlyError, CheckpointStorageError: It cannot be written.
        """
        with self.lock, self.ring.locked():
            return self._own_key().verifier

    def _own_key(self) -> SigningKey:
        key = self.ring.signing_key()
        published = self.shelf.verifier_keys()
        if key is None:
            # Any trace of one that signed counts: another key is never made in silence.
            if published or self.shelf.paths() or self.ring.head() is not None:
                name = published[-1].name if published else f"{ORIGIN}/{self._store.id}"
                raise KeyMissingError(
                    f"The key that signs as {name} is not in {self.ring.folder}.",
                    hint="Name the folder that has it (CKPTLOG_KEYS), sign on the machine that has "
                    "it, or give it up: ckptlog audit fork.",
                    path=str(self.ring.folder),
                )
            key = self.ring.make_key(f"{ORIGIN}/{self._store.id}")
        if not self._store.read_only and key.verifier not in published[-1:]:
            self.shelf.add_key(key.verifier)
        return key

    # --- heads --------------------------------------------------------------------------------

    def latest(self) -> SignedHead | None:
        """Return the newest head that is known here and rightly signed; None where there is none.

        Raises:
            SignatureError: The published one is signed by another key.
        """
        remembered = self.ring.head()
        published = self._published()
        if remembered is None:
            return published
        own = signed_head(remembered)
        # The same head may have got cosignatures since.
        is_same = published is not None and published.note.text == own.note.text
        return published if is_same else own

    def _published(self) -> SignedHead | None:
        from ckptlog.crypto.signature import verify_note

        found, own = self.shelf.latest(), self.ring.signing_key()
        if found is None:
            return None
        if own is None:
            verify_note(found.note, self._key_of(found.head))
        elif found.head.origin != own.verifier.name:
            return None  # of an origin that was given up, while the first head of ours is awaited
        else:
            verify_note(found.note, own.verifier)
        return found

    def _key_of(self, head: Head) -> VerifierKey:
        for key in self.shelf.verifier_keys():
            if key.name == head.origin:
                return key
        raise KeyMissingError(
            f"No verifier key for {head.origin} is known here.",
            hint="Give the one that you were given (--vkey).",
        )

    def sign(self, *, is_kept: bool = True) -> SignedHead:
        """Sign the log as it is now; return the head. The same again where nothing is new.

        Args:
            is_kept: Whether this head stays in STORE/heads when others follow.

        Raises:
            RolledBackError, RewrittenError: It contradicts what was signed.
            KeyMissingError, KeyUnsafeError: The key is not here, or not safe.
            ReadOnlyError, CheckpointStorageError: It cannot be written.

        Durability: on the medium when it returns.        Cost: what is new since the last head.
        """
        self._store.opened()
        return self.sign_published(is_kept=is_kept)

    def sign_published(self, *, is_kept: bool) -> SignedHead:
        """Do as `sign` for what is published, also while the store is being closed."""
        with self.lock, self.ring.locked():
            key = self._own_key()
            former = self._former(key.verifier)
            position = self.tree.end().position
            if former is not None and former.head.size == position:
                self.tree.grown(former.head, position)
                self._publish(former, is_kept=is_kept)
                return former
            return self._signed(key, former, is_kept=is_kept)

    def _former(self, key: VerifierKey) -> SignedHead | None:
        """Return the largest head that this key is known to have signed."""
        known = []
        remembered = self.ring.head()
        if remembered is not None:
            known.append(signed_head(remembered))
        known += [one for one in self.shelf.all() if _is_signed(one.note, key)]
        # Of equal ones the published, which may have cosignatures.
        former = max(known, key=lambda one: (one.head.size, len(one.note.signatures)), default=None)
        end = self.tree.end()
        if former is not None and former.head.size > end.position:
            raise rolled_back(former.head, end.position)
        return former

    def _signed(self, key: SigningKey, former: SignedHead | None, *, is_kept: bool) -> SignedHead:
        end = self.tree.end()
        tree = self.tree.grown(former.head if former else None, end.position)
        head = Head(key.verifier.name, end.position, tree.root(end.position))
        text = head_format.encode(head)
        signed = SignedHead(head, Note(text, (key.sign(text),)))
        self.ring.remember(signed.note)
        self._publish(signed, is_kept=is_kept)
        return signed

    def _publish(self, signed: SignedHead, *, is_kept: bool) -> None:
        if not self._store.read_only:
            self.shelf.put(signed, is_kept=is_kept)

    def head_for(self, position: int) -> SignedHead:
        """Return a head that covers a position: the newest, or one that is signed now.

        Raises:
            KeyMissingError: None does, and the key is not here.
        """
        found = self.latest()
        if found is not None and position < found.head.size:
            return found
        return self.sign()

    # --- proofs -------------------------------------------------------------------------------

    def prove(self, position: int) -> InclusionProof:
        """Return the proof that the event at a position is in the tree of a signed head.

        Raises:
            ArgumentError: There is no such event.
            RewrittenError, RolledBackError: The log contradicts the head.

        Cost: three reads of the tree, and that of the event.
        """
        entry = self._entry(position)
        signed = self.head_for(position)
        head = signed.head

        def proved(tree: Tree) -> tuple[bytes, ...]:
            path = tuple(merkle.inclusion_proof(tree.perfect, position, head.size))
            merkle.verify_inclusion(leaf_hash(entry), position, head.size, path, root=head.root)
            return path

        return InclusionProof(position, self._proved(signed, proved), signed.note, entry)

    def prove_consistency(self, old: int, new: int | None = None) -> ConsistencyProof:
        """Return the proof that the log's first `old` events are the beginning of a later tree.

        Args:
            new: Size of a head that was kept; the newest one by default.

        Raises:
            ArgumentError: There is no such head, or it is smaller than old.
        """
        signed = self._head_of(new) if new is not None else self.head_for(old - 1)
        head = signed.head
        if not 0 <= old <= head.size:
            raise ArgumentError(f"No tree of {old} events comes before one of {head.size}.")

        def proved(tree: Tree) -> tuple[bytes, ...]:
            path = tuple(merkle.consistency_proof(tree.perfect, old, head.size))
            merkle.verify_consistency(
                old, head.size, path, old_root=tree.root(old), new_root=head.root
            )
            return path

        return ConsistencyProof(old, self._proved(signed, proved), signed.note)

    def _proved(self, signed: SignedHead, proved: _Prover) -> tuple[bytes, ...]:
        """Prove with the tree as it is cached; where that proves nothing, made from the log."""
        with self.lock:
            end = self.tree.end()
            if signed.head.size > end.position:
                raise rolled_back(signed.head, end.position)
            try:
                return proved(self.tree.grown(signed.head, signed.head.size))
            except (ProofError, CheckpointStorageError):
                return proved(self.tree.made_anew(signed.head))

    def _head_of(self, size: int) -> SignedHead:
        newest = self.latest()
        found = newest if newest and newest.head.size == size else self.shelf.find(size)
        if found is None:
            raise ArgumentError(
                f"No signed head of {size} events is kept.",
                hint="ckptlog audit head --list shows those that are.",
                argument="new",
            )
        return found

    def _entry(self, position: int) -> bytes:
        from ckptlog.formats import event

        self._store.opened()
        end = self.tree.end()
        if not 0 <= position < end.position:
            raise ArgumentError(
                f"There is no event {position}: the log has {end.position}.",
                hint="Positions count from 0; ckptlog log shows those of the newest events.",
                argument="position",
            )
        found = self._store.event_at(position)
        if found is None:
            raise ArgumentError(f"There is no event {position}.", argument="position")
        return event.encode(found.event)

    # --- forks --------------------------------------------------------------------------------

    def fork(self, *, actor: str = "") -> Fork:
        """Give up the present origin: another one, another key, and an event that says so.

        For a store that was restored from a backup and went on, or whose key is lost or known to
        others. Interrupted, it goes on when it is called again.

        Durability: on the medium when it returns; the event comes before the key is used.
        """
        self._store.opened()
        with self.lock, self.ring.locked():
            own = self.ring.signing_key()
            former = self._last_head()
            key = self.ring.next_key() or self._new_key()
            self._record(own, former, key, actor or self._store.environment.actor())
            if former is not None:
                self.shelf.keep(former)
            if own is not None and own.verifier not in self.shelf.verifier_keys():
                self.shelf.add_key(own.verifier)  # a backup from before the first head lacks it
            self.ring.retire(own)
            self.shelf.add_key(key.verifier)
            head = self._signed(key, None, is_kept=True)
        return Fork(key.verifier, former.head if former else None, head)

    def _new_key(self) -> SigningKey:
        digits = self._store.environment.random_bytes(_FORK_DIGITS // 2).hex()
        return self.ring.make_key(f"{ORIGIN}/{self._store.id}/{digits}", is_next=True)

    def _last_head(self) -> SignedHead | None:
        """Return the largest head that is known of the present origin, whatever the log says."""
        remembered = self.ring.head()
        known = list(self.shelf.all()) if remembered is None else [signed_head(remembered)]
        keys = self.shelf.verifier_keys()
        if remembered is None and keys:
            known = [one for one in known if one.head.origin == keys[-1].name]
        return max(known, key=lambda one: one.head.size, default=None)

    def _record(
        self, own: SigningKey | None, former: SignedHead | None, key: SigningKey, actor: str
    ) -> None:
        """Append the event of a fork, once: its command's id is the new key's."""
        command = f"fork-{key.verifier.name}"
        if self._store.command(command) is not None:
            return
        facts: dict[str, int | str] = {"origin": key.verifier.name, "key": str(key.verifier)}
        origin = former.head.origin if former else own.verifier.name if own else ""
        if origin:
            facts["former"] = origin
        if former is not None:
            facts |= {"former_size": former.head.size, "former_root": former.head.root.hex()}
        record = Record(actor=actor, command=command, type=FORKED, facts=facts)
        self._store.submit(Intent((Step(record),)))
        self._store.opened()


def _is_signed(signed: Note, key: VerifierKey) -> bool:
    from ckptlog.crypto.signature import verify_note

    try:
        verify_note(signed, key)
    except (SignatureError, FormatError):
        return False
    return True


def rolled_back(head: Head, position: int) -> RolledBackError:
    """Return the error for a head that covers more than the log has."""
    return RolledBackError(
        f"The log has {position} events, and the head of {head.origin} signs {head.size}: "
        f"{head.size - position} are missing. It was cut, or set back to a backup.",
        hint="Keep the store as it is. Restore the newer copy; if there is none, say so: "
        "ckptlog audit fork. (After a power cut, open the store for writing once before.)",
        origin=head.origin,
        size=head.size,
        position=position,
    )
