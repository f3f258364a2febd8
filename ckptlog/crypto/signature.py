"""Ed25519 signatures and cosignatures of notes; the only door to `cryptography`.

A signature is made over a note's text, never over anything else, so that a key cannot be talked
into signing something that means another thing elsewhere. `cryptography` is loaded by the first
call that needs it.

Errors of the library end here: a signature is right, or it is none. Page: specs/transparency.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ckptlog.errors import FormatError, SignatureError
from ckptlog.formats import note
from ckptlog.formats.note import COSIGNATURE, ED25519, Note, Signature, VerifierKey

_ANEW: Final = (
    "Get it anew from who published it. If it is wrong there, too, believe neither it nor what it "
    "covers."
)


class Cosigned(NamedTuple):
    """A cosignature that was verified. time_s: When it says to be made, Unix seconds."""

    key: VerifierKey
    time_s: int


class SigningKey:
    """A private key with its name; it signs (ED25519) or cosigns (COSIGNATURE) notes.

    Args:
        seed: 32 bytes.

    Threads: safe.
    """

    def __init__(self, name: str, kind: int, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._private.public_key().public_bytes_raw()
        self.verifier = VerifierKey(note.check_name(name), kind, public)

    @classmethod
    def decode(cls, text: str) -> SigningKey:
        """Return the key that a text is.

        Raises:
            FormatError: It is none, or its parts do not belong together.
        """
        name, kind, seed, key_id = note.decode_private(text)
        key = cls(name, kind, seed)
        if key.verifier.key_id != key_id:
            raise FormatError("A signing key's id does not belong to its name and key.")
        return key

    def encode(self) -> str:
        """Return the key as text; secret."""
        return note.encode_private(self.verifier, self._seed)

    def __repr__(self) -> str:
        return f"<SigningKey {self.verifier.name}>"

    def sign(self, text: str) -> Signature:
        """Return the signature of a note's text."""
        if self.verifier.kind != ED25519:
            raise FormatError("A witness's key cannot sign a head.")
        return self._signature(self._private.sign(text.encode()))

    def cosign(self, text: str, time_s: int) -> Signature:
        """Return the cosignature of a note's text at a time."""
        if self.verifier.kind != COSIGNATURE:
            raise FormatError("A log's key cannot cosign.")
        made = self._private.sign(note.cosigned_message(time_s, text))
        return self._signature(note.encode_cosignature(time_s, made))

    def _signature(self, data: bytes) -> Signature:
        return Signature(self.verifier.name, self.verifier.key_id, data)


def verify_note(signed: Note, key: VerifierKey) -> None:
    """Check that a key has signed a note.

    Raises:
        SignatureError: It has not.
    """
    own = [one for one in signed.signatures if _is_by(one, key)]
    if not own:
        raise SignatureError(
            f"The head is not signed by {key.name}+{key.key_id.hex()}.",
            hint="Compare the verifier key with the one that you were given.",
            key=str(key),
        )
    if key.kind != ED25519 or not all(_is_right(key, one.data, signed.text) for one in own):
        raise SignatureError(
            f"The head's signature by {key.name} is wrong: its text or the signature was changed.",
            hint=_ANEW,
            key=str(key),
        )


def verify_cosignatures(signed: Note, keys: Iterable[VerifierKey]) -> tuple[Cosigned, ...]:
    """Return the cosignatures of a note by these keys; those of others count for nothing.

    Raises:
        SignatureError: One that claims to be by one of the keys is wrong.
    """
    found: dict[VerifierKey, Cosigned] = {}
    for key in keys:
        for one in signed.signatures:
            if _is_by(one, key) and key.kind == COSIGNATURE:
                found[key] = Cosigned(key, _cosigned_at(key, one, signed.text))
    return tuple(found.values())


def _cosigned_at(key: VerifierKey, one: Signature, text: str) -> int:
    try:
        time_s, data = note.decode_cosignature(one.data)
    except FormatError as error:
        raise SignatureError(f"The cosignature by {key.name} is malformed.", hint=_ANEW) from error
    if not _is_right(key, data, note.cosigned_message(time_s, text).decode()):
        raise SignatureError(f"The cosignature by {key.name} is wrong.", hint=_ANEW, key=str(key))
    return time_s


def _is_by(one: Signature, key: VerifierKey) -> bool:
    return (one.name, one.key_id) == (key.name, key.key_id)


def _is_right(key: VerifierKey, signature: bytes, text: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True
