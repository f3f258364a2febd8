from __future__ import annotations

import errno
import os
import struct
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.blobs import pack as packs
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.pack import PackReader, PackWriter, read_index, write_packs
from ckptlog.errors import (
    CheckpointStorageError,
    FormatError,
    FullError,
    InputOutputError,
    MissingBlobError,
)
from ckptlog.formats import chunk, frame, pack
from ckptlog.storage import files
from tests.blobs.sample import STORE_ID, Ids, digest, noise

CODEC = Codec()


def records(*raws):
    return [CODEC.record(chunk.LEAF, raw) for raw in raws]


def read_frame(folder, placement):
    name = placement.container.removeprefix("packs/")
    return frame_in((folder / name).read_bytes(), placement)


def frame_in(whole, placement):
    seed = frame.container_seed(STORE_ID, placement.container.removeprefix("packs/"))
    data = whole[placement.offset :][: placement.length]
    return frame.decode(seed, placement.offset, data)


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=300), max_size=12))
def test_what_was_written_is_found(tmp_path_factory, raws):
    folder = tmp_path_factory.mktemp("packs")
    given_records = records(*raws)
    entries, placements = write_packs(folder, STORE_ID, 7, given_records, Ids())
    assert {place.digest for place in placements} == {name for name, _ in given_records}
    assert len(placements) == len({name for name, _ in given_records})
    by_digest = dict(given_records)
    for place in placements:
        found = read_frame(folder, place)
        assert found.kind == frame.CHUNK
        assert found.body == by_digest[place.digest]
    assert len(entries) == bool(raws)
    for entry in entries:
        path = folder / pack.pack_name(entry.base, bytes.fromhex(entry.id))
        assert entry.base == 7
        assert entry.bytes == path.stat().st_size
        assert set(read_index(path, STORE_ID)) == set(placements)


def test_nothing_to_write_makes_no_file(tmp_path):
    assert write_packs(tmp_path, STORE_ID, 0, [], Ids()) == ((), ())
    assert os.listdir(tmp_path) == []


def test_many_chunks_make_several_packs_within_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "PACK_BYTES_MAX", 20_000)
    monkeypatch.setattr(packs, "_BUFFER_BYTES", 3000)
    given_records = records(*(noise(900 + n, b"%d" % n) for n in range(60)))
    entries, placements = write_packs(tmp_path, STORE_ID, 3, given_records, Ids())
    assert len(entries) > 2
    assert sorted(os.listdir(tmp_path)) == sorted(
        pack.pack_name(3, bytes.fromhex(entry.id)) for entry in entries
    )
    assert all(entry.bytes <= 20_000 for entry in entries)
    assert all(entry.bytes > 17_000 for entry in entries[:-1])
    indexed = [place for path in tmp_path.iterdir() for place in read_index(path, STORE_ID)]
    assert sorted(indexed, key=lambda place: place.digest) == sorted(
        placements, key=lambda place: place.digest
    )
    for place in placements:
        assert read_frame(tmp_path, place).body == dict(given_records)[place.digest]


def test_the_limit_knows_what_an_index_takes():
    one, two = ([pack.PackedChunk(digest(n), 60, 60) for n in range(count)] for count in (1, 2))
    line = len(pack.encode_index(0, 120, two)) - len(pack.encode_index(0, 120, one))
    assert line == packs._INDEX_LINE_BYTES


def test_the_largest_record_fits(tmp_path):
    (record,) = records(noise(chunk.RAW_BYTES_MAX))
    _, (place,) = write_packs(tmp_path, STORE_ID, 0, [record], Ids())
    assert read_frame(tmp_path, place).body == record[1]


def test_a_name_that_is_taken_is_drawn_again(tmp_path):
    first = pack.pack_name(0, (1).to_bytes(16, "big"))
    (tmp_path / first).write_bytes(b"precious")
    (entry,), _ = write_packs(tmp_path, STORE_ID, 0, records(b"x"), Ids())
    assert int(entry.id, 16) == 2
    assert (tmp_path / first).read_bytes() == b"precious"
    with pytest.raises(CheckpointStorageError):
        write_packs(tmp_path, STORE_ID, 0, records(b"x"), lambda: (1).to_bytes(16, "big"))
    assert (tmp_path / first).read_bytes() == b"precious"


