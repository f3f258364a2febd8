"""pymerkle, another RFC 6962 tree, has our roots and takes our proofs, and refuses what was changed."""

from __future__ import annotations

import random

import pytest

import ckptlog
from ckptlog.errors import ProofError
from ckptlog.formats import merkle
from ckptlog.views.tiles import Tree
from tests.independent.conftest import fill

pymerkle = pytest.importorskip("pymerkle", reason="pip install -c constraints.txt .[test]")

SIZES = [*range(1, 20), 31, 32, 33, 255, 256, 257, 511, 512, 513, 700]


@pytest.fixture(scope="module")
def trees():
    """Return 700 entries, pymerkle's tree of them, and ours."""
    chance = random.Random(1)
    entries = [chance.randbytes(chance.randrange(40)) for _ in range(700)]
    other = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in entries:
        other.append_entry(entry)
    ours = Tree(None)
    ours.grow(0, [ckptlog.model.leaf.leaf_hash(entry) for entry in entries])
    return entries, other, ours


@pytest.mark.parametrize("size", SIZES)
def test_roots_are_equal(trees, size):
    _, other, ours = trees
    assert ours.root(size) == other.get_root(size)


def proof_of(kind, other, path, **changed):
    """Return a proof of pymerkle's form with our hashes in it."""
    fields = other.serialize()
    return kind.deserialize({**fields, "path": [one.hex() for one in path], **changed})


@pytest.mark.parametrize("size", SIZES)
def test_it_takes_our_inclusion_proofs(trees, size):
    _, other, ours = trees
    root = other.get_root(size)
    for index in {0, size // 3, size // 2, size - 1}:
        path = merkle.inclusion_proof(ours.perfect, index, size)
        leaf = other.get_leaf(index + 1)
        theirs = other.prove_inclusion(index + 1, size)
        proof = proof_of(pymerkle.InclusionProof, theirs, [leaf, *path])
        pymerkle.verify_inclusion(leaf, root, proof)
        merkle.verify_inclusion(leaf, index, size, path, root=root)
        if path:
            broken = [bytes([path[0][0] ^ 1]) + path[0][1:], *path[1:]]
            proof = proof_of(pymerkle.InclusionProof, theirs, [leaf, *broken])
            with pytest.raises(pymerkle.InvalidProof):
                pymerkle.verify_inclusion(leaf, root, proof)
            with pytest.raises(ProofError):
                merkle.verify_inclusion(leaf, index, size, broken, root=root)


@pytest.mark.parametrize("new", SIZES)
def test_its_consistency_proofs_hold_between_our_roots_and_ours_between_its(trees, new):
    """Its proofs are laid out in a form of its own, so each side makes and verifies its own."""
    _, other, ours = trees
    for old in {1, 2, new // 3, new // 2, new - 1} - {0, new}:
        if old >= new:
            continue
        path = merkle.consistency_proof(ours.perfect, old, new)
        theirs = other.prove_consistency(old, new)
        roots = {"old_root": other.get_root(old), "new_root": other.get_root(new)}
        pymerkle.verify_consistency(ours.root(old), ours.root(new), theirs)
        merkle.verify_consistency(old, new, path, **roots)
        wrong = {**roots, "old_root": other.get_root(old + 1)}
        with pytest.raises(pymerkle.InvalidProof):
            pymerkle.verify_consistency(ours.root(old + 1), ours.root(new), theirs)
        with pytest.raises(ProofError):
            merkle.verify_consistency(old, new, path, **wrong)


def changed(entries, how):
    if how == "a flipped byte":
        return [
            bytes([entries[5][0] ^ 1]) + entries[5][1:] if n == 5 else e
            for n, e in enumerate(entries)
        ]
    if how == "swapped events":
        return [entries[6], *entries[1:6], entries[0], *entries[7:]]
    if how == "a truncated tail":
        return entries[:-1]
    return [entry + b" " for entry in entries]


@pytest.mark.parametrize(
    "how", ["a flipped byte", "swapped events", "a truncated tail", "a rewritten history"]
)
def test_it_has_another_root_for_a_changed_log(tmp_path, how):
    """Its root over the events as stored is the signed one; over changed events it is not."""
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        fill(manager, 40)
        notary = manager.store.notary
        signed = notary.sign()
        runs = notary.tree.runs(0, notary.tree.end())
        entries = [entry for run in runs for entry in run.entries]
    assert root_of(entries) == signed.head.root
    assert root_of(changed(entries, how)) != signed.head.root


def root_of(entries):
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    return tree.get_root()
