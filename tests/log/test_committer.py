from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ckptlog.errors import BusyError, CheckpointStorageError, OutcomeUnknownError
from ckptlog.log.committer import ROUND_JOBS_MAX, Committer

WAIT_S = 20.0
Outcomes = dict[Any, Any]


def answer(jobs):
    for job in jobs:
        job.result = ("done", job.work)


class Gate:
    """A `run` that stops in each round until it is let on."""

    def __init__(self):
        self.rounds = []
        self.is_in_round = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)

    def run(self, jobs):
        self.rounds.append([job.work for job in jobs])
        self.is_in_round.release()
        assert self.may_go.acquire(timeout=WAIT_S)
        answer(jobs)


def start(committer, work, outcomes):
    def submit():
        try:
            outcomes[work] = committer.submit(work)
        except BaseException as error:
            outcomes[work] = error

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    return thread


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def join(threads):
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a thread waits for ever"


def queue_behind(committer, gate, outcomes, works):
    """Start a round of one job, and queue the others behind it, in order."""
    threads = [start(committer, "first", outcomes)]
    assert gate.is_in_round.acquire(timeout=WAIT_S)
    for count, work in enumerate(works, 1):
        threads.append(start(committer, work, outcomes))
        wait_until(lambda count=count: len(committer._queue) == count)
    return threads


def is_idle(committer):
    return committer._leader is None and not committer._queue and not committer._round


def test_a_lone_job_is_settled_in_its_own_thread():
    seen = []

    def run(jobs):
        seen.append(threading.current_thread())
        answer(jobs)

    committer = Committer(run, queue_max=4, timeout_s=1.0)
    assert committer.submit("work") == ("done", "work")
    assert seen == [threading.current_thread()]
    assert is_idle(committer)


def test_jobs_that_wait_share_the_next_round():
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=10, timeout_s=WAIT_S)
    threads = queue_behind(committer, gate, outcomes, ["b", "c", "d"])
    gate.may_go.release(2)
    join(threads)
    assert gate.rounds == [["first"], ["b", "c", "d"]]
    assert outcomes == {work: ("done", work) for work in ("first", "b", "c", "d")}
    assert is_idle(committer)


def test_a_round_is_bounded_and_the_rest_follows_in_order():
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=ROUND_JOBS_MAX + 10, timeout_s=WAIT_S)
    works = list(range(ROUND_JOBS_MAX + 3))
    threads = queue_behind(committer, gate, outcomes, works)
    gate.may_go.release(3)
    join(threads)
    assert gate.rounds == [["first"], works[:ROUND_JOBS_MAX], works[ROUND_JOBS_MAX:]]
    assert is_idle(committer)


def test_the_leader_returns_while_the_next_round_still_runs():
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=10, timeout_s=WAIT_S)
    threads = queue_behind(committer, gate, outcomes, ["b"])
    gate.may_go.release()
    threads[0].join(WAIT_S)
    assert outcomes == {"first": ("done", "first")}
    gate.may_go.release()
    join(threads)


def test_each_error_goes_to_its_own_thread():
    def run(jobs):
        for job in jobs:
            if job.work % 2:
                job.error = ValueError(job.work)
            else:
                job.result = job.work

    committer = Committer(run, queue_max=100, timeout_s=WAIT_S)
    outcomes = Outcomes()
    join([start(committer, work, outcomes) for work in range(40)])
    for work, outcome in outcomes.items():
        assert (outcome.args == (work,)) if work % 2 else (outcome == work)


def test_an_error_of_the_round_reaches_everyone_who_has_no_answer_yet():
    cause = CheckpointStorageError("the disk is gone")
    gate, outcomes = Gate(), Outcomes()

    def run(jobs):
        gate.run(jobs)
        if len(jobs) > 1:
            for job in jobs[1:]:
                job.result = None
            raise cause

    committer = Committer(run, queue_max=10, timeout_s=WAIT_S)
    threads = queue_behind(committer, gate, outcomes, ["b", "c", "d"])
    gate.may_go.release(2)
    join(threads)
    assert outcomes["b"] == ("done", "b")  # settled before the error
    assert outcomes["c"] is cause
    assert outcomes["d"] is cause
    assert is_idle(committer)


def test_others_hear_of_an_interrupt_of_the_leader_as_an_unknown_outcome():
    gate, outcomes = Gate(), Outcomes()

    def run(jobs):
        gate.run(jobs)
        if len(jobs) > 1:
            for job in jobs:
                job.result = None
            raise KeyboardInterrupt

    committer = Committer(run, queue_max=10, timeout_s=WAIT_S)
    threads = queue_behind(committer, gate, outcomes, ["b", "c"])
    gate.may_go.release(2)
    join(threads)
    assert isinstance(outcomes["b"], KeyboardInterrupt)
    assert isinstance(outcomes["c"], OutcomeUnknownError)
    assert outcomes["c"].retryable
    assert isinstance(outcomes["c"].__cause__, KeyboardInterrupt)
    assert committer._leader is None


