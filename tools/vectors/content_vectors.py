"""Vectors of what a store says: event, chunk record, branch, node, store.json."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import msgspec

from ckptlog.formats import branch, chunk, event, node, store
from ckptlog.model.event import Event, PackEntry, Reference, Subject
from tools.vectors.vector import (
    FOREIGN,
    PACK_ID,
    STORE_ID,
    UNSUPPORTED,
    Document,
    Refusal,
    as_text,
    good,
    refusals,
)


def _event(**fields: Any) -> Event:
    common: Document = {
        "actor": "ada@host",
        "id": "0123456789abcdef",
        "schema": 1,
        "subject": Subject(checkpoint="cp_build_1_1700000000000000", task="build"),
        "time": "2026-01-02T03:04:05.678901Z",
        "type": "checkpoint.created",
    }
    return Event(**(common | fields))


def events() -> dict[str, Document]:
    """Vectors of the event's JSON; `loose-*` decode, but are not canonical."""
    documents = {name: as_text(document) for name, document in refusals(_no_events()).items()}
    for name, (about, made) in _good_events().items():
        entry = event.encode(made)
        shown = as_text(good(about, entry, made))
        documents[name] = shown | {"leaf_hash": event.leaf_hash(entry).hex()}
    for name, entry in _not_canonical().items():
        documents[name] = as_text(
            good("Decodes, but is not canonical.", entry, event.decode(entry))
        )
    return documents


def _good_events() -> dict[str, tuple[str, Event]]:
    everything = _event(
        cause="an-event",
        created="2026-01-01T00:00:00.000000Z",
        data=Reference("list", "ab" * 32, 123_456),
        facts={"bytes": 2**53 - 1, "least": -(2**53 - 1), "reason": "age", "Zone": 0},
        fingerprint="cd" * 16,
        meta=Reference("leaf", "ef" * 32, 7),
        new=900,
        origin=0,
        packs=(PackEntry(41, 70_000_000, PACK_ID.hex()),),
        previous=41,
        sanitised=2,
        state="active",
        step=7,
        subject=Subject("cp_build_1_1700000000000000", "team", "cp_0", "build", "w1"),
        total=9,
        type="checkpoint.updated",
    )
    text = 'é ß 漢字 \U0001f680 " \\ / \x7f \x80 \u2028 \ufeff \U0010ffff <&>'
    texts = _event(actor=text, subject=Subject(task=text), facts={"text": text})
    short = msgspec.structs.replace(
        everything,
        data=Reference("tree", "ab" * 32, 123_456),
        id="06476be6cd8c6eb53cb503e9",
        schema=2,
        subject=Subject("1f1e-b~salt", "team", "1f1e-a~salt", "build", "w1"),
    )
    return {
        "good-short": ("Schema 2: every field, what is known left out.", short),
        "good-short-ids": (
            "Schema 2: ids, state and previous that do not follow from the rest.",
            msgspec.structs.replace(
                short,
                id="mine",
                origin=3,
                state="odd",
                subject=Subject("cp_1", "", "another", "", ""),
                type="gc.later",
            ),
        ),
        "good-short-least": ("Schema 2: only what must stand.", _event(schema=2)),
        "good-least": ("Only what must stand.", _event()),
        "good-everything": ("Every field, the largest numbers.", everything),
        "good-text": ("Quotes, DEL, U+2028, beyond the BMP.", texts),
        "good-unknown-type": ("A type of later is kept.", _event(type="moon.risen")),
        "good-settled": ("A collection.", _settled()),
        "good-step-max": ("The largest step.", _event(step=2**53 - 1, total=2**53 - 1)),
    }


def _settled() -> Event:
    return _event(
        facts={"bytes_dropped": 9000, "chunks_dropped": 3, "fence": 40, "superseded": "kept"},
        packs=(PackEntry(40, 70_000_000, PACK_ID.hex()),),
        removes=(f"log/{0:020d}.0.seg", f"packs/{17:020d}-{PACK_ID.hex()}.pack"),
        subject=Subject(),
        type="gc.settled",
    )


