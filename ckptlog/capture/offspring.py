"""The offspring: values that a forked child writes down, as they were when it was forked.

A fork copies a process's memory in the time that its page tables take (some milliseconds for each
hundred megabytes), and nobody changes the child's. The child serialises and pipes; the parent
reads when it gets to it.

The child of a process with threads has one thread, and locks that others held stay held for ever
in it. So it does nothing but walk the value, encode, write to the pipe and leave: no logging, no
imports, no store, no exit handlers. Should it hang all the same, the deadline of the cut ends it.

One child serves all values of a cut: what a fork costs is paid once.

The stream of each: parts, each a letter and then, in 8 bytes little-endian each, lengths.
    T length text                      R length head  length tail  length bytes
    M (1 length key part)* 0           L (1 part)* 0
    E length text                      the value cannot be stored; the text is the error's
A stream that ends before its last part does is a child that died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, NoReturn

import msgspec

from ckptlog.capture.frozen import Frozen, Listing, Mapping, Raw, Text
from ckptlog.errors import CaptureFailedError, CheckpointError, UnstorableError
from ckptlog.storage.fork import hasty

_PIECE: Final = 1024 * 1024
_DESCRIPTORS_MAX: Final = 1 << 20


class Child:
    """The process; ended once nobody reads from it any more."""

    def __init__(self, pid: int, readers: int) -> None:
        self._pid = pid
        self._readers = readers
        self._lock = threading.Lock()

    def leave(self) -> None:
        """Be read by one less."""
        with self._lock:
            self._readers -= 1
            if self._readers:
                return
        # It has nothing to lose, and may be writing to a pipe that nobody reads.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


class Offspring:
    """One value of those that a child writes down.

    Threads: one.
    """

    def __init__(self, child: Child, source: int) -> None:
        self._child = child
        self._pipe: BinaryIO | None = os.fdopen(source, "rb", buffering=_PIECE)

    def frozen(self) -> Frozen:
        """Return the parts, read from the child as they are asked for; once.

        Raises:
            UnstorableError: The value cannot be stored; also while the parts are read.
            CaptureFailedError: The child died; likewise.
        """
        if self._pipe is None:
            raise _died()
        return _Reading(self._pipe).part()

    def close(self) -> None:
        """Read no more. Twice is fine."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
            self._child.leave()


def fork(freezes: Sequence[Callable[[], Frozen]]) -> list[Offspring]:
    """Return the values that a new child writes down, one after the other, in this order.

    Args:
        freezes: Give the parts of the values; called in the child alone.

    Raises:
        CaptureFailedError: The process could not be forked.
        RuntimeError: The interpreter ends, and no longer forks.
    """
    pipes: list[tuple[int, int]] = []
    try:
        pipes += (os.pipe() for _ in freezes)
        pid = _fork()
    except (OSError, RuntimeError) as error:
        for end in (one for pipe in pipes for one in pipe):
            os.close(end)
        if isinstance(error, RuntimeError):
            raise
        raise CaptureFailedError(
            f"The process could not be forked: {error.strerror}.",
            hint="Free some memory and descriptors, or use another stability than fork.",
            reason="failed",
        ) from error
    if pid == 0:
        _live(freezes, [sink for _, sink in pipes])
    child = Child(pid, len(pipes))
    for _, sink in pipes:
        os.close(sink)
    return [Offspring(child, source) for source, _ in pipes]


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns of what the head of this module is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        with hasty():  # the system is held
            return os.fork()


def _live(freezes: Sequence[Callable[[], Frozen]], sinks: Sequence[int]) -> NoReturn:
    """Be the child: write, and leave without a trace."""
    status = 1
    try:
        # Among the others are the pipes of other children, whose ends must be seen, and locks.
        first = 3
        for sink in sorted(sinks):
            os.closerange(first, sink)
            first = sink + 1
        os.closerange(first, _DESCRIPTORS_MAX)
        for freeze, sink in zip(freezes, sinks, strict=True):
            # Whoever reads it may have given up.
            with contextlib.suppress(BrokenPipeError):
                _tell(freeze, sink)
            os.close(sink)
        status = 0
    finally:
        os._exit(status)


def _tell(freeze: Callable[[], Frozen], sink: int) -> None:
    try:
        for piece in _stream(freeze()):
            _write(sink, piece)
    except UnstorableError as error:
        text = msgspec.json.encode([error.message, error.hint])
        _write(sink, b"E" + _length(len(text)) + text)


def _write(sink: int, piece: bytes | memoryview) -> None:
    view = memoryview(piece).cast("B")
    while view:
        view = view[os.write(sink, view) :]


def _length(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _stream(frozen: Frozen) -> Iterator[bytes | memoryview]:
    if isinstance(frozen, Text):
        yield b"T" + _length(len(frozen.wire))
        yield frozen.wire
    elif isinstance(frozen, Raw):
        head, tail = frozen.head.encode(), frozen.tail.encode()
        yield b"R" + _length(len(head)) + head + _length(len(tail)) + tail + _length(frozen.size)
        yield from frozen.data
    elif isinstance(frozen, Mapping):
        yield b"M"
        for key, part in frozen.items:
            name = key.encode()
            yield b"1" + _length(len(name)) + name
            yield from _stream(part)
        yield b"0"
    else:
        yield b"L"
        for part in frozen.items:
            yield b"1"
            yield from _stream(part)
        yield b"0"


class _Reading:
    """Reads parts from a pipe; each must be used up before the next one is asked for."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def part(self) -> Frozen:
        letter = self._letter()
        if letter == b"T":
            return Text(self._text())
        if letter == b"R":
            head, tail, size = self._text().decode(), self._text().decode(), self._number()
            return Raw(head, size, self._pieces(size), tail)
        if letter == b"M":
            return Mapping(self._pairs())
        if letter == b"L":
            return Listing(self._parts())
        raise _died()

    def _pieces(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._exactly(min(left, _PIECE))
            left -= len(piece)
            yield piece

    def _pairs(self) -> Iterator[tuple[str, Frozen]]:
        while self._letter() == b"1":
            key = self._text().decode()
            yield key, self.part()

    def _parts(self) -> Iterator[Frozen]:
        while self._letter() == b"1":
            yield self.part()

    def _letter(self) -> bytes:
        letter = self._exactly(1)
        if letter == b"E":
            message, hint = msgspec.json.decode(self._text(), type=tuple[str, str])
            raise UnstorableError(message, hint=hint)
        return letter

    def _number(self) -> int:
        return int.from_bytes(self._exactly(8), "little")

    def _text(self) -> bytes:
        return self._exactly(self._number())

    def _exactly(self, size: int) -> bytes:
        found = self._pipe.read(size)
        if len(found) != size:
            raise _died()
        return found


def _died() -> CheckpointError:
    return CaptureFailedError(
        "The forked child died before it had written the value.",
        hint="Look for a lack of memory (dmesg); use another stability than fork.",
        reason="failed",
    )
