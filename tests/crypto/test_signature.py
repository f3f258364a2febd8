from __future__ import annotations

import pytest

from ckptlog.crypto.signature import SigningKey, verify_cosignatures, verify_note
from ckptlog.errors import FormatError, SignatureError
from ckptlog.formats import note
from ckptlog.formats.note import COSIGNATURE, ED25519, Note, Signature

TEXT = "example.com/log\n3\nAAAA\n"
LOG = SigningKey("example.com/log", ED25519, bytes(range(32)))
WITNESS = SigningKey("example.com/w", COSIGNATURE, bytes(range(1, 33)))
OTHER = SigningKey("example.com/v", COSIGNATURE, bytes(range(2, 34)))


def signed(*signatures, text=TEXT):
    return Note(text, signatures)


def changed(signature, at=-1):
    data = bytearray(signature.data)
    data[at] ^= 1
    return signature._replace(data=bytes(data))


def test_a_key_verifies_what_it_signed():
    verify_note(signed(LOG.sign(TEXT)), LOG.verifier)


@pytest.mark.parametrize(
    "made",
    [
        signed(),
        signed(changed(LOG.sign(TEXT))),
        signed(changed(LOG.sign(TEXT), 0)),
        signed(LOG.sign(TEXT)._replace(data=b"short")),
        signed(LOG.sign(TEXT), text=TEXT.replace("3", "4")),
        signed(LOG.sign(TEXT)._replace(name="example.com/other")),
        signed(LOG.sign(TEXT)._replace(key_id=b"1234")),
        signed(LOG.sign(TEXT), changed(LOG.sign(TEXT))),
        signed(WITNESS.cosign(TEXT, 7)),
    ],
)
def test_anything_else_is_refused(made):
    with pytest.raises(SignatureError) as caught:
        verify_note(made, LOG.verifier)
    assert caught.value.code == "signature.invalid"


def test_a_public_key_that_is_no_point_verifies_nothing():
    key = LOG.verifier._replace(public=b"\xff" * 32)
    made = LOG.sign(TEXT)._replace(key_id=key.key_id)
    with pytest.raises(SignatureError):
        verify_note(signed(made), key)


def test_cosignatures_of_those_who_are_asked_for():
    made = signed(LOG.sign(TEXT), WITNESS.cosign(TEXT, 7), OTHER.cosign(TEXT, 9))
    found = verify_cosignatures(made, [WITNESS.verifier, LOG.verifier])
    assert [(one.key.name, one.time_s) for one in found] == [("example.com/w", 7)]
    assert verify_cosignatures(made, []) == ()


@pytest.mark.parametrize("at", [0, 7, 8, -1])
def test_a_cosignature_with_another_time_or_text_is_refused(at):
    for made in (
        signed(changed(WITNESS.cosign(TEXT, 7), at)),
        signed(WITNESS.cosign(TEXT, 7), text=TEXT + "x\n"),
        signed(Signature("example.com/w", WITNESS.verifier.key_id, b"short")),
    ):
        with pytest.raises(SignatureError):
            verify_cosignatures(made, [WITNESS.verifier])


def test_a_logs_signature_is_no_cosignature_nor_the_reverse():
    for act in (lambda: LOG.cosign(TEXT, 7), lambda: WITNESS.sign(TEXT)):
        with pytest.raises(FormatError):
            act()
    as_witness = LOG.verifier._replace(kind=COSIGNATURE)
    relabelled = LOG.sign(TEXT)._replace(key_id=as_witness.key_id)
    with pytest.raises(SignatureError):
        verify_cosignatures(signed(relabelled), [as_witness])


def test_keys_as_text():
    for key in (LOG, WITNESS):
        again = SigningKey.decode(key.encode())
        assert again.verifier == key.verifier
        assert note.decode_key(str(key.verifier)) == key.verifier
        assert key.encode() not in repr(key)


def test_a_key_whose_parts_do_not_fit_is_refused():
    text = LOG.encode().replace("example.com", "example.org")
    with pytest.raises(FormatError):
        SigningKey.decode(text)
    with pytest.raises(FormatError):
        SigningKey("a name", ED25519, bytes(32))