def _no_events() -> dict[str, Refusal]:
    entry = event.encode(_event(step=7))

    def with_(old: str, new: str) -> bytes:
        return entry.replace(old.encode(), new.encode())

    newer = with_('"schema":1', '"schema":3,"shape":[1.5,null]')
    return {
        "bad-schema-3": ("Of later.", newer, "schema 3", UNSUPPORTED),
        "bad-schema-3-same": (
            "Of later, the same fields.",
            with_('"schema":1', '"schema":3'),
            "schema 3",
            UNSUPPORTED,
        ),
        "bad-schema-2": (
            "Schema 2 does not name itself.",
            with_('"schema":1', '"schema":2'),
            "schema 2",
        ),
        "bad-schema-0": ("Schema 0.", with_('"schema":1', '"schema":0'), "schema 0"),
        "bad-no-schema": ("No schema.", with_('"schema":1,', ""), "field"),
        "bad-no-actor": ("No actor.", with_('"actor":"ada@host",', ""), "actor"),
        "bad-unknown-field": ("A field of nobody.", with_('"actor"', '"a":1,"actor"'), "field"),
        "bad-facts-name": ("Beyond ASCII.", with_('"id"', '"facts":{"é":1},"id"'), "ASCII"),
        "bad-facts-2p53": (
            "2**53 in facts.",
            with_('"id"', '"facts":{"a":9007199254740992},"id"'),
            "a in facts",
        ),
        "bad-cut": ("Cut.", entry[:-1], "truncated"),
        "bad-appended": ("Something follows.", entry + b"{}", "malformed"),
        "bad-array": ("Not an object.", b"[1]", "object"),
        "bad-nothing": ("Nothing.", b"", "truncated"),
        "bad-utf8": ("Half a character.", entry.replace(b"ada", b"\xc3"), "utf-8"),
        "bad-surrogate": ("A surrogate.", entry.replace(b"ada", b"\xed\xa0\x80"), "utf-8"),
        **_no_numbers(entry),
        **_no_settled(),
    }


def _no_settled() -> dict[str, Refusal]:
    entry = event.encode(_settled())

    def with_(old: str, new: str) -> bytes:
        return entry.replace(old.encode(), new.encode())

    return {
        "bad-settled-no-fence": ("No fence.", with_('"fence":40,', ""), "fence"),
        "bad-settled-fence-text": ("A fence of text.", with_('"fence":40', '"fence":"4"'), "fence"),
        "bad-settled-fence-low": ("Below 0.", with_('"fence":40', '"fence":-1'), "fence"),
        "bad-settled-name": ("Out of the store.", with_('"log/', '"log/../'), "no container"),
        "bad-settled-form": ("A settled segment.", with_(".seg", ".set"), "no container"),
        "bad-settled-folder": ("Elsewhere.", with_('"packs/0', '"views/0'), "no container"),
        "bad-removes": (
            "Only a collection removes.",
            with_("gc.settled", "cleanup.finished"),
            "removes containers",
        ),
    }


def _no_numbers(entry: bytes) -> dict[str, Refusal]:
    def with_step(number: str) -> bytes:
        return entry.replace(b'"step":7', b'"step":' + number.encode())

    return {
        "bad-float": ("A number with a fraction.", with_step("7.0"), "int"),
        "bad-exponent": ("A number with an exponent.", with_step("7e0"), "int"),
        "bad-integer-2p53": ("2**53.", with_step(str(2**53)), "above 9007199254740991"),
        "bad-integer-huge": ("100 digits.", with_step("9" * 100), "event: "),
        "bad-negative": ("A step below 0.", with_step("-1"), "negative"),
        "bad-boolean": ("true is no number.", with_step("true"), "int"),
    }


