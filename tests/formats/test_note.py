from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import note
from ckptlog.formats.note import Note, Signature
from tests.formats.vectors import bytes_of, check, every, load

GOOD = b"a\n\n\xe2\x80\x94 k AAAAAAA=\n"


@every("note", "note")
def test_vectors(vector):
    check(vector, note.decode, note.encode)


@every("note", "key")
def test_vectors_of_keys(vector):
    check(vector, lambda data: note.decode_key(data.decode()), lambda key: str(key).encode())


def test_a_text_may_have_empty_lines():
    made = Note("a\n\nb\n", (Signature("k", b"1234", b"5"),))
    assert note.decode(note.encode(made)) == made


@given(st.binary(max_size=300))
def test_any_bytes_are_a_note_or_refused(data):
    try:
        found = note.decode(data)
    except FormatError:
        return
    assert note.encode(found) == data


@given(st.integers(0, 2**16), st.integers(0, 255))
def test_a_changed_note_is_another_note_or_refused(at, value):
    documents = [bytes_of(one) for one in load("note", "note").values() if "error" not in one]
    data = bytearray(documents[at % len(documents)])
    data[at % len(data)] = value
    try:
        found = note.decode(bytes(data))
    except FormatError:
        return
    assert note.encode(found) == bytes(data)


@given(st.text(max_size=120))
def test_any_text_is_a_key_or_refused(text):
    for decode in (note.decode_key, note.decode_private, note.decode_private):
        with pytest.raises(FormatError):
            decode(text)


def test_nothing_of_a_private_key_is_in_an_error():
    secret = base64.b64encode(b"\x01" + b"s" * 31).decode()
    with pytest.raises(FormatError) as caught:
        note.decode_private(f"PRIVATE+KEY+name+00000000+{secret}")
    assert secret not in str(caught.value)


def test_what_is_too_large_is_refused_before_it_is_read():
    with pytest.raises(FormatError, match="over"):
        note.decode(b"a" * (note.NOTE_BYTES_MAX + 1))
    lines = b"a\n\n" + GOOD[3:] * 101
    with pytest.raises(FormatError, match="100 signatures"):
        note.decode(lines)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u2028b", "\x07", "x" * 251])
def test_names_that_no_key_may_have(name):
    with pytest.raises(FormatError):
        note.check_name(name)
    with pytest.raises(FormatError):
        note.encode(Note("a\n", (Signature(name, b"1234", b"5"),)))


@pytest.mark.parametrize("text", ["AA", "AA=", "AB==", "A A=", "AA==\n", "ÄA==", "A" * 5])
def test_base64_that_no_encoder_writes(text):
    with pytest.raises(FormatError):
        note.decode_base64(text)


def test_a_cosignature_has_a_time_in_range():
    assert note.decode_cosignature(note.encode_cosignature(7, b"s" * 64)) == (7, b"s" * 64)
    with pytest.raises(FormatError):
        note.decode_cosignature(b"\xff" * 72)
    with pytest.raises(FormatError):
        note.decode_cosignature(b"1" * 71)
    assert note.cosigned_message(7, "a\n") == b"cosignature/v1\ntime 7\na\n"
