"""A sheaf beside a dictionary: whatever goes in, its run says the newest place of each chunk."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.run import Mark, run_name
from ckptlog.blobs.sheaf import Sheaf
from ckptlog.model.entry import Placement
from tests.blobs.sample import STORE_ID, commit, place, run_files
from tests.blobs.sample import digest as digest_of


def mark_of(position):
    return Mark(position, f"log/{position // 10:020d}.00000.seg", 100 * position, bytes(32))


# Of each step: chunks of the log, chunks of packs.
STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 30), max_size=8),
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=3),
    ),
    min_size=1,
    max_size=12,
)


@given(steps=STEPS, most=st.sampled_from([1, 4, 1000]))
def test_it_says_what_a_dictionary_says(tmp_path_factory, steps, most):
    folder = tmp_path_factory.mktemp("sheaf")
    known: dict[bytes, Placement] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptlog.blobs.sheaf._ENTRIES_MAX", most)
        patch.setattr("ckptlog.blobs.sheaf._PIECE", min(most, 5))
        sheaf = Sheaf(folder, STORE_ID)
        for position, (chunks, packed) in enumerate(steps, 1):
            mark = mark_of(position)
            places = [
                (digest_of(number), position * 1000 + at, 50) for at, number in enumerate(chunks)
            ]
            sheaf.add(mark.container, places)
            known |= {one[0]: Placement(one[0], mark.container, *one[1:]) for one in places}
            others = [
                Placement(digest_of(number), f"packs/{pack}.pack", position, 60)
                for number, pack in packed
            ]
            sheaf.add_each(others)
            known |= {one.digest: one for one in others}
        run = sheaf.run(mark)
    assert (run.start, run.mark, run.count) == (0, mark, len(known))
    assert {digest_of(number): run.find(digest_of(number)) for number in range(31)} == {
        digest_of(number): known.get(digest_of(number)) for number in range(31)
    }
    assert run.path is not None
    assert run.path.parent == folder


def filled(folder, count, position):
    folder.mkdir(parents=True, exist_ok=True)
    sheaf = Sheaf(folder, STORE_ID)
    container = mark_of(position).container
    sheaf.add(container, [(digest_of(number), number, 50) for number in range(count)])
    return sheaf.run(mark_of(position))


@pytest.mark.parametrize("keeps_files", [True, False])
def test_an_index_adopts_its_run(tmp_path, keeps_files):
    index = ChunkIndex(tmp_path / "chunks" if keeps_files else None, STORE_ID)
    index.add(commit(0, [place(1000)]))
    index.flush(force=True)
    index.add(commit(1, [place(1001)]))
    index.adopt(filled(tmp_path / "anew", 20, 50))
    assert index.problems == ()
    assert index.position == 50
    if keeps_files:
        assert [path.name for path in run_files(tmp_path / "chunks")] == [run_name(0, 50)]
    assert index.get(digest_of(1000)) is index.get(digest_of(1001)) is None
    assert index.get(digest_of(7)) == Placement(digest_of(7), mark_of(50).container, 7, 50)
    # It goes on from there, and who opens the folder next finds it all.
    assert not index.add(commit(60, [place(60)]))
    assert index.add(commit(50, [place(50)]))
    index.flush(force=True)
    if keeps_files:
        assert os.listdir(tmp_path / "anew") == []
        index = ChunkIndex(tmp_path / "chunks", STORE_ID)
        assert index.position == 51
    assert index.get(digest_of(50)) == place(50)
    assert index.get(digest_of(7)) == Placement(digest_of(7), mark_of(50).container, 7, 50)


def test_a_run_that_cannot_be_moved_is_used_where_it_is(tmp_path, monkeypatch):
    index = ChunkIndex(tmp_path / "chunks", STORE_ID)
    run = filled(tmp_path / "anew", 20, 50)

    def refuse(*_):
        raise PermissionError("no")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    index.adopt(run)
    run.path.unlink()
    assert index.get(digest_of(7)) == Placement(digest_of(7), mark_of(50).container, 7, 50)
    assert "stays in memory" in index.problems[0]
    assert index.add(commit(50, [place(50)]))
    index.flush(force=True)
    assert index.get(digest_of(50)) is not None
