from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import CheckpointStorageError, MissingBlobError
from ckptlog.formats.merkle import Frontier
from ckptlog.views.tiles import Tree

LEAVES = [hashlib.sha256(b"%d" % number).digest() for number in range(70_000)]


def root(size):
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.add(leaf)
    return frontier.root


@pytest.fixture(params=["file", "memory"])
def tree(request, tmp_path):
    return Tree(tmp_path / "tree" if request.param == "file" else None)


def test_every_size_has_its_root(tree):
    tree.grow(0, LEAVES[:700])
    assert tree.size == 700
    for size in [0, 1, 2, 255, 256, 257, 511, 512, 513, 699, 700]:
        assert tree.root(size) == root(size)
    assert tree.leaf(699) == LEAVES[699]


def test_three_levels(tree):
    tree.grow(0, LEAVES)
    assert tree.root(70_000) == root(70_000)
    assert len(tree.hashes(2, 0, 1)) == 32
    with pytest.raises(MissingBlobError):
        tree.hashes(2, 0, 2)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=8))
def test_it_does_not_matter_how_it_grew(steps):
    tree, at = Tree(None), 0
    for step in steps:
        tree.grow(at, LEAVES[at : at + step])
        at += step
    assert tree.root(at) == root(at)


def test_growing_again_over_what_is_there(tree):
    tree.grow(0, LEAVES[:600])
    tree.grow(100, LEAVES[100:800])
    assert tree.root(800) == root(800)


def test_a_gap_is_refused(tree):
    tree.grow(0, LEAVES[:10])
    with pytest.raises(MissingBlobError):
        tree.grow(11, LEAVES[11:20])
    assert tree.size == 10


def test_beyond_the_end_there_is_nothing(tree):
    tree.grow(0, LEAVES[:300])
    for act in (lambda: tree.root(301), lambda: tree.leaf(300), lambda: tree.perfect(8, 1)):
        with pytest.raises(MissingBlobError):
            act()


def test_cleared(tree):
    tree.grow(0, LEAVES[:600])
    tree.clear(above=1)
    assert tree.size == 600
    with pytest.raises(MissingBlobError):
        tree.root(600)
    tree.grow(0, LEAVES[:600])
    assert tree.root(600) == root(600)
    tree.clear()
    assert tree.size == 0


def test_two_write_one_folder(tmp_path):
    one, two = Tree(tmp_path), Tree(tmp_path)
    chance, ends = random.Random(2), [0, 0]
    while min(ends) < 5_000:
        for number, tree in enumerate((one, two)):
            step = chance.randrange(1, 900)
            tree.grow(ends[number], LEAVES[ends[number] : ends[number] + step])
            ends[number] += step
            assert tree.root(ends[number]) == root(ends[number])


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "views").write_text("a file")
    tree = Tree(tmp_path / "views" / "tree")
    assert tree.size == 0
    with pytest.raises(CheckpointStorageError):
        tree.grow(0, LEAVES[:3])
