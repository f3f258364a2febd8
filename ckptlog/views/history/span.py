"""Which files a history of so many events has: a function of that number alone.

    position 300,000 = 2 x 131,072 + 2 x 16,384 + 2 x 2,048 + 992
    spans              2 large,      2 middle,    2 small,    the rest

A span is a run of positions that is kept together; large ones are final. So a history that grew
step by step has the same files as one that was built at once, an update touches the rest and,
now and then, eight spans that become one of the next size, and each row is written at most four
times.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SIZES: Final = (131_072, 16_384, 2_048)


class Span(NamedTuple):
    """Positions start <= position < stop."""

    start: int
    stop: int

    @property
    def is_final(self) -> bool:
        """Whether it stays as it is, however long the log becomes."""
        return self.stop - self.start == large()


def large() -> int:
    """Return the number of rows of a final span."""
    return SIZES[0]


def spans(position: int) -> list[Span]:
    """Return the spans of everything below a position, in order."""
    found: list[Span] = []
    start = 0
    for size in SIZES:
        while start + size <= position:
            found.append(Span(start, start + size))
            start += size
    if start < position:
        found.append(Span(start, position))
    return found


def common(before: int, after: int) -> int:
    """Return the position up to which histories of two lengths have the same spans."""
    position = 0
    for one, other in zip(spans(before), spans(after), strict=False):
        if one != other:
            break
        position = one.stop
    return position
