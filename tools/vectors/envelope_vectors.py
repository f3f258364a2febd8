"""Vectors of what surrounds events and chunks: frame, segment, pack, published end."""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.formats import end, frame, pack, segment
from tools.vectors.vector import (
    LEAF,
    OTHER_STORE,
    PACK_ID,
    STORE_ID,
    UNSUPPORTED,
    Document,
    flipped,
    good,
    refusals,
)

NAME: Final = segment.segment_name(42, 1)
SEED: Final = frame.container_seed(STORE_ID, NAME)


def frames() -> dict[str, Document]:
    """Vectors of the frame."""
    here: Document = {"store_id": STORE_ID, "name": NAME, "offset": 108}
    body = b"a body of 24 bytes, \x00\xff\r\n"
    data = frame.encode(SEED, 108, frame.EVENT, frame.COMMIT, body)
    empty = frame.encode(SEED, 108, frame.CHUNK, 0, b"")
    first = frame.encode(SEED, 0, frame.SEGMENT, 0, b"\x01\x00")
    at_start = here | {"offset": 0}
    return {
        "good-commit": good("It ends a commit.", data, frame.decode(SEED, 108, data), **here),
        "good-empty": good("No body at all.", empty, frame.decode(SEED, 108, empty), **here),
        "good-first": good("At offset 0.", first, frame.decode(SEED, 0, first), **at_start),
        **_no_frames(data, here),
        **refusals({"bad-moved": ("At another offset.", data, "sum")}, **(here | {"offset": 109})),
        **refusals(
            {"bad-other-store": ("In another store.", data, "sum")},
            **(here | {"store_id": OTHER_STORE}),
        ),
        **refusals(
            {"bad-other-container": ("In another segment.", data, "sum")},
            **(here | {"name": segment.segment_name(42, 2)}),
        ),
    }


def _no_frames(data: bytes, here: Document) -> dict[str, Document]:
    over = data[:4] + struct.pack("<I", 128 * 1024 + 1) + data[8:]
    huge = data[:4] + b"\xff" * 4 + data[8:]
    return refusals(
        {
            "bad-zeros": ("Preallocated, not written.", bytes(16), "No frame begins"),
            "bad-magic": ("Not the magic.", flipped(data, 0), "No frame begins"),
            "bad-kind-0": ("No such kind.", flipped(data, 2, 2), "No frame begins"),
            "bad-kind-10": ("A kind of later.", flipped(data, 2, 8), "No frame begins"),
            "bad-flag": ("A flag of later.", flipped(data, 3, 2), "No frame begins"),
            "bad-length-over": ("More than an event may.", over, "No frame begins"),
            "bad-length-4g": ("Claims 4 GiB.", huge, "No frame begins"),
            "bad-cut": ("One byte is missing.", data[:-1], "claims 24 bytes; 23"),
            "bad-cut-header": ("Half a header.", data[:8], "No frame begins"),
            "bad-nothing": ("Nothing.", b"", "No frame begins"),
            "bad-checksum": ("A bit of the sum.", flipped(data, 8), "checksum"),
            "bad-body": ("A bit of the body.", flipped(data, 30), "checksum"),
            "bad-flag-taken": ("The commit flag taken away.", flipped(data, 3), "checksum"),
        },
        **here,
    )


def segments() -> dict[str, Document]:
    """Vectors of the segment's header."""
    here: Document = {"store_id": STORE_ID, "first": 42, "generation": 1}
    made = segment.SegmentHeader(STORE_ID, 42, 1, 17, 0, 4096, LEAF, 1_700_000_000_123_456)
    start = segment.SegmentHeader(STORE_ID, 0, 0, 0, 0, 0, bytes(32), 0)
    data, begin = segment.encode(made), segment.encode(start)
    other = segment.encode(msgspec.structs.replace(made, store_id=OTHER_STORE))
    return {
        "good-later": good("Follows another segment.", data, made, **here),
        "good-first": good(
            "The first of a log.", begin, start, store_id=STORE_ID, first=0, generation=0
        ),
        **_no_segments(data, made, here),
        **refusals({"bad-other-store": ("Another store's.", other, "checksum")}, **here),
        **refusals({"bad-renamed": ("Renamed.", data, "sum")}, **(here | {"generation": 2})),
    }


