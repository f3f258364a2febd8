"""What is called out of an operation, by a component or a callback, does not wait for that."""

from __future__ import annotations

import asyncio
import threading
from contextvars import Context, copy_context

import pytest

from ckptlog import AsyncCheckpointService, DirectoryComponent, create_checkpoint_system
from ckptlog.errors import RecoveryCancelledError, ServiceBusyError
from ckptlog.service.turn import Turn
from ckptlog.storage.environment import Environment
from tests.service.system import WAIT_S, settings, until
from tests.service.test_stopping import Part, Work, system

CALLS = {
    "stop": lambda service: service.stop(),
    "close": lambda service: service.close(),
    "start": lambda service: service.start(signals=False),
    "capture": lambda service: service.create_checkpoint(),
    "delete": lambda service: service.delete_checkpoint(service.list_checkpoints()[-1].id),
    "recovery": lambda service: service.recover_from_checkpoint(dry_run=True),
    "pictures": lambda service: list(service.iterate_recovery(dry_run=True)),
}


def refused(service, call):
    """Return the error that a call out of an operation is refused with."""
    try:
        call(service)
    except ServiceBusyError as error:
        return error
    return None


@pytest.mark.parametrize("deadline_s", [0, 3])
@pytest.mark.parametrize("bytes_each", [200_000, 3 << 20])
def test_on_progress_in_a_thread_of_a_directory(tmp_path, bytes_each, deadline_s):
    """Short files are read by the component's thread, long ones by another one."""
    folder = tmp_path / "w"
    folder.mkdir()
    contents = {name: bytes([number]) * bytes_each for number, name in enumerate("ab")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    service = create_checkpoint_system(
        settings(tmp_path / "s", intervalSeconds=600, restoreDeadlineSeconds=deadline_s),
        [DirectoryComponent("w", folder)],
    )
    threads, answers = set(), []

    def picture(_now):
        threads.add(threading.current_thread())
        answers.append(refused(service, CALLS["stop"]))

    with service:
        first = service.create_checkpoint()
        for name in contents:
            (folder / name).write_bytes(b"")
        work = Work(lambda: service.recover_from_checkpoint(first.id, on_progress=picture))
        assert work.ended().result.status == "completed"
        assert threads - {work}, "every picture came from the caller's thread"
        assert all(answer is not None for answer in answers)
        assert service.state == "running"
    assert {name: (folder / name).read_bytes() for name in contents} == contents


class Caller(Part):
    """A component that calls the service out of its own methods."""

    call = None

    def __init__(self, name):
        super().__init__(name)
        self.errors = []

    def capture(self):
        if self.call is not None:
            self.errors.append(self.call())
        return super().capture()

    def restore(self, value):
        if self.call is not None:
            self.errors.append(self.call())
        super().restore(value)


@pytest.mark.parametrize("name", CALLS)
def test_a_component_that_calls_its_service(tmp_path, name):
    one = Caller("a")
    service = create_checkpoint_system(settings(tmp_path / "s", intervalSeconds=600), [one])
    with service:
        until(service.list_checkpoints, "the first capture")
        first = service.create_checkpoint()
        before = service.get_metrics()
        one.call = lambda: refused(service, CALLS[name])
        second = Work(service.create_checkpoint).ended().result
        (error,) = one.errors
        assert (error.code, error.context["reason"]) == ("service.busy", "nested")
        assert "a capture (manual) is at work" in error.message
        done = Work(lambda: service.recover_from_checkpoint(first.id)).ended().result
        assert done.status == "completed"
        assert all(one is not None for one in one.errors)
        assert "a recovery (manual) is at work" in one.errors[-1].message
        assert service.get_checkpoint(second.id).reason == "manual"
        # It was a caller's mistake: nothing failed.
        assert service.get_metrics().error_rate == before.error_rate == 0
        assert not [one for one in service.alerts if one.name == "error_rate"]


def test_what_outlives_an_operation_may_call_again(tmp_path):
    one = Caller("a")
    service = create_checkpoint_system(settings(tmp_path / "s", intervalSeconds=600), [one])
    with service:
        one.call = copy_context
        service.create_checkpoint()
        contexts, one.call = one.errors, None
        assert contexts[-1].run(service.create_checkpoint).reason == "manual"


def test_one_service_out_of_the_other(tmp_path):
    """An operation of another service is none of ours, but what it calls may be."""
    outer, inner = Caller("a"), Caller("b")
    first = create_checkpoint_system(settings(tmp_path / "a", intervalSeconds=600), [outer])
    second = create_checkpoint_system(settings(tmp_path / "b", intervalSeconds=600), [inner])
    with first, second:
        until(first.list_checkpoints, "the first capture")
        until(second.list_checkpoints, "the first capture")
        outer.call = second.create_checkpoint
        inner.call = lambda: refused(first, CALLS["stop"])
        assert Work(first.create_checkpoint).ended().error is None
        assert outer.errors[0].number == 2
        assert inner.errors[0].code == "service.busy"


def test_on_progress_while_another_thread_stops(tmp_path):
    service, parts = system(tmp_path / "s")
    answers = []
    parts[1].held = "restore"

    def picture(_now):
        if parts[1].is_called.is_set():
            answers.extend(refused(service, CALLS[name]) for name in ("stop", "close", "start"))

    service.start(signals=False)
    first = service.create_checkpoint()
    work = Work(lambda: service.recover_from_checkpoint(first.id, on_progress=picture))
    assert parts[1].is_called.wait(WAIT_S)
    stopping = Work(service.stop)
    stopping.join(0.3)
    parts[1].may_go_on.set()
    assert stopping.ended().error is None
    assert work.ended().error is None or isinstance(work.error, RecoveryCancelledError)
    assert answers
    assert all(answer is not None for answer in answers)
    service.close()


def test_on_progress_that_awaits_the_service(tmp_path):
    async def main():
        config = settings(tmp_path / "s", intervalSeconds=600)
        service = AsyncCheckpointService.create(config, [Part("a")])
        codes = []

        async def picture(_now):
            try:
                await service.stop()
            except ServiceBusyError as error:
                codes.append(error.code)

        async with service:
            first = await service.create_checkpoint()
            done = await service.recover_from_checkpoint(first.id, on_progress=picture)
            assert done.status == "completed"
            assert set(codes) == {"service.busy"}
            assert service.state == "running"

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_who_waits_in_vain_takes_no_ones_place():
    """Another thread that could not halt leaves the mark of the one that has halted."""
    turn, is_in, may_go_on = Turn("s", Environment()), threading.Event(), threading.Event()

    def work():
        with turn.alone():
            is_in.set()
            assert may_go_on.wait(WAIT_S)
            with turn.operation("capture", "manual") as one:
                return one

    working = Work(work)
    assert is_in.wait(WAIT_S)
    with turn.halted(0.01) as is_quiet:
        assert not is_quiet
        may_go_on.set()
        assert working.ended().result.status == "completed"


@pytest.mark.parametrize("call", ["operation", "alone", "halted"])
def test_the_thread_that_is_at_work_does_not_wait_for_itself_in_another_context(call):
    turn = Turn("s", Environment())

    def again():
        with {
            "operation": lambda: turn.operation("capture", "manual"),
            "alone": turn.alone,
            "halted": lambda: turn.halted(660.0),
        }[call]():
            raise AssertionError("it went on")

    with turn.operation("recovery", "manual"):
        with pytest.raises(ServiceBusyError) as refusal:
            Context().run(again)
        assert refusal.value.context["reason"] == "nested"
        assert turn.current.kind == "recovery"