def test_a_full_queue_pushes_back_in_time():
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=2, timeout_s=WAIT_S)
    threads = queue_behind(committer, gate, outcomes, ["b", "c"])
    committer._timeout_s = 0.05
    with pytest.raises(BusyError) as caught:
        committer.submit("d")
    assert caught.value.context["waiting"] == 2
    assert caught.value.retryable
    gate.may_go.release(2)
    join(threads)
    assert "d" not in [work for works in gate.rounds for work in works]
    assert outcomes == {name: ("done", name) for name in ("first", "b", "c")}
    assert is_idle(committer)


def test_who_waits_for_too_long_leaves_the_queue():
    """Nothing was done for it; who was taken into a round by then is waited for."""
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=10, timeout_s=0.05)
    threads = queue_behind(committer, gate, outcomes, ["b", "c"])
    wait_until(lambda: len(outcomes) == 2)
    assert {type(outcomes[name]) for name in "bc"} == {BusyError}
    gate.may_go.release()
    join(threads)
    assert gate.rounds == [["first"]]
    assert is_idle(committer)


def test_a_job_in_a_round_is_waited_for():
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=10, timeout_s=WAIT_S)
    committer_enter = committer._enter

    def enter(job):
        committer_enter(job)
        job.deadline_s = 0.0 if job.work == "c" else job.deadline_s

    threads = queue_behind(committer, gate, outcomes, ["b"])
    committer._enter = enter
    give_up, gave_up = committer._give_up, threading.Event()

    def late(job):
        gate.may_go.release()  # "first" is done; "b" leads, and takes "c" along
        wait_until(lambda: len(gate.rounds) == 2)
        gave_up.set()
        give_up(job)

    committer._give_up = late
    threads.append(start(committer, "c", outcomes))
    assert gave_up.wait(WAIT_S)
    gate.may_go.release()
    join(threads)
    assert outcomes == {name: ("done", name) for name in ("first", "b", "c")}


def test_who_waits_for_a_place_gets_the_next_one():
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=1, timeout_s=WAIT_S)
    threads = queue_behind(committer, gate, outcomes, ["b"])
    threads += [start(committer, work, outcomes) for work in ("c", "d")]
    wait_until(lambda: committer._waiting == 2)
    gate.may_go.release(10)
    join(threads)
    assert sorted(outcomes) == ["b", "c", "d", "first"]
    assert committer._waiting == 0


class Stopped(BaseException):
    """What an interrupt is to the thread that it ends."""


@pytest.mark.parametrize("when", ["while it waits", "as it is chosen", "as it is settled"])
def test_an_interrupt_of_a_waiting_thread_leaves_nobody_behind(monkeypatch, when):
    """The interrupt comes before, or in the moment in which the thread is woken."""
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=10, timeout_s=WAIT_S)
    threads = queue_behind(committer, gate, outcomes, [])
    stopped = threading.Event()

    class Interrupted:
        """A gate whose `acquire` ends in an interrupt."""

        def __init__(self, real):
            self.real, self.release = real, real.release

        def acquire(self, timeout):
            if when != "while it waits":
                self.real.acquire()
            stopped.set()
            raise Stopped

    original = committer._enter
    victim = threading.Thread(target=lambda: None)

    def enter(job):
        original(job)
        if job.work == "victim":
            job.gate = Interrupted(job.gate)

    monkeypatch.setattr(committer, "_enter", enter)
    names = ["victim", "after"] if when != "as it is settled" else ["before", "victim", "after"]
    for count, name in enumerate(names, 1):
        threads.append(victim := start(committer, name, outcomes))
        if when == "while it waits" and name == "victim":
            assert stopped.wait(WAIT_S)
            join([victim])
        else:
            wait_until(lambda count=count: len(committer._queue) >= count - (when[0] == "w"))
    gate.may_go.release(5)
    join(threads)
    assert isinstance(outcomes.pop("victim"), Stopped)
    assert outcomes == {name: ("done", name) for name in ("first", *names) if name != "victim"}
    assert is_idle(committer)


