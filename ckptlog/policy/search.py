"""Finds where an answer turns from false to true in a row of questions, by halves or one by one.

Theory (specs/bisect.md): halving assumes that what is once true stays true. Without that it still
finds a turn: the answer before it was false, its own is true. `None` means that a question cannot
be answered; then its neighbours are asked, and what stays in between is doubtful.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

Judge = Callable[[int], bool | None]


class Turn(msgspec.Struct, frozen=True):
    """What a search found.

    first: Index of the first true answer; None where there is none.
    before: Index of the last false answer before it; None where none is.
    doubtful: Indices between the two that could not be answered; the turn may be at any of them.
        Where there is no true answer: those after the last false one.
    asked: Number of different questions that were asked.
    """

    first: int | None
    before: int | None
    doubtful: tuple[int, ...]
    asked: int


def find_turn(count: int, judge: Judge, *, is_linear: bool = False) -> Turn:
    """Search the questions 0 to count - 1.

    Args:
        judge: Answers a question: True, False, or None where it cannot tell.
        is_linear: Ask every question from the first on, and assume nothing.

    Cost: about log2(count) questions; all up to the answer where is_linear.
    """
    search = _Search(count, judge)
    return search.one_by_one() if is_linear else search.by_halves()


class _Search:
    def __init__(self, count: int, judge: Judge) -> None:
        self._count = count
        self._judge = judge
        self._answers: dict[int, bool | None] = {}

    def _ask(self, index: int) -> bool | None:
        if index not in self._answers:
            self._answers[index] = self._judge(index)
        return self._answers[index]

    def one_by_one(self) -> Turn:
        before = None
        for index in range(self._count):
            answer = self._ask(index)
            if answer:
                return self._turn(index, before)
            if answer is False:
                before = index
        return self._turn(None, before)

    def by_halves(self) -> Turn:
        last = self._first_answered(range(self._count - 1, -1, -1))
        if last is None or not self._ask(last):
            return self._turn(None, last)
        low = self._first_answered(range(last))
        if low is None or self._ask(low):
            return self._turn(last if low is None else low, None)
        high = last
        while (middle := self._first_answered(_outwards(low, high))) is not None:
            if self._ask(middle):
                high = middle
            else:
                low = middle
        return self._turn(high, low)

    def _first_answered(self, indices: range | Iterator[int]) -> int | None:
        return next((index for index in indices if self._ask(index) is not None), None)

    def _turn(self, first: int | None, before: int | None) -> Turn:
        start = 0 if before is None else before + 1
        stop = self._count if first is None else first
        doubtful = tuple(index for index in range(start, stop) if self._is_unanswered(index))
        return Turn(first, before, doubtful, len(self._answers))

    def _is_unanswered(self, index: int) -> bool:
        return index in self._answers and self._answers[index] is None


def _outwards(low: int, high: int) -> Iterator[int]:
    """Yield the indices between two, the middle first, then its neighbours."""
    middle = (low + high) // 2
    for distance in range(high - low):
        for index in dict.fromkeys((middle - distance, middle + distance)):
            if low < index < high:
                yield index
