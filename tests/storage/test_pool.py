"""A job is done once, and where no thread is to be had by whoever hands it over."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptlog.storage.pool import Pool
from tests.threadless import threadless


def here(answer):
    return answer, threading.current_thread()


def test_threads_do_it_while_they_are_to_be_had():
    with Pool(2, "ckptlog-test") as pool:
        answer, thread = pool.submit(here, 3).result()
        begun = pool.begin(here, 4)
        assert begun is not None
        assert begun.result()[0] == 4
    assert answer == 3
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_without_a_thread_it_is_done_at_once(after):
    gate = threading.Event()
    with threadless(after), Pool(8, "ckptlog-test") as pool:
        held = [pool.submit(gate.wait) for _ in range(after)]
        jobs = [pool.submit(here, number) for number in range(9)]
        assert all(job.done() for job in jobs)
        gate.set()
        assert [job.result() for job in jobs] == [
            (number, threading.current_thread()) for number in range(9)
        ]
        assert all(job.result() for job in held)


def test_what_was_not_begun_is_never_done():
    done = []
    pool = Pool(1, "ckptlog-test")
    with threadless():
        assert pool.begin(done.append, 1) is None
    pool.submit(done.append, 2).result()
    pool.begin(done.append, 3)
    pool.close()
    assert 1 not in done
    assert 2 in done


def test_what_was_refused_and_taken_nevertheless_is_done_once(monkeypatch):
    """A pool that cannot start its next thread has queued the job for those that it has."""
    submit, done = ThreadPoolExecutor.submit, []

    def take_and_refuse(executor, *work):
        submit(executor, *work).result()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", take_and_refuse)
    with Pool(2, "ckptlog-test") as pool:
        pool.submit(done.append, 1).result()
    with Pool(2, "ckptlog-test") as pool:
        begun = pool.begin(done.append, 2)
        assert begun is not None
        begun.result()
    assert done == [1, 2]


@pytest.mark.parametrize("after", [0, 1])
def test_what_a_job_raises_is_raised_where_it_is_asked_for(after):
    with threadless(after), Pool(1, "ckptlog-test") as pool:
        job = pool.submit(int, "no number")
        with pytest.raises(ValueError, match="no number"):
            job.result()


def test_what_was_done_is_let_go():
    """A queue that nobody empties holds no results."""
    with threadless():
        pool = Pool(1, "ckptlog-test")
        for _ in range(100):
            pool.submit(bytes, 1000)
    assert pool._executor._work_queue.qsize() <= 1
    pool.close()
    pool.close(cancel=True)
