"""cleanup by rules, pin and unpin: what they change, what they say, how they end."""

from __future__ import annotations

import json
import os

import pytest

import ckptlog


@pytest.fixture
def path(tmp_path):
    """Return a store with 12 checkpoints of one task and 2 of another."""
    path = tmp_path / "store"
    with ckptlog.CheckpointManager(path) as manager, manager.batch() as batch:
        for step in range(1, 13):
            batch.create_checkpoint("x1", "X", step, metadata={"loss": abs(step - 4)})
        for step in (1, 2):
            batch.create_checkpoint("y", "Y", step)
    return path


def steps(run, path, task="x1"):
    found = run("--store", path, "list", "--task", task, "--json").lines
    return [fields["step_number"] for fields in found]


RULES = ("--keep-last", 2, "--keep-every", 5, "--keep-best", "loss:min:1", "--task", "x*")


def test_a_dry_run_says_what_a_run_does(run, path):
    tried = run("--store", path, "cleanup", *RULES, "--dry-run", "--json")
    assert (tried.status, tried.err) == (0, "")
    plan = tried.document
    assert plan["is_dry_run"] is True
    assert plan["policy"] == {
        "rules": [
            {
                "keep_best": [{"metric": "loss", "n": 1, "order": "min"}],
                "keep_every": 5,
                "keep_last": 2,
                "tasks": ["x*"],
            }
        ]
    }
    assert plan["kept"] == {"best loss": 1, "every": 2, "last": 2, "no rule": 2}
    assert plan["bytes"] > 0
    assert plan["is_estimate"] is False
    shown = run("--store", path, "cleanup", *RULES, "--dry-run")
    assert shown.out.splitlines() == plan["checkpoints"]
    assert "7 checkpoints would be deleted" in shown.err
    assert "only they hold" in shown.err
    assert len(steps(run, path)) == 12
    done = run("--store", path, "cleanup", *RULES, "--json")
    assert (done.status, done.err) == (0, "")
    assert done.document["deleted"] == len(plan["checkpoints"]) == 7
    assert done.document["spared"] == 0
    assert steps(run, path) == [4, 5, 10, 11, 12]
    assert steps(run, path, "y") == [1, 2]
    again = run("--store", path, "cleanup", *RULES)
    assert again.out == "Deleted 0 checkpoints; kept 7 checkpoints.\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.toml", 'keep_last = 3\nkeep_states = ["failed"]\nexcept_tasks = "y"\n'),
        ("p.json", '{"rules": [{"tasks": ["x*"], "keep_last": 3}]}'),
        ("p", ' {"keep_last": 3, "tasks": "x1"}'),
    ],
)
def test_a_policy_in_a_file(run, path, tmp_path, name, content):
    file = tmp_path / name
    file.write_text(content)
    assert run("--store", path, "cleanup", "--policy", file).status == 0
    assert steps(run, path) == [10, 11, 12]
    assert steps(run, path, "y") == [1, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[[rules]]\nkeep_last = 1\n[[rules]]\nkeep_lsat = 2\n", "rules[1].keep_lsat"),
        (b"keep_last = 0x", "no TOML and no JSON"),
        (b"\xff", "no TOML and no JSON"),
        (b'{"keep_last": ', "no TOML and no JSON"),
        (b"[" * 5000, "no TOML and no JSON"),
        (b"#" * 2_000_000, "too long"),
        (None, "cannot be read"),
    ],
)
def test_a_policy_that_is_none(run, path, tmp_path, content, said):
    file = tmp_path / "policy.toml"
    if content is not None:
        file.write_bytes(content)
    done = run("--store", path, "cleanup", "--policy", file, "--json")
    assert (done.status, done.out) == (2, "")
    assert said in done.error["message"]
    assert str(file) in done.error["message"]
    assert (".." in done.error["message"], done.error["message"][-1]) == (False, ".")
    assert ("no TOML" in done.error["message"]) == ("no TOML" in said)
    assert len(steps(run, path)) == 12


@pytest.mark.parametrize(
    "words",
    [
        ("--keep-last", "-1"),
        ("--keep-last", "x"),
        ("--keep-every", "0"),
        ("--keep-days", "nan"),
        ("--keep-days", "x"),
        ("--keep-best", "loss"),
        ("--keep-best", "loss:up:3"),
        ("--keep-best", "loss:min:0"),
        ("--keep-state", "gone"),
        ("--task", "x*"),
        ("--with-pinned",),
        ("--keep-last", "1", "--max-age-days", "3"),
        ("--keep-last", "1", "--policy", "x"),
        ("--max-age-days", "3", "--policy", "x"),
        ("--keep-last", "1", "--task", ""),
    ],
)
def test_what_is_no_rule(run, path, words):
    done = run("--store", path, "cleanup", *words)
    assert (done.status, done.out) == (2, "")
    assert len(steps(run, path)) == 12


def test_recovery_points_and_pins_go_only_on_request(run, path):
    names = [one["checkpoint_id"] for one in run("--store", path, "list", "--json").lines]
    assert run("--store", path, "pin", names[0], "--json").document == {
        "pinned": [names[0]],
        "failed": [],
    }
    assert run("--store", path, "cleanup", "--keep-last", 0).status == 0
    assert (steps(run, path), steps(run, path, "y")) == ([1, 12], [2])
    words = ("--keep-last", 0, "--with-recovery-points")
    assert run("--store", path, "cleanup", *words).status == 0
    assert (steps(run, path), steps(run, path, "y")) == ([1], [])
    assert run("--store", path, "cleanup", *words, "--with-pinned").status == 0
    assert steps(run, path) == []


def test_pin_and_unpin(run, path):
    names = [one["checkpoint_id"] for one in run("--store", path, "list", "--json").lines]
    assert run("--store", path, "pin", *names[:2]).out.count("Pinned ") == 2
    assert run("--store", path, "unpin", names[0]).out == f"Unpinned {names[0]}.\n"
    types = [one["type"] for one in run("--store", path, "log", "--json", "--last", 3).lines]
    assert types == ["checkpoint.pinned", "checkpoint.pinned", "checkpoint.unpinned"]
    some = run("--store", path, "pin", names[0], "nobody", "--json")
    assert some.status == 1
    assert some.document["pinned"] == [names[0]]
    assert some.error["code"] == "cli.partial"
    none = run("--store", path, "pin", "nobody", "--json")
    assert (none.status, none.error["code"]) == (3, "checkpoint.not_found")


def test_what_was_left_is_told(run, path, monkeypatch):
    from ckptlog.manager import retention
    from ckptlog.manager.sweep import Outcome

    monkeypatch.setattr(retention, "sweep", lambda *_, **__: Outcome(deleted=1, spared=2))
    done = run("--store", path, "cleanup", "--keep-last", 1)
    assert done.status == 1
    assert "2 checkpoints of tasks that change all the time are left" in done.err
    assert (
        json.loads(run("--store", path, "cleanup", "--keep-last", 1, "--json").out)["spared"] == 2
    )


def test_a_key_that_stands_twice_and_a_named_pipe_are_no_policy(run, path, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text('{"keep_last": 5, "keep_last": 0}')
    found = run("--store", path, "cleanup", "--policy", policy)
    assert found.status == 2
    assert "keep_last" in found.err
    os.mkfifo(tmp_path / "pipe")
    found = run("--store", path, "cleanup", "--policy", tmp_path / "pipe")
    assert found.status == 2
    assert "named pipe" in found.err
    assert len(steps(run, path)) == 12
