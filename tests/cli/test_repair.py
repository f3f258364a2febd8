"""`ckptlog repair` and the levels of `ckptlog verify`: what is printed, and the exit statuses."""

from __future__ import annotations

import os
import shutil

import pytest

import ckptlog
from ckptlog.cli import verify as verify_command
from ckptlog.formats import end as end_format
from ckptlog.repository.layout import read_info


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        for step in range(1, 4):
            data = {"noise": os.urandom(900).hex()}
            manager.create_checkpoint("t", "T", step, data=data)
    return path


def spoil(store, length=300):
    (path,) = store.glob("log/*.seg")
    data = bytearray(path.read_bytes())
    data[300 : 300 + length] = bytes(length)
    path.write_bytes(bytes(data))


def test_nothing_is_damaged(run, store):
    for words in ((), ("--apply",), ("--dry-run",)):
        done = run("--store", store, "repair", *words)
        assert (done.status, done.out) == (0, "Nothing is damaged.\n")
    document = run("--store", store, "repair", "--json").document
    assert (document["ok"], document["files"], document["is_applied"]) == (True, [], False)


def test_a_dry_run_and_then_the_repair(run, store):
    spoil(store)
    planned = run("--store", store, "repair", "--json")
    assert planned.status == 5
    assert planned.error["code"] == "corruption.detected"
    assert run("--store", store, "verify").status == 5
    done = run("--store", store, "repair", "--apply", "--json")
    assert done.status == 1
    assert done.error["code"] == "repair.losses"
    assert "restore-store" in done.error["hint"]
    for name in ("lost_chunks", "affected", "lost_positions"):
        assert done.document[name] == planned.document[name]
    assert done.document["affected"]
    assert done.document["files"][0]["quarantine"].startswith("quarantine/")
    verified = run("--store", store, "verify", "--json")
    assert verified.status == 0
    assert verified.document["losses_total"] == len(verified.document["losses"]) > 0
    text = run("--store", store, "verify").out
    assert "told of by a repair" in text
    assert run("--store", store, "repair").out == "Nothing is damaged.\n"


def test_in_words(run, store):
    spoil(store)
    planned = run("--store", store, "repair")
    assert "mended" in planned.out
    assert "The present state of these checkpoints cannot be read" in planned.out
    assert "--apply" in planned.err
    done = run("--store", store, "repair", "--apply")
    assert "views: rebuilt" in done.out


def test_from_a_copy(run, store, tmp_path):
    shutil.copytree(store, tmp_path / "copy")
    spoil(store)
    done = run("--store", store, "repair", "--apply", "--from", tmp_path / "copy", "--json")
    assert done.status == 0
    assert done.document["from_copy"] == 1
    assert run("--store", store, "verify").status == 0
    other = run("--store", store, "repair", "--from", tmp_path / "nowhere")
    assert other.status == 3
    assert run("--store", store, "repair", "--from", store).status == 2
    assert run("--store", store, "repair", "--apply", "--dry-run").status == 2


def test_levels_of_verify(run, store):
    for level in ("structure", "existence", "sampled", "full"):
        document = run("--store", store, "verify", "--level", level, "--json").document
        assert (document["ok"], document["level"]) == (True, level)
    sampled = run("--store", store, "verify", "--level", "sampled", "--share", "0.5", "--seed", 7)
    assert "share 0.5, seed 7" in sampled.out
    assert run("--store", store, "verify", "--level", "sampled", "--share", "2").status == 2
    assert run("--store", store, "verify", "--level", "structure", "--resume").status == 2
    assert run("--store", store, "verify", "--resume").status == 0


@pytest.fixture
def older(store):
    """A store that a power cut has left an older end, and damage beyond it."""
    old = (store / "log" / "end").read_bytes()
    with ckptlog.CheckpointManager(store) as manager:
        for step in range(4, 8):
            manager.create_checkpoint("t", "T", step, data={"noise": os.urandom(900).hex()})
    (store / "log" / "end").write_bytes(old)
    (path,) = store.glob("log/*.seg")
    offset = end_format.decode(old, read_info(store).id_bytes).offset
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes(100) + data[offset + 100 :])
    return store


def test_damage_beyond_an_older_end(run, older):
    """What opening calls corrupt is told by verify and mended by repair."""
    assert run("--store", older, "list").status == 5
    verified = run("--store", older, "verify")
    assert (verified.status, "log.corrupt" in verified.out) == (5, True)
    assert run("--store", older, "repair").status == 5
    assert run("--store", older, "repair", "--apply").status in (0, 1)
    assert run("--store", older, "verify").status == 0
    assert len(run("--store", older, "list", "--json").out.splitlines()) >= 6


def test_what_opening_calls_corrupt_is_never_called_sound(run, older, monkeypatch):
    """Even where the verification itself finds nothing."""
    sound = older.with_name("sound")
    with ckptlog.CheckpointManager(sound) as manager:
        report = manager.store.verify()
    assert report.ok
    monkeypatch.setattr("ckptlog.repository.verify.verify_directory", lambda *_, **__: report)
    done = run("--store", older, "verify", "--json")
    assert done.status == 5
    assert [one["code"] for one in done.document["problems"]] == ["log.corrupt"]
    assert done.document["problems_total"] == 1


def test_an_interrupt_says_how_to_go_on(run, store, monkeypatch):
    def interrupt(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_command, "_verify", interrupt)
    done = run("--store", store, "verify")
    assert done.status == 130
    assert "ckptlog verify --level full --resume" in done.err


