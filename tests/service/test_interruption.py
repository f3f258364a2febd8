"""Ctrl-C, and SIGTERM, while a service stops: nothing is lost, nothing waits for itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import ckptlog
from ckptlog.capture.capturer import Capturer
from ckptlog.service import shutdown, turn
from ckptlog.service.turn import Turn
from ckptlog.storage import files
from ckptlog.storage.environment import Environment
from tests.architecture.tree import ROOT
from tests.service.system import WAIT_S, until
from tests.service.test_stopping import Work, system

# SIGTERM comes in the first capture, the service's own, or in the last one, of its stop.
PROGRAM = """
import os, signal, sys, time
from ckptlog import create_checkpoint_system
from tests.service.system import settings, until

class Agents:
    number = 0

    def get_state(self):
        self.number += 1
        if self.number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
        return {"number": self.number}

    def set_state(self, state):
        raise AssertionError(state)

agents = Agents()
config = settings(sys.argv[1], intervalSeconds=3600, captureOnShutdown=True)
service = create_checkpoint_system(config, {"agentManager": agents})
service.start()
until(lambda: agents.number == 1)
if sys.argv[2] == "2":
    until(service.list_checkpoints)
"""
ENDS = {
    "stop": "service.stop()",
    "close": "service.close()",
    "with": "with service: pass",
    "the end": "",
}


def left(path):
    """Return the reasons of the captures in a store, newest first; nobody owns the system."""
    with ckptlog.CheckpointManager(path) as manager:
        assert manager.list_leases() == []
        return [one.reason for one in Capturer(manager, "system").captures()]


def check_ended(program, path, capture):
    """Run a program to its end, by SIGTERM: it has captured once more, and given the system up."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(capture)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert left(path) == ["shutdown", "interval"]


@pytest.mark.parametrize("capture", [1, 2])
@pytest.mark.parametrize("end", ENDS)
def test_sigterm_beside_a_stop(tmp_path, end, capture):
    check_ended(PROGRAM + ENDS[end], tmp_path / "s", capture)


def test_sigterm_in_the_first_capture_of_a_start_that_takes_long(tmp_path):
    slow = """
from ckptlog.service import shutdown
listen = shutdown.listen
shutdown.listen = lambda *arguments: (time.sleep(0.5), listen(*arguments))[1]
service.start()
"""
    check_ended(PROGRAM.replace("service.start()", slow), tmp_path / "s", 1)


def interrupted(call, behind=lambda: None):
    """Call something that waits, and press Ctrl-C meanwhile."""

    def press():
        time.sleep(0.3)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.1)
        behind()

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    pressing.join()


@pytest.mark.parametrize("then", ["stop", "close", "start", "end", "SIGTERM"])
def test_a_stop_that_was_interrupted_while_it_waits_goes_on(tmp_path, then):
    service, parts = system(tmp_path / "s", captureOnShutdown=True)
    service.start(signals=False)
    until(service.list_checkpoints, "the first capture")
    service.create_checkpoint()
    for one in parts:
        one.value = 2
    parts[1].held = "capture"
    work = Work(service.create_checkpoint)
    assert parts[1].is_called.wait(WAIT_S)
    interrupted(service.stop)
    parts[1].held = ""
    parts[1].may_go_on.set()
    assert work.ended().error is None
    parts[0].value = 3
    if then == "end":
        shutdown._end()
        assert service.state == "closed"
    elif then == "SIGTERM":
        service.signalled(then)
        until(lambda: service.state == "closed", "the stop")
    else:
        getattr(service, then)()
    if then == "start":
        assert service.state == "running"
        assert service.list_checkpoints()[0].reason == "shutdown"
        service._runner.tell("SIGUSR1")
        until(lambda: service.list_checkpoints()[0].reason == "signal", "a capture")
    service.close()
    until(lambda: not is_running(), "the end of its threads")
    assert "shutdown" in left(tmp_path / "s")


