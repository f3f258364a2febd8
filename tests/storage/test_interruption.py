"""An interruption that comes while something is begun waits until it is known."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from ckptlog.storage.interruption import held_interruptions


def test_it_waits_and_then_raises():
    done = []
    before = signal.getsignal(signal.SIGINT)

    @held_interruptions()
    def begin():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert done
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_is_not_lost_and_nothing_raises_without_a_signal():
    with held_interruptions():
        pass
    with pytest.raises(ZeroDivisionError), held_interruptions():
        _ = 1 / 0


def test_a_handler_of_somebody_elses_is_called_once():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with held_interruptions():
            signal.raise_signal(signal.SIGTERM)
            assert not came
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interruptions():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_that_is_started_inside_can_be_interrupted():
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)"
    code += "; signal.raise_signal(signal.SIGINT)"
    with held_interruptions():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stdout == b"set()\n"
    assert b"KeyboardInterrupt" in done.stderr


def test_another_thread_is_left_alone():
    found = []

    def work():
        with held_interruptions():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
