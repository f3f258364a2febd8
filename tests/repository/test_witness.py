from __future__ import annotations

import threading

import pytest

from ckptlog.crypto.signature import verify_cosignatures
from ckptlog.errors import (
    ArgumentError,
    FormatError,
    KeyMissingError,
    ProofError,
    SignatureError,
    WitnessError,
)
from ckptlog.formats import head, note
from ckptlog.formats.head import ConsistencyProof, Head
from ckptlog.formats.note import Note
from ckptlog.repository.witness import Witness, accept
from ckptlog.storage.environment import Environment
from tests.repository.attested import house


@pytest.fixture
def home(tmp_path):
    return house(tmp_path)


@pytest.fixture
def witness(tmp_path):
    made = Witness(Environment(), tmp_path / "witness")
    made.make_key("witness.example/w1")
    return made


def request(home, old):
    """Sign; return what a witness is asked with, and the log's key."""
    with home.open() as store:
        store.notary.sign()
        return head.encode_consistency(store.notary.prove_consistency(old)), store.notary.key


def test_a_growing_log_is_cosigned(home, witness):
    asked, key = request(home, 0)
    signed, made = witness.cosign(asked, key)
    assert signed.size == 10
    text = head.encode(signed)
    (found,) = verify_cosignatures(Note(text, (made,)), [witness.key])
    assert found.time_s > 1_700_000_000
    home.write(7)
    asked, _ = request(home, 10)
    assert witness.cosign(asked)[0].size == 17
    assert witness.last(signed.origin).size == 17
    assert witness.cosign(request(home, 17)[0])[0].size == 17  # the same again, at another time


def test_a_request_that_begins_elsewhere_is_told_where(home, witness):
    asked, key = request(home, 0)
    witness.cosign(asked, key)
    home.write(7)
    for old in (0, 5, 17):
        with pytest.raises(WitnessError) as caught:
            witness.cosign(request(home, old)[0])
        assert caught.value.code == "witness.conflict"
        assert caught.value.context == {"size": 10}


def test_no_two_histories_of_one_log_are_cosigned(home, witness):
    copy = home.back_up()
    home.write(5)
    asked, key = request(home, 0)
    witness.cosign(asked, key)
    (home.keys / "head").unlink()  # the log forgets what it signed
    other = home._replace(path=copy)
    other.write(9, task="other")
    with pytest.raises(ProofError):
        witness.cosign(request(other, 15)[0])
    assert witness.last(key.name).size == 15


def test_a_smaller_head_is_not_cosigned(home, witness):
    with home.open() as store:
        store.notary.sign()
        small = head.encode_consistency(store.notary.prove_consistency(0))
    home.write(5)
    asked, key = request(home, 0)
    witness.cosign(asked, key)
    signed = head.decode_proof(small).note
    back = head.encode_consistency(ConsistencyProof(15, (), signed))
    with pytest.raises(ProofError):
        witness.cosign(back)


def test_only_a_log_that_is_known(home, witness, tmp_path):
    asked, key = request(home, 0)
    with pytest.raises(KeyMissingError):
        witness.cosign(asked)
    (tmp_path / "b").mkdir()
    _, other = request(house(tmp_path / "b"), 0)
    with pytest.raises(SignatureError):
        witness.cosign(asked, other)
    forged = key._replace(public=other.public)
    with pytest.raises(SignatureError):
        witness.cosign(asked, forged)


def test_a_key_is_not_exchanged_in_silence(home, witness):
    asked, key = request(home, 0)
    witness.cosign(asked, key)
    with pytest.raises(SignatureError, match="Another key"):
        witness.cosign(asked, key._replace(public=bytes(32)))


def test_what_is_no_request(home, witness):
    request(home, 0)
    with home.open() as store:
        event = head.encode_inclusion(store.notary.prove(3))
    with pytest.raises(FormatError):
        witness.cosign(event, None)
    with pytest.raises(FormatError):
        witness.cosign(b"old 0\n", None)


def test_without_a_key_of_its_own(home, tmp_path):
    asked, key = request(home, 0)
    with pytest.raises(KeyMissingError, match="witness init"):
        Witness(Environment(), tmp_path / "nobody").cosign(asked, key)


