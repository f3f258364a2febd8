"""Archives: what is exported, that all damage is seen, that nothing wrong ever comes out."""

from __future__ import annotations

import base64
import os
import random
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointNotFoundError,
    FormatError,
    LogCorruptionError,
    MissingBlobError,
)
from ckptlog.formats import archive, merkle
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.archive import export_archive
from ckptlog.repository.archive_reader import ArchiveReader
from tests.formats.mutation import cuts, flips, grown
from tests.formats.vectors import bytes_of, every


def read(path: Path) -> dict[str, object]:
    """Return all that a file tells, once it is verified."""
    with ArchiveReader(path) as reader:
        found = reader.verify()
        told = list(reader.events())
        payloads = {}
        for one in told:
            for reference in (one.event.data, one.event.meta):
                if (
                    reference is not None
                    and one.event.subject.checkpoint not in found.deleted
                    and not reader.is_lacking(reference)
                ):
                    payloads[reference.root] = reader.wire(reference).decode()
        return {
            "store": found.store,
            "size": found.size,
            "root": found.root.hex(),
            "note": found.note.decode(),
            "tasks": list(found.tasks),
            "events": [[one.position, one.leaf.hex()] for one in told],
            "payloads": payloads,
            "lacks": sorted(digest.hex() for digest in found.lacks),
        }


@every("archive")
def test_golden(vector, tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(bytes_of(vector))
    if "error" in vector:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert caught.value.code == vector["error"]
        assert vector["says"] in str(caught.value)
    else:
        assert read(path) == vector["value"]


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "s", actor="a") as manager:
        yield manager


def fill(manager, tasks="tu", steps=4):
    for step in range(1, steps + 1):
        for task in tasks:
            name = manager.create_checkpoint(task, task, step, data={"n": step, "x": "y" * 50})
            if step % 2:
                manager.complete_checkpoint(name, {"done": True})


def test_the_events_are_those_of_the_log_and_the_root_too(manager, tmp_path):
    fill(manager)
    report = export_archive(manager.store, ["t"], tmp_path / "a.ckpt")
    told = read(tmp_path / "a.ckpt")
    raw = [leaf for commit in manager.store.log.reader.commits() for leaf in commit.leaves]
    wanted = [
        [entry.position, raw[entry.position].hex()]
        for entry in manager.store.events()
        if entry.event.subject.task == "t"
    ]
    assert told["events"] == wanted
    assert (report.root, report.size, report.events) == (told["root"], len(raw), len(wanted))
    tree = merkle.Frontier()
    for leaf in raw:
        tree.add(leaf)
    assert tree.root.hex() == told["root"]


def test_a_signed_head_that_covers_the_events_is_taken(manager, tmp_path):
    fill(manager, steps=1)
    first = export_archive(manager.store, ["t"], tmp_path / "a.ckpt")
    root = base64.b64encode(bytes.fromhex(first.root)).decode()
    origin = f"ckptlog/{manager.store.id}"
    note = f"{origin}\n{first.size}\n{root}\n\n— {origin} AAAA\n"
    (tmp_path / "s/heads").mkdir(exist_ok=True)
    (tmp_path / "s/heads/1").write_text(note, encoding="utf-8")
    (tmp_path / "s/heads/notes.txt").write_text("nothing of this kind")
    # One that somebody has put there of a log of his own is none of this store's.
    (tmp_path / "s/heads/2").write_text(note.replace(origin, "theirs"), encoding="utf-8")
    manager.create_checkpoint("u", "U", 9)
    signed = export_archive(manager.store, ["t"], tmp_path / "b.ckpt")
    assert (signed.size, signed.root, signed.is_signed) == (first.size, first.root, True)
    assert read(tmp_path / "b.ckpt")["note"] == note
    manager.create_checkpoint("t", "T", 9)
    later = export_archive(manager.store, ["t"], tmp_path / "c.ckpt")
    assert (later.size, later.is_signed) == (manager.store.position, False)


def test_a_head_of_another_log_stops_the_export(manager, tmp_path):
    fill(manager, steps=1)
    (tmp_path / "s/heads").mkdir(exist_ok=True)
    root = base64.b64encode(bytes(32)).decode()
    (tmp_path / "s/heads/1").write_text(
        f"ckptlog/{manager.store.id}\n{manager.store.position}\n{root}\n\n- o A\n"
    )
    with pytest.raises(LogCorruptionError, match="signed"):
        export_archive(manager.store, ["t"], tmp_path / "a.ckpt")
    assert not list(tmp_path.glob("a.ckpt*"))


