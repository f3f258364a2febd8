"""Heads and proofs as text: C2SP tlog-checkpoint, tlog-proof, and a witness's request.

    head                 origin, size, base64(root): three lines, the text of a signed note
    inclusion proof      c2sp.org/tlog-proof@v1, [extra], index, hashes, empty line, signed head
    consistency proof    old <size>, hashes, empty line, signed head: what a witness is asked with

Both proofs end in a signed note, verbatim. `extra` of ours holds the event's stored bytes: nothing
vouches for it but the proof itself, as its leaf hash must lead to the root.
"""

from __future__ import annotations

import base64
import re
from typing import Final, NamedTuple

from ckptlog.errors import FormatError
from ckptlog.formats import note
from ckptlog.formats.merkle import HASH_BYTES, PATH_MAX, SIZE_MAX
from ckptlog.formats.note import Note

PROOF_BYTES_MAX: Final = 262_144
EXTENSIONS_MAX: Final = 16

_INCLUSION: Final = "c2sp.org/tlog-proof@v1"
_EXTRA: Final = "extra "
_INDEX: Final = "index "
_OLD: Final = "old "
_NUMBER = re.compile("0|[1-9][0-9]{0,18}")


class Head(NamedTuple):
    """What a log says of itself: the root of the tree of its first `size` events.

    origin: Which log. root: 32 bytes. extensions: Further lines; ours have none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


class InclusionProof(NamedTuple):
    """That an entry stands at a position of the tree of a head. extra: The entry, in ours."""

    position: int
    path: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None


class ConsistencyProof(NamedTuple):
    """That the tree of `old` entries is the beginning of the tree of a head."""

    old: int
    path: tuple[bytes, ...]
    note: Note


# --- heads ----------------------------------------------------------------------------------------


def encode(head: Head) -> str:
    """Return a head as the text of a note.

    Raises:
        FormatError: A reader would refuse it.
    """
    lines = (head.origin, str(head.size), _base64(head.root), *head.extensions)
    text = "".join(f"{line}\n" for line in lines)
    decode(text)
    return text


def decode(text: str) -> Head:
    """Return the head that a note's text is.

    Raises:
        FormatError: It is none.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop():
        raise FormatError("A head has fewer than three lines.")
    origin, size, root, *extensions = lines
    if not origin or not all(extensions) or len(extensions) > EXTENSIONS_MAX:
        raise FormatError("A head has an empty line, or too many.")
    return Head(origin, _number(size), _hash(root), tuple(extensions))


# --- proofs ---------------------------------------------------------------------------------------


def encode_inclusion(proof: InclusionProof) -> bytes:
    """Return an inclusion proof as text."""
    extra = [] if proof.extra is None else [_EXTRA + _base64(proof.extra)]
    first = [_INCLUSION, *extra, f"{_INDEX}{proof.position}"]
    return _encode(first, proof.path, proof.note)


def encode_consistency(proof: ConsistencyProof) -> bytes:
    """Return a consistency proof as text."""
    return _encode([f"{_OLD}{proof.old}"], proof.path, proof.note)


def _encode(first: list[str], path: tuple[bytes, ...], signed: Note) -> bytes:
    lines = [*first, *map(_base64, path), ""]
    data = "".join(f"{line}\n" for line in lines).encode() + note.encode(signed)
    decode_proof(data)
    return data


def decode_proof(data: bytes) -> InclusionProof | ConsistencyProof:
    """Return the proof that these bytes are; nothing of it is verified yet.

    Raises:
        FormatError: They are none.
    """
    if len(data) > PROOF_BYTES_MAX:
        raise FormatError(f"A proof of {len(data)} bytes is over {PROOF_BYTES_MAX}.")
    top, separator, rest = data.partition(b"\n\n")
    if not separator:
        raise FormatError("A proof has no signed head behind an empty line.")
    try:
        lines = top.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError("A proof's lines are not ASCII.") from error
    signed = note.decode(rest)
    decode(signed.text)
    if lines[0] == _INCLUSION:
        return _inclusion(lines[1:], signed)
    if lines[0].startswith(_OLD):
        old = _number(lines[0].removeprefix(_OLD))
        return ConsistencyProof(old, _path(lines[1:]), signed)
    raise FormatError(f"A proof begins with neither {_INCLUSION!r} nor {_OLD!r}.")


def _inclusion(lines: list[str], signed: Note) -> InclusionProof:
    extra = None
    if lines and lines[0].startswith(_EXTRA):
        extra = note.decode_base64(lines.pop(0).removeprefix(_EXTRA))
    if not lines or not lines[0].startswith(_INDEX):
        raise FormatError("A proof has no index.")
    index = _number(lines.pop(0).removeprefix(_INDEX))
    return InclusionProof(index, _path(lines), signed, extra)


def _path(lines: list[str]) -> tuple[bytes, ...]:
    if len(lines) > PATH_MAX:
        raise FormatError(f"A proof has more than {PATH_MAX} hashes.")
    return tuple(map(_hash, lines))


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > SIZE_MAX:
        raise FormatError("A number is out of range, or not written as one.")
    return int(text)


def _hash(text: str) -> bytes:
    data = note.decode_base64(text)
    if len(data) != HASH_BYTES:
        raise FormatError(f"A hash has {len(data)} bytes.")
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
