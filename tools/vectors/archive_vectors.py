"""Vectors of the archive (as a whole file) and of a backup's manifest.

The archive is written here as its page says, plainly, with nothing of the package; so the page, and
not the code, is what fixes the bytes.
"""

from __future__ import annotations

import base64
import json
import struct
from hashlib import sha256
from typing import Final

from blake3 import blake3
from xxhash import xxh3_64_intdigest

from ckptlog.formats import backup
from ckptlog.formats.backup import BackedFile, Manifest
from tools.vectors.vector import (
    STORE_ID,
    UNSUPPORTED,
    Document,
    Refusal,
    as_text,
    flipped,
    good,
    refusals,
)

Records = list[tuple[bytes, bytes]]

DATA: Final = b'{"n":1,"text":"hello"}'
META: Final = b'{"title":"T","description":"D","metadata":{}}'
_OTHERS: Final = [b'{"other":%d}' % number for number in range(6)]
_TIME: Final = "2026-01-31T12:00:00.000000Z"


def _canonical(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _digest(raw: bytes) -> bytes:
    return blake3(b"\x00" + raw).digest()


def _chunk(raw: bytes) -> bytes:
    head = struct.pack("<32sBBBBQII", _digest(raw), 0, 0, 0, 0, 0, len(raw), len(raw))
    return head + raw


def _reference(raw: bytes) -> dict[str, object]:
    return {"kind": "leaf", "root": _digest(raw).hex(), "size": len(raw)}


def _event(kind: str, state: str, **more: object) -> bytes:
    subject = {"checkpoint": "cp_t_1_1", "task": "t"}
    fields = {"actor": "a", "id": f"c-{kind}", "schema": 1, "state": state, "step": 1}
    roots = {"data": _reference(DATA), "meta": _reference(META)}
    return _canonical(
        {**fields, **roots, "subject": subject, "time": _TIME, "type": f"checkpoint.{kind}", **more}
    )


CREATED: Final = _event("created", "created")
COMPLETED: Final = _event("completed", "completed", created=_TIME, origin=3, previous=3)


def _leaf(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def _tree(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 6962, 2.1 defines it."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + _tree(leaves[:split]) + _tree(leaves[split:])).digest()


# Positions 0 to 7: three others, created, two others, completed, one other.
_LOG: Final = [*_OTHERS[:3], CREATED, *_OTHERS[3:5], COMPLETED, _OTHERS[5]]
_LEAVES: Final = [_leaf(entry) for entry in _LOG]
ROOT: Final = _tree(_LEAVES)
_ORIGIN: Final = f"ckptlog/{STORE_ID.hex()}".encode()
NOTE: Final = b"%b\n8\n%b\n\n\xe2\x80\x94 example AAAA\n" % (_ORIGIN, base64.b64encode(ROOT))
FORKED: Final = NOTE.replace(_ORIGIN, _ORIGIN + b"/0123abcd")
FOREIGN: Final = NOTE.replace(_ORIGIN, b"ckptlog/" + b"0" * 32)


def _skip(start: int, stop: int, *parts: tuple[int, int]) -> tuple[bytes, bytes]:
    hashes = b"".join(_tree(_LEAVES[a:b]) for a, b in parts)
    return b"SKIP", struct.pack("<QQ", start, stop) + hashes


def _head(**changed: object) -> tuple[bytes, bytes]:
    fields = {"created": "2026-01-31T12:00:00+00:00", "format": 1, "kind": "ckptlog-archive"}
    more = {"size": 8, "store": STORE_ID.hex(), "tasks": 1}
    return b"HEAD", _canonical({**fields, **more, **changed})


def _records() -> Records:
    return [
        _head(),
        (b"TASK", b"t"),
        _skip(0, 3, (0, 2), (2, 3)),
        (b"EVNT", struct.pack("<Q", 3) + CREATED),
        _skip(4, 6, (4, 6)),
        (b"EVNT", struct.pack("<Q", 6) + COMPLETED),
        _skip(7, 8, (7, 8)),
        (b"CHNK", _chunk(DATA)),
        (b"CHNK", _chunk(META)),
    ]


def _file(
    records: Records, *, counts: tuple[int, int, int] = (2, 2, 0), root: bytes = ROOT
) -> bytes:
    """Return the file of some records, with its DONE."""
    data = b"CKPTARC1"
    for tag, body in records:
        data += _record(len(data), tag, body)
    done = struct.pack("<QQQ", *counts) + root + blake3(data).digest()
    return data + _record(len(data), b"DONE", done)


def _record(offset: int, tag: bytes, body: bytes) -> bytes:
    bound = struct.pack("<Q4sI", offset, tag, len(body)) + body
    return struct.pack("<4sIQ", tag, len(body), xxh3_64_intdigest(bound)) + body


def _without(tag: bytes) -> Records:
    return [record for record in _records() if record[0] != tag]


def _with(at: int, record: tuple[bytes, bytes]) -> Records:
    records = _records()
    records[at] = record
    return records


def _bad_bytes(data: bytes) -> dict[str, Refusal]:
    """Files that are no archive of this version."""
    return {
        "bad-magic": ("Another file.", flipped(data, 7), "not an archive"),
        "bad-nothing": ("Nothing.", b"", "not an archive"),
        "bad-cut": ("Cut in the last record.", data[:-1], "cut at offset"),
        "bad-cut-between": ("Cut between records.", data[:-104], "the file ends"),
        "bad-appended": ("More behind it.", data + b"\x00", "behind the archive"),
        "bad-checksum": ("A bit of an event.", flipped(data, 400), "checksum"),
        "bad-length": ("A length over the limit.", flipped(data, 15, 0x80), "claims"),
        "bad-hash": (
            "Another hash of the whole.",
            data[:-104] + _record(len(data) - 104, b"DONE", data[-88:-1] + b"\x00"),
            "hash is another",
        ),
        "bad-kind": ("Another kind.", _file(_with(0, _head(kind="x"))), "no archive's head"),
        "bad-format": ("A newer format.", _file(_with(0, _head(format=2))), "knows 1", UNSUPPORTED),
        "bad-tag": (
            "A record of a later version.",
            data[:-104] + _record(len(data) - 104, b"LATE", b""),
            "does not know",
            UNSUPPORTED,
        ),
    }


def _bad_order() -> dict[str, Refusal]:
    """Records that stand where they may not."""
    return {
        "bad-order": (
            "A chunk behind what is lacking.",
            _file([*_records()[:8], (b"LACK", _digest(DATA)), _records()[8]]),
            "where none may",
        ),
        "bad-headless": ("No head.", _file(_records()[1:]), "its head"),
        "bad-tasks": ("A task too few.", _file(_without(b"TASK")), "tasks are there"),
        "bad-short": (
            "Leaves are missing.",
            _file(_records()[:6] + _records()[7:]),
            "leaves are there",
        ),
        "bad-skip": ("A hash too few.", _file(_with(2, _skip(0, 3, (0, 2)))), "has not 2"),
        "bad-gap": (
            "A skip that is too short.",
            _file(_with(2, _skip(0, 2, (0, 2)))),
            "stands where",
        ),
        "bad-beyond": (
            "A skip beyond the log.",
            _file(_with(6, _skip(7, 9, (7, 8), (7, 8)))),
            "is expected",
        ),
        "bad-position": (
            "An event elsewhere.",
            _file(_with(3, (b"EVNT", struct.pack("<Q", 4) + CREATED))),
            "stands where",
        ),
    }


def _bad_meaning() -> dict[str, Refusal]:
    """Records that say what is not so."""
    other = _event("created", "created", subject={"checkpoint": "x", "task": "u"})
    spaced = CREATED.replace(b'"step":1', b'"step": 1')
    return {
        "bad-root": ("Another root.", _file(_records(), root=bytes(32)), "not in the log"),
        "bad-counts": ("Other numbers.", _file(_records(), counts=(2, 3, 0)), "says otherwise"),
        "bad-event": (
            "An event of another task.",
            _file(_with(3, (b"EVNT", struct.pack("<Q", 3) + other))),
            "another task",
        ),
        "bad-canonical": (
            "An event with a blank.",
            _file(_with(3, (b"EVNT", struct.pack("<Q", 3) + spaced))),
            "not canonical",
        ),
        "bad-note": (
            "A head of another log.",
            _file([*_records()[:2], (b"NOTE", NOTE.replace(b"\n8\n", b"\n9\n")), *_records()[2:]]),
            "another log",
        ),
        "bad-origin": (
            "A head that names another store than the archive.",
            _file([*_records()[:2], (b"NOTE", FOREIGN), *_records()[2:]]),
            "its signed head",
        ),
        "bad-chunk-missing": (
            "A payload is not there.",
            _file(_records()[:8], counts=(2, 1, 0)),
            "cannot be read",
        ),
        "bad-chunk": (
            "A chunk that is not its name.",
            _file(_with(7, (b"CHNK", _chunk(DATA)[:-1] + b"X"))),
            "do not hash",
            "blob.corrupt",
        ),
    }


def archives() -> dict[str, Document]:
    """Vectors of whole archives."""
    data = _file(_records())
    value = {
        "store": STORE_ID.hex(),
        "size": 8,
        "root": ROOT.hex(),
        "note": "",
        "tasks": ["t"],
        "events": [[3, _LEAVES[3].hex()], [6, _LEAVES[6].hex()]],
        "payloads": {_digest(raw).hex(): raw.decode() for raw in (DATA, META)},
        "lacks": [],
    }
    signed = _records()
    signed.insert(2, (b"NOTE", NOTE))
    lacking = [*_records()[:7], (b"CHNK", _chunk(META)), (b"LACK", _digest(DATA))]
    return {
        "good-plain": good("A task of two events in a log of eight.", data, value),
        "good-signed": good("With a signed head.", _file(signed), {**value, "note": NOTE.decode()}),
        "good-forked": good(
            "With a head that was signed after a fork.",
            _file([*_records()[:2], (b"NOTE", FORKED), *_records()[2:]]),
            {**value, "note": FORKED.decode()},
        ),
        "good-lacking": good(
            "The data are gone.",
            _file(lacking, counts=(2, 1, 1)),
            {
                **value,
                "payloads": {_digest(META).hex(): META.decode()},
                "lacks": [_digest(DATA).hex()],
            },
        ),
        **refusals({**_bad_bytes(data), **_bad_order(), **_bad_meaning()}),
    }


def manifests() -> dict[str, Document]:
    """Vectors of backup.json."""
    segment = BackedFile("log/00000000000000000000.0.seg", 4096, "11" * 32)
    files = (BackedFile("keys/k1", 5, "22" * 32), segment, BackedFile("store.json", 9, "33" * 32))
    made = Manifest(
        created="2026-01-31T12:00:00+00:00", end="", files=files, serial=3, store=STORE_ID.hex()
    )
    begun = Manifest(
        created="2026-01-31T12:00:00+00:00", end="", files=(), serial=0, store=STORE_ID.hex()
    )
    data = backup.encode(made)

    def changed(**fields: object) -> bytes:
        bare = {**json.loads(data), "checksum": "", **fields}
        bare["checksum"] = blake3(_ordered(bare)).hexdigest()
        return _ordered(bare) + b"\n"

    outside = [{"name": "../x", "bytes": 1, "blake3": "11" * 32}]
    twice = [{"name": "store.json", "bytes": 1, "blake3": "11" * 32}] * 2
    found = {
        "good-files": good("Three files.", data, json.loads(changed())),
        "good-begun": good("Begun.", backup.encode(begun), json.loads(backup.encode(begun))),
        **refusals(
            {
                "bad-nothing": ("Nothing.", b"", "no manifest"),
                "bad-bit": ("A bit of a name.", flipped(data, 200), "checksum"),
                "bad-kind": ("Another kind.", changed(kind="x"), "of the kind"),
                "bad-format": ("A newer one.", changed(format=2), "knows 1", UNSUPPORTED),
                "bad-outside": ("A file elsewhere.", changed(files=outside), "no backup holds"),
                "bad-twice": ("A file twice.", changed(files=twice), "twice"),
                "bad-end": ("An end that is none.", changed(end="00"), "128 bytes"),
                "bad-store": ("No store.", changed(store="x"), "no backup has"),
            }
        ),
    }
    return {name: as_text(document) for name, document in found.items()}


def _ordered(fields: dict[str, object]) -> bytes:
    names = ("checksum", "created", "end", "files", "format", "kind", "serial", "store")
    kept = {name: fields[name] for name in names}
    files = [
        {name: one[name] for name in ("name", "bytes", "blake3")}
        for one in kept["files"]  # type: ignore[attr-defined]
    ]
    return json.dumps({**kept, "files": files}, separators=(",", ":")).encode()
