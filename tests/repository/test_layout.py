"""How a directory is recognised, made or refused; nothing of anybody else's is ever touched."""

from __future__ import annotations

import json
import os
import threading

import pytest

import ckptlog
from ckptlog import CheckpointManager, LegacyLayoutWarning, NotAStoreError, ReadOnlyError
from ckptlog.errors import FormatError, StoreMissingError, UnsupportedError
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.repository import layout
from ckptlog.storage.environment import Environment


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def make(path):
    return layout.create(path, Environment())


def tree(path):
    return sorted(str(one.relative_to(path)) for one in path.rglob("*"))


# --- making ---------------------------------------------------------------------------------------


def test_a_new_store(path):
    info = make(path / "deep" / "er")
    root = path / "deep" / "er"
    assert tree(root) == [
        "consumers",
        "keys",
        "lock",
        "log",
        "log/00000000000000000000.0.seg",
        "log/end",
        "packs",
        "reserve",
        "store.json",
        "views",
    ]
    assert (root / "keys").stat().st_mode & 0o777 == 0o700
    assert (root / "reserve").stat().st_size == layout.RESERVE_BYTES
    assert layout.read_info(root) == info
    assert json.loads((root / "store.json").read_text())["id"] == info.id
    assert make(root) == info  # made before: it stays


def test_an_empty_directory_is_as_good_as_none(path):
    path.mkdir()
    make(path)
    assert layout.read_info(path).id


def test_two_threads_make_one(path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(make(path).id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


@pytest.mark.parametrize("left", range(7))
def test_a_creation_that_was_killed_is_taken_up_again(tmp_path, left):
    """What each step of a creation leaves behind, in its order; store.json comes last."""
    make(tmp_path / "whole")
    path = tmp_path / "s"
    path.mkdir()
    steps = ["lock", "log", "log/00000000000000000000.0.seg", "log/end", "packs", "reserve"]
    for name in steps[:left]:
        whole = tmp_path / "whole" / name
        if whole.is_dir():
            (path / name).mkdir()
        else:
            (path / name).write_bytes(whole.read_bytes())
    (path / "store.json.4711-0.tmp").write_bytes(b"{")
    if left > 2:  # a segment whose header was cut, and a temporary of the end
        segment = path / steps[2]
        segment.write_bytes(segment.read_bytes()[: HEADER_FRAME_BYTES // 2])
        (path / "log" / "end.4711-1.tmp").write_bytes(b"")
    with CheckpointManager(path) as manager:
        assert manager.create_checkpoint("t", "T", 1)
        assert manager.validate_checkpoint_integrity() == []


# --- refusing -------------------------------------------------------------------------------------


def refused(path, *words):
    before = {name: (path / name).read_bytes() for name in tree(path) if (path / name).is_file()}
    for open_ in (CheckpointManager, make):
        with pytest.raises(NotAStoreError) as caught:
            open_(path)
        for word in words:
            assert word in caught.value.message
        assert caught.value.hint
        assert str(path) in caught.value.context["path"]
    after = {name: (path / name).read_bytes() for name in tree(path) if (path / name).is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("notes.txt", "it holds notes.txt"),
        (".git/config", "it holds .git"),
        ("checkpoint.json", "it holds checkpoint.json"),
        ("log/app.log", "it holds log/app.log"),
        ("log/sub/x", "it holds log/sub"),
        ("keys/id_rsa", "it holds keys/id_rsa"),
        ("views/a.sql", "it holds views/a.sql"),
        ("packs/x.pack", "it holds packs/x.pack"),
        ("consumers/x", "it holds consumers/x"),
    ],
)
def test_a_directory_of_somebody_else(path, name, shown):
    file = path / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    refused(path, f"{path} is not empty and is not a store", shown)


def test_many_foreign_names_are_not_all_listed(path):
    path.mkdir()
    for number in range(5):
        (path / f"f{number}").touch()
    refused(path, "(it holds f0, f1, f2, ...)")


def test_a_file_of_one_of_our_folders_names(path):
    path.mkdir()
    (path / "log").write_text("mine")
    refused(path, "it holds log")


def test_a_file_instead_of_a_directory(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for open_ in (CheckpointManager, ckptlog.open):
        with pytest.raises(NotAStoreError, match=f"{file} is not a directory"):
            open_(file)
    with pytest.raises(ckptlog.CheckpointStorageError, match="Not a directory"):
        CheckpointManager(file / "below")
    assert file.read_text() == "mine"


def test_events_without_store_json(path):
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1)
    (path / "store.json").rename(path.parent / "kept.json")
    refused(path, "holds events, but", "store.json is missing")
    with pytest.raises(NotAStoreError, match=r"it has no store\.json"):
        ckptlog.open(path)
    (path.parent / "kept.json").rename(path / "store.json")
    with CheckpointManager(path) as manager:
        assert len(manager.get_task_checkpoints("t")) == 1


def test_a_store_that_is_not_there(path):
    with pytest.raises(StoreMissingError) as caught:
        ckptlog.open(path)
    assert caught.value.message == f"There is no store at {path}."
    assert caught.value.hint == f"Correct the path, or make one: ckptlog init {path}"
    assert not path.exists()
    path.mkdir()
    (path / "x").touch()
    with pytest.raises(NotAStoreError, match="Name another directory"):
        ckptlog.open(path)


# --- store.json -----------------------------------------------------------------------------------


def rewrite(path, change):
    file = path / "store.json"
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fields: fields.update(format=99), "store format 99; this version"),
        (lambda fields: fields.update(features=[*fields["features"], "telepathy"]), "telepathy"),
    ],
)
def test_a_newer_version_or_feature_is_refused_by_name(path, change, words):
    make(path)
    rewrite(path, change)
    for options in ({}, {"read_only": True}, {"create": True}):
        with pytest.raises(UnsupportedError, match=words) as caught:
            ckptlog.open(path, **options)
        assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"kind": "ckptlog"}'])
def test_a_store_json_that_cannot_be_read(path, content):
    make(path)
    (path / "store.json").write_bytes(content)
    for options in ({}, {"read_only": True}, {"create": True}):
        with pytest.raises(FormatError, match=r"store\.json"):
            ckptlog.open(path, **options)


def test_a_store_json_of_another_program(path):
    make(path)
    (path / "store.json").write_text('{"name": "a shop"}')
    for options in ({}, {"read_only": True}, {"create": True}):
        with pytest.raises(NotAStoreError, match="was not written by ckptlog"):
            ckptlog.open(path, **options)
    assert (path / "store.json").read_text() == '{"name": "a shop"}'


# --- the old layout -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["checkpoint_a.json", "active/checkpoint_b.json.gz"])
def test_the_old_layout_beside(path, name):
    file = path / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    (path / "index.json").write_text("{}")
    assert layout.is_legacy(path)
    with pytest.warns(LegacyLayoutWarning, match=f"ckptlog import legacy {path}"):
        make(path)
    with CheckpointManager(path) as manager:  # only the creation warns
        assert manager.get_checkpoints_by_state(ckptlog.CheckpointState.CREATED) == []
    assert file.read_text() == "{}"
    assert (path / "index.json").read_text() == "{}"


# --- file systems and permissions -----------------------------------------------------------------


class On(Environment):
    """A machine whose mounts say that a path lies on some file system."""

    def __init__(self, mount, kind):
        super().__init__()
        self.table = (
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
            f"90 22 0:50 / {mount} rw,relatime shared:2 - {kind} server:/export rw\n"
        )

    def mounts(self):
        return self.table


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"])
def test_network_file_systems_are_refused_for_writing_by_name(tmp_path, kind):
    path = tmp_path / "mnt" / "s"
    environment = On(tmp_path / "mnt", kind)
    with pytest.raises(UnsupportedError, match=f"lies on {kind}, where locks and syncs") as caught:
        ckptlog.open(path, create=True, environment=environment)
    assert "read_only=True works" in caught.value.hint
    assert caught.value.context["file_system"] == kind
    assert not path.exists()
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1)
    with pytest.raises(UnsupportedError, match=kind):
        ckptlog.open(path, environment=environment)
    with ckptlog.open(path, read_only=True, environment=environment) as store:
        assert store.position == 1


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay", "nfsd"])
def test_local_file_systems_are_fine(tmp_path, kind):
    environment = On(tmp_path / "mnt", kind)
    with ckptlog.open(tmp_path / "mnt" / "s", create=True, environment=environment) as store:
        assert store.position == 0


def test_a_name_that_only_begins_like_the_mount(tmp_path):
    environment = On(tmp_path / "mnt", "nfs")
    with ckptlog.open(tmp_path / "mnt2", create=True, environment=environment) as store:
        assert store.position == 0


def test_refuse_read_only(path, monkeypatch):
    make(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ReadOnlyError, match="cannot be written by this user") as caught:
        ckptlog.open(path)
    assert "read_only=True" in caught.value.hint
    with ckptlog.open(path, read_only=True) as store:
        assert store.position == 0


# --- the reserve ----------------------------------------------------------------------------------


def test_the_reserve_is_given_up_once_and_made_again(path):
    make(path)
    assert layout.release_reserve(path) is True
    assert layout.release_reserve(path) is False
    assert not (path / "reserve").exists()
    ckptlog.open(path).close()
    assert (path / "reserve").stat().st_size == layout.RESERVE_BYTES
