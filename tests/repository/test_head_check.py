"""What `verify` says of heads: cut, set back, rewritten, forked, forged are told apart."""

from __future__ import annotations

import shutil

import pytest

from ckptlog.crypto.signature import SigningKey
from ckptlog.errors import ForkedError
from ckptlog.formats import head, note
from ckptlog.formats.note import ED25519, Note
from ckptlog.model.event import FORKED
from ckptlog.policy.command import Record
from ckptlog.repository.head_check import KeptHeads, check_heads
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.report import Book
from ckptlog.repository.verify import verify_directory
from tests.repository.attested import codes, house, rewritten


@pytest.fixture
def home(tmp_path):
    return house(tmp_path)


def key_of(home):
    with home.open() as store:
        return store.notary.key


def test_heads_that_hold(home):
    kept = home.keep()
    home.write(5)
    home.sign()
    home.write(2)
    report = home.verify(heads=(kept,))
    assert report.ok
    assert any("agree up to 15 events; 2 came after" in one for one in report.notes)


def test_a_store_without_heads_is_told_nothing(home):
    report = home.verify()
    assert (report.problems, report.notes) == ((), ())


def test_a_backup_that_was_restored(home):
    home.sign()
    copy = home.back_up()
    home.write(5)
    kept = home.keep()
    home.restore(copy)
    report = home.verify(heads=(kept,))
    assert codes(report) == ["head.rolled_back"]
    assert "5 are missing. Up to 10 it agrees" in report.problems[0].message
    # The memory beside the key says so too.
    assert codes(home.verify()) == ["head.rolled_back"]


def test_a_backup_that_was_written_on(home):
    home.sign()
    copy = home.back_up()
    home.write(5)
    home.sign()
    home.restore(copy)
    home.write(9, task="other")
    report = home.verify()
    assert codes(report) == ["head.rewritten"]
    assert "part somewhere from event 10 on" in report.problems[0].message


@pytest.mark.parametrize("events", [10, 14])
def test_a_rewritten_history(home, events, monkeypatch, tmp_path):
    kept = home.keep()
    key = key_of(home)
    rewritten(home, events)
    report = home.verify()
    assert set(codes(report)) == {"head.rewritten"}
    assert "part somewhere from event 0 on" in report.problems[0].message
    # On a machine without the keys it takes the head and the key that were kept.
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "none"))
    report = home.verify(heads=(kept,), keys=(key,))
    assert "head.rewritten" in codes(report)


def test_a_history_signed_anew_by_the_attacker(home, monkeypatch, tmp_path):
    """Everything in the store is sound and signed: only what lies elsewhere tells."""
    kept, key = home.keep(), key_of(home)
    rewritten(home)
    shutil.rmtree(home.path / "heads")
    with monkeypatch.context() as attacker:
        attacker.setenv("CKPTLOG_KEYS", str(tmp_path / "attackers"))
        home.sign()
    assert "head.rewritten" in codes(home.verify())
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "none"))
    report = home.verify()
    assert report.ok
    assert any("comes from the store itself" in one for one in report.notes)
    told = codes(home.verify(heads=(kept,), keys=(key,)))
    assert "head.rewritten" in told
    assert "signature.invalid" in told
    assert "signature.invalid" in codes(home.verify(heads=(kept,)))


def test_a_declared_fork(home):
    copy = home.back_up()
    home.write(5)
    kept = home.keep()
    home.restore(copy)
    with home.open() as store:
        done = store.notary.fork(actor="ada")
    report = home.verify()
    assert report.ok
    assert any("was given up: event 10, by ada" in one for one in report.notes)
    report = home.verify(heads=(kept,))
    assert codes(report) == [ForkedError.code]
    assert done.key.name in report.problems[0].message


def test_a_fork_that_knows_less_than_a_head(home, monkeypatch, tmp_path):
    """Restored and forked where the newest head was not known: whoever kept it is told."""
    home.sign()
    copy = home.back_up()
    home.write(5)
    kept = home.keep()
    home.restore(copy)
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "another-machine"))
    with home.open() as store:
        store.notary.fork()
    report = home.verify(heads=(kept,))
    assert codes(report) == ["head.forked"]
    assert "knows only 10 of them" in report.problems[0].message


def test_an_attacker_cannot_declare_a_fork_behind_the_keys_back(home, monkeypatch, tmp_path):
    signed = home.sign()
    rewritten(home)
    facts = {"former": signed.head.origin, "former_size": 99, "origin": "theirs"}
    with home.open() as store:
        record = Record(actor="mallory", command="x", type=FORKED, facts=facts)
        store.submit(Intent((Step(record),)))
    report = home.verify()
    assert set(codes(report)) == {"head.forked"}
    assert "still signs for the former" in report.problems[0].message


def test_a_fork_that_was_made_elsewhere_is_told_here(home, monkeypatch, tmp_path):
    home.sign()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("CKPTLOG_KEYS", str(tmp_path / "another-machine"))
        with home.open() as store:
            store.notary.fork()
    assert codes(home.verify()) == ["head.forked"]


@pytest.mark.parametrize("name", ["heads/latest", "kept", "heads/keys"])
def test_damaged_files_of_heads(home, name):
    home.sign()
    path = home.path / name
    if name == "kept":
        (path,) = (home.path / "heads" / "kept").iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    report = home.verify()
    assert len(report.problems) >= 1
    assert {one.where for one in report.problems} == {str(path.relative_to(home.path))}


