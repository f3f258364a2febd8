"""The doctor says what is wrong inside a store, and what to do; a sound one has only good news."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import warnings

import pytest

import ckptlog
from ckptlog.repository.doctor import diagnose
from ckptlog.storage.environment import Environment


@pytest.fixture
def path(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"n": 1})
        manager.complete_checkpoint(name)
    return tmp_path / "s"


def bad(findings):
    """Return code -> message of what is not ok, each with something to do."""
    found = {one.code: one.message for one in findings if one.level != "ok"}
    assert all(one.hint for one in findings if one.level != "ok")
    return found


def aged(file, content=b"x"):
    """Make a file that nobody has touched for two hours."""
    file.write_bytes(content)
    then = time.time() - 7200
    os.utime(file, (then, then))
    return file


def test_a_sound_store(path):
    with ckptlog.open(path) as store:
        findings = store.doctor()
    assert bad(findings) == {}
    assert [one.code for one in findings] == ["doctor.log", "doctor.view", "doctor.index"]
    assert "2 events" in findings[0].message
    assert bad(diagnose(path)) == {}
    assert bad(diagnose(str(path))) == {}


def test_an_empty_store(tmp_path):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        assert bad(store.doctor()) == {}


def test_a_store_that_cannot_be_opened(tmp_path):
    (finding,) = diagnose(tmp_path / "none")
    assert (finding.level, finding.code) == ("error", "store.missing")
    assert finding.hint


def test_a_damaged_view(path):
    with ckptlog.open(path) as store:
        with sqlite3.connect(path / "views" / "current.sqlite") as connection:
            connection.execute("UPDATE checkpoint SET state = 'failed'")
        connection.close()
        assert "not found by what it says" in bad(store.doctor())["doctor.view"]
        with sqlite3.connect(path / "views" / "current.sqlite") as connection:
            connection.execute("UPDATE standing SET body = x'00'")
        connection.close()
        assert "doctor.view" in bad(store.doctor())


def test_a_view_in_memory(path):
    shutil.rmtree(path / "views")
    (path / "views").write_text("in the way")
    with ckptlog.open(path) as store:
        found = bad(store.doctor())
    assert "in memory" in found["doctor.view"]
    assert "doctor.index" in found


def test_an_index_that_lost_its_way(path):
    with ckptlog.open(path) as store:
        store.index.clear()
        assert "ends at 0 of 2" in bad(store.doctor())["doctor.index"]


def test_what_recovery_told(path):
    with ckptlog.CheckpointManager(path) as manager:
        manager.store.log.abandon()  # as a kill would
    (segment,) = path.glob("log/*.seg")
    with segment.open("ab") as file:
        file.write(b"CK torn")
    with ckptlog.open(path) as store:
        found = bad(store.doctor())
    assert "unfinished commit" in found["doctor.recovery"]
    assert "torn-" in found["doctor.torn"]


def test_something_beyond_the_end(path):
    (segment,) = path.glob("log/*.seg")
    with segment.open("ab") as file:
        file.write(b"CK torn")
    found = bad(diagnose(path))
    assert list(found) == ["doctor.tail"]


def test_a_missing_end(path):
    (path / "log" / "end").unlink()
    assert "doctor.end" in bad(diagnose(path))


def test_left_overs(path):
    stray = f"packs/{7:020d}-{'ab' * 16}.pack"
    aged(path / stray)
    aged(path / "views" / "chunks" / "x.run.tmp")
    (path / "packs" / "young.tmp").write_bytes(b"x")
    with ckptlog.open(path) as store:
        found = bad(store.doctor())
    assert found["doctor.temporary"] == "A crash has left views/chunks/x.run.tmp."
    assert "is damaged" in found["doctor.pack"]


def test_packs_that_nobody_registered(path):
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 2, data={"x": os.urandom(1_000_000).hex()})
        draft = manager.store.blobs.split(b"nobody's")
        (entry,), _ = manager.store.write_packs(draft.fresh)
        assert bad(manager.store.doctor()) == {}
        for file in (path / "packs").iterdir():
            os.utime(file, (0, 0))
        found = bad(manager.store.doctor())
    assert list(found) == ["doctor.packs"]
    assert entry.id in found["doctor.packs"]
    assert found["doctor.packs"].count(".pack") == 1


def test_many_left_overs_are_counted(path):
    for number in range(5):
        aged(path / "log" / f"torn-1-{number}")
    assert bad(diagnose(path))["doctor.torn"].endswith("torn-1-2 and 2 more.")


def test_a_used_reserve(path):
    with ckptlog.open(path) as store:
        (path / "reserve").unlink()
        assert "doctor.reserve" in bad(store.doctor())
    with ckptlog.open(path) as store:
        assert bad(store.doctor()) == {}


def test_a_clock_that_is_behind(path):
    class Yesterday(Environment):
        def now_us(self):
            return super().now_us() - 86_400_000_000

    with ckptlog.open(path, environment=Yesterday()) as store:
        found = bad(store.doctor())
    assert list(found) == ["doctor.clock"]
    assert "86400 s behind" in found["doctor.clock"] or "86399 s" in found["doctor.clock"]


def test_an_old_layout_beside_it(path):
    (path / "checkpoint_1.json").write_text("{}")
    assert "doctor.legacy" in bad(diagnose(path))


def test_damage_in_the_log_is_a_finding(path):
    with ckptlog.open(path) as store:
        (entry,) = store.events(1, 2)
    (segment,) = path.glob("log/*.seg")
    with segment.open("r+b") as file:
        file.seek(entry.offset + 30)
        file.write(b"\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ckptlog.open(path) as store:
            assert "log.corrupt" in bad(store.doctor())
