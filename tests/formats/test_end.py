"""The published end: whole, of this store, or refused (specs/end.md)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from ckptlog.errors import FormatError
from ckptlog.formats import end
from ckptlog.formats.end import End
from tests.formats.mutation import Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import ends, store_ids
from tests.formats.vectors import check, every

STORE = bytes(range(16))
END = End(STORE, 43, 42, 1, 4096, bytes(range(32)), bytes(range(40, 56)))
DATA = end.encode(END)


def decode(data):
    return end.decode(data, STORE)


@every("end")
def test_golden(vector):
    owner = bytes.fromhex(vector["context"]["store_id"])
    check(vector, lambda data: end.decode(data, owner), end.encode)


def test_bytes_are_those_of_the_page():
    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    fields = b"".join([
        b"CKPTEND1", STORE, number(43, 8), number(42, 8), number(1, 4), bytes(4),
        number(4096, 8), bytes(range(32)), bytes(range(40, 56)), bytes(16),
    ])  # fmt: skip
    assert fields + number(xxh3_64_intdigest(fields), 8) == DATA
    assert len(DATA) == end.BYTES == 128


@given(value=ends)
def test_round_trip(value):
    assert end.decode(end.encode(value), value.store_id) == value


def test_the_largest_numbers_round_trip():
    most = End(STORE, 2**64 - 1, 2**64 - 1, 2**32 - 1, 2**64 - 1, bytes(32), bytes(16))
    assert decode(end.encode(most)) == most


def test_all_damage_of_one_bit_a_cut_or_an_addition_is_refused():
    for damage in (flips, cuts, grown):
        assert all(is_refused(decode, data) for data in damage(DATA))


@given(data=mutated(DATA) | st.binary(max_size=140) | st.binary(min_size=128, max_size=128))
def test_a_mutation_never_shows_another_value(data):
    found = outcome(decode, data)
    assert isinstance(found, Refused) or data == DATA


@given(value=ends, other=ends, at=st.integers(1, 127))
def test_a_record_torn_between_two_is_refused_or_whole(value, other, at):
    other = msgspec.structs.replace(other, store_id=value.store_id)
    torn = end.encode(value)[:at] + end.encode(other)[at:]
    found = outcome(lambda data: end.decode(data, value.store_id), torn)
    assert isinstance(found, Refused) or found in (value, other)


@given(middle=st.binary(min_size=96, max_size=96))
def test_any_fields_under_a_true_checksum_end_in_our_errors_or_in_themselves(middle):
    fields = b"CKPTEND1" + STORE + middle
    data = fields + xxh3_64_intdigest(fields).to_bytes(8, "little")
    found = outcome(decode, data)
    assert isinstance(found, Refused) or end.encode(found) == data


@given(other=store_ids.filter(lambda owner: owner != STORE))
def test_another_stores_record_is_refused(other):
    with pytest.raises(FormatError, match="another store"):
        end.decode(DATA, other)


@pytest.mark.parametrize("change", [{"leaf": b""}, {"boot": b"boot"}, {"store_id": bytes(17)}])
def test_fields_of_the_wrong_size_are_not_written(change):
    with pytest.raises(FormatError, match="16 bytes"):
        end.encode(msgspec.structs.replace(END, **change))
