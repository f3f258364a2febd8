"""Verification finds every kind of damage, names the place, and goes on behind it."""

from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointError,
    FormatError,
    LogCorruptionError,
)
from ckptlog.repository.verify import verify_directory
from tests.repository.damage import (
    append,
    codes,
    fill,
    flipped,
    notes,
    only,
    record,
)

# --- a sound store ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["full", "structure"])
def test_a_sound_store(store_path, level):
    calls = []
    with ckptlog.open(store_path) as store:
        report = store.verify(level, lambda done, total: calls.append((done, total)))
    assert (report.ok, report.problems, report.notes) == (True, (), ())
    assert (report.events, report.commits, report.checkpoints) == (5, 5, 1)
    assert report.bytes_read == only(store_path, "log/*.seg").stat().st_size
    assert report.chunks > 3
    assert report.payloads == (5 if level == "full" else 0)
    assert calls[-1][0] == calls[-1][1] == report.bytes_read
    fields = json.loads(json.dumps(report.to_dict()))
    assert fields["ok"] is True
    assert (fields["problems"], fields["level"]) == ([], level)
    assert fields["bytes"] == report.bytes_read


def test_an_empty_store(tmp_path):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        assert store.verify().problems == ()
    assert verify_directory(tmp_path / "s").ok


def test_a_store_of_every_event(tmp_path, small_packs):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        for step in range(1, 30):
            with manager.batch() as batch:
                name = batch.create_checkpoint(
                    f"t{step % 3}", "T", step, activate=step % 2 == 0, data={"x": "y" * 40 * step}
                )
            manager.fail_checkpoint(name, {"message": "no"})
            manager.restore_checkpoint(name)
            manager.complete_checkpoint(name, {"done": True})
        manager.delete_task("t1")
        manager.create_checkpoint("t1", "T", 1)
        manager.cleanup_old_checkpoints(0)
        for level in ("full", "structure"):
            report = manager.store.verify(level)
            assert report.problems == ()
            assert report.checkpoints == 1
        assert manager.validate_checkpoint_integrity() == []


def test_the_closed_and_the_read_only_store(store_path):
    report = verify_directory(store_path)
    assert report.ok
    assert report.payloads == 5
    assert "view was not compared" in notes(report)
    with ckptlog.open(store_path, read_only=True) as store:
        assert store.verify().problems == ()


def test_an_unknown_level(store_path):
    with pytest.raises(ArgumentError, match="no level 'deep'"):
        verify_directory(store_path, "deep")  # type: ignore[arg-type]
    with ckptlog.open(store_path) as store, pytest.raises(ArgumentError):
        store.verify("deep")  # type: ignore[arg-type]


