"""What was just written, for the next change or the view, in two generations.

A write must not pay for order: `put` is one assignment to a dictionary. When the younger
generation has half of the bytes it becomes the older one, and what was older is let go whole.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Holds the newest values, by their costs at most `cost_max` in all.

    Threads: safe; the count of costs may be off by what raced, until the next generation.
    """

    def __init__(self, cost_max: int) -> None:
        self._half = cost_max // 2
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._young_cost = 0
        self._old_cost = 0

    @property
    def cost(self) -> int:
        """Sum of the costs of what is held."""
        return self._young_cost + self._old_cost

    def get(self, key: Key) -> Value | None:
        """Return the value of key, None where it is not held."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: Key, value: Value, cost: int) -> None:
        """Hold a value; one that alone costs more than half of all is not held."""
        if cost > self._half:
            return
        if self._young_cost + cost > self._half:
            self._old, self._old_cost = self._young, self._young_cost
            self._young, self._young_cost = {}, 0
        self._young[key] = value
        self._young_cost += cost

    def clear(self) -> None:
        """Let go of everything."""
        self._young, self._old = {}, {}
        self._young_cost = self._old_cost = 0