def test_an_interrupt_at_any_line_of_any_thread_leaves_nobody_behind():
    """A trace function plays the interrupt, at each line that a thread runs in the committer."""
    code = str(sys.modules[Committer.__module__].__file__)
    withs = [n for n, line in enumerate(Path(code).read_text().splitlines(), 1) if " with " in line]

    def interrupt_at(step):
        left = [step]
        entered = set()

        def trace(frame, event, argument):
            if frame.f_code.co_filename != code or frame.f_code.co_name == "_leave":
                return None
            if event == "line":
                place = (frame, frame.f_lineno)
                if frame.f_lineno in withs and place in entered:
                    return trace  # leaving a block: no interrupt can come before its `__exit__`
                entered.add(place)
                left[0] -= 1
                if left[0] == 0:
                    raise Stopped
            return trace

        return trace, left

    lines = {"leader": 0, "waiter": 0}
    for role in lines:
        for step in range(1, 200):
            trace, left = interrupt_at(step)
            run_with_a_victim(role, trace)
            if left[0] > 0:
                break
            lines[role] += 1
    assert lines["leader"] > 20
    assert lines["waiter"] > 10


def run_with_a_victim(role, trace):
    """The victim leads the first round, or waits in it; two more threads come after it."""
    gate, outcomes = Gate(), Outcomes()
    committer = Committer(gate.run, queue_max=10, timeout_s=WAIT_S)

    def victim():
        sys.settrace(trace)
        try:
            outcomes["victim"] = committer.submit("victim")
        except BaseException as error:
            outcomes["victim"] = error
        finally:
            sys.settrace(None)

    gate.may_go.release(100)
    threads = []
    if role == "waiter":
        gate.may_go = threading.Semaphore(0)
        threads.append(start(committer, "leader", outcomes))
        assert gate.is_in_round.acquire(timeout=WAIT_S)
    threads.append(threading.Thread(target=victim, daemon=True))
    threads[-1].start()
    if role == "waiter":
        wait_until(lambda: committer._queue or "victim" in outcomes)
    threads += [start(committer, name, outcomes) for name in ("b", "c")]
    gate.may_go.release(100)
    join(threads)
    others = {name: outcome for name, outcome in outcomes.items() if name != "victim"}
    assert set(others) >= {"b", "c"}
    for name, outcome in others.items():
        assert outcome == ("done", name) or isinstance(outcome, OutcomeUnknownError)
    assert committer.submit("later") == ("done", "later")
    assert is_idle(committer)


def test_many_threads_never_lose_a_wake_up():
    """Every job is run exactly once and returns its own result, whatever the interleaving."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    ran: list[tuple[int, int]] = []

    def run(jobs):
        ran.extend(job.work for job in jobs)
        if len(ran) % 7 == 0:
            time.sleep(0)
        answer(jobs)

    committer = Committer(run, queue_max=5, timeout_s=WAIT_S)
    wrong = []

    def work(thread):
        jobs = [(thread, number) for number in range(150)]
        wrong.extend(job for job in jobs if committer.submit(job) != ("done", job))

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
    try:
        for thread in threads:
            thread.start()
        join(threads)
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    assert sorted(ran) == [(index, number) for index in range(8) for number in range(150)]
    for index in range(8):
        assert [number for thread, number in ran if thread == index] == list(range(150))
    assert is_idle(committer)


def interrupt(number, frame):
    """Raise inside a call, but not in `_leave`, which must finish what an interrupt left."""
    names = set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    if "submit" in names and "_leave" not in names:
        raise Stopped


@pytest.fixture
def signalled():
    """An event: each time it is set, a signal reaches the main thread a moment later."""
    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.get_ident()
    chance = random.Random(7)
    is_over, is_due = threading.Event(), threading.Event()

    def send():
        while not is_over.is_set():
            if is_due.wait(0.01):
                time.sleep(chance.uniform(0, 1e-3))
                signal.pthread_kill(main, signal.SIGUSR1)
                is_due.clear()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield is_due
    is_over.set()
    join([thread])
    signal.signal(signal.SIGUSR1, before)


def test_real_signals_into_the_main_thread(signalled):
    """An interrupt ends the main thread's calls again and again while others commit."""
    if sys.gettrace() is not None:
        # It could strike inside the tracer, between taking its lock and giving it back.
        run_untraced("test_real_signals_into_the_main_thread")
        return
    committer = Committer(answer, queue_max=3, timeout_s=WAIT_S)
    is_over = threading.Event()

    def others(index):
        while not is_over.is_set():
            committer.submit(index)

    threads = [threading.Thread(target=others, args=(n,), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    stops = 0
    deadline = time.monotonic() + WAIT_S
    while stops < 30 and time.monotonic() < deadline:
        signalled.set()
        try:
            committer.submit("main")
        except Stopped:
            stops += 1
    is_over.set()
    join(threads)
    assert stops >= 30
    assert committer.submit("later") == ("done", "later")
    assert is_idle(committer)


def run_untraced(name):
    """Run one test of this file in a process that nobody traces."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"{__file__}::{name}",
    ]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout
