"""Opening: arguments, places that cannot be opened, and users that may not write."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ckptlog
from ckptlog import (
    ArgumentError,
    CheckpointConfiguration,
    CheckpointError,
    CheckpointManager,
    FileSystemCheckpointStorage,
    ReadOnlyError,
    SettingsError,
)
from ckptlog.errors import DeniedError, InputOutputError, LockTimeoutError, LogCorruptionError
from tests.repository.nobody import as_nobody, give_away, public_directory


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


_DAEMON = """
import os, sys
from contextlib import suppress
from ckptlog import CheckpointManager
with CheckpointManager(sys.argv[1]) as manager:
    for step in (1, 2, 3):
        manager.create_checkpoint("job", "A job", step, "Step", 5, {"n": step})
        for fd in (0, 1, 2):
            with suppress(OSError):
                os.write(fd, b"NOISE" * 100)  # as a C library does that complains
"""


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&- 2>&-", "2>&-"])
def test_what_a_daemon_prints_is_never_written_into_its_store(path, closed):
    """A process may be started with closed streams; files are given the lowest free numbers."""
    environ = {**os.environ, "PYTHONPATH": str(Path(ckptlog.__file__).parents[1])}
    line = f'exec "$0" -c "$1" "$2" <>/dev/null {closed}'
    words = ["bash", "-c", line, sys.executable, _DAEMON, str(path)]
    ran = subprocess.run(words, env=environ, timeout=60, stdout=subprocess.DEVNULL)
    assert ran.returncode == 0
    with CheckpointManager(path) as manager:
        assert len(list(manager.iterate(task_id="job"))) == 3
        assert manager.validate_checkpoint_integrity() == []
    files = [file for file in path.rglob("*") if file.is_file()]
    assert [file for file in files if b"NOISE" in file.read_bytes()] == []


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", "a\0b", 5, None, b"/tmp/x", ["x"], "\ud800", "~nobody-/x"])
def test_what_is_no_path(wrong):
    for create in (False, True):
        with pytest.raises(ArgumentError, match="not a path") as caught:
            ckptlog.open(wrong, create=create)
        assert caught.value.hint == "Name a directory."
    if wrong is not None:
        with pytest.raises(ArgumentError, match="not a path"):
            CheckpointManager(wrong)


def test_paths_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for wanted, found in [
        ("plain", "plain"),
        (Path("object"), "object"),
        ("~/tilde", "home/tilde"),
        ("a b/ü/☃", "a b/ü/☃"),
        ("./x/../dots", "dots"),
    ]:
        if ".." in str(wanted):
            os.mkdir("x")
        with ckptlog.open(wanted, create=True) as store:
            assert store.position == 0
        assert (tmp_path / found / "store.json").exists()


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("interval_s", [0, -1, "1", None, float("nan"), float("inf"), True, 1e10]),
        ("timeout_s", [-1, "1", None, float("nan"), float("inf"), True]),
        ("queue_max", [0, -1, 1.5, "1", None, True]),
        ("cache_bytes", [-1, 1.5, "1", None]),
        ("compression_level", [0, 20, -1]),
        ("durability", ["never", None, 1]),
    ],
)
def test_wrong_options(path, option, wrong):
    for value in wrong:
        with pytest.raises(ArgumentError) as caught:
            ckptlog.open(path, create=True, **{option: value})
        assert option.split("_")[-1] in caught.value.message or isinstance(
            caught.value, SettingsError
        )


def test_right_options(path):
    with ckptlog.open(
        path,
        create=True,
        durability="interval",
        interval_s=0.5,
        timeout_s=0,
        queue_max=1,
        cache_bytes=0,
        compression_level=19,
    ) as store:
        manager = CheckpointManager(store=store)
        assert manager.get_checkpoint(manager.create_checkpoint("t", "T", 1)) is not None


# --- places ---------------------------------------------------------------------------------------


def test_names_that_the_system_refuses(tmp_path):
    for create in (False, True):
        with pytest.raises(InputOutputError, match="File name too long"):
            ckptlog.open(tmp_path / ("x" * 300), create=create)
    with pytest.raises(CheckpointError):
        ckptlog.open("/proc/nothing/here", create=True)


def test_a_link_to_a_store(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1)
    os.symlink(tmp_path / "s", tmp_path / "link")
    with CheckpointManager(tmp_path / "link") as manager:
        assert manager.get_checkpoint(name) is not None
        with CheckpointManager(tmp_path / "s") as other:
            other.update_checkpoint(name, data={"a": 1})
        assert manager.get_checkpoint(name).data == {"a": 1}
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    with pytest.raises(ckptlog.StoreMissingError):
        ckptlog.open(tmp_path / "dangling")


def test_a_loop_of_links(tmp_path):
    os.symlink(tmp_path / "a", tmp_path / "b")
    os.symlink(tmp_path / "b", tmp_path / "a")
    with pytest.raises(CheckpointError):
        ckptlog.open(tmp_path / "a", create=True)


def test_a_lock_that_is_held(path):
    ckptlog.open(path, create=True).close()
    with (
        ckptlog.open(path) as store,
        store.log.exclusive(1.0),
        ckptlog.open(path, timeout_s=0.05) as other,
    ):
        # Opening never waits for a writer; writing does.
        assert other.position == 0
        manager = CheckpointManager(store=other)
        with pytest.raises(LockTimeoutError, match=f"was held by process {os.getpid()}") as caught:
            manager.create_checkpoint("t", "T", 1)
        assert caught.value.retryable
        assert manager.get_task_checkpoints("t") == []


def test_a_damaged_log_is_told_when_it_has_to_be_read(path):
    with CheckpointManager(path) as manager:
        for step in range(1, 4):
            manager.create_checkpoint("t", "T", step)
    (segment,) = (path / "log").glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[content.index(b'{"actor"') + 3] ^= 1
    segment.write_bytes(content)
    shutil.rmtree(path / "views")
    with pytest.raises(LogCorruptionError, match="is damaged at offset") as caught:
        CheckpointManager(path)
    assert "ckptlog verify" in caught.value.hint
    assert bytearray(segment.read_bytes()) == content


# --- reading only ---------------------------------------------------------------------------------


def test_read_only_writes_nothing_at_all(path):
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        manager.create_checkpoint("u", "U", 1, data={"text": os.urandom(800_000).hex()})
    shutil.rmtree(path / "views")
    before = {str(file): file.stat().st_mtime_ns for file in sorted(path.rglob("*"))}
    with ckptlog.open(path, read_only=True) as store:
        manager = CheckpointManager(store=store)
        assert manager.get_checkpoint(name).data == {"a": 1}
        assert len(list(manager.iterate())) == 2
        assert manager.history(name)
        assert manager.can_recover_task("t")
        assert manager.get_recovery_point("t") is not None
        assert manager.validate_checkpoint_integrity() == []
        writes = [
            lambda: manager.create_checkpoint("t", "T", 1),
            lambda: manager.update_checkpoint(name, data={}),
            lambda: manager.restore_checkpoint(name),
            lambda: manager.delete_checkpoint(name),
            lambda: manager.delete_task("t"),
        ]
        for write in writes:
            with pytest.raises(ReadOnlyError, match="open for reading only") as caught:
                write()
            assert "without read_only=True" in caught.value.hint
    after = {str(file): file.stat().st_mtime_ns for file in sorted(path.rglob("*"))}
    assert after == before
    with pytest.raises(ckptlog.StoreMissingError):
        ckptlog.open(path.parent / "none", create=True, read_only=True)


def test_read_only_follows_a_writer(path):
    with CheckpointManager(path) as writer, ckptlog.open(path, read_only=True) as store:
        reader = CheckpointManager(store=store)
        name = writer.create_checkpoint("t", "T", 1)
        assert reader.get_checkpoint(name) is not None
        writer.complete_checkpoint(name)
        assert [one.checkpoint_id for one in reader.get_task_checkpoints("t")] == [name]
        writer.delete_checkpoint(name)
        assert reader.get_latest_checkpoint("t") is None


@pytest.fixture
def public():
    with public_directory() as path:
        yield path


def told(call):
    """Return code, message and hint of the error that a call raises."""
    try:
        call()
    except CheckpointError as error:
        return [error.code, error.message, error.hint]
    return ["nothing", "", ""]


@pytest.mark.root
def test_a_store_that_this_user_may_only_read(public):
    with CheckpointManager(public / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        manager.get_task_checkpoints("t")

        def work():
            with ckptlog.open(public / "s", read_only=True) as store:
                found = CheckpointManager(store=store).get_checkpoint(name)
            return [told(lambda: ckptlog.open(public / "s")), found and found.data]

        (code, message, hint), data = as_nobody(work)
    assert (code, data) == ("store.read_only", {"a": 1})
    assert message == f"The directory {public / 's'} cannot be written by this user."
    assert "read_only=True" in hint


@pytest.mark.root
def test_places_that_this_user_may_not_enter(public):
    (public / "closed").mkdir(mode=0o700)
    ckptlog.open(public / "closed" / "s", create=True).close()

    def work():
        return [
            told(lambda: ckptlog.open(public / "closed" / "s")),
            told(lambda: ckptlog.open(public / "closed" / "s", create=True)),
            told(lambda: ckptlog.open(public / "closed" / "s", read_only=True)),
            told(lambda: ckptlog.open(public / "new", create=True)),
        ]

    answers = as_nobody(work)
    assert {code for code, _, _ in answers} == {DeniedError.code}
    assert all("[EACCES]" in message for _, message, _ in answers)
    assert all("ckptlog doctor" in hint for _, _, hint in answers)
    assert not (public / "new").exists()


@pytest.mark.root
def test_views_that_this_user_may_not_write(public):
    """Everything but the folder of views is theirs: writing works, lists come from memory."""
    with CheckpointManager(public / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        manager.get_task_checkpoints("t")
    give_away(public / "s", but="views")

    def work():
        with CheckpointManager(public / "s") as manager:
            second = manager.create_checkpoint("t", "T", 2)
            manager.update_checkpoint(name, data={"b": 2})
            names = [one.checkpoint_id for one in manager.get_task_checkpoints("t")]
            data = manager.get_checkpoint(name).data
            return [names == [name, second], data, manager.validate_checkpoint_integrity()]

    for turn in range(2):
        same, data, problems = as_nobody(work)
        assert (same is (turn == 0), data) == (True, {"a": 1, "b": 2})
        assert problems == []
    with CheckpointManager(public / "s") as manager:
        assert len(manager.get_task_checkpoints("t")) == 3
        assert manager.validate_checkpoint_integrity() == []


# --- the working directory ------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path, monkeypatch):
    """Work in a directory that another one is like, with a store of the same name."""
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "there")
    with CheckpointManager("s") as manager:
        manager.create_checkpoint("other", "O", 1)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_store_stays_where_it_is_when_the_program_goes_elsewhere(left, monkeypatch):
    with CheckpointManager("s") as manager:
        monkeypatch.chdir(left / "there")
        assert manager.store.path == left / "here" / "s"
        for step in range(1, 4):
            manager.create_checkpoint("t", "T", step, data={"new": os.urandom(200_000)})
        assert [one.step_number for one in manager.get_task_checkpoints("t")] == [1, 2, 3]
        with ckptlog.open("s") as other:  # nothing of ours is there, and its lock is free
            assert other.position == 1
            assert not list((other.path / "packs").glob("*.pack"))
            with other.log.exclusive(0.0), manager.store.log.exclusive(0.0):
                pass
    with ckptlog.open(left / "here" / "s") as store:
        assert store.position == 3
        assert not store.verify().problems


def test_a_working_directory_that_is_gone(left, monkeypatch):
    os.rename(left / "here", left / "gone")
    os.rmdir(left / "gone")
    for create in (False, True):
        with pytest.raises(InputOutputError, match="working directory"):
            ckptlog.open("s", create=create)
    with ckptlog.open(left / "there" / "s") as store:
        assert store.position == 1


# --- a store that goes -----------------------------------------------------------------------------


def test_a_store_that_was_removed_under_a_program_stays_removed(path):
    config = CheckpointConfiguration(storage_dir=str(path), head_interval_s=60)
    manager = CheckpointManager(config=config)
    storage = FileSystemCheckpointStorage(manager=manager)
    for step in range(1, 4):
        manager.create_checkpoint("t", "T", step, data={"new": os.urandom(200_000)})
    shutil.rmtree(path)
    for call in (manager.store.compact, storage.refresh, manager.store.notary.sign):
        with pytest.raises(CheckpointError):
            call()
    storage.close()
    manager.close()
    assert not path.exists()
    with CheckpointManager(path) as manager:  # nothing is in the way of another
        assert manager.store.position == 0
