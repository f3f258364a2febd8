"""CommandRun: one command as a checkpointed task, from its claim to its recorded end.

    claim -> look at the attempt before -> bring the files back (resume) -> capture -> record
          -> start -> {capture on the interval; pass signals on} -> reap, drain
          -> capture -> record

The main thread waits for messages (command.process); captures are taken in a thread of their own,
so a signal never waits for one. From the start of the command on nothing of ours stops it: what
fails is told, and tried again. Page: specs/run.md.
"""

from __future__ import annotations

import errno
import math
import os
import queue
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ckptlog.errors import CheckpointError, LeaseHeldError
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.identifier import check_id
from ckptlog.policy.sanitise import sanitiser_of
from ckptlog.recovery.ending import interruptible
from ckptlog.service.command import process, record, words
from ckptlog.service.command.claim import GRANT, claimed, end_left_over
from ckptlog.service.command.files import Files, system_of
from ckptlog.service.command.order import Order, check
from ckptlog.service.command.process import Ended, Messages, Process
from ckptlog.service.command.record import Record
from ckptlog.service.command.relay import Tail
from ckptlog.service.command.result import Result
from ckptlog.service.command.signals import taken
from ckptlog.service.command.teller import Teller

CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
_SIGNALLED: Final = 128
_LOST: Final = "lost"
_TRIES: Final = 3
_PAUSE_S: Final = 1.0
_DRAIN_S: Final = 5.0
_AT_ONCE_S: Final = 1.0
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class CommandRun:
    """Runs a command as a task of a store.

    Args:
        tell: What people should know goes to it. It is hurried once an end is asked for.

    Attributes:
        is_begun: Whether the command was started, or the system refused to: what fails from then
            on did not keep it from running.
        result: Once there is one, also where `run` fails then: the store cannot be let go.

    Raises:
        ArgumentError: Something is wrong with the order.

    Threads: `run` in the main thread, once: it has the signals while it runs.
    Durability: as the manager's.
    """

    def __init__(self, manager: CheckpointManager, order: Order, *, tell: Teller) -> None:
        check(order)
        self.task = check_id("task", order.name or words.name_of(order.words, order.cwd))
        check_id("task", system_of(self.task))
        self.is_begun = False
        self.result: Result | None = None
        self._manager = manager
        self._order = order
        self._tell = tell
        self._record = Record(manager, self.task)
        self._messages: Messages = Messages()
        self._tail = Tail()
        self._leases: list[Lease] = []
        self._facts: dict[str, Any] = {}
        self._told = ""
        self._absent: list[str] = []
        self._is_lost = False
        self._asked_s: float | None = None
        self._over = threading.Event()

    def run(self) -> Result:
        """Run it to its end.

        Raises:
            LeaseHeldError: Another process runs the task.
            CheckpointError: Before the command was started: the store, or the rewind.
            SignalledError: Ended by a signal, before it was started; a rewind in the middle is put
                back, one that is done stays.
        """
        names = [self.task, system_of(self.task)]
        lost = (_LOST, 0)
        with claimed(self._manager, names, lambda: self._messages.put(lost)) as self._leases:
            with interruptible():
                last = self._record.last()
                files = Files(
                    self._manager,
                    self.task,
                    self._order.named,
                    cwd=self._order.cwd,
                    leases=self._leases,
                )
                if last is not None and (result := self._look_at(last, files)) is not None:
                    return result
                files.check(is_resumed=self._order.is_resumed and self._order.has_rewind)
                self._begin(last, files)
                self._tell.flush()  # before anything that the command prints
            with taken(self._messages):
                self.is_begun = True
                self.result = self._work(files)
            self._hear_stops()
            return self.result

    # --- before -------------------------------------------------------------------------------

    def _look_at(self, last: CheckpointData, files: Files) -> Result | None:
        """Look at the attempt before; return a result where there is nothing to do."""
        identity = last.data.get("process") or {}
        if not self._order.is_resumed:
            if process.is_running(identity):
                raise LeaseHeldError(
                    f"The command of task {self.task!r} still runs as process {identity['pid']}; "
                    "the ckptlog run that started it is gone.",
                    hint="Stop it, or let --resume stop it.",
                    task_id=self.task,
                )
            if record.is_open(last):
                self._tell(f"task {self.task} was interrupted; --resume would go on from there")
            return None
        if record.is_done(last):
            self._tell(f"task {self.task} is complete already; without --resume it runs again")
            return Result(
                task=self.task,
                checkpoint=last.checkpoint_id,
                attempt=_attempt_of(last),
                state=last.state.value,
                status=0,
                is_skipped=True,
                capture=last.data.get("capture"),
                data=last.data,
            )
        if self._order.has_rewind and not self._order.is_moved:
            files.refuse_moved()  # before anything is ended
        if end_left_over(identity):
            self._tell("the command of the attempt before still ran; it was ended")
        return None

    def _begin(self, last: CheckpointData | None, files: Files) -> None:
        order = self._order
        is_resumed = order.is_resumed and last is not None
        shown = words.shown(order.words, sanitiser_of(self._manager.config))
        self._facts = {
            "command": shown,
            "directory": os.fsencode(order.cwd).decode("utf-8", "replace"),
            "attempt": _attempt_of(last) + 1 if is_resumed and last is not None else 1,
            "started_at": record.now(),
            "resumed_from": None,
            "safety": None,
            "captures": 0,
            "capture": None,
        }
        if is_resumed and last is not None:
            how = "was interrupted" if record.is_open(last) else last.state.value
            if last.data.get("capture_fault"):
                how += ", but what it made was not captured at its end"
            self._tell(f"task {self.task}: attempt {_attempt_of(last)} {how}")
            if order.has_rewind:
                self._rewind(files)
        self._capture(files, "start")
        for path in files.mounts:
            self._tell(
                f"warning: {path} is another file system or mount; what changes in it keeps "
                "--resume from bringing anything back: leave it out (.ckptlogignore), and give it "
                "its own --dir"
            )
        self._record.begin(words.title_of(shown), self._facts, last=last, lease=self._leases[0])

    def _rewind(self, files: Files) -> None:
        info = files.last_good(self._tell)
        if info is None:
            self._tell("there is no capture to go back to; the files stay as they are")
            return
        if not self._order.is_moved:
            files.refuse_elsewhere(info)
        self._tell(f"bringing the files back to capture {info.id} ({info.created_at:%F %T} UTC)")
        self._facts["safety"] = files.bring_back(info, self._tell)
        if self._facts["safety"]:
            self._tell(f"what was there before is capture {self._facts['safety']}")
        self._facts["resumed_from"] = self._facts["capture"] = info.id

    # --- at work ------------------------------------------------------------------------------

    def _work(self, files: Files) -> Result:
        begin_s = time.monotonic()
        try:
            running = Process(
                self._order.words,
                self._messages,
                self._tail,
                cwd=self._order.cwd,
                environ=self._environ(),
                outputs=self._order.outputs,
            )
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE
            self._tell(f"{self._facts['command'][0]} cannot be started: {error.strerror or error}")
            return self._end({"exit_code": None, "signal": None}, record.not_started(error), status)
        self._facts["process"] = process.identity_of(running.pid)
        captures = threading.Thread(
            target=self._keep_capturing, args=(files,), name="ckptlog-captures", daemon=True
        )
        captures.start()
        ended = self._wait(running)
        self._over.set()
        captures.join()
        self._facts["seconds"] = time.monotonic() - begin_s
        fault = None if self._is_lost else self._last_capture(files)
        self._absent = files.absent
        for path in self._absent:
            self._tell(f"warning: {path} was never there; nothing of it is saved")
        for path in files.gone:
            self._tell(f"warning: {path} is gone; what it was is in an earlier capture")
        status = _SIGNALLED + ended.signal if ended.signal is not None else ended.exit_code or 0
        return self._end(record.end_facts(ended), record.failure_of(ended), status, fault)

    def _wait(self, running: Process) -> Ended:
        """Wait until the command has ended and what it printed is passed on."""
        ended: Ended | None = None
        is_drained = False
        while ended is None:  # either may come first
            kind, number = self._messages.get()
            if kind == process.DRAINED:
                is_drained = True
            elif kind == process.ENDED:
                ended = running.reap()
            elif kind == process.SIGNAL:
                self._pass_on(running, number)
            elif kind == process.STOPPED:
                running.stopped(number)
            elif kind == process.REFUSED:
                self._note_refusal(number)
            elif kind == _LOST:
                self._lose(running)
        if not is_drained:
            self._drain(running)
        return ended

    def _drain(self, running: Process) -> None:
        """Wait until what the command printed is passed on.

        Who asks for an end waits for no reader that is there and reads no more; two signals at
        once ask once.
        """
        begin_s = time.monotonic()
        while True:
            left_s = None
            if self._asked_s is not None:
                left_s = max(max(begin_s, self._asked_s) + _DRAIN_S - time.monotonic(), 0)
            try:
                kind, number = self._messages.get(timeout=left_s)
            except queue.Empty:
                break
            if kind == process.DRAINED:
                return
            if kind == process.SIGNAL and number in _STOPS and self._is_asked_again():
                break
            if kind == process.REFUSED:
                self._note_refusal(number)
            if kind == _LOST:
                self._lose(running)
        self._tell("warning: nobody read the command's last output; it is only kept")

    def _note_refusal(self, number: int) -> None:
        """Note that output was lost; where the terminal is gone that is nobody's fault."""
        message = f"what the command printed could not be written: {os.strerror(number)}"
        self._tell(f"warning: {message}")
        if number != errno.EIO:
            self._facts["output_fault"] = message

    def _lose(self, running: Process) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._tell("another process has taken over the task; the command is ended")
            running.send(signal.SIGTERM)

    def _pass_on(self, running: Process, number: int) -> None:
        if number in _STOPS:
            self._facts["stopped_by"] = record.signal_name(number)
            self._is_asked_again()
        running.send(number)

    def _is_asked_again(self) -> bool:
        """Note that somebody asks for an end; say whether that is not for the first time."""
        now_s = time.monotonic()
        if self._asked_s is None:
            self._asked_s = now_s
            self._tell.hurry()
        return now_s - self._asked_s >= _AT_ONCE_S

    def _hear_stops(self) -> None:
        """Hear who asked for an end when the command had ended: nobody waits for a reader then."""
        with suppress(queue.Empty):
            while True:
                kind, number = self._messages.get_nowait()
                if kind == process.SIGNAL and number in _STOPS:
                    self._is_asked_again()

    def _environ(self) -> dict[str, str]:
        grant = msgspec.json.encode(self._leases[0].grant).decode()
        own = {
            "CKPTLOG_STORE": str(Path(self._manager.store.path).absolute()),
            "CKPTLOG_TASK": self.task,
            "CKPTLOG_ATTEMPT": str(self._facts["attempt"]),
            GRANT: grant,
        }
        environ = {**self._order.environ, **own}
        environ.pop("CKPTLOG_RESUMED_FROM", None)
        if self._facts["resumed_from"]:
            environ["CKPTLOG_RESUMED_FROM"] = self._facts["resumed_from"]
        return environ

    # --- captures -----------------------------------------------------------------------------

    def _keep_capturing(self, files: Files) -> None:
        self._update()  # which process it is
        due_s = time.monotonic()
        while True:
            # What was missed is not made up for.
            behind = math.floor((time.monotonic() - due_s) / self._order.interval_s)
            due_s += (max(behind, 0) + 1) * self._order.interval_s
            if self._over.wait(max(due_s - time.monotonic(), 0)):
                return
            if not self._is_lost:
                self._capture(files, "interval")
                self._update()

    def _capture(self, files: Files, reason: str, *, has_more: bool = True) -> str | None:
        """Capture; return what went wrong, which was told. The command goes on in any case."""
        try:
            info = files.capture(reason, description=f"attempt {self._facts['attempt']}")
            if info is not None:
                self._facts["captures"] += 1
            newest = info or files.newest()
            if newest is not None:
                self._facts["capture"] = newest.id
        except Exception as error:  # noqa: BLE001 - nothing of ours may stop the command
            again = ", and is tried again" if has_more else ""
            return self._warn(f"a capture failed{again}: {record.told(error)}")
        self._told = ""
        return None

    def _last_capture(self, files: Files) -> str | None:
        reason = "signal" if self._facts.get("stopped_by") else "end"
        for left in reversed(range(_TRIES)):
            fault = self._capture(files, reason, has_more=left > 0)
            if fault is None or not left:
                return fault
            time.sleep(_PAUSE_S)
        return None

    def _update(self) -> None:
        known = {**self._facts, **self._output()}
        try:
            self._record.update(known, lease=self._leases[0])
        except Exception as error:  # noqa: BLE001 - as above
            self._warn(f"the task was not updated: {record.told(error)}")

    def _output(self) -> dict[str, Any]:
        return {"output": self._tail.text(), "output_bytes": self._tail.total}

    def _warn(self, message: str) -> str:
        if message != self._told:  # not at every interval
            self._tell(f"warning: {message}")
            self._told = message
        return message

    # --- the end ------------------------------------------------------------------------------

    def _end(
        self,
        facts: dict[str, Any],
        error_info: dict[str, Any] | None,
        status: int,
        fault: str | None = None,
    ) -> Result:
        self._facts |= {**facts, "ended_at": record.now(), **self._output()}
        if fault is not None:
            self._facts["capture_fault"] = fault
        found = (fault, self._facts.get("output_fault"), self._record_end(error_info))
        faults = [one for one in found if one is not None]
        return Result(
            task=self.task,
            checkpoint=self._record.id,
            attempt=self._facts["attempt"],
            state="failed" if error_info else "completed",
            status=status,
            resumed_from=self._facts["resumed_from"],
            safety=self._facts["safety"],
            capture=self._facts["capture"],
            captures=self._facts["captures"],
            data=self._facts,
            faults=faults,
            absent=self._absent,
        )

    def _record_end(self, error_info: dict[str, Any] | None) -> str | None:
        for left in reversed(range(_TRIES)):
            try:
                self._record.end(self._facts, error_info, lease=self._leases[0])
            except CheckpointError as error:
                fault = f"the end was not recorded: {record.told(error)}"
                if self._is_lost or not left:
                    return self._warn(fault)
                time.sleep(_PAUSE_S)
            else:
                return None
        return None


def _attempt_of(last: CheckpointData | None) -> int:
    attempt = last.data.get("attempt") if last is not None else None
    return attempt if type(attempt) is int else 0
