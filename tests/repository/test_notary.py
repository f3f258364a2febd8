from __future__ import annotations

import os
import shutil
import stat
import threading

import pytest

import ckptlog
from ckptlog.crypto.signature import SigningKey, verify_note
from ckptlog.errors import (
    ArgumentError,
    FormatError,
    KeyMissingError,
    KeyUnsafeError,
    RewrittenError,
    RolledBackError,
    SignatureError,
)
from ckptlog.formats import head, merkle, note
from ckptlog.formats.merkle import Frontier
from ckptlog.model.event import FORKED
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.keyring import keys_folder
from ckptlog.storage.environment import Environment
from tests.repository.attested import house, rewritten


@pytest.fixture
def home(tmp_path):
    return house(tmp_path)


def true_root(store):
    frontier = Frontier()
    for commit in store.log.reader.commits():
        for leaf in commit.leaves:
            frontier.add(leaf)
    return frontier.root


def test_a_head_signs_what_the_log_has(home):
    with home.open() as store:
        signed = store.notary.sign()
        assert signed.head == (f"ckptlog/{store.id}", 10, true_root(store), ())
        verify_note(signed.note, store.notary.key)
        assert store.notary.latest() == signed
        assert store.notary.sign() == signed
    home.write(5)
    with home.open() as store:
        assert store.notary.sign().head == (f"ckptlog/{store.id}", 15, true_root(store), ())


def test_an_empty_log_can_be_signed_and_continued(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        assert manager.store.notary.sign().head.root == merkle.ROOT_EMPTY
        manager.create_checkpoint("t", "T", 1)
        assert manager.store.notary.sign().head.size == 1


def test_the_key_lies_apart_and_is_its_owners_alone(home):
    home.sign()
    key = home.keys / "signing.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.keys.stat().st_mode) == 0o700
    *_, secret = key.read_bytes().strip().split(b"+", 4)  # base64, which can have a + of its own
    assert len(secret) == 44
    for path in home.path.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes()


def test_a_key_that_others_can_read_is_refused(home):
    home.sign()
    (home.keys / "signing.key").chmod(0o640)
    with pytest.raises(KeyUnsafeError) as caught:
        home.sign()
    assert caught.value.code == "key.unsafe"


def test_where_keys_lie(monkeypatch, tmp_path):
    environment = Environment()
    monkeypatch.setenv("CKPTLOG_KEYS", "/named")
    assert str(keys_folder(environment)) == "/named"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CKPTLOG_KEYS", "named")  # it stays there when the program goes elsewhere
    assert keys_folder(environment) == tmp_path / "named"
    monkeypatch.delenv("CKPTLOG_KEYS")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert str(keys_folder(environment)) == "/data/ckptlog/keys"
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert keys_folder(environment) == tmp_path / "data" / "ckptlog" / "keys"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(keys_folder(environment)) == "/home/ada/.local/share/ckptlog/keys"


def test_a_store_whose_key_is_elsewhere_is_not_signed_by_another(home, monkeypatch, tmp_path):
    signed = home.sign()
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "none"))
    with home.open() as store:
        with pytest.raises(KeyMissingError) as caught:
            store.notary.sign()
        assert caught.value.code == "key.missing"
        # What was signed can still be proved, with what the store publishes.
        assert store.notary.latest() == signed
        assert store.notary.prove(3).note == signed.note
        home.write(1)
        with pytest.raises(KeyMissingError):
            store.notary.prove(10)


@pytest.mark.parametrize("damage", [b"", b"PRIVATE+KEY+x", b"\xff"])
def test_a_damaged_key_is_told(home, damage):
    home.sign()
    (home.keys / "signing.key").write_bytes(damage)
    with pytest.raises(FormatError, match=r"signing\.key"):
        home.sign()


@pytest.mark.parametrize("position", [0, 1, 5, 9])
def test_an_event_is_proved(home, position):
    with home.open() as store:
        proof = store.notary.prove(position)
        signed = head.decode(proof.note.text)
        leaf = leaf_hash(proof.extra)
        merkle.verify_inclusion(leaf, position, signed.size, proof.path, root=signed.root)
        assert store.event_at(position).event == ckptlog.formats.event.decode(proof.extra)


def test_an_event_that_no_head_covers_gets_one(home):
    home.sign()
    home.write(5)
    with home.open() as store:
        assert head.decode(store.notary.prove(3).note.text).size == 10
        assert head.decode(store.notary.prove(12).note.text).size == 15


@pytest.mark.parametrize("position", [-1, 10, 2**62])
def test_an_event_that_is_not_there_is_not_proved(home, position):
    with home.open() as store, pytest.raises(ArgumentError):
        store.notary.prove(position)


