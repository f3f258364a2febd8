"""The main job: killed, recovered, finished, proved. And a demo that fails says so."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

import ckptlog
from ckptlog.cli import demo_run
from ckptlog.cli.demo import SHIPPED
from ckptlog.cli.demo_picture import program
from ckptlog.cli.demo_proof import prove
from ckptlog.cli.demo_run import Job, Run, run_worker
from ckptlog.errors import CheckpointCorruptionError
from ckptlog.integrations.transcript import steps

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "trajectories"


def check_answer(answer, number):
    assert answer["ok"] is True
    assert all(check["is_ok"] for check in answer["checks"])
    first, second = answer["workers"]
    assert first["signal"] == signal.SIGKILL
    assert second["is_finished"] is True
    assert second["pid"] != first["pid"]
    assert [row["state"] for row in answer["steps"]] == ["completed"] * number
    done = set(first["acknowledged"]) | set(second["acknowledged"])
    lost = {str(n) for n in range(1, number + 1)} - done
    # A step may be durable and not acknowledged: then the second worker goes on from it.
    assert lost <= {str(first["begun"])}
    return first, second


@pytest.mark.parametrize("kill_after", [None, 0])
def test_the_shipped_transcript(run, tmp_path, kill_after):
    words = [] if kill_after is None else ["--kill-after", kill_after]
    done = run("demo", "--json", "--dir", tmp_path / "d", *words)
    assert (done.status, done.err) == (0, "")
    answer = done.document
    first, second = check_answer(answer, 12)
    assert first["begun"] == (6 if kill_after is None else kill_after + 1)
    assert len(first["acknowledged"]) in {first["begun"] - 1, first["begun"]}
    if second["recovered"] is None:
        assert first["acknowledged"] == {}
    else:
        assert second["recovered"]["step"] in {first["begun"] - 1, first["begun"]}
        assert second["recovered"]["why"]["reason"]
    assert answer["ratio"] > 1
    with ckptlog.open(tmp_path / "d") as store:
        assert store.position == answer["events"]


def test_the_picture_tells_the_story(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = run("demo")
    assert (done.status, done.err) == (0, "")
    assert "SIGKILL hits worker 1" in done.out
    assert "worker 2" in done.out
    assert "because:" in done.out
    assert "12 completed" in done.out
    assert ":1" in done.out
    assert "FAIL" not in done.out
    assert done.out.isascii()
    (store,) = tmp_path.glob("ckptlog-demo-*")
    assert (store / "store.json").is_file()
    commands = [line.strip() for line in done.out.splitlines() if f"--store {store}" in line]
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(command)
        tried = run(*words[words.index("--store") :])
        assert (tried.status, tried.err) == (0, ""), command


@pytest.mark.skipif(not REAL.is_dir(), reason="the real transcripts are not on this machine")
def test_a_real_transcript(run, tmp_path):
    (file, *_) = sorted(REAL.glob("*.traj"))
    done = run("demo", "--json", "--transcript", file, "--dir", tmp_path / "d")
    assert (done.status, done.err) == (0, "")
    check_answer(done.document, len(steps(file)))


@pytest.mark.thorough
@pytest.mark.parametrize("number", range(60))
def test_kills_at_any_moment(run, tmp_path, number):
    done = run("demo", "--json", "--dir", tmp_path / "d", "--kill-after", number % 12)
    assert (done.status, done.err) == (0, "")
    check_answer(done.document, 12)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--kill-after", "12"], "argument.invalid"),
        (["--transcript", "none.traj"], "argument.invalid"),
        (["--transcript", "bad.traj"], "argument.invalid"),
        (["--dir", "used"], "argument.invalid"),
        (["--store", "used"], "argument.invalid"),
        (["--dir", "full"], "store.not_a_store"),
    ],
)
def test_wrong_arguments(run, words, code):
    Path("bad.traj").write_text("{}")
    Path("full").mkdir()
    Path("full/x").write_text("x")
    with ckptlog.CheckpointManager("used") as manager:
        manager.create_checkpoint("t", "T", 1)
    done = run("demo", "--json", *words)
    assert (done.status, done.out, done.error["code"]) == (2 if code[0] == "a" else 3, "", code)


def make_job(tmp_path):
    job = Job(tmp_path / "store", SHIPPED, "job")
    ckptlog.open(job.store, create=True).close()
    return job


def test_a_worker_that_fails_is_told(tmp_path, run):
    job = make_job(tmp_path)
    (job.store / "store.json").write_text("{")
    worker = run_worker(job, 1)
    assert "Worker 1 ended with status 1 in step 0" in worker.error
    assert "store.json" in worker.error


def test_a_worker_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_run, "DEADLINE_S", 0.2)
    monkeypatch.setattr(demo_run, "_hand_out", lambda _: None)
    worker = run_worker(make_job(tmp_path), 1)
    assert worker.signal == signal.SIGKILL
    assert "was killed by signal 9" in worker.error


def test_a_worker_whose_demo_has_gone_ends(tmp_path):
    job = make_job(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ckptlog.cli.demo_worker", "--store", str(job.store)),
            *("--transcript", str(job.transcript), "--task", "job", "--worker", "w"),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "The demo has gone." in done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["started"]


@pytest.mark.parametrize("place", ["path", "beside", "module"])
def test_the_program_is_named_as_it_can_be_called(monkeypatch, tmp_path, place):
    monkeypatch.setattr(shutil, "which", lambda _: "x" if place == "path" else None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my python"))
    if place == "beside":
        (tmp_path / "ckptlog").touch()
    called = {
        "path": "ckptlog",
        "beside": f"{tmp_path}/ckptlog",
        "module": f"'{tmp_path}/my python' -m ckptlog",
    }
    assert program() == called[place]


# --- the proof can fail -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a job that one worker did from beginning to end."""
    job = make_job(tmp_path_factory.mktemp("demo"))
    worker = run_worker(job, 1)
    assert worker.error == ""
    assert prove(job, steps(SHIPPED), [worker]).is_ok
    return job, worker