def test_a_witness_has_one_name(witness):
    assert witness.make_key("witness.example/w1") == witness.key
    with pytest.raises(ArgumentError):
        witness.make_key("witness.example/w2")


def test_the_head_is_remembered_before_the_answer(home, witness, monkeypatch):
    asked, key = request(home, 0)

    def full(path, data, **options):
        if path.name == "head":
            raise OSError(28, "full")
        write(path, data, **options)

    import ckptlog

    write = ckptlog.storage.files.write_atomically
    monkeypatch.setattr("ckptlog.repository.witness.files.write_atomically", full)
    with pytest.raises(OSError, match="full"):
        witness.cosign(asked, key)
    assert witness.last(key.name) is None


def test_two_at_once_never_cosign_what_contradicts(home, witness, tmp_path):
    asked, key = request(home, 0)
    witness.cosign(asked, key)
    home.write(3)
    first, _ = request(home, 10)
    home.write(3)
    second, _ = request(home, 10)
    done, refused = [], []

    def ask(one):
        try:
            done.append(Witness(Environment(), tmp_path / "witness").cosign(one)[0].size)
        except WitnessError as error:
            refused.append(error)

    workers = [threading.Thread(target=ask, args=(one,)) for one in (first, second)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (len(done), len(refused)) == (1, 1)
    assert witness.last(key.name).size == done[0]


# --- on the side of the log -----------------------------------------------------------------------


def test_a_cosignature_is_kept_with_its_head(home, witness):
    asked, key = request(home, 0)
    _, made = witness.cosign(asked, key)
    home.write(3)
    with home.open() as store:
        notary = store.notary
        newest = notary.sign()
        (changed,) = accept(notary.shelf, (made,), (witness.key,))
        assert changed.head.size == 10
        assert notary.latest() == newest
        assert notary.shelf.find(10).note.signatures[1] == made
        again = witness.cosign(request(home, 10)[0])[1]
        (changed,) = accept(notary.shelf, (again,), (witness.key,))
        assert notary.latest() == changed == notary.sign()
    assert home.verify().ok


def test_only_those_of_trusted_witnesses_and_of_our_heads_are_taken(home, witness, tmp_path):
    asked, key = request(home, 0)
    _, made = witness.cosign(asked, key)
    stranger = Witness(Environment(), tmp_path / "stranger")
    stranger.make_key("stranger.example")
    _, other = stranger.cosign(asked, key)
    wrong = made._replace(data=made.data[:-1] + bytes([made.data[-1] ^ 1]))
    with home.open() as store:
        shelf = store.notary.shelf
        for signatures, trusted in (
            ((made,), ()),
            ((other,), (witness.key,)),
            ((wrong,), (witness.key,)),
            ((), (witness.key,)),
        ):
            with pytest.raises(SignatureError):
                accept(shelf, signatures, trusted)
        (changed,) = accept(shelf, (other, made, wrong), (witness.key,))
        assert [one.name for one in changed.note.signatures] == [key.name, witness.key.name]


def test_the_newer_of_two_by_one_witness_stays(home, witness):
    asked, key = request(home, 0)
    _, first = witness.cosign(asked, key)
    second = witness.cosign(request(home, 10)[0])[1]
    with home.open() as store:
        shelf = store.notary.shelf
        accept(shelf, (first,), (witness.key,))
        (changed,) = accept(shelf, (second,), (witness.key,))
        assert changed.note.signatures[1:] == (second,)


def test_who_is_trusted_is_kept_apart(home, witness):
    with home.open() as store:
        ring = store.notary.ring
        assert ring.witnesses() == ()
        ring.trust((witness.key,))
        assert ring.witnesses() == (witness.key,)
        assert (home.keys / "witnesses").read_text() == f"{witness.key}\n"


def test_a_head_of_many_signatures_stays_within_bounds(home, witness):
    text = head.encode(Head("o", 1, bytes(32)))
    many = Note(text, tuple(note.Signature(f"w{n}", b"1234", b"5") for n in range(101)))
    with pytest.raises(FormatError):
        note.encode(many)
