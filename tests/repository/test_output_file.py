"""What a command writes to a place that the user names: refused, replaced, or written through."""

from __future__ import annotations

import os
import stat

import pytest

import ckptlog
from ckptlog.errors import ArgumentError, CheckpointStorageError
from ckptlog.repository.output_file import OutputFile, house_of


def put_half(path):
    with OutputFile(path, is_replaced=True).writing() as file:
        file.write(b"half")
        raise KeyboardInterrupt


@pytest.fixture
def houses(tmp_path):
    """Make a store and a backup of it; return all their files and what they hold."""
    with ckptlog.CheckpointManager(tmp_path / "s", actor="a") as manager:
        manager.create_checkpoint("t", "T", 1, data={"n": 1})
        manager.store.backup(tmp_path / "b")
    return {
        path: path.read_bytes()
        for name in ("s", "b")
        for path in sorted((tmp_path / name).rglob("*"))
        if path.is_file()
    }


def put(path, *, is_replaced=False, data=b"new"):
    OutputFile(path, is_replaced=is_replaced).write(data)


def test_nothing_of_a_store_or_a_backup_is_written_over(tmp_path, houses):
    places = [*houses, *(path.with_name("more") for path in houses), tmp_path / "s", tmp_path / "b"]
    (tmp_path / "link").symlink_to(tmp_path / "s" / "store.json")
    (tmp_path / "folder").symlink_to(tmp_path / "b" / "log")
    for place in [*places, tmp_path / "link", tmp_path / "folder" / "x"]:
        with pytest.raises(ArgumentError, match="store or a backup"):
            put(place, is_replaced=True)
    assert {path: path.read_bytes() for path in houses} == houses


def test_beside_a_store_is_no_house(tmp_path, houses):
    (tmp_path / "store.json").write_text("{}")  # of somebody else
    assert house_of(tmp_path / "x") is None
    assert house_of(tmp_path / "s" / "log" / "x") == tmp_path / "s"
    put(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_file_is_replaced_when_asked_whole_or_not_at_all(tmp_path):
    place = tmp_path / "x"
    place.write_text("mine")
    with pytest.raises(ArgumentError, match=r"exists.*--force"):
        put(place)
    with pytest.raises(KeyboardInterrupt):
        put_half(place)
    assert (place.read_text(), os.listdir(tmp_path)) == ("mine", ["x"])
    put(place, is_replaced=True)
    assert (place.read_bytes(), os.listdir(tmp_path)) == (b"new", ["x"])


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "link").symlink_to("real")
    put(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    with pytest.raises(ArgumentError, match="exists"):
        put(tmp_path / "link")


@pytest.mark.parametrize("path", ["", ".", "no/x", "file/x", "~nobody-of-this-name/x", "a\0b", 3])
def test_what_names_no_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError) as caught:
        put(path, is_replaced=True)
    assert caught.value.context["argument"] == "path"


def test_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        put(pipe)
        put(pipe, is_replaced=True)
        assert os.read(reader, 100) == b"newnew"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_device_is_written_through(tmp_path):
    # Our own node: were it replaced by a file, no device of the machine would suffer.
    full = tmp_path / "full"
    try:
        os.mknod(full, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        os.close(os.open(full, os.O_WRONLY))
    except PermissionError:
        pytest.skip("devices cannot be made here")
    with pytest.raises(CheckpointStorageError) as caught:
        put(full)
    assert caught.value.code == "storage.full"
    assert stat.S_ISCHR(full.stat().st_mode)
    assert os.listdir(tmp_path) == ["full"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no such folder of descriptors")
@pytest.mark.parametrize("place", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_what_a_shell_gives_open_is_written_through(place):
    """As with `--out /dev/stdout | ...` and `--out >(...)`: a link that leads to no path."""
    reader, writer = os.pipe()
    try:
        put(place.format(writer))
        assert os.read(reader, 100) == b"new"
    finally:
        os.close(reader)
        os.close(writer)
