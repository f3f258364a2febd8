"""Chunks and payloads that are not what the log says, and packs that are gone."""

from __future__ import annotations

import os

import msgspec
import pytest

import ckptlog
from ckptlog.blobs.codec import Codec
from ckptlog.errors import UnsupportedError
from ckptlog.formats import chunk, frame, pack
from ckptlog.model.event import PackEntry, Reference
from ckptlog.repository.verify import verify_directory
from tests.repository.damage import (
    append,
    changed,
    codes,
    created,
    fill,
    notes,
    record,
)


def test_a_missing_pack(tmp_path, small_packs):
    first = fill(tmp_path / "s", blobs=3000)
    path = min((tmp_path / "s").glob("packs/*.pack"))
    path.rename(tmp_path / "aside")
    for level in ("full", "structure"):
        report = verify_directory(tmp_path / "s", level)
        assert report.problems[0].code == "blob.missing"
        assert report.problems[0].where == f"packs/{path.name}"
        assert report.events == 5
    report = verify_directory(tmp_path / "s")
    assert any(first in problem.message for problem in report.problems[1:])
    (tmp_path / "aside").rename(path)
    with path.open("ab") as file:
        file.write(b"x")
    assert not verify_directory(tmp_path / "s", "structure").ok


def test_a_pack_of_another_size_than_registered(tmp_path, small_packs):
    path = tmp_path / "s"
    fill(path, blobs=3000)
    with ckptlog.open(path) as store:
        (registered, *_) = [entry.event.packs[0] for entry in store.events() if entry.event.packs]
        pack = msgspec.structs.replace(registered, bytes=registered.bytes + 1)
        append(store, record("again", packs=(pack,)))
        found = [(p.code, p.message) for p in store.verify("structure").problems]
    assert found[0][0] == "format.malformed"
    assert "were registered" in found[0][1]


def test_bytes_between_the_chunks_of_a_pack(tmp_path):
    digest, stored = Codec().record(chunk.LEAF, b"a chunk")
    with ckptlog.open(tmp_path / "s", create=True) as store:
        store_id, pack_id = store.info.id_bytes, bytes(16)
        place = pack.seed(store_id, 0, pack_id)
        head = pack.encode_header(pack.PackHeader(store_id, pack_id, 0)) + b"hidden"
        framed = frame.encode(place, len(head), frame.CHUNK, 0, stored)
        row = pack.PackedChunk(digest, len(head), len(framed))
        whole = head + framed + pack.encode_index(place, len(head) + len(framed), [row])
        (store.path / "packs" / pack.pack_name(0, pack_id)).write_bytes(whole)
        append(store, record("a", packs=(PackEntry(0, len(whole), pack_id.hex()),)))
        assert store.verify("structure").ok
        (problem,) = store.verify().problems
    assert f"{len(head) - 6} is where it should begin" in problem.message


def payload(raw, domain=chunk.LEAF, kind="leaf"):
    digest, stored = Codec().record(domain, raw)
    return Reference(kind, digest.hex(), len(raw)), stored


def test_a_chunk_that_is_not_what_its_name_says(tmp_path):
    reference, stored = payload(b'{"a":1}')
    with ckptlog.open(tmp_path / "s", create=True) as store:
        append(store, created(data=reference), records=[stored[:-2] + b"2}"])
        report = store.verify()
        assert codes(report) == ["blob.corrupt", "blob.corrupt"]
        assert report.problems[0].where.startswith("log/")
        assert store.verify("structure").ok


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"not json", "malformed"),
        (b"[1]", "dictionary is needed"),
        (b'{"$x":1}', "format.malformed"),
    ],
)
def test_a_payload_that_no_reader_understands(tmp_path, raw, why):
    reference, stored = payload(raw)
    with ckptlog.open(tmp_path / "s", create=True) as store:
        append(store, created(meta=reference), records=[stored])
        (problem,) = verify_directory(tmp_path / "s").problems
    assert problem.code == "format.malformed"
    assert "The meta of 'cp' after event 0" in problem.message
    assert why in str(problem)


def test_a_payload_is_told_once_and_by_whom_it_is_needed(tmp_path):
    reference, _ = payload(b'{"a":1}')
    good, stored = payload(b'{"a":2}')
    with ckptlog.open(tmp_path / "s", create=True) as store:
        append(store, created(data=reference))
        (problem,) = verify_directory(tmp_path / "s").problems
        assert "1 event names it. Present state of: cp." in problem.message
        append(store, changed("updated", "active", 0, data=reference))
        (problem,) = verify_directory(tmp_path / "s").problems
        assert problem.code == "blob.missing"
        assert "2 events name it. Present state of: cp." in problem.message
        append(store, changed("updated", "active", 1, number=2, data=good), records=[stored])
        (problem,) = verify_directory(tmp_path / "s").problems
        assert "Only past states need it." in problem.message


def test_a_tree_whose_sizes_lie(tmp_path):
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1, data={"x": os.urandom(9000).hex()})
        (entry,) = manager.store.events()
        reference = entry.event.data
        assert reference is not None
        assert reference.kind == "tree"
        longer = msgspec.structs.replace(reference, size=reference.size + 1)
        append(manager.store, created(data=longer, origin=-1))
        assert "blob.corrupt" in codes(manager.store.verify())


def test_what_cannot_be_decoded_here_is_a_note(store_path, monkeypatch):
    def refuse(wire, **_options):
        raise UnsupportedError("No numpy here.")

    monkeypatch.setattr("ckptlog.model.value.decode", refuse)
    report = verify_directory(store_path)
    assert report.ok
    assert "No numpy here." in notes(report)


def test_an_index_that_lacks_chunks_is_a_note(store_path):
    with ckptlog.open(store_path) as store:
        store.index.clear()
        report = store.verify()
    assert report.ok
    assert "not in the chunk index" in notes(report)
