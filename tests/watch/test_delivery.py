"""Attempts, waits, dead letters, and commands of the user's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time

import pytest

from ckptlog.errors import ArgumentError, CheckpointStorageError, DeliveryError
from ckptlog.storage.environment import Environment
from ckptlog.watch.backoff import waits
from ckptlog.watch.command import Command
from ckptlog.watch.dead_letter import DeadLetters
from ckptlog.watch.delivery import Delivery


@pytest.fixture
def event(room):
    room.add("a'; touch injected; '$(touch injected)")
    with room.watch(follow=False) as events:
        return next(events)


# --- waits -----------------------------------------------------------------------------------


def test_waits_double_up_to_a_bound_and_half_of_each_is_chance():
    assert list(waits(9, lambda: 0.0)) == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert list(waits(3, lambda: 0.5)) == [0.375, 0.75, 1.5]
    assert list(waits(0, lambda: 0.0)) == []


@pytest.mark.parametrize("retries", [-1, 1001, 1.0, None, True])
def test_wrong_retries_are_refused(retries):
    with pytest.raises(ArgumentError):
        Delivery(None, Environment(), retries=retries)


# --- dead letters ----------------------------------------------------------------------------


def test_a_torn_last_line_stays_alone(event, tmp_path):
    path = tmp_path / "dead"
    letters = DeadLetters(path, Environment())
    letters.add(event, "first", 1)
    with path.open("ab") as file:
        file.write(b'{"event": {"torn')
    letters.add(event, "second", 2)
    lines = path.read_bytes().splitlines()
    assert [json.loads(lines[number])["reason"] for number in (0, 2)] == ["first", "second"]
    assert len(lines) == 3


def test_letters_that_cannot_be_written_are_an_error(event, tmp_path):
    letters = DeadLetters(tmp_path / "missing" / "dead", Environment())
    with pytest.raises(CheckpointStorageError):
        letters.add(event, "why", 1)


# --- commands --------------------------------------------------------------------------------


def test_a_command_gets_the_event_and_nothing_is_interpreted(event, tmp_path):
    out = tmp_path / "out"
    command = Command(
        f'cd {tmp_path}; cat > out; echo "$CKPTLOG_EVENT_TYPE $CKPTLOG_EVENT_POSITION'
        ' $CKPTLOG_EVENT_ID" > named; echo "$CKPTLOG_EVENT_CHECKPOINT" > checkpoint'
    )
    assert command.deliver(event) is None
    assert out.read_bytes() == event.to_json() + b"\n"
    assert (tmp_path / "named").read_text() == f"checkpoint.created 0 {event.id}\n"
    assert (tmp_path / "checkpoint").read_text() == event.checkpoint + "\n"
    assert not (tmp_path / "injected").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exit 3", "status 3"),
        ("kill -9 $$", "signal 9"),
        ("no-such-command 2>/dev/null", "status 127"),
        ("sleep 60", "more than 0.2 s"),
    ],
)
def test_a_command_that_fails(event, command, words):
    assert words in Command(command, timeout_s=0.2).deliver(event).reason


def test_a_command_that_reads_nothing_is_fine(event):
    assert Command("exec <&-; true").deliver(event) is None


def test_everything_that_a_late_command_started_is_ended(event, tmp_path):
    pid = tmp_path / "pid"
    command = Command(f"sleep 600 & echo $! > {pid}; wait", timeout_s=0.5)
    assert "more than" in command.deliver(event).reason
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return
        # A zombie until whoever adopted it has looked.
        with open(f"/proc/{pid.read_text().strip()}/stat") as file:
            if file.read().split()[2] == "Z":
                return
        time.sleep(0.01)
    pytest.fail("it lives on")


def test_an_interrupt_ends_the_command(event, tmp_path):
    pid = tmp_path / "pid"

    def interrupt():
        while not pid.exists() or not pid.read_text():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        Command(f"echo $$ > {pid}; exec sleep 60").deliver(event)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_an_interrupt_while_the_command_starts_ends_it(event, monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Command("exec sleep 60").deliver(event)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


@pytest.mark.parametrize("command", ["", "  ", "a\0b"])
def test_no_command(command):
    with pytest.raises(ArgumentError):
        Command(command)


def test_a_command_is_repeated(event, tmp_path):
    class Quick(Environment):
        def sleep(self, duration_s):
            pass

    count = tmp_path / "count"
    command = Command(f"echo x >> {count}; test $(wc -l < {count}) -ge 3")
    delivery = Delivery(command, Quick(), retries=2)
    assert delivery.deliver(event) == "delivered"
    assert delivery.attempts == 3
    with pytest.raises(DeliveryError, match="in 3 attempts"):
        Delivery(Command("false"), Quick(), retries=2).deliver(event)
    with pytest.raises(DeliveryError, match="in one attempt:"):
        Delivery(Command("false"), Quick(), retries=0).deliver(event)
