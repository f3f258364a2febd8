"""Vectors of the settled segment: its header, a block, the index, the trailer.

The zstd frames in here are written by hand and not compressed: another version of the library
compresses to other bytes, and what a reader must understand does not depend on it.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from ckptlog.formats import event, frame, segment, settled
from ckptlog.formats.settled import Line, Row
from ckptlog.model.event import Event, Subject
from tools.vectors.vector import (
    LEAF,
    OTHER_STORE,
    STORE_ID,
    UNSUPPORTED,
    Document,
    bad,
    flipped,
    good,
    refusals,
)

FIRST: Final = 42
GENERATION: Final = 1
SEED: Final = settled.seed(STORE_ID, FIRST, GENERATION)
HERE: Final[Document] = {"store_id": STORE_ID, "first": FIRST, "generation": GENERATION}
HEADER: Final = segment.SegmentHeader(
    STORE_ID, FIRST, GENERATION, 17, 0, 4096, LEAF, 1_700_000_000_123_456
)
START: Final = segment.HEADER_FRAME_BYTES
_ROW: Final = struct.Struct("<IIIQ")


def settled_segments() -> dict[str, Document]:
    """Vectors of all parts; `part` says which."""
    return _headers() | _blocks() | _indexes() | _trailers()


def stored(raw: bytes, claims: int | None = None) -> bytes:
    """Return a zstd frame that holds up to 128 KiB as they are, and claims a length."""
    size = len(raw) if claims is None else claims
    head = b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", size)
    return head + (len(raw) << 3 | 1).to_bytes(3, "little") + raw


def rows() -> list[Row]:
    """Two events, chunks in front of the second."""
    at, place, found = START, segment.seed(STORE_ID, FIRST, GENERATION), []
    for number, (gap, chunks, raw_bytes) in enumerate([(0, 0, 0), (300, 2, 5000)]):
        one = Event(
            actor="ada",
            id=f"event-{number}",
            schema=1,
            subject=Subject(),
            time="2026-01-02T03:04:05.678901Z",
            type="cleanup.finished",
        )
        body = event.encode_body(FIRST + number, 0, event.encode(one))
        at += gap
        data = frame.encode(place, at, frame.EVENT, frame.COMMIT, body)
        found.append(Row(at, data, chunks, raw_bytes))
        at += len(data)
    return found


def block(
    made: list[Row],
    *,
    size: int | None = None,
    count: int | None = None,
    zstd: bytes | None = None,
    gaps: tuple[int, ...] = (),
) -> bytes:
    """Return a block's frame, to stand behind the header, that may lie."""
    at, table, data = START, b"", b""
    for number, row in enumerate(made):
        gap = gaps[number] if gaps else row.offset - at
        table += _ROW.pack(gap, len(row.data), row.chunks, row.raw_bytes)
        data += row.data
        at = row.offset + len(row.data)
    raw = table + data
    head = struct.pack(
        "<QQII",
        START,
        at,
        len(made) if count is None else count,
        len(raw) if size is None else size,
    )
    packed = stored(raw) if zstd is None else zstd
    return frame.encode(SEED, START, frame.BLOCK, 0, head + packed)


def _headers() -> dict[str, Document]:
    here = {"part": "header"} | HERE
    data = settled.encode_header(HEADER)
    newer = frame.encode(SEED, 0, frame.SEGMENT, 0, b"\x02\x00" + data[frame.HEADER_BYTES + 2 :])
    other = settled.encode_header(msgspec.structs.replace(HEADER, store_id=OTHER_STORE))
    return {
        "good-header": good("A settled segment's header.", data, HEADER, **here),
        **refusals(
            {
                "bad-header-written": ("The written one's.", segment.encode(HEADER), "checksum"),
                "bad-header-version-2": ("Of later.", newer, "format 2", UNSUPPORTED),
                "bad-header-other-store": ("Another store's.", other, "checksum"),
            },
            **here,
        ),
        **refusals({"bad-header-renamed": ("Renamed.", data, "sum")}, **(here | {"first": 43})),
    }