def test_everything_is_durable_before_the_call_returns(tmp_path, monkeypatch):
    calls = []

    def record(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            calls.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("pwrite", "fdatasync", "replace", "fsync"):
        record(name)
    monkeypatch.setattr(packs, "PACK_BYTES_MAX", 3000)
    write_packs(tmp_path, STORE_ID, 0, records(noise(2000), noise(2000, b"2")), Ids())
    assert calls == ["pwrite", "fdatasync", "replace"] * 2 + ["fsync"]


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "fault",
    [
        ("pwrite", errno.ENOSPC, FullError),
        ("fdatasync", errno.EIO, InputOutputError),
        ("replace", errno.EIO, InputOutputError),
        ("fsync", errno.EIO, InputOutputError),
        ("open", errno.EMFILE, InputOutputError),
    ],
)
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, fault, nth):
    call, code, kind = fault
    monkeypatch.setattr(packs, "PACK_BYTES_MAX", 3000)
    given_records = records(*(noise(2000, b"%d" % n) for n in range(4)))
    real, count = getattr(os, call), iter(range(1, 100))

    def sometimes(*args, **kwargs):
        if next(count) == nth:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, sometimes)
        if call == "fsync" and nth > 1:
            write_packs(tmp_path, STORE_ID, 0, given_records, Ids())
            return  # there is one only
        with pytest.raises(kind):
            write_packs(tmp_path, STORE_ID, 0, given_records, Ids())
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_iterator_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield from records(b"one", b"two")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packs(tmp_path, STORE_ID, 0, broken(), Ids())
    assert os.listdir(tmp_path) == []


def test_a_pack_has_no_name_before_it_is_whole(tmp_path):
    writer = PackWriter(tmp_path, STORE_ID, 0, Ids())
    for name, record in records(b"one", b"two"):
        writer.add(name, record)
    (temporary,) = os.listdir(tmp_path)
    assert pack.parse_name(temporary) is None
    assert temporary.endswith(files.TEMPORARY_SUFFIX)
    writer.finish()
    (final,) = os.listdir(tmp_path)
    assert pack.parse_name(final) == (0, (1).to_bytes(16, "big"))


@pytest.fixture
def small(tmp_path):
    """A pack of two chunks: (path, placements, records by digest)."""
    given_records = records(b"first", b"third " * 20)
    (entry,), placements = write_packs(tmp_path, STORE_ID, 5, given_records, Ids())
    path = tmp_path / pack.pack_name(5, bytes.fromhex(entry.id))
    return path, placements, dict(given_records)


def test_every_flipped_bit_is_noticed(small):
    path, placements, by_digest = small
    whole = bytearray(path.read_bytes())
    fd = os.open(path, os.O_WRONLY)

    def read_all():
        assert set(read_index(path, STORE_ID)) == set(placements)
        for place in placements:
            assert frame_in(bytes(whole), place).body == by_digest[place.digest]

    read_all()
    for bit in range(len(whole) * 8):
        at, mask = bit // 8, 1 << bit % 8
        whole[at] ^= mask
        os.pwrite(fd, whole[at : at + 1], at)
        with pytest.raises(FormatError):
            read_all()
        whole[at] ^= mask
        os.pwrite(fd, whole[at : at + 1], at)
    os.close(fd)


def test_every_cut_is_noticed(small):
    path, _, _ = small
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match="damaged"):
            read_index(path, STORE_ID)
    path.write_bytes(whole + b"\0")
    with pytest.raises(FormatError):
        read_index(path, STORE_ID)


def test_a_pack_of_another_store_or_name_is_refused(small):
    path, _, _ = small
    with pytest.raises(FormatError):
        read_index(path, bytes(16))
    for name in (pack.pack_name(6, (1).to_bytes(16, "big")), "00.pack"):
        moved = path.with_name(name)
        path.rename(moved)
        with pytest.raises(FormatError):
            read_index(moved, STORE_ID)
        moved.rename(path)


def test_a_missing_pack_is_missing(tmp_path):
    with pytest.raises(MissingBlobError, match="gone"):
        read_index(tmp_path / "gone.pack", STORE_ID)
    with pytest.raises(CheckpointStorageError) as caught:
        read_index(tmp_path, STORE_ID)  # a folder
    assert not isinstance(caught.value, MissingBlobError)


