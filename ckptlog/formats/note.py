"""Signed notes and the keys named in them: C2SP signed-note, as bytes (specs/transparency.md).

    text, every line ended by a newline
    (an empty line)
    — <name> base64(key id, 4 bytes + signature)      one line for each signature

    verifier key    <name>+<key id, 8 hexadecimal digits>+base64(type, 1 byte + public key)
    signing key     PRIVATE+KEY+<name>+<key id>+base64(type, 1 byte + seed)

Type 1 is Ed25519 over the text. Type 4 is a cosignature: 8 bytes of time (big-endian, seconds),
then Ed25519 over `cosignature/v1`, the time, and the text. Who signs and verifies is `crypto`.

Notes come from strangers: sizes are bounded, and nothing that is not canonical is taken.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final, NamedTuple

from ckptlog.errors import FormatError

NOTE_BYTES_MAX: Final = 65_536
SIGNATURES_MAX: Final = 100
NAME_CHARS_MAX: Final = 250
ED25519: Final = 1
COSIGNATURE: Final = 4
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
TIME_BYTES: Final = 8
TIME_MAX: Final = 2**63 - 1

_ID_BYTES = 4
_DASH = "\N{EM DASH} "
_PRIVATE = "PRIVATE+KEY+"
_KINDS = frozenset({ED25519, COSIGNATURE})
_HEXADECIMAL = re.compile("[0-9a-f]{8}")
# Control characters would let a note look like another one; newline is the only one allowed.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f]")


class Signature(NamedTuple):
    """One line below a note. name: Of the key. key_id: 4 bytes. data: What follows it."""

    name: str
    key_id: bytes
    data: bytes


class Note(NamedTuple):
    """A note: its text, newline included, and its signatures, none of them verified."""

    text: str
    signatures: tuple[Signature, ...]


class VerifierKey(NamedTuple):
    """A public key. kind: ED25519 or COSIGNATURE. public: 32 bytes."""

    name: str
    kind: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that stand before a signature: a hint which key it is by."""
        return _key_id(self.name, self.kind, self.public)

    def __str__(self) -> str:
        return _shown_key(self, bytes([self.kind]) + self.public)


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:_ID_BYTES]


def _shown_key(key: VerifierKey, material: bytes) -> str:
    return f"{key.name}+{key.key_id.hex()}+{base64.b64encode(material).decode()}"


# --- notes ----------------------------------------------------------------------------------------


def encode(note: Note) -> bytes:
    """Return the bytes of a note.

    Raises:
        FormatError: No reader would take it.
    """
    lines = "".join(signature_line(one) for one in note.signatures)
    data = f"{note.text}\n{lines}".encode()
    decode(data)
    return data


def signature_line(one: Signature) -> str:
    """Return a signature's line."""
    return f"{_DASH}{one.name} {base64.b64encode(one.key_id + one.data).decode()}\n"


def decode(data: bytes) -> Note:
    """Return the note that these bytes are.

    Raises:
        FormatError: They are none.
    """
    text = _text(data)
    body, separator, lines = text.rpartition("\n\n")
    if not separator or not body or not lines:
        raise FormatError("A note has no signatures behind an empty line.")
    return Note(body + "\n", decode_signatures(lines))


def decode_signatures(text: str) -> tuple[Signature, ...]:
    """Return the signatures that lines of text are, as a witness answers them.

    Raises:
        FormatError: A line is none, or there are too many.
    """
    if not text.endswith("\n"):
        raise FormatError("The last line of a note has no newline.")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise FormatError(f"A note has more than {SIGNATURES_MAX} signatures.")
    return tuple(map(_signature, lines))


def _signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not _is_name(name):
        raise FormatError("A line below a note is no signature.")
    data = decode_base64(encoded)
    if len(data) <= _ID_BYTES:
        raise FormatError("A signature is too short.")
    return Signature(name, data[:_ID_BYTES], data[_ID_BYTES:])


def _text(data: bytes) -> str:
    if len(data) > NOTE_BYTES_MAX:
        raise FormatError(f"A note of {len(data)} bytes is over {NOTE_BYTES_MAX}.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError("A note is not UTF-8.") from error
    if _CONTROL.search(text):
        raise FormatError("A note has a control character.")
    return text


# --- keys -----------------------------------------------------------------------------------------


def decode_key(text: str) -> VerifierKey:
    """Return the verifier key that a text is.

    Raises:
        FormatError: It is none, or of a type that is not known.
    """
    name, key_id, kind, material = _parts(text)
    key = VerifierKey(name, kind, material)
    if key.key_id.hex() != key_id:
        raise FormatError("A verifier key's id does not belong to its name and key.")
    return key


def encode_private(key: VerifierKey, seed: bytes) -> str:
    """Return a signing key as text."""
    return _PRIVATE + _shown_key(key, bytes([key.kind]) + seed)


def decode_private(text: str) -> tuple[str, int, bytes, bytes]:
    """Return (name, type, seed, key id) of a signing key; who has the public key compares the id.

    Raises:
        FormatError: It is none. The message never holds any of it.
    """
    if not text.startswith(_PRIVATE):
        raise FormatError("A signing key does not begin as one.")
    name, key_id, kind, seed = _parts(text.removeprefix(_PRIVATE))
    return name, kind, seed, bytes.fromhex(key_id)


def _parts(text: str) -> tuple[str, str, int, bytes]:
    """Split name+id+base64(type + 32 bytes)."""
    name, plus, rest = text.strip().partition("+")
    key_id, second, encoded = rest.partition("+")
    if not plus or not second or not _is_name(name) or not _HEXADECIMAL.fullmatch(key_id):
        raise FormatError("A key is not of the form name+id+key.")
    material = decode_base64(encoded)
    if len(material) != 1 + KEY_BYTES or material[0] not in _KINDS:
        raise FormatError("A key is of a type that this version does not know, or cut.")
    return name, key_id, material[0], material[1:]


def check_name(name: str) -> str:
    """Return a key's name when it may be one.

    Raises:
        FormatError: It is empty or too long, or has a space, a plus sign or a control character.
    """
    if not _is_name(name):
        raise FormatError(
            "A key's name is empty or too long, or has a space, a plus sign or a control character."
        )
    return name


def _is_name(name: str) -> bool:
    is_short = 0 < len(name) <= NAME_CHARS_MAX
    return is_short and name.isprintable() and not any(c.isspace() or c == "+" for c in name)


def decode_base64(text: str) -> bytes:
    """Return the bytes that canonical base64 stands for.

    Raises:
        FormatError: It is no base64, or not what an encoder writes (other bits behind the end).
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("A text is no base64.") from error
    if base64.b64encode(data).decode() != text:
        raise FormatError("A text is not the base64 that an encoder writes.")
    return data


# --- cosignatures ---------------------------------------------------------------------------------


def cosigned_message(time_s: int, text: str) -> bytes:
    """Return what a cosignature signs."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def encode_cosignature(time_s: int, signature: bytes) -> bytes:
    """Return what stands behind the key id of a cosignature."""
    return time_s.to_bytes(TIME_BYTES, "big") + signature


def decode_cosignature(data: bytes) -> tuple[int, bytes]:
    """Return (time in seconds, Ed25519 signature).

    Raises:
        FormatError: It is none.
    """
    if len(data) != TIME_BYTES + SIGNATURE_BYTES:
        raise FormatError(f"A cosignature has {len(data)} bytes.")
    time_s = int.from_bytes(data[:TIME_BYTES], "big")
    if time_s > TIME_MAX:
        raise FormatError("A cosignature's time is out of range.")
    return time_s, data[TIME_BYTES:]