def _not_canonical() -> dict[str, bytes]:
    entry = event.encode(_event(step=7, facts={"a": 1, "b": 2}))
    moved = entry.replace(b'"actor":"ada@host",', b"")
    return {
        "loose-space": entry.replace(b'"step":7', b'"step": 7'),
        "loose-order": moved.replace(b'"id"', b'"actor":"ada@host","id"'),
        "loose-facts-order": entry.replace(b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        "loose-twice": entry.replace(b'"step":7', b'"step":8,"step":7'),
        "loose-facts-twice": entry.replace(b'{"a":1,"b":2}', b'{"a":0,"a":1,"b":2}'),
        "loose-default": entry.replace(b'"type"', b'"total":0,"type"'),
        "loose-null": entry.replace(b'"facts"', b'"data":null,"facts"'),
        "loose-minus-zero": entry.replace(b'"type"', b'"total":-0,"type"'),
        "loose-escape": entry.replace(b"ada", b"\\u0061da"),
        "loose-slash": entry.replace(b"ada", b"\\/da"),
        "loose-control": entry.replace(b"ada", b"\\nda"),
        "loose-control-behind": entry.replace(b"ada", b'\\\\\\"\\tda'),
    }


_RAW = b"some raw bytes"


def _record(**fields: Any) -> bytes:
    """Return a record's bytes, made without the encoder's checks."""
    made = {
        "digest": chunk.digest_of(chunk.LEAF, _RAW),
        "codec": 0,
        "flags": 0,
        "scheme": 0,
        "domain": 0,
        "key": 0,
        "raw_length": len(_RAW),
        "stored_length": len(_RAW),
    } | fields
    return struct.pack("<32sBBBBQII", *made.values()) + _RAW


def _delta(**fields: Any) -> bytes:
    """Return the bytes of a record with a base."""
    data = _record(**({"codec": 2, "flags": 2, "raw_length": 4096} | fields))
    return data[: chunk.HEADER_BYTES] + bytes(range(32)) + _RAW


def chunks() -> dict[str, Document]:
    """Vectors of the chunk record."""
    name = chunk.digest_of(chunk.NODE, _RAW)
    squeezed = chunk.Record(name, chunk.CODEC_ZSTD, 0, 0, chunk.NODE, 0, 4096, b"(zstd)")
    most = chunk.Record(bytes(32), chunk.CODEC_ZSTD, 0, 0, chunk.LEAF, 0, chunk.RAW_BYTES_MAX, b"z")
    return {
        "good-leaf": good("Bytes of a value.", _record(), chunk.decode(_record())),
        "good-node-zstd": good("A compressed node.", chunk.encode(squeezed), squeezed),
        "good-branch": good("A branch.", _record(domain=2), chunk.decode(_record(domain=2))),
        "good-dictionary": good(
            "Zstd with the dictionary.",
            _record(codec=3, raw_length=4096),
            chunk.decode(_record(codec=3, raw_length=4096)),
        ),
        "good-delta": good("A difference.", _delta(), chunk.decode(_delta())),
        "good-raw-most": good("The most raw bytes.", chunk.encode(most), most),
        **refusals(_no_chunks()),
    }


def _no_chunks() -> dict[str, Refusal]:
    leaf, over = _record(), chunk.RAW_BYTES_MAX + 1
    return {
        "bad-codec-2": ("Zstd with a base, without.", _record(codec=2), "codec 2 and flags 0x0"),
        "bad-delta-cut": ("Half a base.", _delta()[:70], "claims 14 bytes; -14"),
        "bad-codec-255": ("A codec of later.", _record(codec=255), "codec 255", UNSUPPORTED),
        "bad-delta": ("A base, and zstd without.", _delta(codec=1), "codec 1 and flags 0x2"),
        "bad-sealed": ("Encrypted.", _record(flags=1, key=5), "encryption", UNSUPPORTED),
        "bad-scheme": ("A keyed id.", _record(scheme=1), "id scheme 1", UNSUPPORTED),
        "bad-domain": ("No such domain.", _record(domain=3), "domain 3"),
        "bad-flag": ("No such flag.", _record(flags=4), "flags 0x4"),
        "bad-key": ("A key without a seal.", _record(key=1), "key 1"),
        "bad-raw-lengths": ("Raw, of two lengths.", _record(raw_length=13), "13 raw"),
        "bad-bomb": ("4 GiB raw.", _record(codec=1, raw_length=2**32 - 1), "limit"),
        "bad-raw-over": ("A byte too many.", _record(codec=1, raw_length=over), "limit"),
        "bad-stored-over": ("Stored, too many.", _record(stored_length=over), "limit"),
        "bad-cut": ("One byte is missing.", leaf[:-1], "claims 14 bytes; 13"),
        "bad-appended": ("One byte too many.", leaf + b"\x00", "claims 14 bytes; 15"),
        "bad-head": ("Half a header.", leaf[:51], "too short"),
        "bad-nothing": ("Nothing.", b"", "too short"),
    }


def branches() -> dict[str, Document]:
    """Vectors of the branch."""
    name = bytes(range(32))
    leaf, inner, raw = (branch.Link(kind, name, 300, 0) for kind in (1, 2, 3))
    items = branch.Link(branch.LEAF, name, 4096, 31)
    huge = branch.Link(branch.BRANCH, name, 2**63 - 1, 2**61 - 1)
    most = branch.Link(branch.LEAF, name, chunk.RAW_BYTES_MAX, 1)
    runs: dict[str, tuple[str, list[branch.Part]]] = {
        "good-list": ("A list: closed items, open items.", [b"[", items, b",1,2]"]),
        "good-string": ("A long string.", [b'{"a":"', leaf, inner, b'the end"}']),
        "good-bytes": ("Raw bytes as base64.", [b'{"$bytes":"', raw, b'"}']),
        "good-text": ("Text alone.", [b"x" * 200]),
        "good-most": ("The largest numbers.", [huge, most]),
    }
    made = {
        label: good(about, branch.encode(parts), parts) for label, (about, parts) in runs.items()
    }
    return made | refusals(_no_branches(name))


def _no_branches(name: bytes) -> dict[str, Refusal]:
    over = chunk.RAW_BYTES_MAX + 1
    return {
        "bad-nothing": ("Nothing.", b"", "no parts"),
        "bad-text-empty": ("A text of nothing.", b"\x00", "text of 0 bytes"),
        "bad-text-cut": ("Half a text.", b"\x0cab", "text of 3 bytes"),
        "bad-text-huge": ("2**61 bytes.", b"\xfc" + b"\xff" * 7 + b"\x7f" + b"a", "text of"),
        "bad-text-twice": ("Two texts in a row.", b"\x04a\x04b", "text of 1 bytes at 3"),
        "bad-link-cut": ("Half a digest.", b"\x05\x07" + name[:31], "link of 7 bytes"),
        "bad-link-no-size": ("No size.", b"\x05", "sound number"),
        "bad-link-size-0": ("A link to nothing.", b"\x05\x00" + name, "link of 0 bytes"),
        "bad-bytes-items": ("Bytes of one item.", b"\x07\x05" + name, "link of 5 bytes"),
        "bad-leaf-over": (
            "A leaf that is too long.",
            b"\x05"
            + bytes((over & 127 | 128, over >> 7 & 127 | 128, over >> 14 & 127 | 128))
            + bytes((over >> 21,))
            + name,
            "leaf of 4194305 bytes",
        ),
        "bad-number-long": ("A number of 10 bytes.", b"\xff" * 9 + b"\x01", "sound number"),
        "bad-number-zeros": ("A number with zeros in front.", b"\x84\x00a", "sound number"),
        "bad-number-cut": ("Half a number.", b"\x80", "sound number"),
    }


def nodes() -> dict[str, Document]:
    """Vectors of the node."""
    children = [node.Child(bytes([n]) * 32, 2048 + n) for n in range(3)]
    most = [node.Child(bytes([n]) * 32, 2**64 - 1) for n in range(node.FANOUT_MAX)]
    data = node.encode(1, children)
    return {
        "good-three": good("Three leaves.", data, (1, children)),
        "good-most": good("The most of all.", node.encode(8, most), (8, most)),
        **refusals(
            {
                "bad-nothing": ("Nothing.", b"", "malformed"),
                "bad-no-child": ("No child.", b"\x01", "malformed"),
                "bad-cut": ("Cut.", data[:-1], "malformed"),
                "bad-appended": ("Too long.", data + b"\x00", "malformed"),
                "bad-level-0": ("Level 0.", b"\x00" + data[1:], "level 0"),
                "bad-level-9": ("Level 9.", b"\x09" + data[1:], "level 9"),
                "bad-too-many": ("65 children.", data[:1] + data[1:41] * 65, "malformed"),
                "bad-size-0": ("A child of nothing.", data[:33] + bytes(8), "no bytes"),
            }
        ),
    }


_FIRST_FEATURES: Final = (
    "chunks-blake3",
    "chunks-fastcdc2020",
    "events-1",
    "log-1",
    "values-json1",
)
_TREE_FEATURES: Final = tuple(sorted((*_FIRST_FEATURES, "chunks-delta", store.TREES)))


_SETTLED_FEATURES: Final = tuple(name for name in store.FEATURES if name != store.LARGE)
_SHORT_FEATURES: Final = tuple(name for name in _SETTLED_FEATURES if name != store.SETTLED)


def stores() -> dict[str, Document]:
    """Vectors of store.json."""
    now = store.StoreInfo(created="2026-01-02T03:04:05.678901Z", id=STORE_ID.hex())
    # The vectors of older versions stay what they are.
    made = msgspec.structs.replace(now, features=_FIRST_FEATURES)
    data = store.encode(made)
    table: dict[str, Refusal] = {
        **_newer_stores(data),
        **_damaged_stores(data),
        "bad-cut": ("Cut.", data[:-3], "not JSON"),
        "bad-nothing": ("Nothing.", b"", "not JSON"),
        "bad-zeros": ("Zeros.", bytes(64), "not JSON"),
        "bad-utf8": ("Not UTF-8.", b"\xff" + data, "not JSON"),
        "bad-utf16": ("UTF-16.", data.decode().encode("utf-16"), "not JSON"),
    }
    documents = refusals(table, where="store.json")
    documents["good-plain"] = good("A new store.", data, made, where="store.json")
    for name, about, features in (
        ("good-trees", "A store with payload trees.", _TREE_FEATURES),
        ("good-short-events", "A store with events of schema 2.", _SHORT_FEATURES),
        ("good-settled", "A store with settled segments.", _SETTLED_FEATURES),
        ("good-large", "A store with payloads of more than 1 GiB.", store.FEATURES),
    ):
        made = msgspec.structs.replace(now, features=features)
        documents[name] = good(about, store.encode(made), made, where="store.json")
    return {name: as_text(document) for name, document in documents.items()}


def _changed(data: bytes, **changes: Any) -> bytes:
    """Return store.json with fields changed, or left out where the change is `...`."""
    fields = json.loads(data) | changes
    kept = {name: value for name, value in fields.items() if value is not ...}
    return json.dumps(kept, indent=2).encode()


def _cutting(data: bytes, **changes: Any) -> bytes:
    chunker = json.loads(data)["chunker"] | changes
    return _changed(data, chunker={k: v for k, v in chunker.items() if v is not ...})


def _newer_stores(data: bytes) -> dict[str, Refusal]:
    bare = b'{"kind": "ckptlog", "format": 2}'
    more = _changed(data, features=["log-1", "sealing-1", "deltas-1"])
    rabin, keyed = _cutting(data, algorithm="rabin"), _changed(data, id_scheme="keyed")
    return {
        "bad-format-2": ("Of later.", _changed(data, format=2), "format 2", UNSUPPORTED),
        "bad-format-2-bare": ("Of later, all else new.", bare, "format 2", UNSUPPORTED),
        "bad-features": ("Unknown features.", more, "know: deltas-1, sealing-1.", UNSUPPORTED),
        "bad-hash": ("Another hash.", _changed(data, hash="sha-256"), "'sha-256'", UNSUPPORTED),
        "bad-chunker": ("Another chunker.", rabin, "'rabin'", UNSUPPORTED),
        "bad-id-scheme": ("Keyed ids.", keyed, "'keyed'", UNSUPPORTED),
    }


def _damaged_stores(data: bytes) -> dict[str, Refusal]:
    shop = b'{"kind": "shop", "format": 9}'
    nested = _changed(data, features=[["log-1"]])
    return {
        "bad-other-program": ("Another program's.", shop, "not written by", FOREIGN),
        "bad-no-kind": ("No kind.", _changed(data, kind=...), "not written by", FOREIGN),
        "bad-list": ("A list.", b"[]", "not a JSON object"),
        "bad-no-features": ("No features.", _changed(data, features=...), "lacks features"),
        "bad-no-id": ("No id.", _changed(data, id=...), "lacks id"),
        "bad-no-chunker": ("No chunker.", _changed(data, chunker=...), "lacks chunker"),
        "bad-no-mean": ("No mean.", _cutting(data, mean=...), "lacks chunker.mean"),
        "bad-format-0": ("Format 0.", _changed(data, format=0), "format 0"),
        "bad-format-text": ("A number as text.", _changed(data, format="1"), "damaged"),
        "bad-features-text": ("Not a list.", _changed(data, features="log-1"), "no list of"),
        "bad-features-nested": ("A list in it.", nested, "no list of features"),
        "bad-id-short": ("A short id.", _changed(data, id="00"), "32 lower-case"),
        "bad-id-blank": ("Blanks.", _changed(data, id="00 " * 10 + "00"), "32 lower-case"),
        "bad-id-upper": ("Capitals.", _changed(data, id="AB" * 16), "32 lower-case"),
        "bad-sizes": ("Mean above max.", _cutting(data, mean=9000), "out of range"),
        "bad-sizes-huge": ("Huge chunks.", _cutting(data, max=2**40), "out of range"),
        "bad-sizes-tiny": ("Tiny chunks.", _cutting(data, min=1), "out of range"),
        "bad-normalization": ("No such.", _cutting(data, normalization=4), "out of range"),
        "bad-chunker-more": ("An unknown setting.", _cutting(data, seed=1), "damaged"),
    }
