"""The service in real processes: killed, terminated, overtaken, for hundreds of captures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

import ckptlog
from ckptlog.capture.capturer import Capturer
from tests.architecture.tree import ROOT
from tests.service.system import Agents, read_until, serve, start_process, until


@pytest.fixture
def processes():
    started = []
    yield started
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def infos(path):
    with ckptlog.CheckpointManager(path) as manager:
        capturer = Capturer(manager, "system")
        found = capturer.captures()
        return [(one, capturer.check(one)) for one in found]


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
def test_killed_during_a_capture_the_next_start_is_clean(tmp_path, processes, pause_s):
    path = tmp_path / "s"
    process = start_process(path, pause_s, intervalSeconds=0.05, maxCheckpoints=0)
    processes.append(process)
    read_until(process, "created 3")
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = infos(path)
    assert len(found) >= 3
    assert all(faults == [] for _, faults in found)
    states = {one.number for one, _ in found}
    assert states == set(range(1, len(found) + 1))
    # The dead owner's lease of 60 s is not in the way: its process is seen to be dead.
    with ckptlog.CheckpointManager(path) as manager:
        (left,) = manager.list_leases()
        assert (left.is_live, left.is_dead) == (True, True)
    with serve(path, intervalSeconds=3600) as service:
        assert service.create_checkpoint().number == len(found) + 1
    with ckptlog.open(path) as store:
        assert not store.verify("full").problems


def test_a_standby_takes_over_when_the_owner_dies(tmp_path, processes):
    path = tmp_path / "s"
    owner = start_process(path, leaseSeconds=3600)
    processes.append(owner)
    read_until(owner, "created")
    heir = start_process(path, standby=True, leaseSeconds=3600)
    processes.append(heir)
    assert read_until(heir, "standby") == "standby"
    owner.kill()
    read_until(heir, "gained")
    read_until(heir, "created")


def test_sigterm_captures_and_ends_by_the_signal(tmp_path, processes):
    path = tmp_path / "s"
    process = start_process(path, intervalSeconds=3600, captureOnShutdown=True)
    processes.append(process)
    read_until(process, "created 1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    assert [one.reason for one, _ in infos(path)] == ["shutdown", "interval"]
    with ckptlog.open(path) as store:
        assert [entry.event.type for entry in store.events()][-1] == "lease.released"


def test_a_signal_captures(tmp_path, processes):
    process = start_process(tmp_path / "s", intervalSeconds=3600, captureSignals=["SIGUSR1"])
    processes.append(process)
    read_until(process, "created 1")
    process.send_signal(signal.SIGUSR1)
    assert read_until(process, "created 2") == "created 2 signal"


def _resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_hundreds_of_captures_leave_no_threads_descriptors_or_memory(tmp_path):
    created = []
    with serve(tmp_path / "s", Agents(), intervalSeconds=0.05, maxCheckpoints=5) as service:
        service.on("checkpointCreated", lambda info: created.append(info.number))
        until(lambda: len(created) >= 60, "sixty")
        threads = threading.active_count()
        descriptors, resident = len(os.listdir("/proc/self/fd")), _resident_bytes()
        until(lambda: len(created) >= 260, "two hundred more")
        # A capture's own threads and files come and go.
        assert threading.active_count() <= threads + 8
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 8
        assert _resident_bytes() < resident + 40_000_000
        assert len(service.list_checkpoints()) <= 6
    assert created == sorted(set(created))


ENDING = """
import os, pathlib, sys
import ckptlog
from tests.service.system import Agents, settings, until
path, tree = sys.argv[1], pathlib.Path(sys.argv[2])
agents, state = Agents(), {"a": b""}
tree.mkdir()
(tree / "large").write_bytes(os.urandom(1 << 20))
for number in range(300):
    (tree / str(number)).mkdir()
    (tree / str(number) / "file").write_text("old")
components = [ckptlog.DirectoryComponent("tree", tree)]
service = ckptlog.create_checkpoint_system(
    settings(path, intervalSeconds=3600, captureOnShutdown=True),
    {"components": components, "agentManager": agents, "memory_manager": state},
)
service.start()
until(lambda: service.list_checkpoints())
"""
# What changes before the interpreter ends.
CHANGES = {
    "little": "",
    "much state": "state['a'] = os.urandom(3 << 20)",
    "a large file": "(tree / 'large').write_bytes(os.urandom(9 << 20))",
    "one of many directories": "(tree / '7' / 'file').write_text('new')",
    "many files": "[(tree / '7' / str(n)).write_text(str(n)) for n in range(1000)]",
}


def _ended(source, *arguments):
    """Run a program to the interpreter's end."""
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("change", CHANGES)
def test_the_interpreters_end_captures(change, tmp_path):
    path, tree = tmp_path / "s", tmp_path / "tree"
    done = _ended(ENDING + CHANGES[change], path, tree)
    assert "failed" not in done.stderr
    found = [(one.reason, faults) for one, faults in infos(path)]
    assert found == [("shutdown", []), ("interval", [])]
    with ckptlog.open(path) as store:
        assert [entry.event.type for entry in store.events()][-1] == "lease.released"
    with ckptlog.CheckpointManager(path) as manager:
        capturer = Capturer(manager, "system")
        stored = capturer.stored(capturer.captures()[0])["tree"]
        assert not ckptlog.DirectoryComponent("tree", tree).plan(stored).changes


def test_whatever_the_last_capture_meets_the_system_is_given_up(tmp_path):
    source = ENDING + (
        "from ckptlog.service.engine import Engine\n"
        "def broken(*_, **__): raise RuntimeError('no thread')\n"
        "Engine.capture = broken\n"
    )
    done = _ended(source, tmp_path / "s", tmp_path / "tree")
    assert "No last capture" in done.stderr
    assert [one.reason for one, _ in infos(tmp_path / "s")] == ["interval"]
    with ckptlog.open(tmp_path / "s") as store:
        assert [entry.event.type for entry in store.events()][-1] == "lease.released"


def test_a_thread_that_outlives_the_main_one_captures_and_verifies(tmp_path):
    work = (
        "threading.main_thread().join()\n"
        + ENDING.split("service.start()", maxsplit=1)[0]
        + "service.initialize()\n"
        "service.create_checkpoint()\n"
        "state['a'] = os.urandom(3 << 20)\n"
        "service.create_checkpoint()\n"
        "service.close()\n"
        "with ckptlog.open(path) as store:\n"
        "    assert not store.verify('full').problems\n"
        "print('sound')\n"
    )
    source = (
        "import threading\n"
        "import tests.service.system\n"
        f"threading.Thread(target=exec, args=({work!r}, globals())).start()"
    )
    done = _ended(source, tmp_path / "s", tmp_path / "tree")
    assert done.stdout == "sound\n", done.stderr
    assert len(infos(tmp_path / "s")) == 2
