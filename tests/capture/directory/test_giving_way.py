"""A directory where the capture has a file: what in it may go, and what is in the way."""

from __future__ import annotations

import os
import socket

import pytest

from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.errors import RestoreConflictError
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import picture


def test_a_directory_with_pipes_and_sockets_gives_way(tmp_path, monkeypatch) -> None:
    root, memory = tmp_path / "root", Memory()
    root.mkdir()
    (root / "x").write_text("a file")
    captured, expected = memory.capture(DirectoryComponent("directory", root)), picture(root)
    (root / "x").unlink()
    (root / "x/in").mkdir(parents=True)
    (root / "x/in/file").write_text("f")
    os.mkfifo(root / "x/pipe")
    monkeypatch.chdir(root)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("x/in/socket")
    DirectoryComponent("directory", root).restore(captured)
    assert picture(root) == expected
    (root / "x").unlink()
    (root / "x").mkdir()
    (root / "x/.gitignore").write_text("pipe")
    os.mkfifo(root / "x/pipe")  # left out by a rule: it stays, as all that is
    with pytest.raises(RestoreConflictError):
        DirectoryComponent("directory", root).restore(captured)
