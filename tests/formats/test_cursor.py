"""A consumer's cursor: whole, or refused; of two slots the newest whole one (specs/cursor.md)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from ckptlog.errors import FormatError
from ckptlog.formats import cursor
from ckptlog.formats.cursor import CursorRecord
from ckptlog.model.cursor import Cursor
from tests.formats.mutation import Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import cursor_records
from tests.formats.vectors import check, every

STORE = bytes(range(16))
RECORD = CursorRecord(
    STORE,
    "mailer",
    7,
    Cursor(43, bytes(range(32)), "log/00000000000000000042.1.seg", 4096),
    1_700_000_000_123_456,
)
DATA = cursor.encode(RECORD)


@every("cursor")
def test_golden(vector):
    check(vector, cursor.decode, cursor.encode)


def test_bytes_are_those_of_the_page():
    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    fields = b"".join([
        b"CKPTCUR1", STORE, number(7, 8), number(43, 8), bytes(range(32)), number(4096, 8),
        b"log/00000000000000000042.1.seg".ljust(48, b"\0"), number(1_700_000_000_123_456, 8),
        number(6, 2), b"mailer".ljust(800, b"\0"), bytes(78),
    ])  # fmt: skip
    assert fields + number(xxh3_64_intdigest(fields), 8) == DATA
    assert len(DATA) == cursor.BYTES == 1024


@given(value=cursor_records)
def test_round_trip(value):
    assert cursor.decode(cursor.encode(value)) == value


def test_all_damage_of_one_bit_a_cut_or_an_addition_is_refused():
    for damage in (flips, cuts, grown):
        assert all(is_refused(cursor.decode, data) for data in damage(DATA))


@given(data=mutated(DATA) | st.binary(max_size=40))
def test_a_mutation_never_shows_another_value(data):
    assert isinstance(outcome(cursor.decode, data), Refused) or data == DATA


@given(middle=st.binary(min_size=128, max_size=128), rest=st.binary(max_size=20))
def test_any_fields_under_a_true_checksum_end_in_our_errors_or_in_themselves(middle, rest):
    fields = b"CKPTCUR1" + middle + rest.ljust(1016 - 136, b"\0")
    data = fields + xxh3_64_intdigest(fields).to_bytes(8, "little")
    found = outcome(cursor.decode, data)
    assert isinstance(found, Refused) or cursor.encode(found) == data


@pytest.mark.parametrize(
    "change",
    [
        {"store_id": bytes(17)},
        {"name": ""},
        {"name": "x" * 801},
        {"cursor": Cursor(1, b"")},
        {"cursor": Cursor(1, bytes(32), "x" * 49)},
    ],
)
def test_fields_that_do_not_fit_are_not_written(change):
    with pytest.raises(FormatError):
        cursor.encode(msgspec.structs.replace(RECORD, **change))


def filed(*records: CursorRecord) -> bytes:
    """Return the file after these records were written to it, one after the other."""
    data = bytearray(cursor.FILE_BYTES)
    for record in records:
        at = cursor.slot_of(record.serial)
        data[at : at + cursor.BYTES] = cursor.encode(record)
    return bytes(data)


def at_serial(serial: int) -> CursorRecord:
    return msgspec.structs.replace(RECORD, serial=serial, cursor=Cursor(serial, bytes(32)))


def test_the_newest_whole_record_counts():
    assert cursor.newest(bytes(cursor.FILE_BYTES)) is None
    assert cursor.newest(b"") is None
    for last in range(1, 6):
        found = cursor.newest(filed(*map(at_serial, range(1, last + 1))))
        assert found == at_serial(last)


@given(serial=st.integers(2, 9), at=st.integers(0, cursor.BYTES))
def test_a_write_torn_at_any_byte_shows_it_or_the_one_before(serial, at):
    before = filed(*map(at_serial, range(1, serial)))
    begin = cursor.slot_of(serial)
    new = cursor.encode(at_serial(serial))
    torn = before[:begin] + new[:at] + before[begin + at :]
    assert cursor.newest(torn) in (at_serial(serial - 1), at_serial(serial))
    assert at < cursor.BYTES or cursor.newest(torn) == at_serial(serial)