def test_a_head_of_another_store_or_none(home, tmp_path):
    (tmp_path / "b").mkdir()
    other = house(tmp_path / "b")
    assert codes(home.verify(heads=(other.keep(),))) == ["key.missing"]
    assert codes(home.verify(heads=(tmp_path / "nothing",))) == ["format.malformed"]
    (tmp_path / "text").write_text("no note")
    assert codes(home.verify(heads=(tmp_path / "text",))) == ["format.malformed"]


def test_a_forged_head_under_the_right_name(home):
    signed = home.sign()
    forger = SigningKey(signed.head.origin, ED25519, bytes(32))
    larger = head.encode(signed.head._replace(size=9, root=bytes(32)))
    path = home.elsewhere / "forged"
    path.write_bytes(note.encode(Note(larger, (forger.sign(larger),))))
    assert codes(home.verify(heads=(path,))) == ["signature.invalid"]


@pytest.mark.parametrize("place", [2, -1])
def test_a_log_with_a_hole_is_not_said_to_be_rewritten_or_cut(tmp_path, place):
    home = house(tmp_path)
    with home.open() as store:
        store.log._segment_bytes = 3000
        from ckptlog import CheckpointManager

        with CheckpointManager(store=store) as manager:
            for step in range(1, 40):
                manager.create_checkpoint("t", "T", step, data={"n": step})
            store.notary.sign()
    segments = sorted(home.path.glob("log/*.seg"))
    assert len(segments) > 4
    data = bytearray(segments[place].read_bytes())
    data[data.index(b'"actor"')] ^= 1
    segments[place].write_bytes(data)
    report = verify_directory(home.path)
    assert "log.corrupt" in codes(report)
    assert not {"head.rewritten", "head.rolled_back"} & set(codes(report))
    assert any("not compared: a part of the log is lost" in one for one in report.notes)


def test_a_pass_of_its_own(home):
    kept = home.keep()
    with home.open() as store:
        book = Book("full", 0, None)
        check_heads(store, book, KeptHeads((kept,)))
        assert book.close(checkpoints=0).problems == ()
    rewritten(home)
    with home.open() as store:
        book = Book("full", 0, None)
        check_heads(store, book)
        assert {one.code for one in book.close(checkpoints=0).problems} == {"head.rewritten"}


def test_an_unsafe_key_is_a_note(home):
    home.sign()
    (home.keys / "signing.key").chmod(0o644)
    report = home.verify()
    assert report.ok
    assert any("can be read by others" in one for one in report.notes)


def losing_repair(home, *, is_known=False):
    """Lose event 4; the cache of leaf hashes goes with it, unless it is to be known."""
    import ckptlog
    from ckptlog.repository.repair import repair

    with home.open(read_only=True) as store:
        entry = store.event_at(4)
    path = home.path / entry.container
    data = bytearray(path.read_bytes())
    data[entry.offset : entry.offset + 40] = bytes(40)
    path.write_bytes(data)
    if not is_known:
        shutil.rmtree(home.path / "views" / "tree")
    done = repair(home.path, is_applied=True)
    assert done.lost_positions == ((4, 4),)
    with ckptlog.open(home.path, read_only=True) as store:
        assert bool(store.event_at(4).event.facts) == is_known


def test_a_lost_event_is_not_said_to_be_a_rewritten_past(home):
    kept = home.keep()
    losing_repair(home)
    for _ in "ab":
        report = home.verify()
        assert report.ok
        assert report.events_lost == 1
        assert any("cannot be compared: event 4 was lost" in one for one in report.notes)
    # Whoever asks for just this comparison is not told that all is well.
    report = home.verify(heads=(kept,))
    assert codes(report) == ["head.incomparable"]
    assert report.problems[0].position == 4
    with home.open() as store:
        store.notary.fork()
    assert home.verify().ok


def test_a_tombstone_that_knows_its_leaf_hash_changes_no_head(home):
    kept = home.keep()
    losing_repair(home, is_known=True)
    report = home.verify(heads=(kept,))
    assert report.ok
    assert any("agree up to 10 events" in one for one in report.notes)


def test_a_head_over_a_tombstone_tells_of_a_past_that_was_changed_after(home):
    home.sign()
    losing_repair(home)
    with home.open() as store:
        store.notary.fork()
    copy = home.back_up()
    home.write(3)
    signed = home.sign()
    assert home.verify().ok
    home.restore(copy)
    home.write(3, task="other")
    report = home.verify()
    assert codes(report) == ["head.rewritten"]
    assert f"first {signed.head.size} events" in report.problems[0].message


def test_a_log_that_was_cut_and_has_a_tombstone(home):
    """A tombstone is an event: it does not hide that others are missing at the end."""
    from ckptlog.repository.repair import repair

    with home.open() as store:
        lost = store.event_at(3)
    with (home.path / lost.container).open("r+b") as file:
        file.seek(lost.offset + 4)
        file.write(bytes(56))
    repair(home.path, is_applied=True)
    copy = home.back_up()
    home.write(5)
    home.sign()
    home.restore(copy)
    assert codes(home.verify()) == ["head.rolled_back"]
