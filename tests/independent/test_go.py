"""Go's own packages read what we publish and prove, and refuse what was changed.

Each refusal is one of a published copy that is whole in itself as far as its forger could make it.
"""

from __future__ import annotations

import random

import pytest

import ckptlog
from ckptlog.formats import head, note, tile
from ckptlog.formats.merkle import Frontier
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.witness import Witness, accept
from ckptlog.storage.environment import Environment
from tests.independent.conftest import fill


def entries_of(folder, size):
    entries = []
    for number in range(-(-size // 256)):
        width = min(256, size - number * 256)
        data = (folder / tile.tile_path("entries", number, width)).read_bytes()
        entries += tile.decode_entries(data)
    return entries


def write_log(folder, entries):
    """Write a log's files anew, tiles included, as a forger without the key can."""
    rows = [leaf_hash(entry) for entry in entries]
    for level in range(3):
        for number in range(-(-len(rows) // 256)):
            part = rows[number * 256 : number * 256 + 256]
            path = folder / tile.tile_path(level, number, len(part))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(part))
        rows = [_root(rows[at : at + 256]) for at in range(0, len(rows) // 256 * 256, 256)]
    for number in range(-(-len(entries) // 256)):
        part = entries[number * 256 : number * 256 + 256]
        path = folder / tile.tile_path("entries", number, len(part))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tile.encode_entries(part))


def _root(row):
    frontier = Frontier()
    for one in row:
        frontier.add(one)
    return frontier.root


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_everything_published_verifies(go, published):
    assert go("published", published.folder, published.key) == (0, "ok 700 entries")
    told = go("published", published.folder, published.key, published.old)
    assert told == (0, "ok 700 entries, unchanged since 300")


def test_a_flipped_byte_in_any_file_is_refused(go, published):
    chance = random.Random(5)
    for path in files(published.folder):
        whole = path.read_bytes()
        for _ in range(3):
            at = chance.randrange(len(whole))
            path.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
            )
            status, said = go("published", published.folder, published.key)
            assert status == 1, (path, at, said)
        path.write_bytes(whole)
    assert go("published", published.folder, published.key)[0] == 0


def test_swapped_events_are_refused(go, published):
    entries = entries_of(published.folder, 700)
    entries[10], entries[500] = entries[500], entries[10]
    write_log(published.folder, entries)
    status, said = go("published", published.folder, published.key)
    assert status == 1
    assert "downloaded inconsistent tile" in said


def test_swapped_events_under_tiles_that_are_right_are_refused(go, published):
    path = published.folder / tile.tile_path("entries", 0)
    entries = tile.decode_entries(path.read_bytes())
    entries[10], entries[11] = entries[11], entries[10]
    path.write_bytes(tile.encode_entries(entries))
    assert go("published", published.folder, published.key)[0] == 1


def test_a_truncated_tail_is_refused(go, published):
    entries = entries_of(published.folder, 700)[:-1]
    write_log(published.folder, entries)
    (published.folder / tile.tile_path("entries", 2, 188)).unlink()
    assert go("published", published.folder, published.key)[0] == 1


def test_a_rolled_back_head_is_refused_by_who_kept_a_newer_one(go, published, made):
    newer = made.folder / "checkpoint"
    (published.folder / "checkpoint").write_bytes(published.old.read_bytes())
    write_log(published.folder, entries_of(made.folder, 700)[:300])
    assert go("published", published.folder, published.key)[0] == 0  # it *was* the log
    status, said = go("published", published.folder, published.key, newer)
    assert status == 1
    assert said == "300 entries, and the old head has 700"


def test_a_rewritten_history_is_refused_even_with_the_right_key(go, tmp_path, made):
    """The owner of the key signs another past: whoever kept a head sees it."""
    path = tmp_path / "other"
    with ckptlog.CheckpointManager(path) as manager:
        fill(manager, 500)
        with ckptlog.open(made.store) as store:
            key = store.notary.ring.signing_key()
        tree = manager.store.notary.tree.grown(None, 500)
        text = head.encode(head.Head(key.verifier.name, 500, tree.root(500)))
        forged = tmp_path / "tiles"
        forged.mkdir()
        (forged / "checkpoint").write_bytes(note.encode(note.Note(text, (key.sign(text),))))
        entries = [
            entry
            for run in manager.store.notary.tree.runs(0, manager.store.notary.tree.end())
            for entry in run.entries
        ]
        write_log(forged, entries)
    assert go("published", forged, made.key)[0] == 0
    assert go("published", forged, made.key, made.old)[0] == 1


@pytest.mark.parametrize("position", [0, 1, 255, 256, 511, 512, 698, 699])
def test_our_inclusion_proofs_verify(go, made, tmp_path, position):
    with ckptlog.open(made.store) as store:
        data = head.encode_inclusion(store.notary.prove(position))
    proof = tmp_path / "proof"
    proof.write_bytes(data)
    assert go("inclusion", proof, made.key) == (0, f"ok entry {position}")
    other = data.replace(f"index {position}\n".encode(), f"index {position ^ 1}\n".encode())
    proof.write_bytes(other)
    assert go("inclusion", proof, made.key)[0] == 1


def test_our_consistency_proofs_verify(go, made, tmp_path):
    with ckptlog.open(made.store) as store:
        data = head.encode_consistency(store.notary.prove_consistency(300))
    proof = tmp_path / "proof"
    proof.write_bytes(data)
    assert go("consistency", proof, made.old, made.key) == (0, "ok 300 of 700")
    lines = data.splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    proof.write_bytes(b"".join(lines))
    assert go("consistency", proof, made.old, made.key)[0] == 1


def test_a_cosigned_head_verifies(go, tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        fill(manager, 3)
        notary = manager.store.notary
        notary.sign()
        witness = Witness(Environment(), tmp_path / "witness")
        key = witness.make_key("witness.example/w1")
        request = head.encode_consistency(notary.prove_consistency(0))
        _, made = witness.cosign(request, notary.key)
        accept(notary.shelf, (made,), (key,))
        file = tmp_path / "note"
        file.write_bytes(note.encode(notary.latest().note))
        assert go("cosigned", file, notary.key, key) == (0, "ok witness.example/w1")
        later = note.Signature(made.name, made.key_id, made.data[:7] + b"\x00" + made.data[8:])
        log, _ = notary.latest().note.signatures
        file.write_bytes(note.encode(note.Note(notary.latest().note.text, (log, later))))
        assert go("cosigned", file, notary.key, key)[0] == 1
