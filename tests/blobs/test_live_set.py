"""The set of digests that may be larger than memory, against a Python set."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs import live_set
from ckptlog.blobs.live_set import LiveSet
from ckptlog.errors import CheckpointStorageError
from tests.blobs.sample import STORE_ID, digest

numbers = st.integers(0, 300)


@given(
    updates=st.lists(st.lists(numbers, max_size=40), max_size=40),
    recent_max=st.sampled_from([1, 5, 30, 10**6]),
)
def test_it_has_what_was_added_and_nothing_else(updates, recent_max):
    folder = Path(tempfile.mkdtemp())
    try:
        live, model = LiveSet(folder, STORE_ID, recent_max=recent_max), set()
        for update in updates:
            live.update(map(digest, update))
            model.update(update)
            assert all(digest(number) in live for number in update)
        assert {number for number in range(301) if digest(number) in live} == model
        every = {digest(number): number for number in range(301)}
        assert {every[one] for one in live.among(list(every))} == model
        live.close()
        assert {every[one] for one in live.among(list(every))} == model
        assert {number for number in range(301) if digest(number) in live} == model
        assert len(list(folder.iterdir())) <= 1
        assert len(live) >= len(model)
        if recent_max == 10**6:
            assert len(live) == len(model)
            assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)


def test_files_are_few_and_memory_is_bounded(tmp_path):
    live = LiveSet(tmp_path, STORE_ID, recent_max=10)
    for start in range(0, 600, 10):
        live.update(map(digest, range(start, start + 10)))
        assert len(live._recent) < 10
        assert len(live._runs) <= live_set._RUNS_MAX + 1
    assert all(digest(number) in live for number in range(600))
    assert not any(digest(number) in live for number in range(600, 1200))


def test_what_is_no_digest_is_not_in_it(tmp_path):
    live = LiveSet(tmp_path, STORE_ID)
    live.update([digest(1)])
    assert "text" not in live
    assert None not in live
    assert 7 not in live


def test_no_room_for_its_files_is_our_error(tmp_path):
    live = LiveSet(tmp_path / "gone" / "for" / "good", STORE_ID, recent_max=1)
    (tmp_path / "gone").write_text("a file stands here")
    with pytest.raises(CheckpointStorageError):
        live.update([digest(1)])
