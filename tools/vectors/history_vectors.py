"""Vectors of signed history: the tree, notes and keys, heads and proofs, tiles."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Final

from ckptlog.crypto.signature import SigningKey
from ckptlog.formats import head, merkle, note, tile
from ckptlog.formats.head import ConsistencyProof, Head, InclusionProof
from ckptlog.formats.note import COSIGNATURE, ED25519, Note
from ckptlog.model.leaf import leaf_hash
from tools.vectors.vector import Document, as_text, flipped, good, refusals

_INVALID: Final = "proof.invalid"
_EVENTS: Final = [b'{"n":%d}' % number for number in range(21)]
_LOG: Final = SigningKey("ckptlog/000102030405060708090a0b0c0d0e0f", ED25519, bytes(range(32)))
_WITNESS: Final = SigningKey("witness.example/w1", COSIGNATURE, bytes(range(32, 64)))


def _perfect(level: int, index: int) -> bytes:
    leaves = [leaf_hash(entry) for entry in _EVENTS]
    return merkle.perfect_hash(leaves[index << level : (index + 1) << level])


def _signed(size: int) -> Note:
    root = merkle.root_hash(_perfect, size)
    text = head.encode(Head(_LOG.verifier.name, size, root))
    return Note(text, (_LOG.sign(text),))


# --- the tree -------------------------------------------------------------------------------------


def _row(kind: int, first: int, second: int, *hashes: bytes) -> bytes:
    return struct.pack("<BQQ", kind, first, second) + b"".join(hashes)


def _proved(about: str, data: bytes) -> Document:
    kind, first, second = struct.unpack_from("<BQQ", data)
    hashes = [data[at : at + 32] for at in range(17, len(data), 32)]
    value = {"kind": kind, "first": first, "second": second, "hashes": hashes}
    return good(about, data, value, part="proof")


def _inclusion(index: int, size: int) -> bytes:
    path = merkle.inclusion_proof(_perfect, index, size)
    root = merkle.root_hash(_perfect, size)
    return _row(0, index, size, leaf_hash(_EVENTS[index]), root, *path)


def _consistency(old: int, new: int) -> bytes:
    ends = (merkle.root_hash(_perfect, old), merkle.root_hash(_perfect, new))
    return _row(1, old, new, *ends, *merkle.consistency_proof(_perfect, old, new))


def trees() -> dict[str, Document]:
    """Vectors of proofs: kind, two numbers, two hashes, a path; 0 proves an event, 1 a past."""
    event, past = _inclusion(10, 21), _consistency(13, 21)
    return {
        "good-inclusion-only": _proved("The only event.", _inclusion(0, 1)),
        "good-inclusion-middle": _proved("Event 10 of 21.", event),
        "good-inclusion-last": _proved("The last one, high up.", _inclusion(20, 21)),
        "good-consistency-empty": _proved("From nothing.", _consistency(0, 21)),
        "good-consistency-power": _proved("From 16, a power of two.", _consistency(16, 21)),
        "good-consistency-other": _proved("From 13.", past),
        "good-consistency-same": _proved("From itself.", _consistency(21, 21)),
        **refusals(
            {
                "bad-inclusion-index": (
                    "Of its neighbour.",
                    event[:1] + struct.pack("<Q", 11) + event[9:],
                    "another root",
                    _INVALID,
                ),
                "bad-inclusion-size": (
                    "Beyond the end.",
                    event[:9] + struct.pack("<Q", 10) + event[17:],
                    "has none",
                    _INVALID,
                ),
                "bad-inclusion-short": ("Cut.", event[:-32], "fewer", _INVALID),
                "bad-inclusion-long": ("One more.", event + bytes(32), "more", _INVALID),
                "bad-inclusion-bit": ("A bit.", flipped(event, 90), "another root", _INVALID),
                "bad-consistency-old": ("An old root.", flipped(past, 20), "begin", _INVALID),
                "bad-consistency-new": ("A new root.", flipped(past, 50), "end", _INVALID),
                "bad-consistency-short": ("Cut.", past[:-32], "fewer", _INVALID),
                "bad-consistency-more": (
                    "More than nothing.",
                    _consistency(0, 21) + bytes(32),
                    "nothing to prove",
                    _INVALID,
                ),
            },
            part="proof",
        ),
    }


# --- notes and keys -------------------------------------------------------------------------------


def notes() -> dict[str, Document]:
    """Vectors of notes and of verifier keys."""
    signed = _signed(21)
    both = Note(signed.text, (*signed.signatures, _WITNESS.cosign(signed.text, 1_700_000_000)))
    data, line = note.encode(signed), note.encode(signed).split(b"\n\n")[1]
    key, witness = _LOG.verifier, _WITNESS.verifier
    shown = str(key).encode()
    found = {
        "good-signed": good("A signed head.", data, signed, part="note"),
        "good-cosigned": good("With a cosignature.", note.encode(both), both, part="note"),
        "good-key": good("A log's key.", shown, key, part="key"),
        "good-key-witness": good("A witness's.", str(witness).encode(), witness, part="key"),
        **refusals(
            {
                "bad-nothing": ("Nothing.", b"", "no signatures"),
                "bad-unsigned": ("No signature.", signed.text.encode() + b"\n", "no signatures"),
                "bad-cut": ("Without its end.", data[:-1], "no newline"),
                "bad-dash": (
                    "A hyphen.",
                    data.replace("\N{EM DASH}".encode(), b"-"),
                    "no signature",
                ),
                "bad-line": ("Text behind.", data + b"more\n", "no signature"),
                "bad-carriage": ("A carriage return.", data.replace(b"\n", b"\r\n"), "control"),
                "bad-utf8": ("No UTF-8.", b"\xff" + data, "UTF-8"),
                "bad-base64": ("Other base64.", data[:-2] + b"\n", "base64"),
                "bad-short": (
                    "A key's id alone.",
                    data.replace(line.split()[2], b"AAAAAA=="),
                    "too short",
                ),
            },
            part="note",
        ),
        **refusals(
            {
                "bad-key-id": ("Another id.", flipped(shown, shown.index(b"+") + 1), "belong"),
                "bad-key-form": ("No plus.", shown.replace(b"+", b"-"), "form"),
                "bad-key-type": (
                    "Another type.",
                    shown[:-44] + base64.b64encode(b"\x07" + bytes(32)),
                    "type",
                ),
                "bad-key-cut": ("Cut.", shown[:-4], "type"),
            },
            part="key",
        ),
    }
    return {name: as_text(document) for name, document in found.items()}


# --- heads and proofs -----------------------------------------------------------------------------


def heads() -> dict[str, Document]:
    """Vectors of heads and of proofs as text."""
    value = Head("example.com/log", 21, hashlib.sha256(b"").digest())
    text = head.encode(value).encode()
    longer = Head(*value[:3], ("more", "and more"))
    event = InclusionProof(
        10, tuple(merkle.inclusion_proof(_perfect, 10, 21)), _signed(21), _EVENTS[10]
    )
    past = ConsistencyProof(13, tuple(merkle.consistency_proof(_perfect, 13, 21)), _signed(21))
    shown, old = head.encode_inclusion(event), head.encode_consistency(past)
    bare = InclusionProof(*event[:3])
    found = {
        "good-head": good("A head.", text, value, part="head"),
        "good-head-longer": good(
            "With further lines.", head.encode(longer).encode(), longer, part="head"
        ),
        "good-inclusion": good("Event 10 of 21.", shown, event, part="proof"),
        "good-inclusion-bare": good(
            "Without the event.", head.encode_inclusion(bare), bare, part="proof"
        ),
        "good-consistency": good("13 of 21 events.", old, past, part="proof"),
        **refusals(
            {
                "bad-head-cut": ("Two lines.", text.rsplit(b"\n", 2)[0] + b"\n", "three lines"),
                "bad-head-end": ("No newline.", text[:-1], "three lines"),
                "bad-head-empty": ("An empty line.", text + b"\n", "empty line"),
                "bad-head-zero": ("A leading zero.", text.replace(b"21", b"021"), "number"),
                "bad-head-sign": ("A sign.", text.replace(b"21", b"+21"), "number"),
                "bad-head-large": ("Too large.", text.replace(b"21", b"9" * 19), "number"),
                "bad-head-root": ("A root of 3 bytes.", b"o\n1\nAAAA\n", "3 bytes"),
            },
            part="head",
        ),
        **refusals(
            {
                "bad-proof-nothing": ("Nothing.", b"", "no signed head"),
                "bad-proof-kind": ("Another version.", shown.replace(b"@v1", b"@v2"), "begins"),
                "bad-proof-index": ("No index.", shown.replace(b"index 10\n", b""), "index"),
                "bad-proof-number": (
                    "A zero before.",
                    old.replace(b"old 13", b"old 013"),
                    "number",
                ),
                "bad-proof-hash": (
                    "No hash.",
                    old.replace(b"old 13\n", b"old 13\nAAAA\n"),
                    "bytes",
                ),
                "bad-proof-head": ("Its head is cut.", old[:-2], "no newline"),
                "bad-proof-text": ("No ASCII.", b"old 13\n\xc3\xa4\n\n" + old, "ASCII"),
            },
            part="proof",
        ),
    }
    return {name: as_text(document) for name, document in found.items()}


# --- tiles ----------------------------------------------------------------------------------------


def tiles() -> dict[str, Document]:
    """Vectors of tiles of entries."""
    data = tile.encode_entries(_EVENTS[:3])
    empty = tile.encode_entries([b""])
    return {
        "good-three": good("Three entries.", data, _EVENTS[:3]),
        "good-empty": good("One entry of no bytes.", empty, [b""]),
        **refusals(
            {
                "bad-nothing": ("Nothing.", b"", "empty"),
                "bad-cut": ("Cut.", data[:-1], "cut"),
                "bad-length": ("Half a length.", data + b"\x00", "cut"),
                "bad-many": ("257 entries.", b"\x00\x00" * 257, "more than 256"),
            }
        ),
    }