def _blocks() -> dict[str, Document]:
    made = rows()
    data = block(made)
    stop = made[-1].offset + len(made[-1].data)
    line = Line(START, stop, START, len(data))
    here = {"part": "block", "line": line} | HERE

    def refuse(about: str, lie: bytes, says: str) -> Document:
        context = here | {"line": line._replace(length=len(lie))}
        return bad(about, lie, says, context=context)

    raw = b"".join(_ROW.pack(0, len(row.data), 0, 0) for row in made)
    raw += b"".join(row.data for row in made)
    return {
        "good-block": good("Two events.", data, made, **here),
        "bad-block-size": refuse("One byte more.", block(made, size=len(raw) + 1), "length"),
        "bad-block-huge": refuse("Claims 4 GiB.", block(made, size=2**32 - 1), "index"),
        "bad-block-count": refuse("2**32 - 1 events.", block(made, count=2**32 - 1), "length"),
        "bad-block-none": refuse("No event.", block(made, count=0), "fill"),
        "bad-block-one": refuse("One event is not in the table.", block(made, count=1), "fill"),
        "bad-block-gap": refuse("A gap too long.", block(made, gaps=(0, 301)), "fill"),
        "bad-block-zstd": refuse("No zstd.", block(made, zstd=b"no zstd"), "decompressed"),
        "bad-block-bomb": refuse(
            "zstd claims 1 TiB.", block(made, zstd=stored(raw, 2**40)), "decompressed"
        ),
        "bad-block-behind": refuse(
            "Something stands behind.", block(made, zstd=stored(raw) + b"x"), "decompressed"
        ),
        "bad-block-kind": refuse(
            "Another frame.",
            frame.encode(SEED, START, frame.EVENT, 0, data[frame.HEADER_BYTES :]),
            "Another frame",
        ),
        "bad-block-short": refuse(
            "Too short.", frame.encode(SEED, START, frame.BLOCK, 0, bytes(23)), "short"
        ),
        "bad-block-flip": refuse("A bit.", flipped(data, 60), "checksum"),
        "bad-block-elsewhere": bad(
            "The index says another stretch.",
            data,
            "index",
            context=here | {"line": line._replace(stop=stop + 1)},
        ),
    }


def _indexes() -> dict[str, Document]:
    first, second = Line(START, 500, START, 200), Line(500, 4096, START + 200, 100)
    at = START + 300
    here = {"part": "index", "trailer": (at, 2, 4096, 9)} | HERE

    def lines(*made: Line) -> bytes:
        body = b"".join(struct.pack("<QQQI", *line) for line in made)
        return frame.encode(SEED, at, frame.BLOCK_INDEX, 0, body)

    data = lines(first, second)
    return {
        "good-index": good("Two blocks.", data, [first, second], **here),
        **refusals(
            {
                "bad-index-gap": ("A gap.", lines(first, second._replace(start=501)), "follow"),
                "bad-index-swap": ("In another order.", lines(second, first), "follow"),
                "bad-index-empty": (
                    "A block of nothing.",
                    lines(first._replace(stop=START), second._replace(start=START)),
                    "follow",
                ),
                "bad-index-beyond": ("Beyond.", lines(first, second._replace(stop=4097)), "follow"),
                "bad-index-behind": ("Not all.", lines(first, second._replace(stop=4095)), "fill"),
                "bad-index-bytes": (
                    "Overlapping bytes.",
                    lines(first, second._replace(offset=START)),
                    "other bytes",
                ),
                "bad-index-length": (
                    "A block without body.",
                    lines(first, second._replace(length=16)),
                    "other bytes",
                ),
                "bad-index-reach": (
                    "A block that reaches into the index.",
                    lines(first, second._replace(length=101)),
                    "fill",
                ),
                "bad-index-one": ("One line is missing.", lines(first), "malformed"),
            },
            **here,
        ),
    }


def _trailers() -> dict[str, Document]:
    size = 1000
    index_at = size - settled.TRAILER_FRAME_BYTES - frame.HEADER_BYTES - 2 * 28
    here = {"part": "trailer", "size": size} | HERE

    def ending(*fields: int, kind: int = frame.BLOCK_TRAILER, rest: bytes = b"") -> bytes:
        body = struct.pack("<QQQQ", *fields) + rest
        return frame.encode(SEED, size - settled.TRAILER_FRAME_BYTES, kind, 0, body)

    data = ending(index_at, 2, 4096, 9)
    return {
        "good-trailer": good("Of two blocks.", data, (index_at, 2, 4096, 9), **here),
        **refusals(
            {
                "bad-trailer-lines": ("A line more.", ending(index_at, 3, 4096, 9), "agree"),
                "bad-trailer-hostile": (
                    "2**64 - 1 lines.",
                    ending(index_at, 2**64 - 1, 4096, 9),
                    "agree",
                ),
                "bad-trailer-offset": ("Far.", ending(2**64 - 1, 2, 4096, 9), "agree"),
                "bad-trailer-kind": (
                    "Another frame.",
                    ending(index_at, 2, 4096, 9, kind=frame.BLOCK_INDEX),
                    "not its trailer",
                ),
                "bad-trailer-long": (
                    "Too long.",
                    ending(index_at, 2, 4096, 9, rest=b"x"),
                    "not its trailer",
                ),
            },
            **here,
        ),
        **refusals({"bad-trailer-cut": ("A file cut.", data, "sum")}, **(here | {"size": 999})),
        **refusals({"bad-trailer-tiny": ("Too short.", data, "short")}, **(here | {"size": 47})),
    }