def test_progress_rises(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        for step in range(1, 8):
            manager.create_checkpoint("t", "T", step, data={"x": os.urandom(300_000).hex()})
        calls = []
        manager.store.verify(progress=lambda done, total: calls.append((done, total)))
    assert len(calls) > 2
    assert calls == sorted(calls)
    assert len({total for _, total in calls}) == 1


def test_beside_writers(tmp_path):
    stop = threading.Event()
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:

        def write():
            step = 0
            while not stop.is_set():
                step += 1
                task = f"{threading.get_ident()} {step % 5}"
                name = manager.create_checkpoint(task, "T", 1, data={"n": step})
                manager.complete_checkpoint(name)
                if step % 7 == 0:
                    manager.delete_task(task)

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for level in ("full", "structure") * 5:
                assert manager.store.verify(level).problems == ()
        finally:
            stop.set()
            for thread in threads:
                thread.join()


# --- flipped bytes ----------------------------------------------------------------------------


def spots(path, step):
    """Return offsets all over a file: its head, and every step-th byte."""
    size = path.stat().st_size
    return sorted({*range(0, 150, 3), *range(0, size, step), size - 1})


def check_flips(store_path, path, offsets, mask=1):
    for offset in offsets:
        with flipped(path, offset, mask):
            report = verify_directory(store_path)
        assert not report.ok, offset
        assert path.name in report.problems[0].where or report.problems[0].code == "blob.missing"
    assert verify_directory(store_path).ok


def test_flips_in_a_segment(store_path):
    path = only(store_path, "log/*.seg")
    check_flips(store_path, path, spots(path, 7))


@pytest.mark.thorough
def test_every_flip_in_a_segment(store_path):
    path = only(store_path, "log/*.seg")
    for mask in (1, 0x80, 0xFF):
        check_flips(store_path, path, range(path.stat().st_size), mask)


def test_flips_in_packs(tmp_path, small_packs):
    fill(tmp_path / "s", blobs=1500)
    (first, *_) = sorted((tmp_path / "s").glob("packs/*.pack"))
    check_flips(tmp_path / "s", first, spots(first, 11))


@pytest.mark.thorough
def test_every_flip_in_packs(tmp_path, small_packs):
    fill(tmp_path / "s", blobs=1500)
    for path in (tmp_path / "s").glob("packs/*.pack"):
        check_flips(tmp_path / "s", path, range(path.stat().st_size))


def test_flips_show_in_opening_or_verifying(store_path):
    path = only(store_path, "log/*.seg")
    for offset in range(0, path.stat().st_size, 61):
        with flipped(path, offset, 0x40):
            try:
                with ckptlog.open(store_path) as store:
                    assert not store.verify().ok, offset
            except CheckpointError as error:
                assert error.code == "log.corrupt", offset
    with ckptlog.open(store_path) as store:
        assert store.verify().ok


def test_flips_in_the_end_are_found(store_path):
    path = store_path / "log" / "end"
    for offset in range(0, path.stat().st_size, 3):
        with flipped(path, offset):
            assert "log/end" in verify_directory(store_path).problems[0].where, offset
    with flipped(path, 30), ckptlog.open(store_path, read_only=True) as store:
        assert codes(store.verify()) == ["log.corrupt"]
    with path.open("r+b") as file:
        file.write(b"x")
    before = path.read_bytes()
    with pytest.raises(LogCorruptionError, match="published end"):
        ckptlog.open(store_path)
    assert codes(verify_directory(store_path)) == ["log.corrupt"]
    assert path.read_bytes() == before


def test_where_a_problem_is(store_path):
    path = Path(only(store_path, "log/*.seg"))
    with flipped(path, 200):
        text = str(verify_directory(store_path).problems[0])
    assert text.startswith(f"log.corrupt at log/{path.name}:108: ")
    assert "\n" not in text


def test_left_overs_are_notes(store_path):
    (store_path / "log" / "torn-3-1").write_bytes(b"x")
    (store_path / "views" / "chunks" / "x.run.tmp").write_bytes(b"x")
    (store_path / "packs" / "stray.pack").write_bytes(b"x")
    report = verify_directory(store_path)
    assert report.ok
    assert "log/torn-3-1 was cut off" in notes(report)
    assert "views/chunks/x.run.tmp is a temporary file" in notes(report)
    assert "packs/stray.pack is registered by no event" in notes(report)


def test_store_json(store_path):
    path = store_path / "store.json"
    old = path.read_bytes()
    with ckptlog.open(store_path) as store:
        path.write_bytes(b"{")
        assert codes(store.verify("structure")) == ["format.malformed"]
        path.write_bytes(old.replace(b"2048", b"2049"))
        assert "not what it was" in store.verify("structure").problems[0].message
    path.write_bytes(b"{")
    with pytest.raises(FormatError):
        verify_directory(store_path)


def test_no_more_than_a_thousand_problems(store_path):
    with ckptlog.open(store_path) as store:
        append(store, *[record(f"c{number}", schema=1, time="yesterday") for number in range(1100)])
        report = verify_directory(store_path)
    assert len(report.problems) == 1000
    assert "100 more problems" in notes(report)


@pytest.mark.parametrize("found_by", ["reading", "verifying"])
def test_what_was_found_damaged_is_stored_again(tmp_path, found_by):
    """A new version of a task does not rely on a chunk of the old one that is known to be bad."""
    data = {"texts": [random.Random(number).randbytes(900).hex() for number in range(40)]}
    with CheckpointManager(tmp_path / "s") as manager:
        old = manager.create_checkpoint("t", "T", 1, data=data)
        entry = manager.store.newest(old)
    (segment,) = (tmp_path / "s" / "log").glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[entry.offset - 20_000] ^= 1
    segment.write_bytes(bytes(content))
    with CheckpointManager(tmp_path / "s") as manager:
        if found_by == "reading":
            with pytest.raises(CheckpointCorruptionError):
                manager.get_checkpoint(old)
        else:
            assert manager.store.verify().problems
        new = manager.create_checkpoint("t", "T", 2, data={**data, "more": 1})
        newer = manager.create_checkpoint("t", "T", 3, data={**data, "more": 2})
        assert manager.store.newest(newer).event.new < 10_000
    with CheckpointManager(tmp_path / "s") as manager:
        for name, more in ((new, 1), (newer, 2)):
            assert manager.get_checkpoint(name).data == {**data, "more": more}
