"""The cut: its order, and every way in which it can be stopped."""

from __future__ import annotations

import os
import threading
import time

import pytest

from ckptlog import CaptureFailedError, UnstorableError
from ckptlog.capture.cut import Cut
from ckptlog.capture.held import Held
from ckptlog.capture.worker import Part
from ckptlog.model.component import in_order, traits_of
from tests.capture.sample import Failing, Hanging, Phased, Value
from tests.threadless import threadless


def cut(*components, batch_size=5, deadline_s=20.0):
    by_name = {one.name: one for one in components}
    parts = [
        Part(traits, by_name[traits.name])
        for traits in in_order([traits_of(one) for one in components])
    ]
    return Cut(parts, Held, batch_size=batch_size, deadline_s=deadline_s)


def test_all_are_prepared_before_any_is_captured_and_captured_before_any_goes_on():
    order, lock = [], threading.Lock()

    class Telling(Phased):
        def note(self, call):
            super().note(call)
            with lock:
                order.append((call, self.name))

    parts = [Telling("b", 1, depends_on=["a"]), Telling("a", 2), Telling("c", 3)]
    with cut(*parts) as one:
        one.take()
        assert order[:3] == [("prepare", "a"), ("prepare", "c"), ("prepare", "b")]
        assert {call for call, _ in order[3:6]} == {"capture"}
        assert {call for call, _ in order[6:]} == {"commit"}
        assert len(order) == 9
        assert one.stopped_s > 0
    assert one.left == []


def test_nobody_is_held_before_all_have_looked_ahead():
    order, lock = [], threading.Lock()

    class Looking(Phased):
        def note(self, call):
            super().note(call)
            with lock:
                order.append(call)

        def look_ahead(self):
            time.sleep(0.02)
            self.note("look_ahead")

    parts = [Looking("a"), Looking("b"), Phased("c")]
    with cut(*parts) as one:
        one.look_ahead(deadline_s=20.0)
        assert order == ["look_ahead", "look_ahead"]
        one.take()
    assert order[2:4] == ["prepare", "prepare"]
    assert all(len(part.threads) == 1 for part in parts)


def test_a_look_ahead_that_fails_or_hangs_is_named_and_nobody_was_held():
    class Blind(Phased):
        def look_ahead(self):
            raise OSError("gone")

    parts = [Phased("a"), Blind("b")]
    with pytest.raises(CaptureFailedError, match=r"'b' failed in look_ahead"), cut(*parts) as one:
        one.look_ahead(deadline_s=20.0)
    gate = threading.Event()

    class Hung(Phased):
        def look_ahead(self):
            gate.wait(20)

    parts += [Hung("c")]
    with (
        pytest.raises(CaptureFailedError, match="'c' was not done with look_ahead"),
        cut(parts[0], parts[2]) as one,
    ):
        one.look_ahead(deadline_s=0.05)
    assert [worker.name for worker in one.left] == ["c"]
    gate.set()
    one.left[0].join(20)
    assert all(part.calls == [] for part in parts)


def test_one_component_is_called_from_one_thread_and_each_from_its_own():
    parts = [Phased("a"), Phased("b")]
    with cut(*parts) as one:
        one.take()
    assert all(len(part.threads) == 1 for part in parts)
    assert parts[0].threads != parts[1].threads


def test_so_many_are_captured_at_once_and_no_more():
    now, most, lock = 0, 0, threading.Lock()

    class Slow(Value):
        def capture(self):
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.01)
            with lock:
                now -= 1

    with cut(*(Slow(f"c{number}") for number in range(12)), batch_size=3) as one:
        one.take()
    assert most == 3


@pytest.mark.parametrize("step", ["prepare", "capture", "write"])
def test_a_failure_names_the_component_and_all_go_on(step):
    parts = [Phased("a", 1), Failing("b", step), Phased("c", 1, depends_on=["b"])]

    def write(held):
        parts[1].note("write") if held.name == "b" else None

    with pytest.raises(CaptureFailedError, match="'b' failed") as caught, cut(*parts) as one:
        one.take(write=write)
    assert caught.value.context["component"] == "b"
    assert caught.value.context["step"] == step
    assert caught.value.context["error"] == "RuntimeError"
    assert isinstance(caught.value.__cause__, RuntimeError)
    for part in parts:
        # What raised in prepare() has not been prepared; what was not reached neither.
        is_prepared = step != "prepare" or part.name == "a"
        assert part.calls.count("abort") == is_prepared
        assert "commit" not in part.calls
        assert part.lock.acquire(blocking=False)
    assert one.left == []


