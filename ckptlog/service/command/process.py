"""The process of a command: a group of its own, its output relayed, its end waited for.

What happens comes as messages, from threads, to one queue:

    SIGNAL n     a signal for the command has come to us
    STOPPED n    the command was stopped (Ctrl-Z)
    ENDED        it has ended, and is still to be reaped
    REFUSED n    what it prints cannot be written (errno n)
    DRAINED      its output is passed on
"""

from __future__ import annotations

import os
import queue
import resource
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from ckptlog.service.command.relay import Relay, Tail
from ckptlog.service.command.terminal import Terminal

SIGNAL: Final = "signal"
STOPPED: Final = "stopped"
ENDED: Final = "ended"
REFUSED: Final = "refused"
DRAINED: Final = "drained"

PASSED_ON: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_STOP_SIGNALS: Final = (signal.SIGTTIN, signal.SIGTTOU)

Messages = queue.SimpleQueue[tuple[str, int]]


class Ended(NamedTuple):
    """How a command ended: its exit code, or else the signal's number, and what it used."""

    exit_code: int | None
    signal: int | None
    usage: resource.struct_rusage


class Process:
    """One command that runs.

    Args:
        outputs: Where its stdout and its stderr go.

    Raises:
        OSError: It cannot be started.

    Threads: made, and used, in the main thread.
    """

    def __init__(
        self,
        words: Sequence[str],
        messages: Messages,
        tail: Tail,
        *,
        cwd: str,
        environ: Mapping[str, str],
        outputs: tuple[int, int] = (1, 2),
    ) -> None:
        self._messages = messages
        self._popen = subprocess.Popen(  # noqa: S603 - the user's own command
            list(words),
            cwd=cwd,
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,
        )
        self.pid = self._popen.pid
        self._terminal = Terminal()
        self._terminal.give(self.pid)
        routes = dict(
            zip(map(_taken, (self._popen.stdout, self._popen.stderr)), outputs, strict=True)
        )
        self._relay = Relay(
            routes,
            tail,
            on_end=lambda: messages.put((DRAINED, 0)),
            on_refusal=lambda number: messages.put((REFUSED, number)),
        )
        self._relay.start()
        threading.Thread(target=self._wait, name="ckptlog-wait", daemon=True).start()

    def send(self, number: int) -> None:
        """Send a signal to the command's group."""
        if self._popen.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def stopped(self, number: int) -> None:
        """Stop as the command was stopped, if by the terminal; go on when the shell says so."""
        if not self._terminal.is_ours:
            return
        if number not in _STOP_SIGNALS:
            self._terminal.take()
            os.kill(0, signal.SIGTSTP)
        self._terminal.give(self.pid)
        self.send(signal.SIGCONT)

    def reap(self) -> Ended:
        """Take the end of a command that has ended; what it printed is still to be drained."""
        _, status, usage = os.wait4(self.pid, 0)
        self._popen.returncode = code = os.waitstatus_to_exitcode(status)
        self._terminal.take()
        self._terminal.close()
        self._relay.finish()
        return Ended(code, None, usage) if code >= 0 else Ended(None, -code, usage)

    def _wait(self) -> None:
        while True:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
            if found is None or found.si_code not in {os.CLD_STOPPED, os.CLD_TRAPPED}:
                self._messages.put((ENDED, 0))
                return
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
            self._messages.put((STOPPED, found.si_status))


def identity_of(pid: int) -> dict[str, Any]:
    """Return what tells a process from every other one that had, or will have, its number."""
    return {"pid": pid, "started": _started(pid), "boot": boot()}


def is_running(identity: Mapping[str, Any]) -> bool:
    """Say whether the very process that `identity_of` was asked about still runs."""
    pid, started = identity.get("pid"), identity.get("started")
    if type(pid) is not int or type(started) is not str or not started:
        return False
    return identity.get("boot") == boot() and _started(pid) == started


def boot() -> str:
    """Return what tells this run of the machine from every other; "" where that is unknown."""
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""


def _started(pid: int) -> str:
    """Return when a process that is no zombie was started, in ticks; "" where it is not there."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X"):
            return fields[19].decode("ascii")
    return ""


def _taken(stream: Any) -> int:
    """Return a descriptor of our own for a pipe."""
    fd = os.dup(stream.fileno())
    stream.close()
    return fd
