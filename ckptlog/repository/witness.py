"""Witnesses: cosigning the heads of others' logs, and taking in the cosignatures for ours.

Cosigning (C2SP tlog-witness, with files in the place of HTTP). A request is `old <size>`, the
hashes of a consistency proof, an empty line, a signed head: what `prove_consistency` makes. The
witness checks, in this order, that it knows the log's key and the head is signed by it; that `old`
is the size it cosigned last; that the proof leads from the root it remembers to the new one. Then
it remembers the new head, durably, and only then answers. So it never attests two histories of one
log, whoever asks. It sees hashes, never events.

    KEYS/witness/key                   its key (type 4), 0600
    KEYS/witness/logs/<name>/key       the log's verifier key, as it was given the first time
    KEYS/witness/logs/<name>/head      the newest head that it cosigned
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from ckptlog.errors import (
    ArgumentError,
    FormatError,
    KeyMissingError,
    ProofError,
    SignatureError,
    WitnessError,
)
from ckptlog.formats import head as head_format
from ckptlog.formats import merkle, note
from ckptlog.formats.head import ConsistencyProof, Head
from ckptlog.formats.note import COSIGNATURE, ED25519, Note, Signature, VerifierKey
from ckptlog.model.quotation import quoted
from ckptlog.repository.head_shelf import HeadShelf, SignedHead, signed_head
from ckptlog.repository.keyring import (
    KeyRing,
    keys_folder,
    make_folder,
    read_key,
    read_keys,
    read_note,
    write_private,
)
from ckptlog.storage import files
from ckptlog.storage.environment import Environment

FOLDER: Final = "witness"
_KEY = "key"
_HEAD = "head"


class Witness:
    """The witness of this user.

    Threads: safe; one request at a time, across processes.
    """

    def __init__(self, environment: Environment, folder: Path | None = None) -> None:
        self._environment = environment
        self._folder = folder or keys_folder(environment) / FOLDER
        self._ring = KeyRing(self._folder, environment)

    def make_key(self, name: str) -> VerifierKey:
        """Make the witness's key; where there is one, its name must be this one.

        Raises:
            ArgumentError: There is a key of another name, or the name may not be one.
        """
        from ckptlog.crypto.signature import SigningKey

        try:
            note.check_name(name)
        except FormatError as error:
            raise ArgumentError(
                f"{quoted(name)} is no name for a witness: {error.message}",
                hint="Use one like a host: witness.example.org/ada",
                argument="name",
            ) from error
        with self._ring.locked():
            key = read_key(self._folder / _KEY)
            if key is None:
                seed = self._environment.random_bytes(note.KEY_BYTES)
                key = SigningKey(name, COSIGNATURE, seed)
                write_private(self._folder / _KEY, key.encode() + "\n")
            if key.verifier.name != name:
                raise ArgumentError(
                    f"The witness here is {key.verifier.name!r}.",
                    hint="Another witness needs another folder of keys (CKPTLOG_KEYS).",
                    argument="name",
                )
            return key.verifier

    @property
    def key(self) -> VerifierKey | None:
        """The witness's verifier key; None where there is none yet."""
        found = read_key(self._folder / _KEY)
        return None if found is None else found.verifier

    def last(self, origin: str) -> Head | None:
        """Return the newest head of a log that was cosigned here."""
        found = read_note(self._log(origin) / _HEAD)
        return None if found is None else signed_head(found).head

    def cosign(self, request: bytes, key: VerifierKey | None = None) -> tuple[Head, Signature]:
        """Check a request; remember its head; return the head and the cosignature.

        Args:
            key: The log's verifier key; needed the first time, and compared afterwards.

        Raises:
            FormatError: The request is none.
            KeyMissingError: The log, or the witness's own key, is not known.
            SignatureError: The head is not signed by the log's key.
            WitnessError: `old` is not what was cosigned last; `size` in the context is.
            ProofError: The new head does not continue the one that is remembered.

        Durability: the head is remembered before the cosignature is returned.
        """
        from ckptlog.crypto.signature import verify_note

        proof = head_format.decode_proof(request)
        if not isinstance(proof, ConsistencyProof):
            raise FormatError("This proves an event; a witness is asked with a consistency proof.")
        head = head_format.decode(proof.note.text)
        with self._ring.locked():
            own = read_key(self._folder / _KEY)
            if own is None:
                raise KeyMissingError(
                    f"There is no witness's key in {self._folder}.",
                    hint="Make one: ckptlog audit witness init NAME",
                )
            verify_note(proof.note, self._known(head.origin, key))
            self._check(proof, head)
            made = own.cosign(proof.note.text, self._environment.now_us() // 1_000_000)
            folder = self._log(head.origin)
            files.write_atomically(folder / _HEAD, note.encode(proof.note))
            return head, made

    def _known(self, origin: str, given: VerifierKey | None) -> VerifierKey:
        """Return the log's key: the one that is remembered, else the one that is given."""
        path = self._log(origin) / _KEY
        known = read_keys(path)
        if given is not None and (given.name != origin or given.kind != ED25519):
            raise SignatureError(f"The head is of {origin}, and the key of {given.name}.")
        if known:
            if given not in {None, known[0]}:
                raise SignatureError(
                    f"Another key of {origin} is known here: {known[0]}.",
                    hint=f"If the log has really changed it, remove {path}.",
                )
            return known[0]
        if given is None:
            raise KeyMissingError(
                f"The log {origin} is not known here.", hint="Give its verifier key (--vkey)."
            )
        make_folder(path.parent.parent)
        make_folder(path.parent)
        files.write_atomically(path, f"{given}\n".encode())
        return given

    def _check(self, proof: ConsistencyProof, head: Head) -> None:
        last = self.last(head.origin) or Head(head.origin, 0, merkle.ROOT_EMPTY)
        if proof.old != last.size:
            raise WitnessError(
                f"The head of {head.origin} that was cosigned last has {last.size} events, and "
                f"the request begins from {proof.old}.",
                hint=f"Ask with: ckptlog audit prove-consistency {last.size}",
                size=last.size,
            )
        if head.size < last.size:
            raise ProofError(f"A head of {head.size} events follows none of {last.size}.")
        merkle.verify_consistency(
            last.size, head.size, proof.path, old_root=last.root, new_root=head.root
        )

    def _log(self, origin: str) -> Path:
        return self._folder / "logs" / hashlib.sha256(origin.encode()).hexdigest()[:32]


# --- cosignatures for ours ------------------------------------------------------------------------


def accept(
    shelf: HeadShelf, signatures: tuple[Signature, ...], trusted: tuple[VerifierKey, ...]
) -> tuple[SignedHead, ...]:
    """Add the cosignatures of trusted witnesses to the heads that they are for; keep these heads.

    Args:
        signatures: As a witness answers; those of others are left out.

    Returns:
        The heads that got any, the newest first.

    Raises:
        SignatureError: None of them is by a trusted witness, and right for a head of ours.
    """
    changed, latest = [], shelf.latest()
    for one in {found.note.text: found for found in shelf.all()}.values():
        more = _right(one.note.text, signatures, trusted)
        if not more:
            continue
        kept = tuple(s for s in one.note.signatures if (s.name, s.key_id) not in _names(more))
        merged = SignedHead(one.head, Note(one.note.text, (*kept, *more)))
        if latest is not None and latest.note.text == one.note.text:
            shelf.put(merged, is_kept=True)
        else:
            shelf.keep(merged)
        changed.append(merged)
    if not changed:
        raise SignatureError(
            "No cosignature is by a trusted witness, and right for a head that is kept here.",
            hint="Trust the witness first: ckptlog audit witness trust VKEY",
        )
    return tuple(changed)


def _names(signatures: tuple[Signature, ...]) -> set[tuple[str, bytes]]:
    return {(one.name, one.key_id) for one in signatures}


def _right(
    text: str, signatures: tuple[Signature, ...], trusted: tuple[VerifierKey, ...]
) -> tuple[Signature, ...]:
    from ckptlog.crypto.signature import verify_cosignatures

    right = []
    for one in signatures:
        try:
            if verify_cosignatures(Note(text, (one,)), trusted):
                right.append(one)
        except SignatureError:  # for another head, or wrong
            continue
    return tuple(right)
