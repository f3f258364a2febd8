"""A bounded sketch of a stream of numbers: count, sum, least and greatest are exact, ranks nearly.

A number goes into a bucket by its logarithm. Bucket i holds (g^(i-1), g^i] with g = (1+e)/(1-e),
and answers for all of it with 2 g^i / (g+1), which is off by a share e of the number at most. So a
quantile (nearest rank) differs by at most `ERROR` (1 %) of its absolute value from the one that
sorting all numbers would give. Numbers nearer to 0 than `TINY` count as 0; those beyond `HUGE`
are refused, so there are at most some 3,200 buckets for each sign, however many numbers come.

Sketches of parts add up to the sketch of the whole (`merge`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from threading import Lock
from typing import Any, Final, cast

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted
from ckptlog.storage.fork import free_in_child

ERROR: Final = 0.01
TINY: Final = 1e-9
HUGE: Final = 1e18
_GROWTH: Final = (1 + ERROR) / (1 - ERROR)
_LOG_GROWTH: Final = math.log(_GROWTH)
SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class Sketch:
    """The numbers of one stream.

    Threads: safe.        Cost: about a microsecond a number; 300 KB at most.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        free_in_child(self, "_lock")
        self.count = 0
        self.total = 0.0
        self._lost = 0.0  # what rounding took from the sum (Neumaier)
        self.least = math.inf
        self.greatest = -math.inf
        self.last = 0.0
        self._zeros = 0
        self._above: dict[int, int] = {}
        self._below: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Take a number in.

        Raises:
            ArgumentError: It is no number, not finite, or beyond `HUGE`.
        """
        real = checked("value", value)
        with self._lock:
            self.count += 1
            self._sum(real)
            self.least = min(self.least, real)
            self.greatest = max(self.greatest, real)
            self.last = real
            if abs(real) < TINY:
                self._zeros += 1
                return
            buckets = self._above if real > 0 else self._below
            index = math.ceil(math.log(abs(real)) / _LOG_GROWTH)
            buckets[index] = buckets.get(index, 0) + 1

    def _sum(self, real: float) -> None:
        total = self.total + real
        if abs(self.total) >= abs(real):
            self._lost += (self.total - total) + real
        else:
            self._lost += (real - total) + self.total
        self.total = total

    @property
    def sum(self) -> float:
        """The sum of all."""
        return self.total + self._lost

    @property
    def buckets(self) -> int:
        """How many buckets there are: what the memory goes by."""
        return len(self._above) + len(self._below) + 1

    def quantile(self, share: float) -> float | None:
        """Return the number at a rank, off by `ERROR` of it at most; None without numbers.

        Args:
            share: 0 to 1; the rank is the nearest one, as in `sorted(x)[ceil(share * n) - 1]`.
        """
        if not 0 <= share <= 1:
            raise ArgumentError(f"share is {quoted(share)}; 0 to 1 is needed.", argument="share")
        with self._lock:
            if not self.count:
                return None
            left = max(1, math.ceil(share * self.count))
            for middle, number in self._in_order():
                left -= number
                if left <= 0:
                    return min(max(middle, self.least), self.greatest)
            return self.greatest  # pragma: no cover - the numbers of the buckets add up

    def _in_order(self) -> Iterator[tuple[float, int]]:
        for index in sorted(self._below, reverse=True):
            yield -_middle(index), self._below[index]
        if self._zeros:
            yield 0.0, self._zeros
        for index in sorted(self._above):
            yield _middle(index), self._above[index]

    def merge(self, other: Sketch) -> None:
        """Take in all that another sketch took in."""
        with other._lock:
            count, total, lost, zeros = other.count, other.total, other._lost, other._zeros
            least, greatest, last = other.least, other.greatest, other.last
            above, below = dict(other._above), dict(other._below)
        if not count:
            return
        with self._lock:
            self.count += count
            self._sum(total)
            self._lost += lost
            self._zeros += zeros
            self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)
            self.last = last
            for mine, others in ((self._above, above), (self._below, below)):
                for index, number in others.items():
                    mine[index] = mine.get(index, 0) + number

    def summary(self, unit: str = "") -> dict[str, Any]:
        """Return count, total, mean, min, p50, p95, p99, max, last; safe for JSON.

        Without numbers there is the count alone.

        Args:
            unit: What names end in: `mean_ms`.
        """
        if not self.count:
            return {"count": 0}
        end = f"_{unit}" if unit else ""
        found: dict[str, Any] = {"count": self.count, f"total{end}": _short(self.sum)}
        found[f"mean{end}"] = _short(self.sum / self.count)
        found[f"min{end}"] = _short(self.least)
        for name, share in SHARES:
            found[f"{name}{end}"] = _short(cast("float", self.quantile(share)))
        return {**found, f"max{end}": _short(self.greatest), f"last{end}": _short(self.last)}


def checked(name: str, value: object) -> float:
    """Return a finite number as a float; bool is none.

    Raises:
        ArgumentError: By name.
    """
    if type(value) in (int, float):
        number = cast("float", value)
        if -HUGE <= number <= HUGE:
            return float(number)
    elif not isinstance(value, bool) and hasattr(value, "__float__") and hasattr(value, "dtype"):
        return checked(name, float(value))  # numpy's
    raise ArgumentError(
        f"{name} is {quoted(value)}; a finite number up to {HUGE:g} is needed.", argument=name
    )


def not_negative(name: str, value: object) -> float:
    """Return a number of 0 or more.

    Raises:
        ArgumentError: By name.
    """
    real = checked(name, value)
    if real < 0:
        raise ArgumentError(f"{name} is {quoted(value)}; it must not be below 0.", argument=name)
    return real


def _middle(index: int) -> float:
    return 2 * math.exp(index * _LOG_GROWTH) / (_GROWTH + 1)


def _short(value: float) -> float:
    return float(f"{value:.9g}")
