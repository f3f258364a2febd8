from __future__ import annotations

import subprocess
import sys

from ckptlog import CheckpointManager
from ckptlog.storage.environment import Environment


def test_nobody_holds_one(run, filled):
    ran = run("leases", "--store", filled.path)
    assert (ran.status, ran.out, ran.err) == (0, "", "nobody holds a lease\n")
    assert run("leases", "--json", "--store", filled.path).lines == []


def test_leases_are_listed(run, filled):
    with CheckpointManager(filled.path) as manager:
        lease = manager.acquire_lease("job", holder="w\u202e1", ttl_s=600)
    (line,) = run("leases", "list", "--json", "--store", filled.path).lines
    assert line["task_id"] == "job"
    assert line["token"] == lease.token
    assert (line["ttl_s"], line["is_live"]) == (600.0, True)
    head, row = run("leases", "--store", filled.path).out.splitlines()
    assert head.split() == ["TASK", "HOLDER", "TOKEN", "EXPIRES", "STATE"]
    assert "w\\u202e1" in row
    assert row.endswith("live")


def test_a_live_lease_is_released_by_force_only(run, filled):
    with CheckpointManager(filled.path) as manager:
        manager.acquire_lease("job")
    refused = run("leases", "release", "job", "--store", filled.path)
    assert refused.status == 4
    assert "[lease.held]" in refused.err
    assert "--force" in refused.err
    done = run("leases", "release", "job", "--force", "--json", "--store", filled.path)
    assert (done.status, done.document) == (0, {"task_id": "job", "released": True})
    again = run("leases", "release", "job", "--force", "--json", "--store", filled.path)
    assert again.status == 3
    assert again.document == {"task_id": "job", "released": False}
    assert again.error["code"] == "checkpoint.not_found"


def test_a_lease_of_a_killed_process_is_shown_and_ends_without_force(run, filled):
    code = (
        "import os, signal, sys, ckptlog\n"
        "manager = ckptlog.CheckpointManager(sys.argv[1])\n"
        "manager.acquire_lease('job', ttl_s=3600)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(filled.path)], check=False)
    _, row = run("leases", "--store", filled.path).out.splitlines()
    assert row.endswith("dead")
    (line,) = run("leases", "--json", "--store", filled.path).lines
    assert (line["is_live"], line["is_dead"]) == (True, True)
    assert run("leases", "release", "job", "--store", filled.path).status == 0


def test_a_lease_from_before_a_reboot_is_told_and_ends_by_force(run, filled, monkeypatch):
    """What was left behind by another run of the machine: it might be another machine as well."""
    with CheckpointManager(filled.path) as manager:
        manager.acquire_lease("job", ttl_s=3600)
    seen = run("leases", "--store", filled.path)
    assert (seen.out.splitlines()[1].split()[-1], seen.err) == ("live", "")
    monkeypatch.setattr(Environment, "boot", lambda _: bytes(range(16)))
    told = run("leases", "--store", filled.path)
    assert told.out.splitlines()[1].endswith("live")
    assert "Of job nobody can tell here" in told.err
    assert "--force" in told.err
    (line,) = run("leases", "--json", "--store", filled.path).lines
    assert (line["is_live"], line["is_dead"], line["is_visible"]) == (True, False, False)
    assert run("leases", "release", "job", "--store", filled.path).status == 4
    assert run("leases", "release", "job", "--force", "--store", filled.path).status == 0


def test_a_store_that_may_have_leases_already(run, filled):
    ran = run("leases", "enable", "--json", "--store", filled.path)
    assert (ran.status, ran.document) == (0, {"enabled": False})


def test_a_write_beside_a_lease_ends_with_a_conflict(run, filled):
    with CheckpointManager(filled.path) as manager:
        manager.acquire_lease("job")
    ran = run("delete", filled.created, "--store", filled.path)
    assert ran.status == 4
    assert "[lease.required]" in ran.err
