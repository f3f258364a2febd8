"""What lies in another file system is not restored in place: the error says so, nothing is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.errors import InputOutputError, ReadOnlyError
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import picture
from tests.tmpfs import mounted

_BYTES = 1 << 20


def test_a_file_on_another_file_system(tmp_path: Path) -> None:
    root, memory = tmp_path / "root", Memory()
    root.mkdir()
    component = DirectoryComponent("directory", root)
    with mounted(root / "mounted", _BYTES) as inside:
        for path in (root / "a", inside / "b"):
            path.write_text("as it was")
        stored = memory.capture(component)
        for path in (root / "a", inside / "b"):
            path.write_text("later")
        before = picture(root)
        with pytest.raises(InputOutputError) as caught:
            component.restore(stored)
        assert picture(root) == before
        assert caught.value.context["path"] == "mounted/b"
        component.restore_paths(stored, ["a"])
        component.restore_paths(stored, to=tmp_path / "elsewhere")
        assert (root / "a").read_text() == "as it was"
        assert (tmp_path / "elsewhere" / "mounted" / "b").read_text() == "as it was"
    assert "another file system" in caught.value.hint


def test_a_directory_on_which_one_is_mounted(tmp_path: Path) -> None:
    root, memory = tmp_path / "root", Memory()
    root.mkdir()
    component = DirectoryComponent("directory", root)
    stored = memory.capture(component)
    with mounted(root / "mounted", _BYTES), pytest.raises(InputOutputError) as caught:
        component.restore(stored)
    assert "where one is mounted" in caught.value.hint


def test_a_file_system_that_is_read_only(tmp_path: Path) -> None:
    memory = Memory()
    with mounted(tmp_path / "root", _BYTES) as root:
        component = DirectoryComponent("directory", root)
        (root / "a").write_text("as it was")
        stored = memory.capture(component)
        (root / "a").write_text("later")
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        with pytest.raises(ReadOnlyError) as caught:
            component.restore(stored)
    assert "must be writable" in caught.value.hint