def test_a_failing_commit_lets_the_others_go_on():
    parts = [Failing("a", "commit"), Phased("b"), Phased("c")]
    with pytest.raises(CaptureFailedError, match=r"'a' failed in commit"), cut(*parts) as one:
        one.take()
    assert all(part.calls[-1] == "commit" for part in parts)
    assert not any("abort" in part.calls for part in parts)


def test_a_failing_abort_hides_nothing():
    class Stubborn(Phased):
        def abort(self):
            super().abort()
            raise ValueError("never")

    parts = [Stubborn("a"), Failing("b", "capture"), Phased("c")]
    with pytest.raises(CaptureFailedError, match="'b' failed"), cut(*parts) as one:
        one.take()
    assert parts[2].calls[-1] == "abort"


@pytest.mark.parametrize("step", ["prepare", "capture"])
def test_what_hangs_is_named_and_left_and_ends_by_itself(step):
    parts = [Phased("a"), Hanging("b", step), Phased("c")]
    with (
        pytest.raises(CaptureFailedError, match=f"'b' was not done with {step}") as caught,
        cut(*parts, deadline_s=0.05) as one,
    ):
        one.take()
    assert caught.value.context["reason"] == "deadline"
    assert [worker.name for worker in one.left] == ["b"]
    assert parts[0].calls[-1] == "abort"
    parts[1].gate.set()
    assert parts[1].has_ended.wait(20)
    one.left[0].join(20)
    assert not one.left[0].is_at_work
    assert parts[1].calls[-1] == "abort"
    assert len(parts[1].threads) == 1


def test_what_hangs_in_commit_is_named_and_the_others_go_on():
    parts = [Hanging("a", "commit"), Phased("b")]
    with (
        pytest.raises(CaptureFailedError, match="'a' was not done with commit"),
        cut(*parts, deadline_s=0.1) as one,
    ):
        one.take()
    assert parts[1].calls[-1] == "commit"
    parts[0].gate.set()
    one.left[0].join(20)


def test_an_exit_in_a_component_is_a_failure():
    with (
        pytest.raises(CaptureFailedError, match="SystemExit"),
        cut(Failing("a", "capture", SystemExit(3))) as one,
    ):
        one.take()


def test_an_exception_that_cannot_be_told_is_told_as_such():
    class MuteError(Exception):
        def __str__(self):
            raise ValueError

    with (
        pytest.raises(CaptureFailedError, match="cannot be read: ValueError"),
        cut(Failing("a", "capture", MuteError())) as one,
    ):
        one.take()


def test_what_cannot_be_stored_is_told_with_its_path():
    with (
        pytest.raises(CaptureFailedError, match=r"a\.x\[1\]") as caught,
        cut(Value("a", {"x": [1, object()]})) as one,
    ):
        one.take()
    assert caught.value.context["reason"] == "unstorable"
    assert isinstance(caught.value.__cause__, UnstorableError)


def test_an_interruption_lets_all_go_on(monkeypatch):
    parts = [Phased("a"), Phased("b")]
    one = cut(*parts)
    real = one._next

    def interrupted(until):
        real(until)
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "_next", interrupted)
    with pytest.raises(KeyboardInterrupt), one:
        one.take()
    assert parts[0].calls == ["prepare", "abort"]
    assert parts[1].calls == []


def test_an_answer_that_an_interruption_swallows_is_not_waited_for():
    parts = [Phased("a", 1), Phased("b", 2)]
    with cut(*parts, deadline_s=60.0) as one:

        class Pressed:
            get = one._answers.get
            is_pressed = False

            def __call__(self, timeout):
                answer = type(self).get(timeout=timeout)
                if not self.is_pressed:
                    self.is_pressed = True
                    raise KeyboardInterrupt
                return answer

        one._answers = type("Answers", (), {"get": Pressed()})()
        begin_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            one.take()
    assert time.monotonic() - begin_s < 30
    assert [part.calls for part in parts] == [["prepare", "abort"], []]


