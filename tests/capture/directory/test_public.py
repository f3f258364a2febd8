"""The component as users have it: by its public name, in a service, with its place in the store."""

from __future__ import annotations

import shutil
import time

import pytest

import ckptlog
from ckptlog.capture.directory import index_file
from ckptlog.capture.directory.content import OpenFile
from ckptlog.errors import FullError


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    (made / "d").mkdir(parents=True)
    for number in range(20):
        (made / f"d/{number}").write_text(f"{number}" * 1000)
    time.sleep(0.06)  # nothing is racily clean
    return made


@pytest.fixture
def read(monkeypatch):
    seen, whole = [], OpenFile.read
    monkeypatch.setattr(
        OpenFile, "read", lambda self, extents: seen.append(self.size) or whole(self, extents)
    )
    return seen


def service_of(tmp_path, root):
    return ckptlog.create_checkpoint_system(
        {"storage": {"local": {"path": str(tmp_path / "store")}}},
        {"components": [ckptlog.DirectoryComponent("work", root)]},
    )


def test_a_service_reads_what_changed_only(tmp_path, root, read) -> None:
    with service_of(tmp_path, root) as service:
        first = service.create_checkpoint("first")
        assert len(read) == 20
        (root / "d/7").write_text("another")
        info = service.create_checkpoint("second")
        assert set(read[20:]) == {7}  # again, where it was written in the moment of the index
        service.recover_from_checkpoint(first.id)
        assert (root / "d/7").read_text() == "7" * 1000
        assert (tmp_path / "store/views/capture").is_dir()
        shutil.rmtree(tmp_path / "store/views/capture")  # it can be done without
        service.recover_from_checkpoint(info.id)
        assert (root / "d/7").read_text() == "another"
    del read[:]
    with service_of(tmp_path, root) as service:  # another process begins with it
        service.create_checkpoint("third")
    assert set(read) <= {7}  # written in the moment of the index: looked at again


def test_an_index_that_cannot_be_written_fails_nothing(tmp_path, root, monkeypatch) -> None:
    def full(*_arguments, **_options):
        raise FullError("no room")

    monkeypatch.setattr(index_file, "write_atomically", full)
    with service_of(tmp_path, root) as service:
        assert service.create_checkpoint("first").components["work"].size
