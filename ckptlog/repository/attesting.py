"""What a store says of its history by signed heads: mixed into `Store`.

Heads on an interval are signed by a thread of their own, beside the writers: it reads what is
published, takes no lock of the log, and what goes wrong there stops nobody from saving
(`head_fault` tells it, and the store's notes).
"""

from __future__ import annotations

from threading import Event as Signal
from threading import Thread, current_thread
from typing import TYPE_CHECKING

from ckptlog.errors import CheckpointError
from ckptlog.log.log import Log

if TYPE_CHECKING:
    from ckptlog.repository.notary import Notary

_JOIN_S = 60.0


class Attesting:
    """The part of a store that signs.

    Threads: safe.
    """

    log: Log
    read_only: bool
    _head_interval_s: float | None
    _notary: Notary | None
    head_fault: CheckpointError | None
    """Why the last head of an interval could not be signed; None where it could."""

    def _check_open(self) -> None:
        raise NotImplementedError

    @property
    def notary(self) -> Notary:
        """What signs heads and makes proofs (`repository.notary`); made by the first who asks."""
        self._check_open()
        found = self._notary
        if found is None:
            from ckptlog.repository.notary import Notary

            # Two threads may each make one: what must happen at once does so under a file lock.
            found = self._notary = Notary(self)  # type: ignore[arg-type]
        return found

    def _begin_attesting(self) -> None:
        self._notary = None
        self.head_fault = None
        self._attesting_stop = Signal()
        self._attesting: Thread | None = None
        if self._head_interval_s is not None and not self.read_only:
            thread = Thread(target=self._attest_forever, name="ckptlog-heads", daemon=True)
            self._attesting = thread
            thread.start()

    def _end_attesting(self) -> None:
        """Sign a last head, where heads are signed on an interval."""
        thread = self._attesting
        if thread is None:
            return
        self._attesting_stop.set()
        if thread is not current_thread():
            thread.join(_JOIN_S)

    def _attest_forever(self) -> None:
        position = -1
        is_last = False
        while not is_last:
            is_last = self._attesting_stop.wait(self._head_interval_s)
            end = self.log.published.read()
            if end is not None and end.position != position and self._attest():
                position = end.position

    def _attest(self) -> bool:
        try:
            if self._notary is None:
                from ckptlog.repository.notary import Notary

                self._notary = Notary(self)  # type: ignore[arg-type]
            self._notary.sign_published(is_kept=False)
        except CheckpointError as error:
            if self.head_fault is None or self.head_fault.code != error.code:
                self.log.notes.append(f"No head could be signed: {error}")
            self.head_fault = error
            return False
        self.head_fault = None
        return True
