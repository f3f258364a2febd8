from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.blobs import run as runs
from ckptlog.blobs import run_writer
from ckptlog.blobs.run import HEAD_BYTES, Mark, Run, open_run, run_name
from ckptlog.blobs.run_writer import merge_runs, write_run
from ckptlog.errors import CheckpointStorageError, FormatError
from ckptlog.formats import frame
from ckptlog.model.entry import Placement
from tests.blobs.sample import STORE_ID, digest, flip, place

LOGS = [f"log/{n:020d}.0.seg" for n in range(4)]


def mark(position):
    return Mark(position, LOGS[position % 4], position * 10, digest(position))


def all_of(run):
    return run.entries(0, 1 << 32)


@settings(max_examples=30)
@given(st.integers(0, 600), st.booleans())
def test_finds_what_it_holds_and_nothing_else(tmp_path_factory, count, in_memory):
    folder = None if in_memory else tmp_path_factory.mktemp("runs")
    places = [place(n, n + 1, LOGS[n % 4]) for n in range(count)]
    run = write_run(folder, STORE_ID, 5, mark(9), places)
    assert (run.start, run.mark, run.count) == (5, mark(9), count)
    assert (run.path is None) == in_memory
    assert all(run.find(place.digest) == place for place in places)
    assert all(run.find(digest(n)) is None for n in range(count, count + 200))
    assert all_of(run) == sorted(all_of(run))
    assert len(all_of(run)) == count


def test_both_ends_of_the_keys_are_found(tmp_path):
    digests = [bytes(32), b"\xff" * 32, b"\x80" + bytes(31), bytes(3) + b"\x01" * 29]
    places = [Placement(name, LOGS[0], 1, 2) for name in digests]
    places += [place(n) for n in range(1000)]
    run = write_run(tmp_path, STORE_ID, 0, mark(1), places)
    assert [run.find(name) for name in digests] == places[:4]


def test_a_key_across_two_entries_is_not_found(tmp_path):
    """The search goes through bytes; what is not at the head of an entry does not count."""
    first = Placement(bytes(16) + bytes(16), LOGS[0], 0x0101010101010101, 0x01010101)
    second = Placement(b"\x00" * 8 + b"\x01" * 24, LOGS[0], 1, 1)
    run = write_run(tmp_path, STORE_ID, 0, mark(1), [first, second])
    data = b"".join(all_of(run))
    across = data[22:38] + bytes(16)
    assert across[:4] == b"\x01" * 4 or data.find(across[:16]) % 32
    assert run.find(across) is None
    inside = data[16:32] + bytes(16)
    assert run.find(inside) is None


def test_ranges_of_keys(tmp_path):
    run = write_run(tmp_path, STORE_ID, 0, mark(1), [place(n) for n in range(700)])
    everything = all_of(run)
    for bits in (0, 1, 5, 9):
        width = (1 << 32) >> bits
        parts = {key: run.entries(key, key + width) for key in range(0, 1 << 32, width)}
        assert [entry for part in parts.values() for entry in part] == everything
        for key, part in parts.items():
            assert all(int.from_bytes(entry[:4], "big") // width * width == key for entry in part)


@settings(max_examples=30)
@given(
    st.lists(st.dictionaries(st.integers(0, 60), st.integers(1, 999)), min_size=1, max_size=5),
    st.booleans(),
    st.integers(0, 3),
)
def test_a_merge_says_what_the_last_said(tmp_path_factory, layers, in_memory, part_bits):
    folder = None if in_memory else tmp_path_factory.mktemp("runs")
    expected, made = {}, []
    for at, layer in enumerate(layers):
        places = [place(n, offset, LOGS[(n + at) % 4]) for n, offset in layer.items()]
        made.append(write_run(folder, STORE_ID, at, mark(at + 1), places))
        expected.update({place.digest: place for place in places})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_writer, "_PART_BITS", part_bits)
        merged = merge_runs(folder, STORE_ID, made)
    assert (merged.start, merged.mark) == (0, mark(len(layers)))
    assert merged.count == len(expected)
    assert all(merged.find(name) == place for name, place in expected.items())
    assert all(merged.find(digest(n)) is None for n in range(61, 99))


def test_a_merge_of_many_entries_goes_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(run_writer, "_PART_BITS", 3)
    old = write_run(tmp_path, STORE_ID, 0, mark(1), [place(n) for n in range(3000)])
    new = write_run(tmp_path, STORE_ID, 1, mark(2), [place(n, 7) for n in range(2900, 3300)])
    merged = merge_runs(tmp_path, STORE_ID, [old, new])
    assert merged.count == 3300
    assert all(merged.find(digest(n)) == place(n) for n in range(2900))
    assert all(merged.find(digest(n)) == place(n, 7) for n in range(2900, 3300))
    again = open_run(tmp_path / merged.name, STORE_ID)
    assert all_of(again) == all_of(merged)


