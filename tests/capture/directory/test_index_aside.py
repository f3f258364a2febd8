"""The stat index of the capture before a rewind is written beside the rewind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.directory import index_file
from ckptlog.capture.directory.workspace import Workspace


@pytest.fixture
def space(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for number in range(5):
        (root / str(number)).write_text("old")
    with CheckpointManager(tmp_path / "store") as manager:
        yield Workspace(manager, root)


def _changed(space):
    info = space.capture()
    Path(space.path, "1").write_text("new")
    return info


def test_it_is_whole_when_the_rewind_returns(space, monkeypatch):
    writers, save = [], index_file.save

    def watched(*given):
        writers.append(threading.current_thread().name)
        save(*given)

    monkeypatch.setattr(index_file, "save", watched)
    done = space.rewind(_changed(space))
    assert writers[1].startswith("ckptlog-index")
    assert not [one for one in threading.enumerate() if one.name.startswith("ckptlog-index")]
    index = space.component._index()
    assert done.safety is not None
    assert index.root == space.stored(done.safety).reference.root
    assert space.capture().number == done.safety.number + 1
    assert not writers[2].startswith("ckptlog-index")


def test_one_that_cannot_be_written_is_none(space, monkeypatch):
    def refused(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_file, "save", refused)
    assert space.rewind(_changed(space)).safety is not None


def test_what_should_not_happen_is_told(space, monkeypatch):
    info = _changed(space)

    def wrong(*_):
        raise AssertionError("nothing is known of it")

    monkeypatch.setattr(index_file, "save", wrong)
    with pytest.raises(AssertionError, match="nothing is known"):
        space.rewind(info)
