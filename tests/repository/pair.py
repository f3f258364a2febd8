"""Two stores of one id, written or settled: what one has lost, the other may have."""

from __future__ import annotations

import random
from pathlib import Path

import ckptlog
from ckptlog.formats import event, frame, segment, settled
from ckptlog.formats.segment import SegmentHeader
from ckptlog.log.log import Log
from ckptlog.log.settling import settled_bytes
from ckptlog.repository.compaction import CollectOptions
from ckptlog.repository.layout import read_info
from ckptlog.repository.notary import Notary
from ckptlog.repository.settled_salvage import SettledRows, WrittenRows
from tests.repository.ruin import leaves_of

EVERYTHING = CollectOptions(garbage_min=0, seal_bytes_min=0)
SEGMENT_BYTES, BLOCK_BYTES = 6000, 600


def grow(
    root: Path, word: str, count: int, *, kind: str = "written", has_data: bool = True
) -> None:
    """Add checkpoints, without a chunk between them if they have no data; settle if that is the kind.

    Whatever the word is, if only as long, their events and chunks stand at the same places.
    """
    defaults = Log.__init__.__kwdefaults__
    assert defaults is not None
    before = defaults["segment_bytes"]
    defaults["segment_bytes"] = SEGMENT_BYTES
    try:
        with ckptlog.CheckpointManager(root, actor="tester") as manager:
            for number in range(count):
                data = has_data and {
                    "n": number,
                    "of": random.Random(f"{word}{number}").randbytes(4).hex(),
                }
                given = {"data": data} if data else {}
                name = f"{word}{number:03d}"
                manager.create_checkpoint("t", "T", 1, "s", checkpoint_id=name, **given)
            if kind == "settled":
                manager.store.compact(EVERYTHING)
    finally:
        defaults["segment_bytes"] = before


def sign(root: Path) -> None:
    with ckptlog.CheckpointManager(root, actor="tester") as manager:
        Notary(manager.store).sign()


def leaves_now(root: Path) -> list[bytes]:
    with ckptlog.open(root, read_only=True) as store:
        return leaves_of(store)


def segments_of(root: Path) -> list[Path]:
    return sorted(root.glob("log/*.s?[gt]"))


def name_of(path: Path) -> tuple[int, int]:
    name = (segment.parse_name if path.suffix == ".seg" else settled.parse_name)(path.name)
    assert name is not None
    return name


def rows_of(root: Path, path: Path) -> SettledRows | WrittenRows:
    kind = WrittenRows if path.suffix == ".seg" else SettledRows
    return kind(read_info(root).id_bytes, name_of(path), path.read_bytes())


def holder_of(root: Path, position: int) -> Path:
    """Return the segment with an event."""
    return [path for path in segments_of(root) if name_of(path)[0] <= position][-1]


def blot(path: Path, begin: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(begin + 4)
        file.write(random.Random(begin).randbytes(length))


def blot_header(path: Path) -> None:
    blot(path, 0, 60)


def lose(root: Path, positions: list[int]) -> list[int]:
    """Spoil the frames of events, or the blocks that they are in; return what is lost by it."""
    lost: set[int] = set()
    for position in positions:
        if position in lost:
            continue
        path = holder_of(root, position)
        if path.suffix == ".seg":
            piece = rows_of(root, path).known[position].piece
            blot(path, piece.offset, 56)
            lost.add(position)
            continue
        place = settled.seed(read_info(root).id_bytes, *name_of(path))
        data = path.read_bytes()
        for kind, _, begin, end in frame.walk(place, 0, data):
            if kind == frame.BLOCK:
                rows = settled.body_rows(data[begin + frame.HEADER_BYTES : end])
                here = [event.decode_prefix(row.data[frame.HEADER_BYTES :])[0] for row in rows]
                if position in here:
                    blot(path, begin, 56)
                    lost.update(here)
    return sorted(lost)


def forge(root: Path, position: int, old: bytes, new: bytes) -> None:
    """Put other bytes into an event, with checksums that hold."""
    assert len(old) == len(new)
    path = holder_of(root, position)
    rows, name = rows_of(root, path), name_of(path)
    row = rows.known[position].row
    body = row.data[frame.HEADER_BYTES :]
    assert old in body
    entry = body[event.PREFIX_BYTES :].replace(old, new)
    seed = segment.seed(read_info(root).id_bytes, *name)
    other = event.encode_body(position, row.offset, entry)
    framed = frame.encode(seed, row.offset, frame.EVENT, row.data[3], other)
    data = path.read_bytes()
    if path.suffix == ".seg":
        path.write_bytes(data[: row.offset] + framed + data[row.offset + len(framed) :])
        return
    put = row._replace(data=framed)
    all_rows = [put if at == position else rows.known[at].row for at in sorted(rows.known)]
    assert rows.header is not None
    assert rows.trailer is not None
    path.write_bytes(settled_bytes(rows.header, all_rows, rows.trailer.valid_length))


def put_header(path: Path, header: SegmentHeader) -> None:
    data = path.read_bytes()
    new = segment.encode(header) if path.suffix == ".seg" else settled.encode_header(header)
    path.write_bytes(new + data[len(new) :])