@pytest.mark.parametrize("is_begun", [False, True])
def test_an_interruption_while_threads_are_started_leaves_none(monkeypatch, is_begun):
    start, begun = threading.Thread.start, []

    def pressed(thread):
        if len(begun) == 1 and not is_begun:
            raise KeyboardInterrupt
        begun.append(thread)
        start(thread)
        if len(begun) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", pressed)
    with pytest.raises(KeyboardInterrupt), cut(Phased("a"), Phased("b"), Phased("c")):
        raise AssertionError("all were started")
    for thread in begun:
        thread.join(30)
        assert not thread.is_alive()


def test_a_snapshot_is_closed_once_whatever_happens():
    class Shot:
        stability = "snapshot"
        closed = 0

        def write(self, writer, before):
            raise AssertionError

        def close(self):
            self.closed += 1

    shots = [Shot(), Shot()]
    with cut(Value("a", shots[0])) as one:
        one.take()
        assert shots[0].closed == 0
        assert [held.stability for _, held, _, _ in one.results] == ["snapshot"]
    with (
        pytest.raises(CaptureFailedError),
        cut(Value("a", shots[1]), Failing("b", "capture"), batch_size=1) as one,
    ):
        one.take()
    assert [shot.closed for shot in shots] == [1, 1]


def test_a_snapshot_of_what_hung_is_closed_when_it_comes():
    class Shot:
        closed = threading.Event()

        def write(self, writer, before):
            raise AssertionError

        def close(self):
            self.closed.set()

    shot = Shot()

    class Late(Hanging):
        def capture(self):
            super().capture()
            return shot

    late = Late("a", "capture")
    with pytest.raises(CaptureFailedError), cut(late, deadline_s=0.05) as one:
        one.take()
    assert not shot.closed.is_set()
    late.gate.set()
    assert shot.closed.wait(20)


# --- without threads ------------------------------------------------------------------------------


def test_without_threads_the_cut_does_it_in_the_same_order():
    order = []

    class Telling(Phased):
        def note(self, call):
            super().note(call)
            order.append((call, self.name, threading.current_thread()))

    with threadless(), cut(Telling("b", 1, depends_on=["a"]), Telling("a", 2)) as one:
        one.take()
        one.write(lambda held: held.name.upper(), deadline_s=20.0)
        assert [result for _, _, result, _ in one.results] == ["A", "B"]
    here = threading.current_thread()
    calls = ("prepare", "capture", "commit")
    assert order == [(call, name, here) for call in calls for name in ("a", "b")]
    assert one.left == []


def test_without_threads_a_failure_lets_all_go_on():
    good = Phased("good")
    with (
        threadless(),
        cut(good, Failing("worse", step="capture")) as one,
        pytest.raises(CaptureFailedError, match="worse"),
    ):
        one.take()
    assert good.calls[-1] == "abort"


def test_without_threads_an_interrupt_is_the_callers():
    class Interrupted(Phased):
        def capture(self):
            raise KeyboardInterrupt

    good = Phased("good")
    with threadless(), cut(good, Interrupted("worse")) as one, pytest.raises(KeyboardInterrupt):
        one.take()
    assert good.calls[-1] == "abort"


def test_without_threads_what_is_held_is_closed():
    class Closing:
        closed = 0

        def write(self, writer):
            return None

        def close(self):
            self.closed += 1
            raise ValueError("no")

    closing = Closing()
    with threadless(), cut(Value("v", closing)) as one:
        one.take()
    assert closing.closed == 1


def refuse_forks(monkeypatch):
    def refuse():
        raise RuntimeError("can't fork at interpreter shutdown")

    monkeypatch.setattr(os, "fork", refuse)


def test_where_nothing_is_forked_a_value_is_read_inside_the_barrier(monkeypatch):
    refuse_forks(monkeypatch)
    value, before = {"a": ["one"]}, os.listdir("/proc/self/fd")
    with cut(Value("v", value, stability="fork")) as one:
        one.take()
        value["a"].append("two")
        one.write(lambda held: repr(held.frozen()), deadline_s=20.0)
        ((_, held, written, _),) = one.results
        assert "one" in written
        assert "two" not in written
        assert held.stability == "fork"
    assert os.listdir("/proc/self/fd") == before


def test_where_nothing_is_forked_what_cannot_be_stored_has_its_name(monkeypatch):
    refuse_forks(monkeypatch)
    good = Value("a", 1, stability="fork")
    bad = Value("worse", object(), stability="fork")
    with cut(good, bad) as one, pytest.raises(CaptureFailedError, match="worse") as caught:
        one.take()
    assert caught.value.context["reason"] == "unstorable"