def test_an_unchanged_past_is_proved(home):
    old = home.sign().head
    home.write(7)
    with home.open() as store:
        store.notary.sign()
        for begin in range(18):
            proof = store.notary.prove_consistency(begin)
            new = head.decode(proof.note.text)
            root = store.notary.tree.grown(new, new.size).root(begin)
            merkle.verify_consistency(begin, new.size, proof.path, old_root=root, new_root=new.root)
        assert store.notary.prove_consistency(3, 10).note.text == head.encode(old)
        for wrong in ((18, None), (11, 10), (-1, None), (3, 12)):
            with pytest.raises(ArgumentError):
                store.notary.prove_consistency(*wrong)


# --- caches that are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["leaves", "level-1"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "longer"])
def test_a_wrong_cache_changes_nothing(tmp_path, name, damage):
    home = house(tmp_path)
    home.write(590)
    signed = home.sign()
    path = home.path / "views" / "tree" / name
    data = path.read_bytes()
    if damage == "flip":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data + bytes(3200))
    with home.open() as store:
        assert store.notary.sign() == signed
        assert head.decode(store.notary.prove(1).note.text) == signed.head
    home.write(30)
    with home.open() as store:
        assert store.notary.sign().head.root == true_root(store)


def test_a_store_that_is_read_only_proves_all_the_same(home):
    signed = home.sign()
    shutil.rmtree(home.path / "views" / "tree")
    with home.open(read_only=True) as store:
        assert store.notary.prove(4).note == signed.note
        assert store.notary.prove(5).note == signed.note
        assert not (home.path / "views" / "tree").exists()


def test_rebuilt_views_leave_the_heads(home):
    signed = home.sign()
    with home.open() as store:
        store.rebuild_views()
    shutil.rmtree(home.path / "views")
    with home.open() as store:
        assert store.notary.latest() == signed
        assert store.notary.sign() == signed


# --- what must not be signed ----------------------------------------------------------------------


def test_a_log_that_was_set_back_is_not_signed(home):
    copy = home.back_up()
    home.write(5)
    home.sign()
    home.restore(copy)
    with home.open() as store:
        with pytest.raises(RolledBackError) as caught:
            store.notary.sign()
        assert caught.value.code == "head.rolled_back"
        assert caught.value.context["size"] == 15
        with pytest.raises(RolledBackError):
            store.notary.prove(3)


def test_a_backup_that_was_written_on_is_not_signed(home):
    home.sign()
    copy = home.back_up()
    home.write(5)
    home.sign()
    home.restore(copy)
    home.write(9, task="other")
    with home.open() as store:
        with pytest.raises(RewrittenError) as caught:
            store.notary.sign()
        assert caught.value.code == "head.rewritten"
        with pytest.raises(RewrittenError):
            store.notary.prove(3)


@pytest.mark.parametrize("events", [10, 14])
def test_a_rewritten_log_is_not_signed(home, events):
    home.sign()
    rewritten(home, events)
    with pytest.raises(RewrittenError):
        home.sign()


def test_a_good_cache_does_not_hide_another_log(home):
    """The tree of before lies there, and has the signed root: the log's event tells."""
    home.sign()
    tree = home.elsewhere / "tree"
    shutil.copytree(home.path / "views" / "tree", tree)
    rewritten(home, 14)
    shutil.rmtree(home.path / "views" / "tree")
    shutil.copytree(tree, home.path / "views" / "tree")
    with pytest.raises(RewrittenError):
        home.sign()


def test_two_copies_of_a_store_cannot_both_sign(home):
    copy = home.back_up()
    home.write(3)
    home.sign()
    other = home._replace(path=copy)
    other.write(4, task="other")
    with pytest.raises(RewrittenError):
        other.sign()


def test_a_head_by_another_key_in_the_store_is_not_taken(home, monkeypatch, tmp_path):
    signed = home.sign()
    forged = note.decode(note.encode(signed.note))
    (line,) = forged.signatures
    wrong = line._replace(data=bytes(64))
    (home.path / "heads" / "latest").write_bytes(note.encode(note.Note(forged.text, (wrong,))))
    with home.open() as store, pytest.raises(SignatureError):
        store.notary.latest()
    home.write(1)
    assert home.sign().head.size == 11  # signing goes by what is remembered apart


def test_threads_and_processes_sign_in_turn(home):
    found, faults = [], []

    def work(number):
        try:
            with ckptlog.CheckpointManager(home.path) as manager:
                for step in range(1, 8):
                    manager.create_checkpoint(f"t{number}", "T", step)
                    found.append(manager.store.notary.sign())
        except BaseException as error:
            faults.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert faults == []
    roots = {}
    for one in found:
        assert roots.setdefault(one.head.size, one.head.root) == one.head.root
    with home.open() as store:
        last = max(found, key=lambda one: one.head.size)
        assert store.notary.latest().note.text == last.note.text
        assert not home.verify().problems


# --- forks ----------------------------------------------------------------------------------------


