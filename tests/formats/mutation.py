"""Damage, made systematically: what every decoder of the formats must survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from ckptlog.errors import FormatError, NotAStoreError, UnsupportedError

# The only errors that bytes may cause.
OURS = (FormatError, UnsupportedError, NotAStoreError)


class Refused:
    """What `outcome` returns for bytes that were refused."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def outcome(decode: Callable[[bytes], Any], data: bytes) -> Any:
    """Return what data decodes to, or Refused; any foreign exception goes through."""
    try:
        return decode(data)
    except OURS as error:
        return Refused(error)


def is_refused(decode: Callable[[bytes], Any], data: bytes) -> bool:
    return isinstance(outcome(decode, data), Refused)


def flips(data: bytes) -> Iterator[bytes]:
    """Yield data with each single bit turned over."""
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def cuts(data: bytes) -> Iterator[bytes]:
    """Yield data cut at each length below its own."""
    for length in range(len(data)):
        yield data[:length]


def grown(data: bytes) -> Iterator[bytes]:
    """Yield data with something behind it."""
    for more in (b"\x00", b"\xff", b"}", bytes(16), data):
        yield data + more


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Return data with up to a few stretches replaced, taken away, doubled or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 16)))
        middle = draw(st.binary(max_size=16) | st.just(data[start:stop] * 2))
        data = data[:start] + middle + data[stop:]
    return data
