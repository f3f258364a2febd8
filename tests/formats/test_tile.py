from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import tile
from tests.formats.vectors import check, every


@every("tile")
def test_vectors(vector):
    check(vector, tile.decode_entries, tile.encode_entries)


@pytest.mark.parametrize(
    ("number", "path"),
    [
        (0, "000"),
        (67, "067"),
        (999, "999"),
        (1000, "x001/000"),
        (1234067, "x001/x234/067"),
        (1000000, "x001/x000/000"),
    ],
)
def test_numbers_in_paths(number, path):
    assert tile.number_path(number) == path
    assert tile.tile_path(2, number) == f"tile/2/{path}"
    assert tile.tile_path("entries", number, 8) == f"tile/entries/{path}.p/8"


@pytest.mark.parametrize(
    ("size", "found"),
    [
        (0, []),
        (1, [(0, 1)]),
        (255, [(0, 255)]),
        (256, [(0, 256), (1, 1)]),
        (65_536, [(0, 65_536), (1, 256), (2, 1)]),
    ],
)
def test_levels(size, found):
    assert list(tile.levels(size)) == found


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=256))
def test_entries_round_trip(entries):
    assert tile.decode_entries(tile.encode_entries(entries)) == entries


@given(st.binary(max_size=100))
def test_any_bytes_are_entries_or_refused(data):
    with suppress(FormatError):
        assert tile.encode_entries(tile.decode_entries(data)) == data


def test_what_does_not_fit_a_tile():
    for entries in ([], [b""] * 257, [b"x" * 65_536]):
        with pytest.raises(FormatError):
            tile.encode_entries(entries)
    with pytest.raises(FormatError):
        tile.decode_entries(b"\x00\x00" * 257)


def test_hashes():
    assert tile.decode_hashes(bytes(64)) == [bytes(32)] * 2
    for data in (b"", bytes(33), bytes(32 * 257)):
        with pytest.raises(FormatError):
            tile.decode_hashes(data)
