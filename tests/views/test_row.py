from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.row import Row, Standing, decode_row, decode_standing, encode
from tests.views.author import STORE, Author


def row() -> Row:
    author = Author()
    return author.model[author.create("täsk", worker="w", title="title")]


def as_written(values: list[object]) -> bytes:
    """Return a record with a right checksum, whatever it holds."""
    wire = msgspec.msgpack.encode(values)
    return xxh3_64_digest(wire) + wire


def test_records_come_back():
    assert decode_row(encode(row())) == row()
    standing = Standing(STORE, "home", 7, bytes(range(32)), "log/x", 8, 1, 2, 3, 4, 5)
    assert decode_standing(encode(standing)) == standing


def test_every_flipped_bit_is_noticed():
    body = encode(row())
    for at in range(len(body)):
        for bit in range(8):
            damaged = bytearray(body)
            damaged[at] ^= 1 << bit
            with pytest.raises(ViewDamagedError):
                decode_row(bytes(damaged))


def test_every_cut_is_noticed():
    body = encode(row())
    for length in range(len(body)):
        with pytest.raises(ViewDamagedError):
            decode_row(body[:length])


@pytest.mark.parametrize("body", [None, "text", 5, 2.5, b"", bytearray(encode(row()))])
def test_a_column_of_another_type_is_damage(body):
    with pytest.raises(ViewDamagedError):
        decode_row(body)


@pytest.mark.parametrize("at", range(len(Row.__struct_fields__)))
@pytest.mark.parametrize("value", [-1, 1.5, [], {}, None, "text", b"bytes", 2**64 - 1])
def test_a_field_of_another_type_is_damage(at, value):
    """The checksum is right: whoever made the file can compute one."""
    values = list(msgspec.structs.astuple(row()))
    hint = Row.__annotations__[Row.__struct_fields__[at]]
    is_legal = {
        "str": type(value) is str,
        "int": type(value) is int,
        "_Count": type(value) is int and value >= 0,
        "bytes | None": value is None or type(value) is bytes,
        "Link": type(value) is int and -1 <= value < 2**53,
        "bool": False,
    }[hint]
    values[at] = value
    if is_legal:
        decode_row(as_written(values))
    else:
        with pytest.raises(ViewDamagedError):
            decode_row(as_written(values))


def test_a_record_of_another_length_is_damage():
    values = list(msgspec.structs.astuple(row()))
    with pytest.raises(ViewDamagedError):
        decode_row(as_written([*values, 1]))
    with pytest.raises(ViewDamagedError):
        decode_row(as_written(values[:10]))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_our_error(wire):
    for decode in (decode_row, decode_standing):
        with pytest.raises(ViewDamagedError):
            decode(xxh3_64_digest(wire) + wire)


@pytest.mark.parametrize("facts", [{"step": 2**64}, {"id": "\ud800"}])
def test_what_cannot_be_kept_is_refused(facts):
    with pytest.raises(ViewDamagedError, match="cannot be kept"):
        encode(msgspec.structs.replace(row(), **facts))
