"""A rewind of what somebody works in: refused while he lives, and not a moment longer."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from ckptlog import Capturer, CheckpointManager, DirectoryComponent, LeaseRequiredError
from ckptlog.capture.directory.workspace import Workspace
from ckptlog.errors import RecoveryUnfinishedError
from ckptlog.model.event import RECOVERY_STARTED
from tests.architecture.tree import ROOT

# Owns a system that captures a directory, as a service or `ckptlog run` does.
OWNER = """
import sys, time
from ckptlog import Capturer, CheckpointManager, DirectoryComponent
store, name, path = sys.argv[1:]
with CheckpointManager(store) as manager:
    lease = manager.acquire_lease(name, ttl_s=3600, holder="its owner")
    Capturer(manager, name, [DirectoryComponent("work", path)]).capture(lease=lease)
    print("owned", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def tree(tmp_path, run):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "b").write_text("first")
    (tree / "c").write_text("first")
    assert run("capture", tree).status == 0
    (tree / "sub" / "b").write_text("second")
    assert run("capture", tree).status == 0  # so no safety capture is needed, which asks for leases
    return tree


@pytest.fixture
def owner(tree):
    """Return a function that starts an owner; all are killed at the end."""
    living = []

    def start(name, path):
        words = [sys.executable, "-c", OWNER, str(tree / ".ckptlog"), name, str(path)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT)
        living.append(process)
        assert process.stdout.readline() == b"owned\n"
        return process

    yield start
    for process in living:
        process.kill()
        process.communicate()


def refused(run, tree, *words):
    done = run("rewind", tree, "--to", "#1", "--yes", "--json", *words)
    assert (done.status, done.error["code"]) == (4, "lease.required")
    assert "its owner" in done.error["message"]
    assert (tree / "sub" / "b").read_text() == "second"
    return done.error


@pytest.mark.parametrize(
    ("name", "where"), [("workspace", "."), ("task/files", "."), ("other", "sub"), ("up", "..")]
)
def test_while_its_owner_lives_nothing_is_touched(run, tree, owner, name, where):
    process = owner(name, tree / where)
    error = refused(run, tree)
    assert f"ckptlog leases release {name} --force" in error["hint"]
    recover = run(
        "recover", "--system", "workspace", "--yes", "--json", "--store", tree / ".ckptlog"
    )
    assert (recover.status, recover.error["code"]) == (4, "lease.required")
    assert run("rewind", tree, "--to", "#1", "--dry-run").status == 0
    assert run("rewind", tree, "--to", "#1", "--yes", "--out", tree.parent / "out").status == 0
    process.kill()
    process.wait()
    assert run("rewind", tree, "--to", "#1", "--yes").status == 0
    assert (tree / "sub" / "b").read_text() == "first"


def test_what_lies_beside_is_nobody_elses(run, tree, owner):
    owner("other", tree / "sub")
    (tree / "c").write_text("second")
    refused(run, tree)
    assert run("rewind", tree, "--to", "#1", "--yes", "--path", "c").status == 0
    assert (tree / "c").read_text() == "first"


def test_an_operator_ends_the_lease(run, tree, owner):
    owner("task/files", tree)
    refused(run, tree)
    done = run("leases", "release", "task/files", "--force", "--store", tree / ".ckptlog")
    assert done.status == 0
    assert run("rewind", tree, "--to", "#1", "--yes").status == 0


def test_a_command_rewinds_what_it_was_started_in(run, tree, monkeypatch):
    with (
        CheckpointManager(tree / ".ckptlog") as manager,
        manager.acquire_lease("task", holder="its owner", shared=True) as task,
        manager.acquire_lease("task/files", holder="its owner") as files,
    ):
        parts = [DirectoryComponent("work", tree)]
        Capturer(manager, "task/files", parts).capture(lease=files)
        refused(run, tree)
        grant = task.grant
        forged = msgspec.structs.replace(grant, token=grant.token + 1)
        for one in (msgspec.json.encode(forged).decode(), "", "{}", "no"):
            monkeypatch.setenv("CKPTLOG_LEASE", one)
            refused(run, tree)
        monkeypatch.setenv("CKPTLOG_LEASE", msgspec.json.encode(grant).decode())
        assert run("rewind", tree, "--to", "#1", "--yes").status == 0
    assert (tree / "sub" / "b").read_text() == "first"


def test_the_library_refuses_the_same(tree, owner):
    process = owner("other", tree)
    with CheckpointManager(tree / ".ckptlog") as manager:
        workspace = Workspace(manager, tree)
        info = workspace.find("#1")
        with pytest.raises(LeaseRequiredError, match="its owner"):
            workspace.rewind(info)
        process.kill()
        process.wait()
        facts = {"recovery": "r", "capture": info.id, "safety": "", "names": "*"}
        manager.record(RECOVERY_STARTED, facts, task="workspace")
        with pytest.raises(RecoveryUnfinishedError, match="has to be ended first"):
            workspace.rewind(info)
        assert (tree / "sub" / "b").read_text() == "second"
