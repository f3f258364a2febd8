"""A command of the user's as the target of events.

The command's text is the user's alone: an event reaches it through standard input and the
environment, never through the shell's words.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import IO

from ckptlog.errors import ArgumentError
from ckptlog.storage.interruption import held_interruptions
from ckptlog.watch.delivery import Failure
from ckptlog.watch.event import WatchEvent


class Command:
    """Runs a shell command for each event; status 0 means that the event was taken.

    Args:
        timeout_s: Longest run; then its whole process group is killed.
        stdout: Where the command's output goes; None: to ours.
    """

    def __init__(
        self, command: str, *, timeout_s: float | None = None, stdout: IO[str] | int | None = None
    ) -> None:
        if not command.strip() or "\0" in command:
            raise ArgumentError("The command is empty.", argument="exec")
        self._command = command
        self._timeout_s = timeout_s
        self._stdout = stdout

    def deliver(self, event: WatchEvent) -> Failure | None:
        """Run it once."""
        process: subprocess.Popen[bytes] | None = None
        try:
            with held_interruptions():
                process = self._start(event)
            process.communicate(event.to_json() + b"\n", timeout=self._timeout_s)
        except BaseException as error:
            if process is not None:
                _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                return Failure(f"the command ran for more than {self._timeout_s:g} s")
            if isinstance(error, OSError) and process is None:
                return Failure(f"the command could not be started: {error}")
            raise
        status = process.returncode
        if status < 0:
            return Failure(f"the command was ended by signal {-status}")
        return Failure(f"the command ended with status {status}") if status else None

    def _start(self, event: WatchEvent) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S602 - the user's own command
            self._command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=self._stdout,
            env={**os.environb, **variables(event)},
            # A group of its own, so that what it started can be ended with it.
            start_new_session=True,
        )

    def close(self) -> None:
        """Nothing is kept."""


def variables(event: WatchEvent) -> dict[bytes, bytes]:
    """Return the environment variables that tell a command of an event."""
    words = {
        "ID": event.id,
        "TYPE": event.type,
        "POSITION": str(event.position),
        "TIME": event.time,
        "TASK": event.task,
        "CHECKPOINT": event.checkpoint,
        "STATE": event.state,
    }
    return {f"CKPTLOG_EVENT_{name}".encode(): word.encode() for name, word in words.items()}


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
