"""`ckptlog run` whose end is asked for: each signal is heard, whenever it comes."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ckptlog.service.command import signals
from tests.cli import test_run
from tests.cli.test_run import WAIT_S, _shell, _start, _until

place, _store = test_run.place, test_run._store
_TWO = (signal.SIGTERM, signal.SIGHUP)

_LISTENER = """
import queue, threading, time
from ckptlog.service.command.signals import taken
messages = queue.SimpleQueue()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
with taken(messages):
    print(flush=True)
    print(messages.get()[1], messages.get()[1], flush=True)
"""

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
    for _ in range(20):
        words = [sys.executable, "-c", _LISTENER]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as listener:
            listener.stdout.readline()
            time.sleep(0.05)  # it waits by then
            for number in _TWO:
                listener.send_signal(number)
            try:
                assert sorted(listener.communicate(timeout=WAIT_S / 6)[0].split()) == ["1", "15"]
            finally:
                listener.kill()


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
