"""Hints: from this process, from the file system; none is believed, none is needed."""

from __future__ import annotations

import logging
import sys
import threading
import time

import pytest

from ckptlog.storage.environment import Environment
from ckptlog.watch import hint as hints
from ckptlog.watch.hint import Ear, LogHint
from tests.log.sample import append, group, open_log

LONG_S = 60.0


@pytest.fixture
def hint(tmp_path):
    made = LogHint(tmp_path, Environment())
    yield made
    made.close()


def watching_threads():
    return [one for one in threading.enumerate() if one.name == "ckptlog-watch"]


def gone(threads):
    for thread in threads:
        thread.join(LONG_S)
    return not any(thread.is_alive() for thread in threads)


def test_an_ear_hears_once_and_then_waits_again():
    ear = Ear(Environment())
    assert not ear.wait(0)
    ear.hear()
    ear.hear()
    assert ear.wait(LONG_S)
    assert not ear.wait(0)


def test_after_a_hint_the_looks_are_close_for_a_while():
    """The hint may have been the commit's bytes, and its end comes a moment later."""

    class Clock(Environment):
        now_s = 100.0

        def monotonic_s(self):
            return self.now_s

    clock = Clock()
    ear = Ear(clock)
    waited = []
    ear._signal.wait = lambda timeout_s: waited.append(timeout_s) or bool(ear._signal.is_set())
    ear.wait(0.1)
    ear.hear()
    ear.wait(0.1)
    for _ in range(3):
        ear.wait(0.1)
    clock.now_s += 1
    ear.wait(0.1)
    assert waited == [0.1, 0.1, 0.005, 0.005, 0.005, 0.1]


def test_all_ears_hear_and_a_forgotten_one_does_not(hint):
    first, second, third = (hint.listen(uses_watcher=False) for _ in range(3))
    hint.forget(third)
    hint.notify()
    assert first.wait(0)
    assert second.wait(0)
    assert not third.wait(0)
    assert watching_threads() == []


def test_a_file_that_is_written_in_the_folder_is_heard(hint, tmp_path):
    path = tmp_path / "end"
    path.write_bytes(bytes(128))
    ear = hint.listen()
    assert len(watching_threads()) == 1
    hint.listen()
    assert len(watching_threads()) == 1, "one for all"
    for number in range(3):
        deadline_s = time.monotonic() + LONG_S
        while not ear.wait(0.05):  # the watch may begin a moment after us
            with path.open("r+b") as file:
                file.write(bytes([number + 1]))
            assert time.monotonic() < deadline_s


def test_the_watching_ends_with_the_last_who_listens(hint):
    ears = [hint.listen() for _ in range(2)]
    threads = watching_threads()
    hint.forget(ears[0])
    assert threads[0].is_alive()
    hint.forget(ears[1])
    assert gone(threads)
    hint.listen()
    again = watching_threads()
    assert len(again) == 1
    hint.close()
    assert gone(again)


@pytest.mark.parametrize("fault", [OSError(28, "no watches left"), ImportError("no watchfiles")])
def test_where_nothing_can_be_watched_it_is_said_and_the_looks_go_on(
    room, monkeypatch, caplog, fault
):
    def watch(*_, **__):
        raise fault

    monkeypatch.setattr(hints, "_watch", watch)
    with caplog.at_level(logging.WARNING, "ckptlog.watch"), room.watch(watcher=True) as events:
        assert gone(watching_threads())
        writer = open_log(room.root)
        append(writer, group("a"))
        assert next(events).event.id == "a"
        writer.close()
    (record,) = caplog.records
    assert "cannot be watched" in record.message
    assert type(fault).__name__ in record.message


def test_a_commit_of_another_process_wakes_by_the_watcher_alone(room):
    """The poll is far too rare to have done it."""
    with room.watch(watcher=True, poll_s=LONG_S) as events:
        got = []
        thread = threading.Thread(target=lambda: got.append(next(events)))
        thread.start()
        deadline_s = time.monotonic() + LONG_S / 2
        while not got:  # the first may come before the watch has begun
            append(room.log, group(f"n{time.monotonic()}"))
            thread.join(0.05)
            assert time.monotonic() < deadline_s
        assert got[0].position == 0


def test_the_watchers_own_patience_is_overridden(tmp_path, monkeypatch):
    """It would wait for 1.6 s whether more comes, and look each 50 ms."""
    import watchfiles

    asked = {}
    monkeypatch.setattr(watchfiles, "watch", lambda *_, **options: asked.update(options) or ())
    hints._watch(tmp_path, lambda: None, threading.Event())
    assert asked["debounce"] <= 10
    assert asked["step"] <= 10
    assert asked["recursive"] is False


def test_nothing_is_logged_for_each_change(room, caplog):
    with caplog.at_level(logging.INFO), room.watch(watcher=True, poll_s=0.01) as events:
        for number in range(5):
            room.add(f"n{number}")
            next(events)
            time.sleep(0.02)
    assert [record.message for record in caplog.records] == []


def test_the_interpreter_ends_while_somebody_listens(tmp_path):
    import subprocess

    script = (
        "import sys; from pathlib import Path\n"
        "from ckptlog.storage.environment import Environment\n"
        "from ckptlog.watch.hint import LogHint\n"
        "hint = LogHint(Path(sys.argv[1]), Environment()); ear = hint.listen(); ear.wait(0.05)\n"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, timeout=LONG_S
        )
        assert (done.returncode, done.stderr) == (0, b"")
