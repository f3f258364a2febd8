"""Who counts as dead: those only that surely are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ckptlog.storage import process
from ckptlog.storage.environment import Environment

BOOT = bytes(range(16))
NAME = "from ckptlog.storage.process import process_name\nimport sys\n"


@pytest.fixture
def child():
    code = f"{NAME}print(process_name(bytes(range(16))), flush=True); sys.stdin.read()"
    started = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield started
    started.kill()
    started.communicate()


def test_this_process_is_alive_and_named_the_same_each_time():
    own = process.process_name(BOOT)
    assert own.startswith(BOOT.hex())
    assert own.split(":")[3] == str(os.getpid())
    assert own == process.process_name(BOOT)
    assert not process.is_dead(own, BOOT)
    environment = Environment()
    assert environment.process()
    assert not environment.is_dead(environment.process())


def test_a_killed_process_is_dead_as_a_zombie_and_after(child):
    name = child.stdout.readline().strip()
    assert not process.is_dead(name, BOOT)
    child.send_signal(signal.SIGSTOP)
    assert not process.is_dead(name, BOOT)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.is_dead(name, BOOT)
    child.wait()
    assert process.is_dead(name, BOOT)


def test_a_number_that_came_again_is_another_process(child):
    name = child.stdout.readline().strip()
    machine, _, start = name.rpartition(":")
    assert process.is_dead(f"{machine}:{int(start) - 1}", BOOT)
    assert not process.is_dead(name, BOOT)


def test_a_process_whose_first_thread_ended_lives_on():
    code = (
        f"{NAME}import ctypes, threading, time\n"
        "def stay():\n    sys.stdin.read()\n"
        "print(process_name(bytes(range(16))), flush=True)\n"
        "threading.Thread(target=stay).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit of this thread alone
    )
    if os.uname().machine != "x86_64":
        pytest.skip("the number of the call is that of x86_64")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        name = started.stdout.readline().strip()
        while process._stat(started.pid)[0] != "Z":
            assert started.poll() is None
        assert not process.is_dead(name, BOOT)
        started.kill()
        os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)
        assert process.is_dead(name, BOOT)


def gone() -> str:
    """Return the name of a process that surely ended."""
    code = f"{NAME}print(process_name(bytes(range(16))))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_whoever_cannot_be_told_counts_as_alive():
    name = gone()
    assert process.is_dead(name, BOOT)
    boot, pids, times, pid, start = name.split(":")
    for other in (
        "",
        "nonsense",
        f"{boot}:{pids}:{times}:{pid}",
        f"{boot}:{pids}:{times}:{pid}:x",
        f"{boot}:{pids}:{times}:0:{start}",
        f"{boot}:{pids}:{times}:-1:{start}",
        f"{boot}:{int(pids) + 1}:{times}:{pid}:{start}",  # another container
        f"{boot}:{pids}:{int(times) + 1}:{pid}:{start}",  # its starts are counted otherwise
        f"{'0' * 32}:{pids}:{times}:{pid}:{start}",  # another boot, another machine
        f"{name}\n",
    ):
        assert not process.is_dead(other, BOOT), other
    assert not process.is_dead(name, bytes(16))
    assert process.process_name(bytes(16)) == ""


@pytest.mark.parametrize("lacking", ["status", "ns"])
def test_without_a_proc_of_its_own_nobody_is_dead(tmp_path, monkeypatch, lacking):
    name = gone()
    folder = tmp_path / "proc" / "self"
    (folder / "ns").mkdir(parents=True)
    (folder / "status").write_text(f"Name:\tx\nNSpid:\t{os.getpid()}\n")
    for kind in ("pid", "time"):
        (folder / "ns" / kind).symlink_to(os.readlink(f"/proc/self/ns/{kind}"))
    monkeypatch.setattr(process, "_PROC", tmp_path / "proc")
    process._machine.cache_clear()
    assert process.is_dead(name, BOOT)
    if lacking == "ns":
        (folder / "ns" / "pid").unlink()
    else:  # what it shows is another namespace's: we have two numbers there
        (folder / "status").write_text(f"Name:\tx\nNSpid:\t77\t{os.getpid()}\n")
    process._machine.cache_clear()
    assert not process.is_dead(name, BOOT)
    assert process.process_name(BOOT) == ""
    process._machine.cache_clear()


def test_a_process_that_proc_hides_counts_as_alive(child, tmp_path, monkeypatch):
    name = child.stdout.readline().strip()
    process.process_name(BOOT)  # this machine is known from here on
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert not process.is_dead(name, BOOT)
    child.kill()
    child.wait()
    assert process.is_dead(name, BOOT)
