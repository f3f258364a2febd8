"""The run: one immutable, sorted stretch of the chunk index, in a file or in memory.

    offset  size      field
    0       32        head: magic "CKRUN" + 3 zeros, version (u16), 6 zeros, store id (16)
    32      32*n      entries, sorted by key: first 16 bytes of the digest, number of the
                      container's name (u32), offset (u64), length (u32) of the chunk's frame
    ..      4*(2^b+1) buckets (u32): entries before those whose key begins with these b bits
    ..      8*m       sums: xxh3-64 of each block of 128 entries, seeded with seed + block number
    ..      k         names of containers, a JSON array
    ..      128       footer (see Footer), its last 8 bytes its own xxh3-64

Little-endian; the seed is that of a container with the run's file name (specs/index.md).

Why it looks so: keys are uniform, so the first bits lead to some 16 entries, which one search of
C speed goes through. The footer and everything between entries and it are checked when a run is
opened; a block of entries when it is first touched, so that opening does not read the whole file.
A wrong answer does no harm in any case: who reads a chunk checks its digest.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.errors import FormatError, operating_system_door
from ckptlog.formats import frame
from ckptlog.kernel import native
from ckptlog.model.entry import Placement

KEY_BYTES: Final = 16
NOWHERE: Final = -1
SUFFIX: Final = ".run"

_MAGIC: Final = b"CKRUN\0\0\0"
_VERSION: Final = 1
_HEAD = struct.Struct("<8sH6x16s")
HEAD_BYTES: Final = _HEAD.size
ENTRY = struct.Struct("<16sIQI")
ENTRY_BYTES: Final = ENTRY.size
# magic, version, then the fields of Footer; its own sum follows.
_FOOTER = struct.Struct("<8sHHI16sQQQQI4xQ32s8x")
_SUM = struct.Struct("<Q")
_FOOTER_BYTES: Final = _FOOTER.size + _SUM.size
_SUM64: Final = (1 << 64) - 1

BLOCK_ENTRIES: Final = 128
# 4 million buckets serve 64 million chunks and cost 16 MB of memory; above, buckets get longer.
BITS_MAX: Final = 22


class Mark(NamedTuple):
    """A boundary between commits: the log position, and where in the log it lies.

    leaf: RFC 6962 leaf hash of the event before position, 32 bytes.
    """

    position: int
    container: str
    offset_end: int
    leaf: bytes


class Footer(NamedTuple):
    """What the end of a run says.

    bits: Of a key, that name its bucket.
    names_bytes: Length of the names.
    start, stop: Log positions that the run covers.
    entries: How many there are.
    directory_sum: xxh3-64 of all that stands between the entries and the footer.
    container, offset_end, leaf: Where in the log `stop` lies; the container by its number.
    """

    bits: int
    names_bytes: int
    store_id: bytes
    start: int
    stop: int
    entries: int
    directory_sum: int
    container: int
    offset_end: int
    leaf: bytes


def run_name(start: int, stop: int) -> str:
    """Return the file name of the run over log positions [start, stop)."""
    return f"{start:020d}-{stop:020d}{SUFFIX}"


class Run:
    """One run, checked as far as its directory.

    Attributes:
        name: Its file name, whether or not a file is there.
        start: First log position that it covers.
        mark: Where it ends.
        count: Entries.
        path: Its file; None for a run in memory.

    Threads: safe; immutable.
    """

    def __init__(
        self, name: str, store_id: bytes, data: bytes | mmap.mmap, path: Path | None = None
    ) -> None:
        self.name = name
        self.path = path
        self._data = data
        self._seed = frame.container_seed(store_id, name)
        footer = _checked_footer(data, store_id, self._seed)
        self.start, self.count = footer.start, footer.entries
        self._directory(footer)
        self._shift = 32 - footer.bits
        place = self._name_of(footer.container)
        self.mark = Mark(footer.stop, place, footer.offset_end, footer.leaf)
        if run_name(footer.start, footer.stop) != name or footer.start > footer.stop:
            raise FormatError(f"The run {name} holds another range.")

    def _directory(self, footer: Footer) -> None:
        blocks = -(-self.count // BLOCK_ENTRIES)
        begin = HEAD_BYTES + self.count * ENTRY_BYTES
        sums_begin = begin + 4 * ((1 << min(footer.bits, 32)) + 1)
        names_begin = sums_begin + 8 * blocks
        end = names_begin + footer.names_bytes
        if footer.bits > BITS_MAX or end + _FOOTER_BYTES != len(self._data):
            raise FormatError(f"The run {self.name} does not have the length that it claims.")
        directory = self._data[begin:end]
        if xxh3_64_intdigest(directory, self._seed) != footer.directory_sum:
            raise FormatError(f"The directory of the run {self.name} is damaged.")
        self._buckets = _array("I", directory[: sums_begin - begin])
        self._sums = _array("Q", directory[sums_begin - begin : names_begin - begin])
        self._is_checked = bytearray(blocks)
        self.names = _names(directory[names_begin - begin :])

    def find(self, digest: bytes) -> Placement | None:
        """Return where a chunk lies.

        Raises:
            FormatError: The block of entries that would say it is damaged.
        """
        at = self._place(digest)
        if at < 0:
            return None
        _, number, offset, length = ENTRY.unpack_from(self._data, at)
        return Placement(digest, self._name_of(number), offset, length)

    def _place(self, digest: bytes) -> int:
        """Do as `_place_of`, in C where what it takes was checked before."""
        if native is not None:
            place = native.place_in_run(
                self._data, self._buckets, self._is_checked, self._shift, self.count, digest
            )
            if place >= 0:
                return HEAD_BYTES + place * ENTRY_BYTES
            if place == NOWHERE:
                return NOWHERE
        return self._place_of(digest)

    def _place_of(self, digest: bytes) -> int:
        """Return where an entry begins; NOWHERE where there is none."""
        bucket = int.from_bytes(digest[:4], "big") >> self._shift
        first, stop = self._buckets[bucket], min(self._buckets[bucket + 1], self.count)
        if first >= stop:
            return NOWHERE
        checked = self._is_checked
        if not (checked[first // BLOCK_ENTRIES] and checked[(stop - 1) // BLOCK_ENTRIES]):
            self._check(first, stop)
        key, end = digest[:KEY_BYTES], HEAD_BYTES + stop * ENTRY_BYTES
        at = self._data.find(key, HEAD_BYTES + first * ENTRY_BYTES, end)
        while at >= 0 and at % ENTRY_BYTES:  # the key's bytes across two entries
            at = self._data.find(key, at + 1, end)
        return at

    def among(self, digests: Iterable[bytes], met: bytearray | None = None) -> set[bytes]:
        """Return those of some digests that are here.

        Args:
            met: Takes a 1 for each entry that was found, by its number.

        Raises:
            FormatError: As `find`.
        """
        buckets, shift, last, data = self._buckets, self._shift, self.count, self._data
        checked, look = self._is_checked, data.find
        number_of = int.from_bytes
        found: set[bytes] = set()
        for digest in digests:
            bucket = number_of(digest[:4], "big") >> shift
            first, stop = buckets[bucket], buckets[bucket + 1]
            if first >= stop or stop > last:
                if first < last < stop and self.find(digest) is not None:
                    found.add(digest)  # never in a sound run, so not noted
                continue
            if not (checked[first // BLOCK_ENTRIES] and checked[(stop - 1) // BLOCK_ENTRIES]):
                self._check(first, stop)
            key, end = digest[:KEY_BYTES], HEAD_BYTES + stop * ENTRY_BYTES
            at = look(key, HEAD_BYTES + first * ENTRY_BYTES, end)
            while at >= 0 and at % ENTRY_BYTES:  # the key's bytes across two entries
                at = look(key, at + 1, end)
            if at >= 0:
                found.add(digest)
                if met is not None:
                    met[(at - HEAD_BYTES) // ENTRY_BYTES] = 1
        return found

    def keys_but(self, met: bytearray) -> Iterator[bytes]:
        """Yield the keys of the entries that were not met.

        Raises:
            FormatError: As `find`.
        """
        number = met.find(0)
        while number >= 0:
            (entry,) = self._slice(number, number + 1)
            yield entry[:KEY_BYTES]
            number = met.find(0, number + 1)

    def entries(self, key_first: int, key_stop: int) -> list[bytes]:
        """Return the entries whose keys' first 32 bits lie in [key_first, key_stop)."""
        return self._slice(self._locate(key_first), self._locate(key_stop))

    def _locate(self, key: int) -> int:
        """Return the number of entries before those whose first 32 bits are key or more."""
        if key >> 32:
            return self.count
        bucket = key >> self._shift
        first, stop = self._buckets[bucket], self._buckets[bucket + 1]
        if key == bucket << self._shift:
            return first
        return first + bisect_left(self._slice(first, stop), key.to_bytes(4, "big"))

    def _slice(self, first: int, stop: int) -> list[bytes]:
        stop = min(stop, self.count)
        self._check(first, stop)
        begin, end = HEAD_BYTES + first * ENTRY_BYTES, HEAD_BYTES + stop * ENTRY_BYTES
        data = self._data[begin:end]
        return [data[at : at + ENTRY_BYTES] for at in range(0, len(data), ENTRY_BYTES)]

    def _check(self, first: int, stop: int) -> None:
        for block in range(first // BLOCK_ENTRIES, -(-stop // BLOCK_ENTRIES)):
            if not self._is_checked[block]:
                self._check_block(block)

    def _check_block(self, block: int) -> None:
        first = block * BLOCK_ENTRIES
        stop = min(first + BLOCK_ENTRIES, self.count)
        data = self._data[HEAD_BYTES + first * ENTRY_BYTES : HEAD_BYTES + stop * ENTRY_BYTES]
        if sum_block(data, self._seed, block) != self._sums[block]:
            raise FormatError(
                f"Entries {first} to {stop} of the run {self.name} are damaged.", run=self.name
            )
        self._is_checked[block] = 1

    def _name_of(self, number: int) -> str:
        try:
            return self.names[number]
        except IndexError as error:
            raise FormatError(
                f"The run {self.name} has no container {number}.", run=self.name
            ) from error


def open_run(path: Path, store_id: bytes) -> Run:
    """Return the run in a file, mapped into memory.

    Raises:
        FormatError: It is not a whole run of this store under its own name.
        CheckpointStorageError: It cannot be read.
    """
    with operating_system_door("Cannot open a run of the chunk index"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < HEAD_BYTES + _FOOTER_BYTES:
                raise FormatError(f"The run {path.name} is too short.")
            data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
    return Run(path.name, store_id, data, path)


def encode_head(store_id: bytes) -> bytes:
    """Return the first bytes of a run."""
    return _HEAD.pack(_MAGIC, _VERSION, store_id)


def encode_footer(footer: Footer, seed: int) -> bytes:
    """Return the last bytes of a run; seed is that of its name."""
    data = _FOOTER.pack(_MAGIC, _VERSION, *footer)
    return data + _SUM.pack(xxh3_64_intdigest(data, seed))


def sum_block(data: bytes, seed: int, block: int) -> int:
    """Return the sum of a block of entries."""
    return xxh3_64_intdigest(data, (seed + block) & _SUM64)


def little_endian(values: array[int]) -> array[int]:
    """Return numbers in the file's byte order, from the machine's or back."""
    if sys.byteorder == "big":  # pragma: no cover - not run on the machines of the tests
        values.byteswap()
    return values


def _checked_footer(data: bytes | mmap.mmap, store_id: bytes, seed: int) -> Footer:
    raw = data[len(data) - _FOOTER_BYTES :]
    (summed,) = _SUM.unpack_from(raw, _FOOTER.size)
    if xxh3_64_intdigest(raw[: _FOOTER.size], seed) != summed:
        raise FormatError("The footer of a run of the chunk index is damaged or another store's.")
    magic, version, *fields = _FOOTER.unpack_from(raw)
    footer = Footer(*fields)
    is_ours = (magic, version, footer.store_id) == (_MAGIC, _VERSION, store_id)
    if not is_ours or data[:HEAD_BYTES] != encode_head(store_id):
        raise FormatError("A run of the chunk index is of another version or store.")
    return footer


def _names(data: bytes) -> list[str]:
    try:
        return msgspec.json.decode(data, type=list[str])
    except msgspec.MsgspecError as error:
        raise FormatError(f"The names in a run of the chunk index are damaged: {error}") from error


def _array(kind: str, data: bytes) -> array[int]:
    values: array[int] = array(kind)
    values.frombytes(data)
    return little_endian(values)
