"""What is no regular file is refused at once, where reading it would wait or never end."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

import ckptlog
from ckptlog.errors import ArgumentError, InputOutputError
from ckptlog.integrations.legacy import import_folder
from ckptlog.integrations.source import open_regular
from ckptlog.integrations.transcript import import_transcript, steps

pytestmark = pytest.mark.timeout(30)


def fifo(path):
    os.mkfifo(path)


def bound_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def device(path):
    path.symlink_to("/dev/zero")


def directory(path):
    path.mkdir()


ODD = [
    (fifo, "is a FIFO, not a regular file"),
    (bound_socket, "is a socket, not"),
    (device, "is a device, not"),
    (directory, "is a directory"),
]


@pytest.mark.parametrize(("make", "message"), ODD)
def test_what_is_no_file(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(ArgumentError, match=message):
        open_regular(tmp_path / "x")


def test_files_and_links_to_files(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "y").symlink_to("x")
    for name in "xy":
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"abc"


def test_a_file_that_becomes_a_fifo_meanwhile(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    status = path.stat()
    path.unlink()
    fifo(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda *_, **__: status)
        with pytest.raises(ArgumentError, match="is a FIFO"):
            open_regular(path)


@pytest.mark.parametrize(("make", "message"), ODD)
def test_the_others_of_an_old_folder_are_imported(tmp_path, make, message):
    folder = tmp_path / "old"
    folder.mkdir()
    for name in ("checkpoint_a.json", "checkpoint_c.json.gz", "checkpoint_d.json"):
        if name != "checkpoint_d.json":
            make(folder / name)
    fields = {"checkpoint_id": "d", "task_id": "t", "state": "active", "step_number": 1}
    (folder / "checkpoint_d.json").write_text(json.dumps(fields))
    with ckptlog.CheckpointManager(tmp_path / "store") as manager:
        report = import_folder(manager, folder)
    assert report.imported == 1
    assert [fault.path.name for fault in report.faults] == [
        "checkpoint_a.json",
        "checkpoint_c.json.gz",
    ]
    assert all(message in fault.message for fault in report.faults)


@pytest.mark.parametrize(("make", "message"), ODD)
def test_a_transcript_must_be_a_file(tmp_path, make, message):
    make(tmp_path / "x.traj")
    with pytest.raises(ArgumentError, match=message):
        steps(tmp_path / "x.traj")
    with ckptlog.CheckpointManager(tmp_path / "store") as manager:
        with pytest.raises(ArgumentError, match=message):
            import_transcript(manager, tmp_path / "x.traj")
        assert manager.store.position == 0


def test_a_link_to_itself(tmp_path):
    (tmp_path / "checkpoint_a.json").symlink_to("checkpoint_a.json")
    with ckptlog.CheckpointManager(tmp_path / "store") as manager:
        (fault,) = import_folder(manager, tmp_path).faults
    assert fault.code == InputOutputError.code
