"""The relay: what a command prints goes on at once, unchanged, and its end is kept.

One thread reads both pipes, so that the kept end has the order in which things came. Bytes are
never held back: what was read is written before more is read, so a slow reader slows the command
down as without us.

    who reads us goes away     our end of that pipe is closed: the command gets its SIGPIPE
    our output is refused      that is told, and the command goes on; what was not written is only
                               kept. A full disk is tried again with what comes next, all else (a
                               terminal that is gone: EIO) is not
    the command has ended      what it wrote is read; then, while somebody else still has the pipe
                               (a background child), until nothing comes for GRACE_S
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

TAIL_BYTES: Final = 64 * 1024
GRACE_S: Final = 1.0
_READ_BYTES: Final = 64 * 1024
_PIPE_BYTES: Final = 1024 * 1024
_CONTINUATION: Final = range(0x80, 0xC0)
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class Tail:
    """The last bytes of what was printed.

    Threads: safe.
    """

    def __init__(self, size: int = TAIL_BYTES) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept = bytearray()
        self._total = 0

    @property
    def total(self) -> int:
        """How many bytes there were in all."""
        return self._total

    def add(self, raw: bytes) -> None:
        """Take what was printed."""
        with self._lock:
            self._total += len(raw)
            self._kept += raw[-self._size :]
            if len(self._kept) > 2 * self._size:
                del self._kept[: -self._size]

    def text(self) -> str:
        """Return the end as text; what is no UTF-8 is replaced."""
        with self._lock:
            kept, is_cut = bytes(self._kept[-self._size :]), self._total > self._size
        begin = 0
        while is_cut and begin < min(3, len(kept)) and kept[begin] in _CONTINUATION:
            begin += 1  # the rest of a character that was cut
        return kept[begin:].decode("utf-8", "replace")


class Relay:
    """Passes pipes on.

    Args:
        routes: From each pipe's reading end, which becomes the relay's, to where it goes.
        on_end: Called in the thread when all is passed on.
        on_refusal: Called in the thread, once for each pipe, with why its output was refused
            (errno); not where whoever reads it went away.

    Threads: `start` and `finish` in one.
    """

    def __init__(
        self,
        routes: Mapping[int, int],
        tail: Tail,
        *,
        on_end: Callable[[], None],
        on_refusal: Callable[[int], None],
    ) -> None:
        self._routes: dict[int, int | None] = dict(routes)
        self._tail = tail
        self._on_end = on_end
        self._on_refusal = on_refusal
        self._refused: set[int] = set()
        self._wake = os.pipe()
        self._left = dict.fromkeys(routes, _PIPE_BYTES)
        self._ended_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="ckptlog-relay", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """The command has ended: pass on what is left, then end."""
        os.close(self._wake[1])

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (*self._routes, self._wake[0]):
                selector.register(fd, selectors.EVENT_READ)
            while self._routes and not self._is_over():
                ready = selector.select(None if self._ended_s is None else GRACE_S)
                if not ready:
                    break  # the command has ended, and nothing comes any more
                if self._ended_s is not None:
                    self._note_empty({key.fd for key, _ in ready})
                for key, _ in ready:
                    self._turn(selector, key.fd)
            for fd in list(self._routes):
                self._close(selector, fd)
        os.close(self._wake[0])
        self._on_end()

    def _note_empty(self, ready: set[int]) -> None:
        """Note that pipes in which nothing lies have nothing more of the command's own."""
        for fd in self._routes:
            if fd not in ready:
                self._left[fd] = 0

    def _turn(self, selector: selectors.BaseSelector, fd: int) -> None:
        if fd == self._wake[0]:
            selector.unregister(fd)
            self._ended_s = time.monotonic()
            for one in self._left:
                self._left[one] = _capacity(one) if one in self._routes else 0
            return
        raw = os.read(fd, _READ_BYTES)
        if self._ended_s is not None:
            # Less than was asked for: the pipe is empty, what comes now is others'.
            self._left[fd] -= len(raw) if len(raw) == _READ_BYTES else self._left[fd]
        self._tail.add(raw)
        if not raw or not self._pass_on(fd, raw):
            self._left[fd] = 0
            self._close(selector, fd)

    def _is_over(self) -> bool:
        """Say whether the command's own output is passed on, and others only print on and on."""
        if self._ended_s is None or time.monotonic() - self._ended_s < GRACE_S:
            return False
        return all(left <= 0 for left in self._left.values())

    def _pass_on(self, fd: int, raw: bytes) -> bool:
        """Write; False where whoever reads us went away."""
        target = self._routes[fd]
        if target is None:
            return True
        try:
            write_all(target, raw)
        except BrokenPipeError:
            return False
        except OSError as error:
            number = error.errno or 0
            if number not in _FULL:
                self._routes[fd] = None
            if fd not in self._refused:
                self._refused.add(fd)
                self._on_refusal(number)
        return True

    def _close(self, selector: selectors.BaseSelector, fd: int) -> None:
        selector.unregister(fd)
        del self._routes[fd]
        os.close(fd)


def _capacity(fd: int) -> int:
    with suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    return _PIPE_BYTES


def write_all(fd: int, raw: bytes) -> None:
    """Write all of it, however long that takes.

    Raises:
        OSError: It could not be written; BrokenPipeError: nobody reads.
    """
    view = memoryview(raw)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            with selectors.SelectSelector() as selector:
                selector.register(fd, selectors.EVENT_WRITE)
                selector.select()