def _no_segments(data: bytes, made: segment.SegmentHeader, here: Document) -> dict[str, Document]:
    tail = data[frame.HEADER_BYTES + 4 :]
    lie = segment.encode(msgspec.structs.replace(made, first=43))[frame.HEADER_BYTES :]

    def header(version: int, reserved: int, tail: bytes) -> bytes:
        body = struct.pack("<HH", version, reserved) + tail
        return frame.encode(SEED, 0, frame.SEGMENT, 0, body)

    event = frame.encode(SEED, 0, frame.EVENT, 0, data[frame.HEADER_BYTES :])
    lying = frame.encode(SEED, 0, frame.SEGMENT, 0, lie)
    return refusals(
        {
            "bad-version-2": ("Of later.", header(2, 0, tail), "format 2", UNSUPPORTED),
            "bad-version-2-longer": (
                "Of later, and longer.",
                header(2, 0, tail + b"more"),
                "format 2",
                UNSUPPORTED,
            ),
            "bad-version-0": ("Version 0.", header(0, 0, tail), "version"),
            "bad-short": ("Too short.", header(1, 0, tail[:-1]), "length"),
            "bad-long": ("Too long.", header(1, 0, tail + b"\x00"), "length"),
            "bad-reserved": ("Reserved bytes.", header(1, 1, tail), "reserved"),
            "bad-kind": ("Another frame stands first.", event, "not its header"),
            "bad-lies": ("Names another first position.", lying, "does not match"),
            "bad-cut": ("Cut.", data[:-1], "claims 92 bytes"),
            "bad-zeros": ("Preallocated only.", bytes(108), "No frame begins"),
        },
        **here,
    )


PACK_NAME: Final = pack.pack_name(41, PACK_ID)
PACK_SEED: Final = pack.seed(STORE_ID, 41, PACK_ID)


def packs() -> dict[str, Document]:
    """Vectors of the pack's header, index and trailer; `part` says which."""
    return _pack_headers() | _pack_indexes() | _pack_trailers()


def _pack_headers() -> dict[str, Document]:
    here: Document = {"part": "header", "store_id": STORE_ID, "name": PACK_NAME}
    made = pack.PackHeader(STORE_ID, PACK_ID, 41)
    data = pack.encode_header(made)

    def header(version: int, reserved: int = 0, extra: bytes = b"") -> bytes:
        body = struct.pack("<HH", version, reserved) + data[frame.HEADER_BYTES + 4 :] + extra
        return frame.encode(PACK_SEED, 0, frame.PACK, 0, body)

    later, longer = header(2), header(2, 0, b"more")
    renamed = here | {"name": pack.pack_name(40, PACK_ID)}
    return {
        "good-header": good("A pack's header.", data, made, **here),
        **refusals(
            {
                "bad-header-version-2": ("Of later.", later, "format 2", UNSUPPORTED),
                "bad-header-version-2-longer": ("Longer.", longer, "format 2", UNSUPPORTED),
                "bad-header-version-0": ("Version 0.", header(0), "version"),
                "bad-header-long": ("Too long.", header(1, 0, b"\x00"), "length"),
                "bad-header-reserved": ("Reserved bytes.", header(1, 1), "does not match"),
            },
            **here,
        ),
        **refusals({"bad-header-renamed": ("Renamed.", data, "sum")}, **renamed),
        **refusals(
            {"bad-header-name": ("No pack's name.", data, "not the name")},
            **(here | {"name": "x.pack"}),
        ),
        **refusals(
            {"bad-header-other-store": ("Another store's.", data, "sum")},
            **(here | {"store_id": OTHER_STORE}),
        ),
    }


def _three_chunks() -> tuple[list[pack.PackedChunk], bytes, bytes]:
    rows = [pack.PackedChunk(bytes([n]) * 32, 60 + 100 * n, 100) for n in range(3)]
    both = pack.encode_index(PACK_SEED, 360, rows)
    return rows, both[: -pack.TRAILER_FRAME_BYTES], both[-pack.TRAILER_FRAME_BYTES :]