def test_what_was_deleted_is_not_handed_on(manager, tmp_path):
    name = manager.create_checkpoint("t", "T", 1, data={"note": "s3cr3t"})
    manager.delete_checkpoint(name)
    manager.create_checkpoint("t", "T", 2, data={"note": "gone with the task"})
    manager.delete_task("t")
    manager.create_checkpoint("t", "T", 3, data={"public": 1})
    report = export_archive(manager.store, ["t"], tmp_path / "a.ckpt")
    data = (tmp_path / "a.ckpt").read_bytes()
    assert b"s3cr3t" not in data
    assert b"gone with" not in data
    assert b"public" in data
    assert report.events == 5


def test_a_state_that_is_gone_is_listed_and_the_newest_must_be_there(
    manager, tmp_path, monkeypatch
):
    name = manager.create_checkpoint("t", "T", 1, data={"v": "old" * 20})
    old = manager.store.newest(name).event.data
    manager.update_checkpoint(name, data={"v": "new" * 20})
    new = manager.store.newest(name).event.data
    raw, gone = manager.store.blobs.raw, set()

    def lossy(digest, domain, *rest):
        if digest.hex() in gone:
            raise MissingBlobError("gone")
        return raw(digest, domain, *rest)

    monkeypatch.setattr(manager.store.blobs, "raw", lossy)
    gone.add(old.root)
    assert export_archive(manager.store, ["t"], tmp_path / "a.ckpt").lacks == 1
    assert read(tmp_path / "a.ckpt")["lacks"] == [old.root]
    gone.add(new.root)
    with pytest.raises(MissingBlobError):
        export_archive(manager.store, ["t"], tmp_path / "b.ckpt")


def test_names_that_look_alike_are_not_mixed_up(manager, tmp_path):
    for task in ('t"', "t", '"task":"t"', "tt", "T\\", "ß"):
        manager.create_checkpoint(task, "x", 1, data={"of": task})
    for task in ('t"', "t", '"task":"t"', "T\\", "ß"):
        report = export_archive(manager.store, [task], tmp_path / "a.ckpt", is_replaced=True)
        assert report.events == 1
        assert read(tmp_path / "a.ckpt")["tasks"] == [task]


def test_large_values_come_whole(manager, tmp_path):
    data = {"x": os.urandom(300_000), "list": [{"n": n, "t": "x" * 90} for n in range(2000)]}
    name = manager.create_checkpoint("t", "T", 1, data=data)
    data["list"].append({"n": -1})
    manager.update_checkpoint(name, data=data)
    export_archive(manager.store, ["t"], tmp_path / "a.ckpt")
    roots = read(tmp_path / "a.ckpt")["payloads"]
    assert (
        roots[manager.store.newest(name).event.data.root]
        == manager.store.wire(manager.store.newest(name).event.data).decode()
    )
    # The second version shares nearly all of its chunks with the first.
    assert (tmp_path / "a.ckpt").stat().st_size < 420_000


@pytest.mark.parametrize("tasks", [[], "t", ["t", "nobody"], [""], ["\n"]])
def test_what_is_no_task_is_refused(manager, tmp_path, tasks):
    fill(manager, steps=1)
    with pytest.raises((ArgumentError, CheckpointNotFoundError)):
        export_archive(manager.store, tasks, tmp_path / "a.ckpt")
    assert not list(tmp_path.glob("a.ckpt*"))


