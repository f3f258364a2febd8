"""A service that stops while another thread recovers or captures: nothing is left in its middle."""

from __future__ import annotations

import threading
import time

import pytest

from ckptlog import create_checkpoint_system
from ckptlog.errors import RecoveryCancelledError, RecoveryIncompleteError, ServiceBusyError
from ckptlog.service import service as module
from ckptlog.service import turn as turn_module
from ckptlog.service.operation import CLEANUP, RECOVERY, Operation
from ckptlog.service.turn import Turn
from ckptlog.storage.environment import Environment
from tests.service.system import WAIT_S, settings, until
from tests.threadless import threadless


class Part:
    """A component that says when it is called, and then waits to be let go on."""

    def __init__(self, name):
        self.name = name
        self.value = 1
        self.held = ""
        self.is_called = threading.Event()
        self.may_go_on = threading.Event()
        self.fault = None

    def _wait(self, what):
        if self.held == what:
            self.is_called.set()
            assert self.may_go_on.wait(WAIT_S)

    def capture(self):
        self._wait("capture")
        return self.value

    def restore(self, value):
        self._wait("restore")
        if self.fault is not None:
            self.value = "half"
            raise self.fault
        self.value = value


class Work(threading.Thread):
    """Calls something; keeps what comes of it."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call = call
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self.call()
        except Exception as error:
            self.error = error

    def ended(self):
        self.join(WAIT_S)
        assert not self.is_alive()
        return self


def system(path, **more):
    parts = [Part("a"), Part("b"), Part("c")]
    return create_checkpoint_system(settings(path, intervalSeconds=600, **more), parts), parts


def stops_behind(service, end, held, work):
    """Stop while a part is held; return once that has waited for the work."""
    assert held.is_called.wait(WAIT_S)
    stopping = Work(getattr(service, end))
    stopping.join(0.3)
    assert stopping.is_alive(), "it did not wait"
    assert service.store is not None
    held.may_go_on.set()
    assert stopping.ended().error is None
    assert not work.is_alive() or work.ended()


def begun(service, what, first):
    """Begin a capture, or a recovery of a capture, in another thread."""
    if what == "restore":
        return Work(lambda: service.recover_from_checkpoint(first.id))
    return Work(service.create_checkpoint)


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("end", ["stop", "close"])
@pytest.mark.parametrize("what", ["restore", "capture"])
def test_what_another_thread_does_is_waited_for(tmp_path, what, end, is_saved):
    service, parts = system(tmp_path / "s", captureOnShutdown=is_saved)
    service.start(signals=False)
    first = service.create_checkpoint()
    for one in parts:
        one.value = 2
    parts[1].held = what
    work = begun(service, what, first)
    stops_behind(service, end, parts[1], work)
    assert work.ended().error is None
    assert [one.value for one in parts] == [1, 1, 1] if what == "restore" else [2, 2, 2]
    service.close()


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_resumption_is_waited_for(tmp_path, end):
    service, parts = system(tmp_path / "s", captureOnShutdown=True)
    service.start(signals=False)
    first = service.create_checkpoint()
    parts[1].value, parts[1].fault = 2, ValueError("no")
    with pytest.raises(RecoveryIncompleteError):
        service.recover_from_checkpoint(first.id)
    parts[1].fault, parts[1].held = None, "restore"
    work = Work(service.resume_recovery)
    stops_behind(service, end, parts[1], work)
    assert work.ended().result.status == "completed"
    assert [one.value for one in parts] == [1, 1, 1]
    service.close()


@pytest.mark.parametrize("start", ["initialize", "start", "stopped"])
def test_one_that_owns_nothing_waits_too(tmp_path, start):
    """A standby, one that is not started, and one that was stopped recover to elsewhere."""
    owner, _ = system(tmp_path / "s")
    service, parts = system(tmp_path / "s", standby=True)
    with owner:
        first = owner.create_checkpoint()
        if start == "initialize":
            service.initialize()
        else:
            service.start(signals=False)
        if start == "stopped":
            service.stop()
        folder = tmp_path / "there"
        folder.mkdir()
        is_reached, may_go_on = threading.Event(), threading.Event()

        def picture(now):
            if now.status == "restoring" and not is_reached.is_set():
                is_reached.set()
                assert may_go_on.wait(WAIT_S)

        parts[0].is_called, parts[0].may_go_on = is_reached, may_go_on
        work = Work(
            lambda: service.recover_from_checkpoint(first.id, to=folder, on_progress=picture)
        )
        stops_behind(service, "close", parts[0], work)
        assert work.ended().error is None


def test_a_recovery_that_takes_too_long_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STOP_S", 0.05)
    service, parts = system(tmp_path / "s")
    service.start(signals=False)
    first = service.create_checkpoint()
    for one in parts:
        one.value = 2
    parts[1].held = "restore"
    work = Work(lambda: service.recover_from_checkpoint(first.id))
    assert parts[1].is_called.wait(WAIT_S)
    stopping = Work(service.stop)
    stopping.join(0.5)
    assert stopping.is_alive(), "it left a mixture"
    parts[1].may_go_on.set()
    assert stopping.ended().error is None
    assert isinstance(work.ended().error, RecoveryCancelledError)
    assert [one.value for one in parts] == [2, 2, 2]
    assert service.recover_from_checkpoint(first.id).status == "completed"
    service.close()


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_recovery_does_not_wait_for_itself(tmp_path, end):
    service, parts = system(tmp_path / "s")
    refused = []

    def picture(_now):
        with pytest.raises(ServiceBusyError) as caught:
            getattr(service, end)()
        refused.append(caught.value)

    with service:
        first = service.create_checkpoint()
        parts[0].value = 2
        done = service.recover_from_checkpoint(first.id, on_progress=picture)
        assert done.status == "completed"
        assert "called out of it" in refused[0].message
        assert service.state == "running"
    assert parts[0].value == 1


def test_a_compaction_ends_with_the_service_and_comes_again(tmp_path):
    more = {"maxCheckpoints": 1, "compactionIntervalSeconds": 0.01, "retentionCheck": "digest"}
    service, parts = system(tmp_path / "s", **more)
    begun, ended = threading.Event(), threading.Event()

    def compact(_wanted, look):  # as long as nobody stops it
        begun.set()
        try:
            while True:
                look(0, 1)
                threading.Event().wait(0.001)
        finally:
            ended.set()

    for _ in range(3):
        begun.clear()
        ended.clear()
        with pytest.MonkeyPatch.context() as patch:
            service.start(signals=False)
            patch.setattr(service.store, "compact", compact, raising=False)
            while not begun.wait(0.05):
                parts[0].value += 1
                service.create_checkpoint()
            assert not ended.is_set()
            service.stop()
            assert ended.is_set(), "it goes on in a service that is stopped"
    service.close()


def test_a_service_that_was_started_again_gives_room_back(tmp_path):
    more = {"maxCheckpoints": 1, "compactionIntervalSeconds": 0.05, "retentionCheck": "digest"}
    service, parts = system(tmp_path / "s", **more)
    with service:
        service.stop()
        service.start(signals=False)
        store, is_done = service.store, threading.Event()
        compact = store.compact

        def watched(*arguments, **options):
            done = compact(*arguments, **options)
            is_done.set()  # not where it was ended at once
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "compact", watched, raising=False)
            for _ in range(100):
                parts[0].value += 1
                service.create_checkpoint()
                if is_done.wait(0.05):
                    return
    raise AssertionError("it never compacts again")


def test_who_waits_for_a_rollback_says_so_once(caplog):
    turn, is_in, may_go_on = Turn("s", Environment()), threading.Event(), threading.Event()

    def work():
        with turn.alone(), turn.operation(RECOVERY, "resume"):
            is_in.set()
            assert turn.is_ending.wait(WAIT_S)
            may_go_on.wait(0.3)

    working = Work(work)
    assert is_in.wait(WAIT_S)
    with turn.halted(0.0) as is_quiet:
        assert is_quiet
    assert working.ended().error is None
    assert len([one for one in caplog.messages if "put back" in one]) == 1


@pytest.mark.parametrize("after", [0, 1])
def test_a_start_without_a_thread_owns_nothing(tmp_path, after):
    """The lease needs one, and so do the captures."""
    service, _ = system(tmp_path / "s")
    service.initialize()
    with threadless(after), pytest.raises(RuntimeError):
        service.start(signals=False)
    assert service.state == "ready"
    assert service._ready().manager.list_leases() == []
    with service:
        assert service.state == "running"
        until(service.list_checkpoints, "the first capture")


def test_a_compaction_without_a_thread_fails_no_capture_and_comes_later(tmp_path):
    more = {"maxCheckpoints": 1, "compactionIntervalSeconds": 0.01, "retentionCheck": "digest"}
    service, parts = system(tmp_path / "s", **more)
    with service:
        until(service.list_checkpoints, "the first capture")
        keeper = service._ready().keeper
        with threadless():
            for parts[0].value in range(2, 5):
                info = service.create_checkpoint()
                time.sleep(0.02)
        assert service.list_checkpoints() == [info]
        assert keeper._thread is None
        service.create_checkpoint()
        assert keeper._thread is not None


def test_a_clean_up_that_has_no_turn_is_told_as_one(tmp_path, monkeypatch):
    service, _ = system(tmp_path / "s")
    told, is_in, may_go_on = [], threading.Event(), threading.Event()

    def work():
        with engine.turn.alone():
            is_in.set()
            assert may_go_on.wait(WAIT_S)

    with service:
        until(service.list_checkpoints, "the first capture")
        engine = service._ready()
        working = Work(work)
        assert is_in.wait(WAIT_S)
        monkeypatch.setattr(turn_module, "BUSY_S", 0.01)
        service.on("operationFailed", told.append)
        assert engine.clean_up() == []
        may_go_on.set()
        working.ended()
        until(lambda: told, "being told")
    (done,) = told
    assert isinstance(done, Operation)
    assert (done.kind, done.reason, done.error.code) == (CLEANUP, "retention", "service.busy")


@pytest.mark.parametrize("is_stopped", [False, True])
def test_signals_that_come_faster_than_captures_make_no_backlog(tmp_path, is_stopped):
    service, parts = system(tmp_path / "s", maxCheckpoints=0)
    service.start(signals=False)
    until(service.list_checkpoints, "the first capture")
    parts[1].held = "capture"
    service.signalled("SIGUSR1")
    assert parts[1].is_called.wait(WAIT_S)
    for _ in range(20):
        service.signalled("SIGUSR1")
    stopping = Work(service.stop) if is_stopped else None
    if stopping is not None:
        until(lambda: service._runner.is_stopping, "the stop")
    parts[1].may_go_on.set()
    if stopping is not None:
        assert stopping.ended().error is None
    else:
        until(lambda: len(service.list_checkpoints()) == 3, "the capture that was asked for")
        service._runner.tell("wake")
        until(lambda: not service._runner._told, "the runner's next turn")
        service.stop()
    reasons = [one.reason for one in service.list_checkpoints()]
    assert reasons.count("signal") == (1 if is_stopped else 2)
    service.close()