def _pack_indexes() -> dict[str, Document]:
    here: Document = {"part": "index", "store_id": STORE_ID, "name": PACK_NAME, "offset": 360}
    rows, index, _ = _three_chunks()

    def lines(*entries: tuple[bytes, int, int], rest: bytes = b"") -> bytes:
        body = b"".join(struct.pack("<32sQI", *entry) for entry in entries) + rest
        return frame.encode(PACK_SEED, 360, frame.PACK_INDEX, 0, body)

    low, high = (bytes(32), 60, 100), (b"\x01" * 32, 160, 100)
    return {
        "good-index": good("Three chunks.", index, rows, **here),
        "good-index-empty": good("No chunk.", lines(), [], **here),
        **refusals(
            {
                "bad-index-unsorted": ("Unsorted.", lines(high, low), "not sorted"),
                "bad-index-twice": ("A chunk twice.", lines(low, low), "twice"),
                "bad-index-outside": ("Beyond.", lines((bytes(32), 300, 61)), "outside"),
                "bad-index-far": ("Far.", lines((bytes(32), 2**64 - 1, 2**32 - 1)), "outside"),
                "bad-index-in-header": ("Header.", lines((bytes(32), 59, 9)), "outside"),
                "bad-index-ragged": ("Half a line.", lines(low, rest=b"ab"), "malformed"),
            },
            **here,
        ),
        **refusals({"bad-index-moved": ("Moved.", index, "sum")}, **(here | {"offset": 361})),
    }


def _pack_trailers() -> dict[str, Document]:
    here: Document = {"part": "trailer", "store_id": STORE_ID, "name": PACK_NAME}
    _, index, trailer = _three_chunks()
    size = 360 + len(index) + len(trailer)

    def ending(offset: int, count: int) -> bytes:
        body = struct.pack("<QQ", offset, count)
        return frame.encode(PACK_SEED, size - 32, frame.PACK_TRAILER, 0, body)

    return {
        "good-trailer": good("Of an index of three.", trailer, (360, 3), size=size, **here),
        **refusals(
            {
                "bad-trailer-count": ("A count too high.", ending(360, 4), "agree"),
                "bad-trailer-hostile": ("Claims 2**64 - 1.", ending(360, 2**64 - 1), "agree"),
                "bad-trailer-offset": ("An offset beyond.", ending(2**64 - 1, 3), "agree"),
            },
            size=size,
            **here,
        ),
        **refusals({"bad-trailer-cut": ("A file cut.", trailer, "sum")}, size=size - 1, **here),
        **refusals({"bad-trailer-tiny": ("Too short.", trailer, "short")}, size=31, **here),
    }


def ends() -> dict[str, Document]:
    """Vectors of the published end."""
    made = end.End(STORE_ID, 43, 42, 1, 4096, LEAF, PACK_ID)
    start = end.End(STORE_ID, 0, 0, 0, 108, bytes(32), bytes(16))
    data, begin = end.encode(made), end.encode(start)

    def sealed(at: int, with_: bytes) -> bytes:
        fields = data[:at] + with_ + data[at + len(with_) : -8]
        return fields + struct.pack("<Q", xxh3_64_intdigest(fields))

    return {
        "good-later": good("After event 42.", data, made, store_id=STORE_ID),
        "good-empty-log": good("An empty log.", begin, start, store_id=STORE_ID),
        **refusals(
            {
                "bad-magic": ("Another version.", sealed(7, b"2"), "magic"),
                "bad-cut": ("Cut.", data[:-1], "128 bytes"),
                "bad-appended": ("Too long.", data + b"\x00", "128 bytes"),
                "bad-nothing": ("Nothing.", b"", "128 bytes"),
                "bad-zeros": ("Zeros.", bytes(128), "magic"),
                "bad-torn": ("Half old, half new.", data[:64] + begin[64:], "checksum"),
                "bad-checksum": ("A bit of the sum.", flipped(data, 127), "checksum"),
                "bad-reserved-44": ("Reserved bytes.", sealed(44, b"\x01"), "reserved"),
                "bad-reserved-119": ("Reserved bytes.", sealed(119, b"\x01"), "reserved"),
            },
            store_id=STORE_ID,
        ),
        **refusals(
            {"bad-other-store": ("Another store's.", data, "another store")}, store_id=OTHER_STORE
        ),
    }