def test_a_file_is_replaced_only_when_asked(manager, tmp_path):
    fill(manager, steps=1)
    (tmp_path / "a.ckpt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"exists.*--force"):
        export_archive(manager.store, ["t"], tmp_path / "a.ckpt")
    with pytest.raises(ArgumentError):
        export_archive(manager.store, ["t"], tmp_path)
    with pytest.raises(ArgumentError):
        export_archive(manager.store, ["t"], tmp_path / "no/such/folder")
    with pytest.raises(ArgumentError):
        export_archive(manager.store, ["t"], "")
    assert (tmp_path / "a.ckpt").read_text() == "mine"
    export_archive(manager.store, ["t"], tmp_path / "a.ckpt", is_replaced=True)
    read(tmp_path / "a.ckpt")


@pytest.mark.parametrize("path", ["nowhere", ".", "fifo"])
def test_what_is_no_file_is_refused(tmp_path, path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ArgumentError):
        ArchiveReader(tmp_path / path)


def small(tmp_path) -> bytes:
    with CheckpointManager(tmp_path / "small", actor="a") as manager:
        manager.create_checkpoint("u", "U", 1)
        manager.create_checkpoint("t", "T", 1, data={"x": "abc" * 100})
        export_archive(manager.store, ["t"], tmp_path / "small.ckpt")
    return (tmp_path / "small.ckpt").read_bytes()


def is_refused(tmp_path, data) -> bool:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(data)
    try:
        read(path)
    except CheckpointError:
        return True
    return False


def test_every_cut_and_addition_and_a_bit_of_every_byte_is_refused(tmp_path):
    data = small(tmp_path)
    chance = random.Random(3)
    assert all(is_refused(tmp_path, one) for one in cuts(data))
    assert all(is_refused(tmp_path, one) for one in grown(data))
    for at in range(len(data)):
        one = bytearray(data)
        one[at] ^= 1 << chance.randrange(8)
        assert is_refused(tmp_path, bytes(one)), at


@pytest.mark.thorough
def test_every_bit_is_refused(tmp_path):
    assert all(is_refused(tmp_path, one) for one in flips(small(tmp_path)))


def resealed(data: bytes, at: int, change) -> bytes:
    """Return an archive with one record's body changed and every sum and hash made right again."""
    from blake3 import blake3

    records, offset = [], 8
    while offset < len(data):
        tag, length = archive.decode_header(data[offset : offset + 16], offset)
        records.append((tag, data[offset + 16 : offset + 16 + length]))
        offset += 16 + length
    tag, body = records[at % (len(records) - 1)]
    records[at % (len(records) - 1)] = (tag, change(body))
    out = data[:8]
    for tag, body in records[:-1]:
        out += archive.encode(tag, len(out), body)
    done = archive.decode_done(records[-1][1])
    body = archive.encode_done(
        archive.Done(done.events, done.chunks, done.lacks, done.root, blake3(out).digest())
    )
    return out + archive.encode(archive.DONE, len(out), body)


def test_a_forger_who_makes_all_sums_right_changes_nothing_that_is_proven(tmp_path):
    """Events, proofs and payloads hang on the root; the head's words for people do not."""
    data = small(tmp_path)
    path = tmp_path / "bad.ckpt"
    path.write_bytes(data)
    honest = read(path)
    chance = random.Random(4)
    for _ in range(400):
        number, bit = chance.randrange(10), chance.randrange(8)

        def change(body, bit=bit):
            if not body:
                return body
            at = chance.randrange(len(body))
            return body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :]

        forged = resealed(data, number, change)
        path.write_bytes(forged)
        try:
            told = read(path)
        except CheckpointError:
            continue
        for name in ("root", "size", "tasks", "events", "payloads"):
            assert told[name] == honest[name]


@pytest.mark.parametrize(
    ("make", "is_fit"),
    [
        (lambda store: f"ckptlog/{store}", True),
        (lambda store: f"ckptlog/{store}/0123abcd", True),
        (lambda store: f"ckptlog/{store}/0123abc", False),
        (lambda store: f"ckptlog/{store}/0123ABCD", False),
        (lambda store: f"ckptlog/{store}/0123abcd/1", False),
        (lambda store: f"ckptlog/{'0' * 32}", False),
        (lambda store: f"CKPTLOG/{store}", False),
        (lambda store: "example.org/log", False),
    ],
)
def test_the_signed_head_names_the_store_that_the_archive_names(tmp_path, make, is_fit):
    """Who redoes all sums cannot pass the head of one store off as that of another."""
    from ckptlog.repository.archive import is_origin

    store = "0123456789abcdef" * 2
    assert is_origin(f"{make(store)}\n8\nx\n\n".encode(), store) is is_fit


def test_an_archive_that_lies_about_its_store_is_refused(manager, tmp_path):
    fill(manager, steps=1)
    manager.store.notary.sign()
    path = tmp_path / "a.ckpt"
    assert export_archive(manager.store, ["t"], path).is_signed
    data = path.read_bytes()
    path.write_bytes(resealed(data, 0, lambda body: body))
    assert read(path)["store"] == manager.store.id
    lie = ("0" * 32).encode()
    path.write_bytes(resealed(data, 0, lambda body: body.replace(manager.store.id.encode(), lie)))
    with pytest.raises(FormatError, match="its signed head does not"):
        read(path)
    with CheckpointManager(tmp_path / "into") as other:
        with pytest.raises(FormatError):
            ckptlog.import_archive(other.store, path)
        assert other.store.position == 0


def test_a_damaged_archive_says_where_and_what_next(manager, tmp_path):
    fill(manager, steps=1)
    path = tmp_path / "a.ckpt"
    export_archive(manager.store, ["t"], path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match=r"damaged at offset \d+: the checksum") as caught:
        read(path)
    assert "another copy" in caught.value.hint


def test_a_lying_length_allocates_nothing(tmp_path):
    data = small(tmp_path)
    for length in (2**32 - 1, 2**31, 10**8):
        forged = data[:12] + length.to_bytes(4, "little") + data[16:]
        assert is_refused(tmp_path, forged)


def test_the_leaf_is_that_of_the_stored_bytes(manager, tmp_path):
    fill(manager, steps=1)
    export_archive(manager.store, ["t"], tmp_path / "a.ckpt")
    with ArchiveReader(tmp_path / "a.ckpt") as reader:
        reader.verify()
        for one in reader.events():
            assert one.leaf == leaf_hash(ckptlog.formats.event.encode(one.event))