@pytest.fixture
def finished(original, tmp_path):
    """Return a copy of it to break."""
    job, worker = original
    shutil.copytree(job.store, tmp_path / "copy")
    return replace(job, store=tmp_path / "copy"), deepcopy(worker)


def failed(job, worker):
    proof = prove(job, steps(SHIPPED), [worker])
    assert not proof.is_ok
    return [check.name for check in proof.checks if not check.is_ok]


def test_an_illegal_change_is_found(finished, monkeypatch):
    monkeypatch.setattr("ckptlog.model.state.is_legal", lambda before, _: before != "active")
    assert failed(*finished) == ["state changes"]


def test_positions_with_a_gap_are_found(finished, monkeypatch):
    real = ckptlog.Store.events

    def events(store, start=0, end=None):
        return (entry for entry in real(store, start, end) if entry.position != 7)

    monkeypatch.setattr(ckptlog.Store, "events", events)
    assert failed(*finished) == ["positions"]


def test_damage_is_found(finished):
    (segment,) = (finished[0].store / "log").glob("*.seg")
    content = segment.read_bytes()
    offset = content.index(b'"actor":') + 1
    segment.write_bytes(content[:offset] + b"C" + content[offset + 1 :])
    with pytest.raises(CheckpointCorruptionError):
        prove(finished[0], steps(SHIPPED), [finished[1]])


def test_a_lost_step_is_found(finished):
    job, worker = finished
    with ckptlog.CheckpointManager(job.store) as manager:
        manager.delete_checkpoint(worker.acknowledged[4])
    assert failed(job, worker) == ["acknowledged steps", "all steps"]


def test_a_changed_step_is_found(finished):
    job, worker = finished
    with ckptlog.CheckpointManager(job.store) as manager:
        name = worker.acknowledged[4]
        manager.restore_checkpoint(name)
        manager.complete_checkpoint(name, {"history": []})
    assert failed(job, worker) == ["acknowledged steps", "all steps"]


def test_an_unfinished_step_is_found(finished):
    job, worker = finished
    with ckptlog.CheckpointManager(job.store) as manager:
        manager.restore_checkpoint(worker.acknowledged[12])
    assert failed(job, worker) == ["all steps"]


def test_a_step_done_twice_is_found(finished):
    job, worker = finished
    with ckptlog.CheckpointManager(job.store) as manager:
        manager.create_checkpoint("job", "x", 3)
    assert failed(job, worker) == ["all steps"]


def test_a_step_that_was_never_written_is_found(finished):
    job, worker = finished
    worker.acknowledged[4] = "cp_invented_1_1"
    assert failed(job, worker) == ["acknowledged steps"]


def test_a_worker_that_did_not_end_well_is_found(finished):
    job, worker = finished
    worker.error = "It broke."
    assert failed(job, worker) == ["worker 1"]


def test_a_failed_demo_is_no_success(run, tmp_path, monkeypatch):
    def broken(job, number, *, kill_at=None):
        return Run(number, 1, error="It broke.")

    monkeypatch.setattr(demo_run, "run_worker", broken)
    done = run("demo", "--dir", tmp_path / "d")
    assert done.status == 1
    assert "FAIL  worker 1: It broke." in done.out
    assert "[cli.demo]" in done.err
    done = run("demo", "--dir", tmp_path / "e", "--json")
    assert (done.status, done.error["code"], done.document["ok"]) == (1, "cli.demo", False)
