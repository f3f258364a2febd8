"""Processes of the tests: writers and consumers, and what they tell on a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import ckptlog
from ckptlog import CheckpointManager

FORK = multiprocessing.get_context("fork")


class Process:
    """A process that writes lines to a pipe until it ends or is killed."""

    def __init__(self, target, *arguments):
        reading, writing = os.pipe()
        self.process = FORK.Process(target=_run, args=(target, writing, arguments), daemon=True)
        self.process.start()
        os.close(writing)
        self.pipe = os.fdopen(reading)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        return self.rest()

    def rest(self):
        """Wait for its end; return the whole lines that it wrote."""
        self.process.join()
        with self.pipe:
            return [line[:-1] for line in self.pipe if line.endswith("\n")]


def _run(target, fd, arguments):
    status = 1
    try:
        target(lambda line: os.write(fd, f"{line}\n".encode()), *arguments)
        status = 0
    except BaseException as error:
        os.write(fd, f"error {type(error).__name__}: {error}\n".encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


def write(say, root: Path, name: str, count: int):
    """Create checkpoints, some in batches; say each that was acknowledged."""
    manager = CheckpointManager(store=ckptlog.open(root))
    number = 0
    while number < count:
        if number % 5 == 4:
            names = [f"{name}-{number}-{part}" for part in range(3)]
            with manager.batch() as batch:
                for one in names:
                    batch.create_checkpoint(name, "title", 1, checkpoint_id=one)
        else:
            names = [f"{name}-{number}"]
            manager.create_checkpoint(
                name, "title", 1, data={"n": number, "text": "x" * 200}, checkpoint_id=names[0]
            )
        for one in names:
            say(f"wrote {one}")
        number += 1


def consume(say, root: Path, consumer: str, options: dict, count: int = 10**9):
    """Say each event that was taken, and each that was acknowledged; end after so many."""
    with ckptlog.open(root).watch(consumer, busy_timeout_s=60, **options) as events:
        for event in events:
            say(f"took {event.position} {event.checkpoint}")
            events.ack(event)
            say(f"acked {event.position}")
            if (count := count - 1) == 0:
                return