def forged(folder, *, rows, count=None, between=b""):
    """Write a pack whose index says `rows`, with sums that check."""
    pack_id, base = (1).to_bytes(16, "big"), 5
    place = pack.seed(STORE_ID, base, pack_id)
    data = pack.encode_header(pack.PackHeader(STORE_ID, pack_id, base))
    data += frame.encode(place, len(data), frame.CHUNK, 0, b"body")
    body = b"".join(
        row.digest + row.offset.to_bytes(8, "little") + row.length.to_bytes(4, "little")
        for row in rows
    )
    index_at = len(data)
    data += frame.encode(place, index_at, frame.PACK_INDEX, 0, body) + between
    trailer = struct.pack("<QQ", index_at, len(rows) if count is None else count)
    data += frame.encode(place, len(data), frame.PACK_TRAILER, 0, trailer)
    path = folder / pack.pack_name(base, pack_id)
    path.write_bytes(data)
    return path


def test_an_index_that_lies_is_refused_even_when_it_checks(tmp_path):
    sound = [pack.PackedChunk(digest(1), pack.HEADER_FRAME_BYTES, 20)]
    assert len(read_index(forged(tmp_path, rows=sound), STORE_ID)) == 1
    for rows in (
        [pack.PackedChunk(digest(1), 0, 20)],  # the header is no chunk
        [pack.PackedChunk(digest(1), pack.HEADER_FRAME_BYTES, 2000)],
        [pack.PackedChunk(digest(1), 1 << 63, 20)],
        [pack.PackedChunk(digest(1), pack.HEADER_FRAME_BYTES, 20)] * 2,
    ):
        with pytest.raises(FormatError):
            read_index(forged(tmp_path, rows=rows), STORE_ID)


def test_an_index_of_fewer_lines_than_the_trailer_says_is_refused(tmp_path):
    row = pack.PackedChunk(digest(1), pack.HEADER_FRAME_BYTES, 20)
    path = forged(tmp_path, rows=[row], count=2, between=bytes(packs._INDEX_LINE_BYTES))
    with pytest.raises(FormatError, match="agree"):
        read_index(path, STORE_ID)


def test_a_trailer_that_claims_the_world_allocates_nothing(tmp_path):
    path = forged(tmp_path, rows=[], count=900_000)
    read = mock.Mock(wraps=files.read_at)
    with mock.patch.object(files, "read_at", read), pytest.raises(FormatError):
        read_index(path, STORE_ID)
    assert max(call.args[1] for call in read.call_args_list) < 200


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 2000), min_size=1, max_size=30, unique=True),
    st.tuples(
        st.integers(2500, 20_000), st.integers(1, 12), st.sampled_from([1, 700, 4000, 1 << 20])
    ),
    st.data(),
)
def test_chunks_that_are_copied_lie_as_if_they_were_added(tmp_path_factory, sizes, limits, data):
    bytes_max, chunks_max, span = limits
    folder = tmp_path_factory.mktemp("packs")
    given_records = records(*(noise(size, b"%d" % size) for size in sizes))
    (entry,), placements = write_packs(folder, STORE_ID, 1, given_records, Ids())
    path = folder / pack.pack_name(1, bytes.fromhex(entry.id))
    chosen = data.draw(st.lists(st.sampled_from(placements), min_size=1, unique=True))
    chosen.sort(key=lambda place: place.offset)
    lines = [(one.digest, one.offset, one.length) for one in chosen]
    by_digest = dict(given_records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "PACK_BYTES_MAX", bytes_max)
        patch.setattr(packs, "PACK_CHUNKS_MAX", chunks_max)
        patch.setattr(packs, "_SPAN_BYTES", span)
        expected = write_packs(
            folder, STORE_ID, 2, [(one.digest, by_digest[one.digest]) for one in chosen], Ids()
        )
        whole = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
        for name in whole:
            (folder / name).unlink() if name != path.name else None
        writer = PackWriter(folder, STORE_ID, 2, Ids())
        reader = PackReader(folder.parent, f"{folder.name}/{path.name}", STORE_ID)
        at = 0
        while at < len(lines):
            count = writer.copy(lines[at:], reader.relocated)
            assert count
            at += count
        reader.close()
        assert writer.finish() == expected
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == whole
    assert all(
        len(read_index(folder / name, STORE_ID)) <= chunks_max
        for name in whole.keys() - {path.name}
    )
