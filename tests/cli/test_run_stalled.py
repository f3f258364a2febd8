"""`ckptlog run` whose reader is there and reads no more: who asks for its end is not kept waiting."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest

from ckptlog import CheckpointState
from ckptlog.service.command.process import is_running
from tests.cli import test_run
from tests.cli.test_run import WAIT_S, _last, _run, _shell, _start, _until

place, _store = test_run.place, test_run._store
_FULL = 60_000  # bytes; a pipe takes 65,536, in 16 pages
_FITS = 15 * 4096
_LONGER_S = 3.0


@pytest.mark.parametrize(
    ("words", "is_ended", "status"),
    [("yes", False, 143), ("head -c 110000 /dev/zero", True, 0)],
)
def test_a_reader_of_the_output_does_not_hold_who_is_to_stop(place, words, is_ended, status):
    running = _start(place, "--name", "job", "--", *words.split())
    _until(lambda: _lying(running.stdout) > _FULL)
    identity = _until(lambda: (last := _last(place)) and last.data.get("process"))
    _until(lambda: is_running(identity) is not is_ended)
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_S / 2) == status
    assert b"nobody read the command's last output" in running.communicate()[1]
    assert _last(place).state is (CheckpointState.FAILED if status else CheckpointState.COMPLETED)


_REPLACED = "rm kept.txt; mkdir kept.txt; yes"


@pytest.mark.parametrize(
    "words",
    [
        ["--", "yes"],
        # What is to be told before the end is recorded, by the main thread, and by the captures'.
        ["--file", "never", "--may-appear", "--", "yes"],
        ["--file", "kept.txt", "--interval", "0.1", "--", "sh", "-c", _REPLACED],
    ],
)
def test_nor_where_it_is_the_reader_of_what_we_say_too(place, words):
    running = _start(place, "--name", "job", *words, stderr=subprocess.STDOUT)
    _until(lambda: _lying(running.stdout) > _FULL)
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_S / 2) == 143
    running.stdout.close()
    last = _last(place)
    assert (last.state, last.data["stopped_by"]) == (CheckpointState.FAILED, "SIGTERM")


def test_nor_before_the_command_is_started(place):
    """What is told then is told before the command may print."""
    assert _run(place, "--", "false").returncode == 1
    reading, writing = os.pipe()
    os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)))
    named = ["--store", place.parent / "store", "--name", "job"]  # which one it is is not told
    words = [*named, "--resume", *_shell("touch started")]
    running = _start(place, *words, stderr=writing)
    _until(lambda: (last := _last(place)) and last.data["attempt"] == 2)
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_S / 2) == 143
    running.stdout.close()
    os.close(writing)
    os.close(reading)
    assert not (place / "started").exists()


def test_a_second_signal_ends_the_wait_for_the_reader_of_a_document(place):
    words = ["--json", "--name", "job", "--", "yes"]
    running = _start(place, *words, stderr=subprocess.STDOUT)
    _until(lambda: _lying(running.stdout) > _FULL)
    running.send_signal(signal.SIGTERM)
    _until(lambda: _last(place).state is CheckpointState.FAILED)
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_S / 2) in (143, -signal.SIGTERM)
    running.stdout.close()


def test_who_is_not_asked_to_end_waits_for_the_reader(place):
    """Nothing that was told is lost to a reader who only takes his time."""
    never = [word for number in range(20) for word in ("--file", f"{number:0>80}")]
    words = [*never, "--may-appear", *_shell(f"head -c {_FITS} /dev/zero")]
    running = _start(place, "--name", "job", *words, stderr=subprocess.STDOUT)
    _until(lambda: (last := _last(place)) and last.state is not CheckpointState.ACTIVE)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(_LONGER_S)
    out, _ = running.communicate(timeout=WAIT_S)
    assert running.returncode == 0
    assert bytes(_FITS) in out
    assert out.count(b"was never there; nothing") == 20
    assert out.endswith(b"\n")
    assert b"completed" in out.splitlines()[-1]


def test_the_status_is_the_commands_where_nobody_hears_of_it(place):
    """A reader of what we say that went away is no failure of the command's."""
    script = "exec >&- 2>&-; touch begun; while [ -e begun ]; do sleep 0.05; done; exit 3"
    words = ["--file", "never", "--may-appear", *_shell(script)]
    running = _start(place, "--name", "job", *words)
    _until((place / "begun").exists)
    running.stderr.close()
    running.stdout.close()
    (place / "begun").unlink()
    assert running.wait(WAIT_S) == 3
    assert _last(place).data["exit_code"] == 3


def _lying(pipe):
    """Return how many bytes lie in a pipe."""
    found = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(found, sys.byteorder)