@pytest.mark.parametrize("end", ["stop", "close"])
def test_an_interruption_of_the_last_capture_gives_the_system_up(tmp_path, end):
    service, parts = system(tmp_path / "s", captureOnShutdown=True)
    service.start(signals=False)
    until(service.list_checkpoints, "the first capture")
    service.create_checkpoint()
    parts[0].value, parts[1].held = 2, "capture"
    interrupted(getattr(service, end), parts[1].may_go_on.set)
    assert service.state == ("stopped" if end == "stop" else "closed")
    assert left(tmp_path / "s")[0] == "manual"
    if end == "stop":
        parts[1].held = ""
        with service:
            assert service.create_checkpoint().reason == "manual"


def test_an_interruption_of_one_services_end_leaves_no_other_open(monkeypatch):
    closed = []

    class Service:
        def __init__(self, error=None):
            self.error = error

        def close(self):
            closed.append(self)
            if self.error is not None:
                raise self.error

    ends = [Service(KeyboardInterrupt()), Service(ValueError()), Service()]
    monkeypatch.setattr(shutdown, "_ends", ends)
    with pytest.raises(KeyboardInterrupt):
        shutdown._end()
    assert closed == ends


def test_an_interruption_at_the_end_of_an_operation_leaves_no_turn_taken(monkeypatch):
    """The signal comes when the turn does: whoever has got it may not know that yet."""
    main = threading.main_thread().ident
    monkeypatch.setattr(turn, "BUSY_S", 0.5)
    for _ in range(20):
        turns, is_in = Turn("s", Environment()), threading.Event()

        def work(turns=turns, is_in=is_in):
            with turns.operation("capture", "manual"):
                is_in.set()
                time.sleep(0.005)
            signal.pthread_kill(main, signal.SIGINT)

        working = threading.Thread(target=work)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come behind the block, too
            working.start()
            is_in.wait()
            with turns.halted(30.0):
                time.sleep(WAIT_S)
        working.join()

        def next_one(turns=turns):
            with turns.operation("capture", "manual"):
                pass

        assert Work(next_one).ended().error is None


@pytest.mark.parametrize("moment", ["claim", "thread", "record"])
def test_a_start_that_was_interrupted_owns_nothing(tmp_path, monkeypatch, moment):
    service, parts = system(tmp_path / "s", captureOnShutdown=True)
    service.initialize()
    with monkeypatch.context() as patch:
        if moment == "claim":
            patch.setattr(files, "sync_file", behind(files.sync_file))
        elif moment == "thread":
            patch.setattr(threading.Thread, "start", behind(threading.Thread.start, "ckptlog-serv"))
        else:
            patch.setattr(service, "_record", behind(service._record))
        with pytest.raises(KeyboardInterrupt):
            service.start(signals=False)
    assert service.state == "ready"
    assert service._engine.manager.list_leases() == []
    until(lambda: not is_running(), "the end of the thread")
    assert service.list_checkpoints() == []
    service.start(signals=False)
    until(service.list_checkpoints, "a capture")
    parts[0].value = 2
    service.close()
    assert left(tmp_path / "s")[0] == "shutdown"


def behind(call, name=""):
    """Return what presses Ctrl-C behind a call, once: a thread's of this name."""
    pressed = []

    def interrupted_call(*arguments):
        call(*arguments)
        if not pressed and (not name or arguments[0].name.startswith(name)):
            pressed.append(True)
            raise KeyboardInterrupt

    return interrupted_call


def is_running():
    return any(one.name == "ckptlog-service" for one in threading.enumerate())


def test_a_service_that_listens_again_is_told_once(tmp_path, monkeypatch):
    told = []
    with system(tmp_path / "s", captureSignals=["SIGUSR1", "SIGUSR1"])[0] as service:
        monkeypatch.setattr(service, "signalled", told.append)
        service.listen_to_signals()
        assert service.listen_to_signals() == ("SIGUSR1", "SIGUSR1")
        signal.raise_signal(signal.SIGUSR1)
        assert told == ["SIGUSR1"]


def test_a_block_whose_start_is_interrupted_closes_the_service(tmp_path, monkeypatch):
    service, _ = system(tmp_path / "s")
    monkeypatch.setattr(service, "listen_to_signals", behind(lambda: None))
    with pytest.raises(KeyboardInterrupt), service:
        raise AssertionError("it was started")
    assert service.state == "closed"
    left(tmp_path / "s")
