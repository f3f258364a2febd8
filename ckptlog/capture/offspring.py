"""The offspring: a forked child that writes down a value as it was when it was forked.

A fork copies a process's memory in the time that its page tables take (some milliseconds for each
hundred megabytes), and nobody changes the child's. The child serialises and pipes; the parent
reads when it gets to it.

The child of a process with threads has one thread, and locks that others held stay held for ever
in it. So it does nothing but walk the value, encode, write to the pipe and leave: no logging, no
imports, no store, no exit handlers. Should it hang all the same, the deadline of the cut ends it.

The stream: parts, each a letter and then, in 8 bytes little-endian each, lengths.
    T length text                      R length head  length tail  length bytes
    M (1 length key part)* 0           L (1 part)* 0
    E length text                      the value cannot be stored; the text is the error's
A stream that ends before its last part does is a child that died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import msgspec

from ckptlog.capture.frozen import Frozen, Listing, Mapping, Raw, Text
from ckptlog.errors import CaptureFailedError, CheckpointError, UnstorableError

_PIECE: Final = 1024 * 1024
_DESCRIPTORS_MAX: Final = 1 << 20


class Offspring:
    """A forked child with a value's stored form.

    Args:
        freeze: Gives the parts; called in the child alone.

    Threads: one.
    """

    def __init__(self, freeze: Callable[[], Frozen]) -> None:
        source, sink = os.pipe()
        try:
            pid = _fork()
        except OSError as error:
            os.close(source)
            os.close(sink)
            raise CaptureFailedError(
                f"The process could not be forked: {error.strerror}.",
                hint="Free some memory, or use another stability than fork.",
                reason="failed",
            ) from error
        if pid == 0:
            _live(freeze, sink)
        os.close(sink)
        self._pid = pid
        self._pipe: BinaryIO | None = os.fdopen(source, "rb", buffering=_PIECE)

    def frozen(self) -> Frozen:
        """Return the parts, read from the child as they are asked for; once.

        Raises:
            UnstorableError: The value cannot be stored.
            CaptureFailedError: The child died; also while the parts are read.
        """
        assert self._pipe is not None  # not closed
        return _Reading(self._pipe).part()

    def close(self) -> None:
        """End the child. Twice is fine."""
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return
        pipe.close()
        # It has nothing to lose, and may be writing to a pipe that nobody reads.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns of what the head of this module is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _live(freeze: Callable[[], Frozen], sink: int) -> None:
    """Be the child: write, and leave without a trace."""
    status = 1
    try:
        # Among them the pipes of other children, whose ends must be seen, and locks.
        os.closerange(3, sink)
        os.closerange(sink + 1, _DESCRIPTORS_MAX)
        try:
            for piece in _stream(freeze()):
                _write(sink, piece)
        except UnstorableError as error:
            text = msgspec.json.encode([error.message, error.hint])
            _write(sink, b"E" + _length(len(text)) + text)
        status = 0
    finally:
        os._exit(status)


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
