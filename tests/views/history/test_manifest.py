from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.model.cursor import Cursor
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.history import manifest as manifests
from ckptlog.views.history.manifest import UNDATED, File, decode, encode, make

STORE = "0123456789abcdef" * 2
DIGEST = "f" * 32


def file(start, stop, date="2026-01-31", rows=None):
    return File(start, stop, date, (stop - start) if rows is None else rows, 100, DIGEST)


def good():
    files = (file(0, 64), file(64, 68, rows=3), file(64, 68, UNDATED, rows=1), file(68, 70))
    return make(STORE, Cursor(70, b"l" * 32, "log/x", 9), files, "pyarrow 1")


def test_it_comes_back_as_it_was():
    assert decode(encode(good()), STORE) == good()
    assert decode(encode(manifests.empty(STORE)), STORE).cursor == Cursor()
    assert good().cursor == Cursor(70, b"l" * 32, "log/x", 9)
    assert encode(good()).startswith(manifests.BEGIN)


def test_names_are_made_of_numbers_and_days():
    assert good().files[0].name == f"date=2026-01-31/{0:020d}-{64:020d}.parquet"
    assert [one.name.split("/")[0] for one in good().files][2] == f"date={UNDATED}"


def test_every_flipped_bit_is_noticed():
    data = encode(good())
    for index in range(len(data) - 1):  # the last byte is a line's end
        broken = bytearray(data)
        broken[index] ^= 1 << index % 8
        with pytest.raises(ViewDamagedError):
            decode(bytes(broken), STORE)


@given(st.integers(0, 400))
def test_every_shorter_one_is_noticed(length):
    data = encode(good())
    with pytest.raises(ViewDamagedError):
        decode(data[: min(length, len(data) - 2)], STORE)


@pytest.mark.parametrize(
    "change",
    [
        {"store": "1" * 32},
        {"kind": "other"},
        {"version": 2},
        {"schema": manifests.SCHEMA + 1},
        {"position": 71},
        {"position": 69},
        {"files": good().files[1:]},
        {"files": (*good().files, file(68, 70, "2026-02-01"))},
        {"files": (*good().files[:-1], file(68, 69), file(69, 70))},
        {"files": (*good().files[:-1], file(68, 70, rows=1))},
        {"files": (*good().files, file(68, 70, UNDATED, rows=0))},
        {"files": (*good().files[:-1], file(68, 70, "../../..", rows=2))},
        {"files": (*good().files[:-1], file(68, 70, "2026-1-3", rows=2))},
        {"files": (*good().files[:-1], file(68, 70, "20260131", rows=2))},
        {"files": (file(0, 64, rows=32), file(0, 64, rows=32), *good().files[1:])},
    ],
    ids=lambda change: f"{next(iter(change))}",
)
def test_a_manifest_that_does_not_fit_is_none(change):
    with pytest.raises(ViewDamagedError):
        decode(encode(msgspec.structs.replace(good(), **change)), STORE)


@pytest.mark.parametrize(
    "other", [b"", b"null", b"[]", b"{}", b'{"checksum":"x","history":{}}', b"\xff" * 40]
)
def test_other_files_are_none(other):
    with pytest.raises(ViewDamagedError):
        decode(other, STORE)
