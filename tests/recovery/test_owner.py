"""A system that a process owns: alive, it is left alone; killed, it keeps nobody out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ckptlog import Capturer, CheckpointManager, FileComponent, LeaseRequiredError, Recovery
from ckptlog.cli.main import main
from tests.architecture.tree import ROOT
from tests.capture.sample import Value

OWNER = """
import sys, time
from ckptlog import CheckpointManager
with CheckpointManager(sys.argv[1]) as manager:
    lease = manager.acquire_lease("sys", ttl_s=3600)
    print("owned", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owned(tmp_path):
    """Give a system's file, a recovery of it, its first capture, and the process that owns it."""
    path = tmp_path / "file"
    path.write_text("first")
    with CheckpointManager(tmp_path / "store") as manager:
        recovery = Recovery(Capturer(manager, "sys", [FileComponent("file", path)]))
        info = recovery.capturer.capture()
        path.write_text("second")
        command = [sys.executable, "-c", OWNER, str(tmp_path / "store")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as owner:
            assert owner.stdout.readline() == b"owned\n"
            yield path, recovery, info, owner
            owner.kill()


@pytest.mark.parametrize("options", [{}, {"safety": False}], ids=repr)
def test_what_a_living_process_owns_is_left_alone(owned, options):
    path, recovery, info, _ = owned
    position = recovery.capturer.manager.store.position
    with pytest.raises(LeaseRequiredError, match="'sys' is owned by") as caught:
        recovery.recover(info.id, **options)
    assert "leases release sys --force" in caught.value.hint
    assert path.read_text() == "second"
    assert recovery.capturer.manager.store.position in (position, position + 1)  # the claim's
    position = recovery.capturer.manager.store.position
    planned = recovery.recover(info.id, dry_run=True, **options)
    assert [error for error in planned.errors if "'sys' is owned by" in error]
    assert planned.plans  # all faults are told, and what would be done
    assert recovery.capturer.manager.store.position == position
    with pytest.raises(LeaseRequiredError):
        recovery.capturer.capture()


@pytest.mark.parametrize("options", [{}, {"safety": False}], ids=repr)
def test_a_killed_one_keeps_nobody_out(owned, options):
    path, recovery, info, owner = owned
    owner.kill()
    owner.wait()
    manager = recovery.capturer.manager
    position = manager.store.position
    assert recovery.recover(info.id, dry_run=True, **options).errors == ()
    assert manager.store.position == position  # a dry run does not even end the dead one's lease
    assert manager.live_grant("sys") is None
    assert recovery.recover(info.id, **options).status == "completed"
    assert path.read_text() == "first"
    assert manager.list_leases() == []


def test_a_capture_after_a_kill(owned):
    _, recovery, _, owner = owned
    owner.kill()
    owner.wait()
    assert recovery.capturer.capture().number == 2
    assert not recovery.capturer.manager.end_dead_lease("sys")


def test_the_one_command_after_a_kill(owned, capsys):
    path, recovery, info, owner = owned
    store = str(recovery.capturer.manager.store.path)
    assert main(["recover", info.id, "--store", store, "--yes"]) == 4
    assert "is owned by" in capsys.readouterr().err
    owner.kill()
    owner.wait()
    assert main(["recover", info.id, "--store", store, "--yes"]) == 0
    assert path.read_text() == "first"


@pytest.mark.parametrize("options", [{}, {"safety": False}], ids=repr)
def test_nothing_is_begun_beside_who_became_the_owner_meanwhile(tmp_path, options):
    with CheckpointManager(tmp_path) as manager, CheckpointManager(tmp_path) as other:

        class Claimed(Value):
            def validate(self, _payload):
                if other.live_grant("sys") is None:
                    other.acquire_lease("sys", ttl_s=3600)
                return []

        part = Claimed("a", 1)
        recovery = Recovery(Capturer(manager, "sys", [part]))
        info = recovery.capturer.capture()
        part.value = 2
        with pytest.raises(LeaseRequiredError):
            recovery.recover(info.id, **options)
        assert part.value == 2
        assert recovery.unfinished() is None