def test_a_file_that_cannot_be_mended(run, store):
    """Without a segment and an end nothing tells what the log was."""
    for path in (*store.glob("log/*.seg"), store / "log" / "end"):
        path.unlink()
    views = sorted(path.name for path in (store / "views").iterdir())
    for words, will in (((), "would be left"), (("--apply",), "was left")):
        done = run("--store", store, "repair", *words)
        assert done.status == 5
        assert "repair.refused" in done.err
        assert will in done.err
        assert "0 events" not in done.err
        assert "--apply`" not in done.err
        assert "FILE LEFT AS IT IS" in done.out
        assert "ORIGINAL" not in done.out
    document = run("--store", store, "repair", "--json").document
    assert [one["action"] for one in document["files"]] == ["refused"]
    assert sorted(path.name for path in (store / "views").iterdir()) == views


def test_one_file_is_mended_and_one_refused(run, store, monkeypatch):
    from ckptlog.errors import FormatError
    from ckptlog.repository.salvage import SegmentSalvage

    with ckptlog.CheckpointManager(store) as manager:
        manager.store.log._segment_bytes = 1
        for step in range(4, 8):
            manager.create_checkpoint("t", "T", step, data={"noise": os.urandom(900).hex()})
    first, second, *_ = sorted(store.glob("log/*.seg"))
    for path in (first, second):
        data = bytearray(path.read_bytes())
        data[300:340] = bytes(40)
        path.write_bytes(data)
    whole = SegmentSalvage.run

    def refusing(self, data):
        if self._name == second.name:
            raise FormatError("Two things contradict each other.")
        return whole(self, data)

    monkeypatch.setattr(SegmentSalvage, "run", refusing)
    planned = run("--store", store, "repair")
    assert "1 file of" in planned.err
    assert "can be mended, 1 cannot" in planned.err
    before = second.read_bytes()
    done = run("--store", store, "repair", "--apply", "--json")
    assert (done.status, done.error["code"]) == (5, "repair.refused")
    assert (done.error["context"]["refused"], done.document["views"]) == (1, "kept")
    assert second.read_bytes() == before
    monkeypatch.undo()
    assert run("--store", store, "repair", "--apply").status in (0, 1)
    assert run("--store", store, "verify").status == 0


def test_damage_of_the_newest_head_is_pointed_out(run, store):
    assert run("--store", store, "audit", "head").status == 0
    latest = store / "heads" / "latest"
    whole = latest.read_bytes()
    latest.write_bytes(whole.replace(b"\n\n", b"\n#\n", 1))
    done = run("--store", store, "verify", "--json")
    assert done.status == 5
    (problem,) = done.document["problems"]
    assert problem["where"] == "heads/latest"
    assert "`ckptlog audit head` writes it anew" in problem["message"]
    for words in ((), ("--apply",)):
        done = run("--store", store, "repair", *words)
        assert (done.status, "repair.left" in done.err) == (5, True)
        assert "ckptlog audit head" in done.out
        assert "Nothing is damaged" not in done.out
        assert "views: kept" in done.out
    assert run("--store", store, "audit", "head").status == 0
    assert latest.read_bytes() == whole
    assert run("--store", store, "verify").status == 0
    assert run("--store", store, "repair").status == 0


def test_a_lost_end_is_told_as_what_nobody_can_know(run, store):
    (store / "log/end").unlink()
    for words in (("list",), ("verify",), ("audit", "fork"), ("repair",)):
        assert run("--store", store, *words).status == 5
        assert not (store / "log/end").exists()
    done = run("--store", store, "repair", "--apply")
    assert done.status == 0
    assert "log/end  made" in done.out
    assert "note: The published end of the log was lost: 3 events were found" in done.out
    assert run("--store", store, "repair").out == "Nothing is damaged.\n"


def test_a_lost_end_below_a_signed_head(run, store):
    assert run("--store", store, "audit", "head").status == 0
    (path,) = store.glob("log/*.seg")
    (store / "log/end").unlink()
    path.write_bytes(path.read_bytes()[:300])
    for words in ((), ("--apply",)):
        done = run("--store", store, "repair", *words)
        assert done.status == 5
        assert "log/end" in done.out
        assert "audit fork" in done.out
        assert "left: head.rolled_back" in done.out
    assert "repair.refused" in done.err
    for words in (("list",), ("verify",), ("repair", "--apply")):
        assert run("--store", store, *words).status == 5
    assert not (store / "log/end").exists()
    # The head is given up with what it covers: then there is an end again.
    assert run("--store", store, "audit", "fork").status == 0
    assert run("--store", store, "verify").status == 0
    assert run("--store", store, "repair").status == 0


def test_a_fork_mends_nothing_else(run, store):
    """Only what a repair refused for the head's sake is published for it."""
    assert run("--store", store, "audit", "head").status == 0
    (path,) = store.glob("log/*.seg")
    (store / "log/end").unlink()
    data = path.read_bytes()[:-10]
    path.write_bytes(data[:320] + bytes(40) + data[360:])
    done = run("--store", store, "audit", "fork", "--json")
    assert (done.status, done.error["code"]) == (5, "log.corrupt")
    assert not (store / "log/end").exists()


def test_what_of_a_copy_is_left_aside_is_said(run, store, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    (path,) = copy.glob("log/*.seg")
    path.unlink()
    path.mkdir()
    spoil(store)
    done = run("--store", store, "repair", "--from", copy)
    assert f"note: The copy's log/{path.name} counts as missing" in done.out
    (note,) = run("--store", store, "repair", "--from", copy, "--json").document["notes"]
    assert note in done.out