def test_a_fork_goes_on_with_another_key_and_says_so(home):
    copy = home.back_up()
    home.write(5)
    lost = home.sign()
    home.restore(copy)
    with home.open() as store:
        former = store.notary.key
        done = store.notary.fork(actor="ada")
        assert done.former == lost.head
        assert done.key == store.notary.key != former
        assert done.head.head.origin.startswith(f"ckptlog/{store.id}/")
        (entry,) = [entry for entry in store.events() if entry.event.type == FORKED]
        assert entry.event.actor == "ada"
        assert entry.event.facts == {
            "origin": done.key.name,
            "key": str(done.key),
            "former": former.name,
            "former_size": 15,
            "former_root": lost.head.root.hex(),
        }
        assert done.head.head.size == 11
        verify_note(done.head.note, done.key)
        assert store.notary.shelf.verifier_keys() == (former, done.key)
    home.write(2)
    assert home.sign().head.origin == done.key.name
    names = sorted(path.suffix for path in (home.keys / "former").iterdir())
    assert names == [".head", ".key"]
    assert home.verify().problems == ()


def test_a_fork_without_the_key(home, monkeypatch, tmp_path):
    signed = home.sign()
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "new"))
    with home.open() as store:
        done = store.notary.fork()
        assert done.former == signed.head
        assert store.notary.sign() == store.notary.latest()


def test_a_fork_of_a_store_that_was_never_signed(home):
    with home.open() as store:
        done = store.notary.fork()
        assert done.former is None
        assert store.notary.latest() == done.head


@pytest.mark.parametrize("act", ["record", "retire", "add_key", "sign"])
def test_an_interrupted_fork_is_gone_on_with(home, monkeypatch, act):
    home.sign()
    with home.open() as store:
        notary = store.notary

        def cut(*_, **__):
            raise KeyboardInterrupt

        place, name = {
            "record": (notary, "_record"),
            "retire": (notary.ring, "retire"),
            "add_key": (notary.shelf, "add_key"),
            "sign": (notary, "_signed"),
        }[act]
        with monkeypatch.context() as patch:
            patch.setattr(place, name, cut)
            with pytest.raises(KeyboardInterrupt):
                notary.fork()
    with home.open() as store:
        if act in {"record", "retire"}:
            done = store.notary.fork()
            assert store.notary.key == done.key
        head = store.notary.sign().head
        kinds = [
            entry.event.facts["origin"] for entry in store.events() if entry.event.type == FORKED
        ]
        assert kinds == [head.origin]
        assert store.notary.key.name == head.origin
    assert home.verify().problems == ()


def test_a_retire_that_was_cut_in_two(home, monkeypatch):
    home.sign()
    replace, calls = os.replace, []

    def second_fails(old, new):
        calls.append(new)
        if str(new).endswith("signing.key"):
            raise KeyboardInterrupt
        return replace(old, new)

    with home.open() as store:
        with monkeypatch.context() as patch:
            patch.setattr("ckptlog.repository.keyring.os.replace", second_fails)
            with pytest.raises(KeyboardInterrupt):
                store.notary.fork()
        done = store.notary.fork()
        assert store.notary.sign().head.origin == done.key.name
        assert len([e for e in store.events() if e.event.type == FORKED]) == 1


def test_without_the_published_keys_another_key_is_not_made_either(home, monkeypatch, tmp_path):
    home.sign()
    kept = {path: path.read_bytes() for path in (home.path / "heads" / "kept").iterdir()}
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "others"))
    (home.path / "heads" / "keys").unlink()
    with pytest.raises(KeyMissingError, match="is not in"):
        home.sign()
    (home.path / "heads" / "latest").unlink()
    with pytest.raises(KeyMissingError):
        home.sign()
    assert not list((tmp_path / "others").rglob("signing.key"))
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_memory_of_a_head_without_its_key_is_refused(home):
    home.sign()
    (home.keys / "signing.key").unlink()
    shutil.rmtree(home.path / "heads")
    with pytest.raises(KeyMissingError):
        home.sign()


def test_a_kept_head_that_another_key_signed_stays(home):
    with home.open() as store:
        notary = store.notary
        first = notary.sign()
        other = SigningKey(first.head.origin, note.ED25519, bytes(32))
        second = first._replace(note=note.Note(first.note.text, (other.sign(first.note.text),)))
        for one in (second, first, second):
            notary.shelf.keep(one)
        assert min(notary.shelf.paths()).parent.name == "kept"
        found = [one.note for one in notary.shelf.all()]
        assert found.count(first.note) == 2  # and as the newest
        assert found.count(second.note) == 1


def test_a_damaged_file_of_keys_is_named_with_what_to_do(home):
    home.sign()
    keys = home.path / "heads" / "keys"
    keys.write_text("nothing\n")
    with pytest.raises(FormatError) as caught:
        home.sign()
    assert str(keys) in caught.value.message
    assert "backup" in caught.value.hint
