"""`ckptlog run` whose end is asked for: each signal is heard, whenever it comes."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ckptlog.service.command import signals
from ckptlog.service.command.process import SIGNAL
from tests.cli import test_run
from tests.cli.test_run import WAIT_S, _shell, _start, _until

place, _store = test_run.place, test_run._store
_TWO = (signal.SIGHUP, signal.SIGTERM)

_LAST_WORDS = """
import os, signal, time
def end(number, frame):
    os.write(1, b"x" * 110000 + b"LAST\\n")
    os._exit(3)
signal.signal(signal.SIGTERM, end)
open("begun", "w").close()
while True:
    time.sleep(0.01)
"""


def test_two_at_once_are_both_heard():
    """The second comes before the main thread runs Python again, and has nothing to wake it for."""
    asleep = "import os, sys; os.read(0, 1); [os.kill(int(sys.argv[1]), n) for n in (15, 1)]"
    for _ in range(20):
        messages = queue.SimpleQueue()
        with signals.taken(messages):
            words = [sys.executable, "-c", asleep, str(os.getpid())]
            with subprocess.Popen(words, stdin=subprocess.PIPE) as sender:
                threading.Timer(0.02, sender.stdin.close).start()
                heard = {messages.get(timeout=WAIT_S / 6) for _ in _TWO}
        assert heard == {(SIGNAL, number) for number in _TWO}


def test_handlers_and_the_wakeup_are_as_before():
    before = [signal.getsignal(number) for number in _TWO]
    ignored = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with signals.taken(queue.SimpleQueue()):
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
            assert [signal.getsignal(number) for number in _TWO] != before
    finally:
        signal.signal(signal.SIGUSR1, ignored)
    assert [signal.getsignal(number) for number in _TWO] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_two_at_once_do_not_cut_the_last_output_off(place):
    running = _start(place, "--name", "job", "--", sys.executable, "-c", _LAST_WORDS)
    _until((place / "begun").exists)
    running.send_signal(signal.SIGTERM)
    _until(lambda: _has_ended(running))
    running.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # a reader who takes his time
    out, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == 3
    assert out.endswith(b"LAST\n")
    assert b"nobody read" not in err


def test_nobody_waits_for_a_reader_who_is_asked_to_end_in_the_last_capture(place):
    """What is told behind it stalls; the signal came when the command had ended."""
    reading, writing = os.pipe()
    script = "touch begun; while [ -e begun ]; do sleep 0.05; done; rm kept.txt; mkdir kept.txt"
    words = ["--file", "kept.txt", *_shell(script)]  # three captures fail, a second apart
    running = _start(place, "--name", "job", *words, stderr=writing)
    _until((place / "begun").exists)
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, True)
    os.close(writing)
    (place / "begun").unlink()
    _until((place / "kept.txt").is_dir)
    _until(lambda: _has_ended(running))
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_S / 2) == 125
    os.close(reading)
    running.stdout.close()


@pytest.mark.parametrize("status", [0, 7])
def test_the_status_is_the_commands_where_the_store_is_gone(place, status):
    script = f'rm -rf "$CKPTLOG_STORE"; exit {status}'
    running = _start(place, "--name", "job", *_shell(script))
    _, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == (status or 125)
    assert b"the end was not recorded" in err


def _has_ended(running):
    """Say whether the command has ended and was reaped."""
    return not Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
