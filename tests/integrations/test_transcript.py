"""The transcript reader: strict, bounded, and right about which message ends which step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptlog.cli.demo import SHIPPED
from ckptlog.errors import ArgumentError
from ckptlog.integrations import transcript
from ckptlog.integrations.transcript import steps

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "trajectories"


def message(role, content):
    return {"role": role, "content": content}


def step(action, **fields):
    return {"action": action, "observation": "", "response": action, "thought": "", **fields}


def write(path, history, trajectory, **more):
    path.write_text(json.dumps({"history": history, "trajectory": trajectory, **more}))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.traj"


def test_the_state_of_a_step_ends_with_its_answer(path):
    history = [
        message("system", "s"),
        message("user", "u"),
        message("assistant", "one"),
        message("user", "seen"),
        message("assistant", "two"),
        message("user", "end"),
    ]
    run = steps(write(path, history, [step("one"), step("two")]))
    assert [item.number for item in run] == [1, 2]
    assert run[0].state == {"history": history[:3], "step": step("one")}
    assert run[1].state == {"history": history[:5], "step": step("two")}


def test_demonstrations_are_no_steps(path):
    shown = [message("user", "d"), message("assistant", "demo"), message("assistant", "demo")]
    history = [*shown, message("assistant", "one"), message("tool", "t"), message("assistant", "2")]
    run = steps(write(path, history, [step("one"), step("2")]))
    assert [len(item.state["history"]) for item in run] == [4, 6]


@pytest.mark.parametrize(
    ("fields", "description"),
    [
        ({"action": "\n  ls   -l\nmore", "thought": "t"}, "ls -l"),
        ({"action": "", "thought": "I think.\nSo"}, "I think."),
        ({"action": None, "response": "r"}, "r"),
        ({"action": 7}, "(no action)"),
        ({"action": "x" * 500}, "x" * 100),
    ],
)
def test_a_step_is_described_by_its_first_line(path, fields, description):
    run = steps(write(path, [message("assistant", "a")], [fields]))
    assert run[0].description == description


ONE = [message("assistant", "a")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a JSON list"),
        (b"{}", "it has no 'history'"),
        (json.dumps({"history": ONE}).encode(), "it has no 'trajectory'"),
        (json.dumps({"history": {}, "trajectory": []}).encode(), "history is a dict"),
        (json.dumps({"history": ["x"], "trajectory": []}).encode(), "history[0] is a str"),
        (json.dumps({"history": [{}], "trajectory": []}).encode(), "history[0] has no role"),
        (json.dumps({"history": ONE, "trajectory": []}).encode(), "trajectory is empty"),
        (json.dumps({"history": ONE, "trajectory": [1]}).encode(), "trajectory[0] is a int"),
        (
            json.dumps({"history": ONE, "trajectory": [step("a"), step("b")]}).encode(),
            "1 assistant messages for 2 steps",
        ),
    ],
)
def test_anything_else_is_refused_with_the_reason(path, content, reason):
    path.write_bytes(content)
    with pytest.raises(ArgumentError) as caught:
        steps(path)
    assert reason in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_byte_order_mark_is_no_fault(path):
    write(path, ONE, [step("a")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(steps(path)) == 1


def test_sizes_are_bounded(path, monkeypatch):
    write(path, ONE * 3, [step("a")] * 3)
    monkeypatch.setattr(transcript, "STEPS_MAX", 2)
    with pytest.raises(ArgumentError, match="3 steps; at most 2"):
        steps(path)
    monkeypatch.setattr(transcript, "SIZE_BYTES_MAX", 10)
    with pytest.raises(ArgumentError, match="more than 10 bytes"):
        steps(path)


def test_a_missing_file_and_a_directory(tmp_path):
    with pytest.raises(ArgumentError, match="There is no file"):
        steps(tmp_path / "no.traj")
    with pytest.raises(ArgumentError, match="is a directory"):
        steps(tmp_path)


def test_the_shipped_transcript():
    run = steps(SHIPPED)
    assert len(run) == 12
    assert 20_000 < SHIPPED.stat().st_size < 40_000
    assert run[-1].description == "rm reproduce.py && submit"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real transcripts are not on this machine")
def test_real_transcripts():
    files = sorted(REAL.glob("*.traj"))
    assert files
    for file in files:
        document = json.loads(file.read_text())
        run = steps(file)
        assert len(run) == len(document["trajectory"])
        assert run[-1].state["step"] == document["trajectory"][-1]
        for item in run:
            assert item.state["history"][-1]["role"] == "assistant"
            assert item.description != "(no action)"
