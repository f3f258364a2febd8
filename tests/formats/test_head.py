from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import head, note
from ckptlog.formats.head import ConsistencyProof, Head, InclusionProof
from ckptlog.formats.note import Note, Signature
from tests.formats.vectors import bytes_of, check, every, load

ROOT = bytes(range(32))


def encode(proof):
    is_inclusion = isinstance(proof, InclusionProof)
    return head.encode_inclusion(proof) if is_inclusion else head.encode_consistency(proof)


@every("head", "proof")
def test_vectors(vector):
    check(vector, head.decode_proof, encode)


@every("head", "head")
def test_vectors_of_heads(vector):
    check(
        vector, lambda data: head.decode(data.decode()), lambda value: head.encode(value).encode()
    )


@given(st.binary(max_size=400))
def test_any_bytes_are_a_proof_or_refused(data):
    for start in (b"", b"old 3\n", b"c2sp.org/tlog-proof@v1\nindex 3\n"):
        try:
            found = head.decode_proof(start + data)
        except FormatError:
            continue
        assert encode(found) == start + data


@given(st.integers(0, 2**16), st.binary(max_size=3), st.integers(0, 3))
def test_a_changed_proof_is_another_proof_or_refused(at, put, cut):
    documents = [bytes_of(one) for one in load("head", "proof").values() if "error" not in one]
    data = documents[at % len(documents)]
    place = at % len(data)
    changed = data[:place] + put + data[place + cut :]
    try:
        found = head.decode_proof(changed)
    except FormatError:
        return
    assert encode(found) == changed


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.none() | st.binary(max_size=100),
)
def test_proofs_round_trip(index, path, extra):
    text = head.encode(Head("o", 3, ROOT))
    signed = Note(text, (Signature("o", b"1234", b"5" * 64),))
    for proof in (
        InclusionProof(index, tuple(path), signed, extra),
        ConsistencyProof(index, tuple(path), signed),
    ):
        assert head.decode_proof(encode(proof)) == proof


def test_what_is_too_large_is_refused_before_it_is_read():
    with pytest.raises(FormatError, match="over"):
        head.decode_proof(b"old 3\n\n" + b"a" * head.PROOF_BYTES_MAX)


@pytest.mark.parametrize(
    "wrong",
    [
        Head("", 3, ROOT),
        Head("o", -1, ROOT),
        Head("o", 2**63, ROOT),
        Head("o", 3, ROOT[1:]),
        Head("o\np", 3, ROOT, ("",)),
        Head("o", 3, ROOT, ("x",) * 17),
    ],
)
def test_a_head_that_no_reader_would_take_is_not_written(wrong):
    with pytest.raises(FormatError):
        head.encode(wrong)


def test_a_proof_with_too_many_hashes_is_not_written():
    signed = Note(head.encode(Head("o", 3, ROOT)), (Signature("o", b"1234", b"5"),))
    with pytest.raises(FormatError):
        head.encode_consistency(ConsistencyProof(2, (ROOT,) * 64, signed))
    assert note.encode(signed)
