"""Damage in the chain of segments: what is behind it is still read."""

from __future__ import annotations

import json
import os
import shutil

import msgspec
import pytest

import ckptlog
from ckptlog.formats import end, segment
from ckptlog.repository.verify import verify_directory
from tests.repository.damage import (
    codes,
    fill,
    flipped,
    notes,
    only,
)


def test_damage_in_the_middle_hides_only_itself(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        names = [manager.create_checkpoint(f"t{n}", "T", 1, data={"n": n}) for n in range(20)]
        manager.delete_task("t9")
        for name in names[:5]:
            manager.complete_checkpoint(name)
        (entry,) = manager.store.events(7, 8)
    path = only(tmp_path / "s", "log/*.seg")
    with flipped(path, entry.offset + 20):
        report = verify_directory(tmp_path / "s")
        with ckptlog.open(tmp_path / "s") as store:
            opened = store.verify()
    (problem,) = report.problems
    start = entry.offset - entry.span
    assert str(problem).startswith(f"log.corrupt at log/{path.name}:{start}: Damaged at position 7")
    assert (report.events, report.checkpoints) == (25, 18)
    assert opened.problems == report.problems
    assert "a part of the log is lost" in notes(opened)


def test_a_history_that_damage_cut_is_not_illegal(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1)
        other = manager.create_checkpoint("o", "O", 1)
        manager.complete_checkpoint(name)
        manager.restore_checkpoint(name)
        manager.update_checkpoint(other, data={"n": 1})
        places = [(entry.offset, entry.length) for entry in manager.store.events()]
    path = only(tmp_path / "s", "log/*.seg")
    for offset, length in places[:4]:
        with flipped(path, offset + length - 1):
            report = verify_directory(tmp_path / "s")
        # A damaged creation takes its payload with it.
        assert codes(report)[0] == "log.corrupt"
        assert set(codes(report)) <= {"log.corrupt", "blob.missing"}
        assert report.events == 4
    # Where only a chunk is damaged, its event is read.
    with flipped(path, places[1][0] - 1):
        report = verify_directory(tmp_path / "s")
    assert codes(report) == ["log.corrupt", "blob.missing"]
    assert report.events == 5


def test_the_last_commit_is_damaged(store_path):
    path = only(store_path, "log/*.seg")
    with flipped(path, path.stat().st_size - 1):
        report = verify_directory(store_path)
    assert codes(report) == ["log.corrupt", "log.corrupt"]
    assert "events are there up to 4" in report.problems[1].message
    assert report.events == 4


def test_a_segment_that_is_cut(store_path):
    path = only(store_path, "log/*.seg")
    os.truncate(path, path.stat().st_size - 10)
    report = verify_directory(store_path)
    assert set(codes(report)) == {"log.corrupt"}
    os.truncate(path, 10)
    report = verify_directory(store_path)
    assert codes(report) == ["log.corrupt"]
    assert report.events == 0
    assert "header" in notes(report)


def test_segments_chain(chained):
    report = verify_directory(chained)
    assert report.ok
    assert report.events == 29


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_segment(chained, which):
    path = sorted(chained.glob("log/*.seg"))[which]
    first = [int(other.name[:20]) for other in sorted(chained.glob("log/*.seg"))] + [29]
    lost = first[first.index(int(path.name[:20])) + 1] - int(path.name[:20])
    path.unlink()
    report = verify_directory(chained)
    assert set(codes(report)) == {"log.corrupt", "blob.missing"} - (
        {"blob.missing"} if which else set()
    )
    assert report.events == 29 - lost
    assert any(
        "segment" in problem.message or "missing" in problem.message for problem in report.problems
    )


def test_a_segment_of_another_store(chained, tmp_path):
    fill(tmp_path / "other")
    path = sorted(chained.glob("log/*.seg"))[1]
    shutil.copy(only(tmp_path / "other", "log/*.seg"), path)
    report = verify_directory(chained)
    assert not report.ok
    assert "The header of" in notes(report)


def test_headers_that_do_not_fit(chained):
    paths = sorted(chained.glob("log/*.seg"))
    store_id = ckptlog.open(chained).info.id_bytes
    raw = paths[2].read_bytes()
    header = segment.decode(store_id, int(paths[2].name[:20]), 0, raw[: segment.HEADER_FRAME_BYTES])

    def rewritten(**fields):
        changed = segment.encode(msgspec.structs.replace(header, **fields))
        paths[2].write_bytes(changed + raw[len(changed) :])
        return verify_directory(chained)

    assert "leaf hash" in rewritten(leaf=bytes(32)).problems[0].message
    report = rewritten(previous_first=0)
    assert "as the one before it" in report.problems[0].message
    assert report.events == 29
    report = rewritten(previous_length=header.previous_length - 1)
    assert report.problems[0].where.startswith(f"log/{paths[1].name}:")
    assert report.events == 28
    report = rewritten(previous_length=header.previous_length + 1)
    assert report.problems[0].where.startswith(f"log/{paths[1].name}:")
    assert rewritten().ok


def rewrite_end(path, **fields):
    file = path / "log" / "end"
    store_id = bytes.fromhex(json.loads((path / "store.json").read_text())["id"])
    old = end.decode(file.read_bytes(), store_id)
    file.write_bytes(end.encode(msgspec.structs.replace(old, **fields)))
    return old


def test_an_end_that_does_not_fit(chained):
    old = rewrite_end(chained, leaf=bytes(32))
    assert "leaf hash" in verify_directory(chained).problems[0].message
    rewrite_end(chained, leaf=old.leaf, position=old.position + 1)
    assert "published up to position 30" in verify_directory(chained).problems[0].message
    rewrite_end(chained, position=old.position, offset=old.offset - 1)
    assert not verify_directory(chained).ok
    rewrite_end(chained, offset=old.offset, first=old.first + 1)
    assert "missing or has no header" in verify_directory(chained).problems[-1].message


def test_what_lies_beyond_the_end_is_not_looked_at(chained):
    last = max(chained.glob("log/*.seg"))
    with last.open("ab") as file:
        file.write(b"CK garbage" * 100)
    beyond = chained / "log" / segment.segment_name(29, 0)
    beyond.write_bytes(b"never finished")
    report = verify_directory(chained)
    assert report.ok
    assert beyond.name in notes(report)


def test_the_log_folder_is_gone(store_path):
    shutil.rmtree(store_path / "log")
    assert not verify_directory(store_path).ok
