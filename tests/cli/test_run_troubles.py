"""`ckptlog run` in bad company: stopped by Ctrl-Z and woken, overtaken by another owner, beside
another run of the same directory."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptlog import CheckpointManager, CheckpointState
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import LeaseHeldError
from ckptlog.service.command import claim
from ckptlog.service.command.record import Record
from tests.cli import test_run
from tests.cli.test_run import PROGRAM, WAIT_S

place, _store = test_run.place, test_run._store

# A shell with job control, as small as it may be: what it starts is a group of its own, in front.
_SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if not child:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        print("ended", os.waitstatus_to_exitcode(status), flush=True)
        sys.exit()
    print("stopped", flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, child)
    os.killpg(child, signal.SIGCONT)
"""
_TICKS = """
import os, time
number = 0
while not os.path.exists("enough"):
    number += 1
    open("ticks", "w").write(str(number))
    time.sleep(0.02)
print("last tick", number, flush=True)
"""


class Screen:
    """What a terminal shows."""

    def __init__(self, fd: int) -> None:
        self.fd, self.shown = fd, b""

    def until(self, word: bytes) -> None:
        end = time.monotonic() + WAIT_S
        while word not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.fd, 65536)
                except OSError:
                    assert word in self.shown, self.shown
        self.shown = self.shown.partition(word)[2]


def ticks(place: Path) -> str:
    found = place / "ticks"
    return found.read_text() if found.exists() else ""


def test_ctrl_z_stops_both_and_the_shell_wakes_both(place):
    words = [*PROGRAM, "--name", "job", "--interval", "0.2", "--", sys.executable, "-c", _TICKS]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place)
        shell = [sys.executable, "-c", _SHELL, *words]
        os.execve(sys.executable, shell, test_run._environ(place))
    screen = Screen(terminal)
    try:
        test_run._until(lambda: ticks(place))
        for _ in range(2):
            os.write(terminal, b"\x1a")
            screen.until(b"stopped")
            stopped = ticks(place)
            time.sleep(0.3)
            assert ticks(place) == stopped
            os.write(terminal, b"fg\n")
            test_run._until(lambda before=stopped: ticks(place) not in {before, ""})
        (place / "enough").touch()
        screen.until(b"last tick")
        screen.until(b"ended 0")
    finally:
        os.kill(pid, signal.SIGHUP)
        os.close(terminal)
        os.waitpid(pid, 0)
    assert test_run._last(place).state is CheckpointState.COMPLETED
    with CheckpointManager(place.parent / "store") as manager:
        assert manager.validate_checkpoint_integrity() == []


def test_two_runs_on_one_directory(place):
    """Two tasks that write into one directory: each has its own captures, all of them whole."""
    script = (
        "import sys, time\n"
        "for number in range(40):\n"
        "    open(sys.argv[1], 'w').write(str(number) * 1000)\n"
        "    open('both', 'w').write(sys.argv[1] * 3000)\n"
        "    time.sleep(0.02)\n"
    )
    command = ("--interval", "0.1", "--", sys.executable, "-c", script)
    both = [test_run._start(place, "--name", name, *command, name) for name in ("one", "two")]
    for running in both:
        _, told = running.communicate(timeout=WAIT_S)
        assert running.returncode == 0, told
    with CheckpointManager(place.parent / "store") as manager:
        for name in ("one", "two"):
            assert Record(manager, name).last().state is CheckpointState.COMPLETED
            capturer = Capturer(manager, f"{name}/files")
            infos = capturer.captures()
            assert len(infos) >= 2
            assert all(capturer.check(info) == [] for info in infos)
        assert manager.validate_checkpoint_integrity() == []
    again = test_run._start(place, "--name", "one", "--resume", "--", "true")
    _, told = again.communicate(timeout=WAIT_S)
    assert again.returncode == 0, told


@pytest.mark.thorough
def test_one_that_lost_its_lease_ends_its_command_and_writes_no_more(place):
    code = "open('started', 'w'); import time; time.sleep(300)"
    running = test_run._start(place, "--name", "job", "--", sys.executable, "-c", code)
    test_run._until((place / "started").exists)
    with CheckpointManager(place.parent / "store") as manager:
        for name in ("job", "job/files"):
            manager.release_lease(name, force=True)
        mine = [manager.acquire_lease(name) for name in ("job", "job/files")]
        position = manager.store.position
        _, told = running.communicate(timeout=WAIT_S)
        assert running.returncode in (125, 128 + signal.SIGTERM)
        assert b"another process has taken over the task" in told
        events = [one.event for one in manager.store.events(position)]
        assert [one.type for one in events if one.subject.task.startswith("job")] == []
        for lease in mine:
            lease.release()


def test_a_directory_that_the_command_removes_is_no_good_end(place):
    ran = test_run._run(place, "--", "sh", "-c", 'rm -r "$PWD"')
    assert ran.returncode == 125
    assert f"{place} is gone" in ran.stderr
    last = test_run._last(place)
    assert last.data["exit_code"] == 0
    assert "gone" in last.data["capture_fault"]
    place.mkdir()
    ran = test_run._run(place, "--resume", "--", "sh", "-c", "cat kept.txt")
    assert (ran.returncode, ran.stdout) == (0, b"as it was\n")


def test_one_of_two_that_is_gone_is_told(place):
    for name in ("one", "two"):
        (place / name).mkdir()
        (place / name / "f").write_text(name)
    named = ("--dir", "one", "--dir", "two")
    ran = test_run._run(place, *named, "--", "sh", "-c", "rm -r two; echo later > one/f")
    assert ran.returncode == 0
    assert ran.stderr.count("is gone") == 1
    assert f"warning: {place / 'two'} is gone" in ran.stderr


def test_a_command_left_over_that_cannot_be_ended(monkeypatch):
    """The system does not end what waits in it; only that is made up here."""
    monkeypatch.setattr(claim, "_STOP_S", 0.1)
    monkeypatch.setattr(claim, "is_running", lambda _: True)
    with subprocess.Popen(["sleep", "60"], process_group=0) as left:
        with pytest.raises(LeaseHeldError, match=f"process {left.pid}, and cannot be ended"):
            claim.end_left_over({"pid": left.pid})
        assert left.wait(WAIT_S) < 0
