"""Making runs: a sorted list becomes one, and several become one without being held in memory.

A merge goes through the keys in parts, so that its memory does not grow with the index. Runs are
written under a temporary name and renamed; they are not synced, since a torn one does not check
and is made again from the log (specs/index.md).
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.blobs.run import (
    BITS_MAX,
    BLOCK_ENTRIES,
    ENTRY,
    ENTRY_BYTES,
    KEY_BYTES,
    Footer,
    Mark,
    Run,
    encode_footer,
    encode_head,
    little_endian,
    open_run,
    run_name,
    sum_block,
)
from ckptlog.errors import operating_system_door
from ckptlog.formats import frame
from ckptlog.model.entry import Placement
from ckptlog.storage import files

_BUCKET_ENTRIES: Final = 16
_BLOCK_BYTES: Final = BLOCK_ENTRIES * ENTRY_BYTES
# A part of a merge has the entries of 2**11 buckets, some 32,000.
_PART_BITS: Final = 11


class Stretch(NamedTuple):
    """Log positions that a run covers: from start up to mark."""

    start: int
    mark: Mark


def write_run(
    folder: Path | None, store_id: bytes, start: int, mark: Mark, placements: Iterable[Placement]
) -> Run:
    """Return a new run of placements, each digest once, in a folder or in memory.

    Raises:
        CheckpointStorageError: The file cannot be written; nothing is left of it.

    Durability: none; the index is disposable, and a torn run does not check.
    """
    numbers: dict[str, int] = {mark.container: 0}
    entries = [
        ENTRY.pack(
            place.digest,
            numbers.setdefault(place.container, len(numbers)),
            place.offset,
            place.length,
        )
        for place in placements
    ]
    return write_entries(folder, store_id, Stretch(start, mark), numbers, entries)


def write_entries(
    folder: Path | None,
    store_id: bytes,
    stretch: Stretch,
    names: Iterable[str],
    entries: Iterable[bytes],
) -> Run:
    """Do as `write_run`, with entries that are packed already; names are in their numbers' order.

    Raises:
        CheckpointStorageError: The file cannot be written; nothing is left of it.
    """
    found = sorted(entries)
    plan = _Plan(store_id, stretch.start, stretch.mark, list(names), len(found))
    return _make(folder, plan, [(0, 1 << 32, found)])


def merge_runs(
    folder: Path | None, store_id: bytes, runs: Sequence[Run], stretch: Stretch | None = None
) -> Run:
    """Return one run that says what neighbouring runs say; where they differ, the last wins.

    Args:
        stretch: What it covers, where that is not what they cover.

    Raises:
        FormatError: A run is damaged.
        CheckpointStorageError: As `write_run`.

    Cost: some 0.6 us an entry; memory for some 32,000 entries and 64-byte sums at a time.
    """
    start, mark = stretch or (runs[0].start, runs[-1].mark)
    numbers = {name: number for number, name in enumerate(runs[0].names)}
    names = chain.from_iterable(run.names for run in runs[1:])
    for name in chain(names, (mark.container,)):
        numbers.setdefault(name, len(numbers))
    plan = _Plan(store_id, start, mark, list(numbers), sum(run.count for run in runs))
    return _make(folder, plan, _merged(runs, numbers, plan.bits))


class _Plan(NamedTuple):
    """What is known of a run before its entries are written."""

    store_id: bytes
    start: int
    mark: Mark
    names: list[str]
    count_max: int

    @property
    def name(self) -> str:
        return run_name(self.start, self.mark.position)

    @property
    def bits(self) -> int:
        return min((self.count_max // _BUCKET_ENTRIES).bit_length(), BITS_MAX)


# A stretch of keys (first 32 bits: from, to) and every entry in it, sorted.
_Part = tuple[int, int, list[bytes]]


def _merged(runs: Sequence[Run], numbers: dict[str, int], bits: int) -> Iterator[_Part]:
    parts = 1 << max(0, bits - _PART_BITS)
    width = (1 << 32) // parts
    tables = [_renumbering(run, numbers) for run in runs]
    for key_first in range(0, 1 << 32, width):
        newest: dict[bytes, bytes] = {}
        for run, table in zip(runs, tables, strict=True):
            for entry in run.entries(key_first, key_first + width):
                newest[entry[:KEY_BYTES]] = (
                    entry[:16] + table[entry[16:20]] + entry[20:] if table else entry
                )
        yield key_first, key_first + width, sorted(newest.values())


def _renumbering(run: Run, numbers: dict[str, int]) -> dict[bytes, bytes]:
    """Return the new number of each old one, as bytes; empty where they stay what they are."""
    pairs = [(old, numbers[name]) for old, name in enumerate(run.names)]
    if all(old == new for old, new in pairs):
        return {}
    return {old.to_bytes(4, "little"): new.to_bytes(4, "little") for old, new in pairs}


def _make(folder: Path | None, plan: _Plan, parts: Iterable[_Part]) -> Run:
    if folder is None:
        memory = BytesIO()
        _write(memory, plan, parts)
        return Run(plan.name, plan.store_id, memory.getvalue())
    path = folder / plan.name
    fd, temporary = files.create_temporary(path)
    try:
        with (
            operating_system_door("Cannot write a run of the chunk index"),
            os.fdopen(fd, "wb", buffering=256 * 1024) as out,
        ):
            _write(out, plan, parts)
            out.flush()
            files.publish(temporary, path, durable=False)
    except BaseException:
        files.remove(temporary)
        raise
    return open_run(path, plan.store_id)


def _write(out: BinaryIO, plan: _Plan, parts: Iterable[_Part]) -> None:
    seed = frame.container_seed(plan.store_id, plan.name)
    out.write(encode_head(plan.store_id))
    buckets, sums, count, rest = array("I"), array("Q"), 0, b""
    for key_first, key_stop, entries in parts:
        buckets.extend(_bucket_starts(entries, key_first, key_stop, plan.bits, count))
        count += len(entries)
        data = b"".join(entries)
        out.write(data)
        rest = _sum_blocks(rest + data, seed, sums)
    if rest:
        sums.append(sum_block(rest, seed, len(sums)))
    buckets.append(count)
    names = msgspec.json.encode(plan.names)
    directory = little_endian(buckets).tobytes() + little_endian(sums).tobytes() + names
    out.write(directory)
    out.write(encode_footer(_footer(plan, len(names), count, directory, seed), seed))


def _footer(plan: _Plan, names_bytes: int, count: int, directory: bytes, seed: int) -> Footer:
    position, container, offset_end, leaf = plan.mark
    return Footer(
        bits=plan.bits,
        names_bytes=names_bytes,
        store_id=plan.store_id,
        start=plan.start,
        stop=position,
        entries=count,
        directory_sum=xxh3_64_intdigest(directory, seed),
        container=plan.names.index(container),
        offset_end=offset_end,
        leaf=leaf,
    )


def _bucket_starts(
    entries: list[bytes], key_first: int, key_stop: int, bits: int, before: int
) -> Iterator[int]:
    at = 0
    for key in range(key_first, key_stop, 1 << (32 - bits)):
        at = bisect_left(entries, key.to_bytes(4, "big"), at)
        yield before + at


def _sum_blocks(data: bytes, seed: int, sums: array[int]) -> bytes:
    """Sum the whole blocks of data and return what is left."""
    whole = len(data) - len(data) % _BLOCK_BYTES
    for at in range(0, whole, _BLOCK_BYTES):
        sums.append(sum_block(data[at : at + _BLOCK_BYTES], seed, len(sums)))
    return data[whole:]