def path_of(run):
    assert run.path is not None
    return run.path


def probe(run, places):
    """Look everything up in a run that may be damaged."""
    for expected in places:
        assert run.find(expected.digest) == expected
    assert run.mark == mark(3)
    assert run.find(digest(99_999)) is None


def test_every_flipped_bit_is_noticed(tmp_path):
    places = [place(n, 5, LOGS[n % 2]) for n in range(7)]
    path = path_of(write_run(tmp_path, STORE_ID, 0, mark(3), places))
    whole = path.read_bytes()
    probe(Run(path.name, STORE_ID, whole), places)
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            probe(Run(path.name, STORE_ID, bytes(damaged)), places)


def replace(path, data):
    """Put other bytes under a name; the old file may be mapped, so it is not written to."""
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").rename(path)


def test_every_cut_is_noticed(tmp_path):
    path = path_of(write_run(tmp_path, STORE_ID, 0, mark(3), [place(n) for n in range(7)]))
    whole = path.read_bytes()
    for length in range(len(whole)):
        replace(path, whole[:length])
        with pytest.raises(FormatError):
            open_run(path, STORE_ID)
        replace(path, whole[:length] + bytes(len(whole) - length))
        with pytest.raises(FormatError):
            probe(open_run(path, STORE_ID), [place(n) for n in range(7)])
    replace(path, whole + b"\0")
    with pytest.raises(FormatError):
        open_run(path, STORE_ID)


def test_a_zeroed_page_is_noticed_when_it_is_touched(tmp_path):
    """What a power cut can do to a file that was renamed and not synced."""
    places = [place(n) for n in range(1000)]
    path = path_of(write_run(tmp_path, STORE_ID, 0, mark(3), places))
    data = bytearray(path.read_bytes())
    data[8192:12288] = bytes(4096)
    replace(path, data)
    run = open_run(path, STORE_ID)
    right, refused = 0, []
    for expected in places:
        try:
            right += run.find(expected.digest) == expected
        except FormatError as error:
            refused.append(error.context["run"])
    assert right + len(refused) == 1000
    assert 128 <= len(refused) <= 300
    assert set(refused) == {run.name}
    with pytest.raises(FormatError):
        merge_runs(tmp_path, STORE_ID, [run, run])


def test_another_stores_or_anothers_run_is_refused(tmp_path):
    path = path_of(write_run(tmp_path, STORE_ID, 0, mark(3), [place(1)]))
    with pytest.raises(FormatError):
        open_run(path, bytes(16))
    moved = tmp_path / run_name(0, 4)
    path.rename(moved)
    with pytest.raises(FormatError):
        open_run(moved, STORE_ID)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def failing(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(CheckpointStorageError):
        write_run(tmp_path, STORE_ID, 0, mark(3), [place(1)])
    assert os.listdir(tmp_path) == []


def test_a_missing_run_and_a_folder_are_errors_of_ours(tmp_path):
    (tmp_path / "folder.run").mkdir()
    for name in ("missing.run", "folder.run"):
        with pytest.raises((CheckpointStorageError, FormatError)):
            open_run(tmp_path / name, STORE_ID)


def test_a_container_that_has_no_name_is_refused(tmp_path):
    run = write_run(tmp_path, STORE_ID, 0, mark(3), [place(1)])
    run.names.clear()
    with pytest.raises(FormatError, match="no container"):
        run.find(digest(1))


def test_more_buckets_than_any_run_has_are_refused():
    data = bytearray(write_run(None, STORE_ID, 0, mark(3), [])._data[: -runs._FOOTER_BYTES])
    footer = runs.Footer(60_000, 0, STORE_ID, 0, 3, 0, 0, 0, 0, bytes(32))
    seed = frame.container_seed(STORE_ID, run_name(0, 3))
    with pytest.raises(FormatError, match="length"):
        Run(run_name(0, 3), STORE_ID, bytes(data) + runs.encode_footer(footer, seed))


@given(st.lists(st.integers(0, 2000), unique=True), st.lists(st.integers(0, 2000), max_size=80))
def test_many_are_asked_for_at_once(present, asked):
    run = run_writer.write_run(None, STORE_ID, 0, mark(9), [place(number) for number in present])
    found = run.among([digest(number) for number in asked])
    assert found == {digest(number) for number in set(asked) & set(present)}


def test_a_damaged_block_is_not_believed_by_who_asks_for_many(tmp_path):
    run = run_writer.write_run(tmp_path, STORE_ID, 0, mark(9), [place(n) for n in range(500)])
    flip(run.path, HEAD_BYTES + 20)
    damaged = open_run(run.path, STORE_ID)
    with pytest.raises(FormatError):
        damaged.among([digest(number) for number in range(500)])
