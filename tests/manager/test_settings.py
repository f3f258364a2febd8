"""Each field of the configuration has its effect on a manager and its store."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import os
import threading
from typing import ClassVar

import pytest

import ckptlog
from ckptlog import (
    BusyError,
    CheckpointConfiguration,
    CheckpointManager,
    InvalidCreationError,
    InvalidUpdateError,
    LockTimeoutError,
    QuotaError,
    SettingsError,
)


def manager_with(tmp_path, **settings):
    config = CheckpointConfiguration(storage_dir=str(tmp_path / "s"), **settings)
    return CheckpointManager(config=config)


def test_storage_dir(tmp_path, monkeypatch):
    with manager_with(tmp_path) as manager:
        assert manager.store.path == tmp_path / "s"
    config = CheckpointConfiguration(storage_dir=str(tmp_path / "s"))
    with CheckpointManager(tmp_path / "x" / ".." / "s", config=config) as manager:
        assert manager.store.info.id
    with CheckpointManager(tmp_path / "other", config=CheckpointConfiguration()) as manager:
        assert manager.store.path == tmp_path / "other"
    monkeypatch.chdir(tmp_path)
    with CheckpointManager() as manager:
        assert manager.store.path.resolve() == tmp_path / ".taskmaster" / "checkpoints"
    monkeypatch.setenv("HOME", str(tmp_path))
    config = CheckpointConfiguration(storage_dir="~/s")
    with CheckpointManager(tmp_path / "s", config=config) as manager:
        assert CheckpointManager(store=manager.store, config=config).store is manager.store


def test_max_checkpoint_size_mb(tmp_path):
    with manager_with(tmp_path, max_checkpoint_size_mb=0.01) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"x": "y" * 10_000})
        message = r"data and metadata have .* MB together; the limit is 0.0 MB"
        with pytest.raises(InvalidCreationError, match=message) as caught:
            manager.create_checkpoint("t", "T", 1, data={"x": "y" * 11_000})
        assert "raise max_checkpoint_size_mb" in caught.value.hint
        assert caught.value.context["limit_bytes"] == 10_485
        assert caught.value.context["size_bytes"] > 11_000
        # What is there counts, too: both payloads, also the one that a change does not touch.
        with pytest.raises(InvalidUpdateError, match="the limit is"):
            manager.update_checkpoint(name, data={"y": "z" * 600})
        with pytest.raises(InvalidUpdateError, match="the limit is"):
            manager.update_checkpoint(name, metadata={"y": "z" * 600})
        with pytest.raises(InvalidUpdateError, match="the limit is"):
            manager.fail_checkpoint(name, {"y": "z" * 600})
        assert manager.complete_checkpoint(name)


def test_max_storage_size_gb(tmp_path):
    with manager_with(tmp_path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"x": os.urandom(1_000_000).hex()})
    with manager_with(tmp_path, max_storage_size_gb=0.001) as manager:
        with pytest.raises(QuotaError, match="the limit is"):
            manager.create_checkpoint("t", "T", 1)
        assert manager.complete_checkpoint(name)
        assert manager.delete_checkpoint(name)


def test_max_concurrent_operations_and_timeout(tmp_path, monkeypatch):
    """One operation at work, one waiting, two without a place: all that wait say so in time."""
    with manager_with(
        tmp_path, max_concurrent_operations=1, operation_timeout_seconds=0.2
    ) as manager:
        entered, leave = threading.Event(), threading.Event()
        real = manager.store.environment.now_us

        def slow():
            entered.set()
            leave.wait(30)
            return real()

        errors = []

        def create():
            try:
                manager.create_checkpoint("t", "T", 1)
            except BusyError as error:
                errors.append(error)

        # now_us is asked in the middle of a round, under the lock.
        writer = manager.store._writer
        monkeypatch.setattr(writer, "_moment", lambda moment=writer._moment: (slow(), moment())[1])
        threads = [threading.Thread(target=create) for _ in range(4)]
        threads[0].start()
        assert entered.wait(30)
        for thread in threads[1:]:
            thread.start()
        for thread in threads[1:]:
            thread.join(30)
        leave.set()
        for thread in threads:
            thread.join()
        assert len(errors) == 3
        assert "1 operations at most wait for a commit" in errors[0].message
        assert "for 0.2 s" in errors[0].message
        assert "raise max_concurrent_operations" in errors[0].hint
        assert errors[0].retryable
        assert len(manager.get_task_checkpoints("t")) == 1


def test_operation_timeout_seconds_and_who_holds_the_lock(tmp_path):
    with (
        manager_with(tmp_path) as other,
        manager_with(tmp_path, operation_timeout_seconds=0.1) as manager,
        other.store.log.exclusive(1.0),
        pytest.raises(LockTimeoutError) as caught,
    ):
        manager.create_checkpoint("t", "T", 1)
    assert f"process {os.getpid()}" in caught.value.message
    assert "for 0.1 s" in caught.value.message
    assert str(tmp_path) in caught.value.context["path"]


@pytest.mark.parametrize(("size_mb", "is_cached"), [(10, True), (0, False)])
def test_cache_size_mb(tmp_path, size_mb, is_cached):
    """With a cache, what was read stays readable in memory; without one, it comes from the disk."""
    with manager_with(tmp_path, cache_size_mb=size_mb) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"text": "findable" * 3})
        assert manager.get_checkpoint(name) is not None
        (segment,) = (tmp_path / "s" / "log").glob("*.seg")
        content = segment.read_bytes()
        at = content.index(b"findable")
        with segment.open("r+b") as file:
            file.seek(at)
            file.write(b"X")
        if is_cached:
            assert manager.get_checkpoint(name).data == {"text": "findable" * 3}
        else:
            with pytest.raises(ckptlog.CheckpointCorruptionError):
                manager.get_checkpoint(name)


def test_sanitise(tmp_path):
    data = {"password": "hunter2", "n": 1}
    with manager_with(tmp_path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data=data, metadata=data)
        manager.update_checkpoint(name, data={"deep": [{"api_key": "abc"}]})
        with manager.batch() as batch:
            batched = batch.create_checkpoint("t", "T", 1, data=data)
            batch.update_checkpoint(batched, data={"token": "abc"})
        assert data == {"password": "hunter2", "n": 1}
        found = manager.get_checkpoint(name)
        assert found.data == {
            "password": "[redacted]",
            "n": 1,
            "deep": [{"api_key": "[redacted]"}],
        }
        assert found.metadata == {"password": "[redacted]", "n": 1}
        assert manager.get_checkpoint(batched).data == {
            "password": "[redacted]",
            "n": 1,
            "token": "[redacted]",
        }
        counts = [entry.event.sanitised for entry in manager.store.events()]
        assert counts == [2, 1, 1, 1]
    content = b"".join(path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file())
    assert b"hunter2" not in content
    with manager_with(tmp_path, sanitise=False) as manager:
        name = manager.create_checkpoint("t", "T", 1, data=data)
        assert manager.get_checkpoint(name).data == data


def test_actor(tmp_path):
    with manager_with(tmp_path, actor="from config") as manager:
        manager.create_checkpoint("t", "T", 1)
        assert manager.store.event_at(0).event.actor == "from config"
    config = CheckpointConfiguration(actor="from config")
    with CheckpointManager(tmp_path / "s", config=config, actor="from call") as manager:
        manager.create_checkpoint("t", "T", 1)
        assert manager.store.event_at(1).event.actor == "from call"


def test_compression_level(tmp_path):
    words = {"text": " ".join(f"{n * 7919 % 1009} word" for n in range(4000))}
    sizes = []
    for level in (1, 9):
        with manager_with(tmp_path / str(level), compression_level=level) as manager:
            manager.create_checkpoint("t", "T", 1, data=words)
            sizes.append(manager.store.event_at(0).event.new)
    assert sizes[1] < sizes[0]


def test_durability(tmp_path):
    with manager_with(tmp_path, durability="interval", interval_s=0.01) as manager:
        assert manager.store.durability == "interval"
        manager.create_checkpoint("t", "T", 1)
        deadline = threading.Event()
        for _ in range(500):
            if manager.store.position == 1:
                break
            deadline.wait(0.01)
        assert manager.store.position == 1


def test_cleanup_runs_only_where_a_configuration_was_given(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        "ckptlog.manager.manager.Cleaner", lambda manager, config: started.append(config)
    )
    CheckpointManager(tmp_path / "s").store.close()
    CheckpointManager(
        tmp_path / "s", config=CheckpointConfiguration(cleanup_interval_hours=0)
    ).store.close()
    assert started == []
    config = CheckpointConfiguration(cleanup_interval_hours=1)
    CheckpointManager(tmp_path / "s", config=config).store.close()
    assert started == [config]


@pytest.mark.parametrize(
    "settings",
    [{"encryption_enabled": True}, {"encryption_key": "k"}, {"access_control_enabled": True}],
)
def test_what_this_version_lacks_is_refused(settings):
    with pytest.raises(SettingsError, match="this version of ckptlog does not have it"):
        CheckpointConfiguration(**settings)


def test_names_of_the_maos_example(tmp_path):
    config = CheckpointConfiguration.from_dict(
        {"storageDir": str(tmp_path / "s"), "maxCheckpointSizeMb": 1, "cleanupIntervalHours": 0}
    )
    with CheckpointManager(config=config) as manager:
        assert manager.store.path == tmp_path / "s"
        with pytest.raises(InvalidCreationError, match=r"the limit is 1\.0 MB"):
            manager.create_checkpoint("t", "T", 1, data={"x": "y" * 2_000_000})


@pytest.mark.parametrize("wrong", [{"a": 1}, "config", 5])
def test_wrong_types_of_settings(tmp_path, wrong):
    with pytest.raises(SettingsError, match="CheckpointConfiguration is needed"):
        CheckpointManager(tmp_path / "s", config=wrong)
    with pytest.raises(SettingsError, match="Store is needed"):
        CheckpointManager(store=wrong)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespace": 0},
        {"namespace": "a\nb"},
        {"actor": ""},
        {"actor": 5},
        {"actor": "x" * 201},
        {"namespace": None},
    ],
    ids=repr,
)
def test_wrong_defaults_open_nothing(tmp_path, wrong):
    with pytest.raises(ckptlog.ArgumentError, match=next(iter(wrong))):
        CheckpointManager(tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()


class TestSanitising:
    DATA: ClassVar = {
        "pin": "1234",
        "token": "the",
        "text": "EMP-123456 said",
        "password": "hunter2",
    }

    def test_keys_and_patterns_of_the_configuration(self, tmp_path):
        config = CheckpointConfiguration(
            sanitise_extra_keys=("PIN",),
            sanitise_keep_keys=("token",),
            sanitise_extra_patterns=(r"\bEMP-\d{6}\b",),
        )
        with CheckpointManager(tmp_path, config=config) as manager:
            name = manager.create_checkpoint("t", "of EMP-654321", 1, data=self.DATA)
            found = manager.get_checkpoint(name)
        assert found.task_title == "of [redacted]"
        assert found.data == {
            "pin": "[redacted]",
            "token": "the",
            "text": "[redacted] said",
            "password": "[redacted]",
        }
        assert b"1234" not in b"".join(
            path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        )

    def test_switched_off_it_finds_nothing(self, tmp_path):
        config = CheckpointConfiguration(
            sanitise=False, sanitise_extra_keys=("pin",), sanitise_extra_patterns=(".",)
        )
        with CheckpointManager(tmp_path, config=config) as manager:
            name = manager.create_checkpoint("t", "T", 1, data=self.DATA)
            assert manager.get_checkpoint(name).data == self.DATA

    def test_a_pattern_that_finds_the_replacement_opens_nothing(self, tmp_path):
        config = CheckpointConfiguration(sanitise_extra_patterns=("red",))
        with pytest.raises(SettingsError, match=r"'\[redacted\]' would itself be taken"):
            CheckpointManager(tmp_path / "s", config=config)
        assert not (tmp_path / "s").exists()
