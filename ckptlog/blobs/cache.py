"""A bounded memory of values by key, in which the longest unused ones make room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """Least recently used values go when their costs pass a limit.

    Attributes:
        cost_max: The limit.

    Threads: safe; a value that was dropped lives on as long as somebody holds it.
    """

    def __init__(self, cost_max: int) -> None:
        self.cost_max = cost_max
        self._cost = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    @property
    def cost(self) -> int:
        """Sum of the costs of what is held."""
        return self._cost

    def get(self, key: Key) -> Value | None:
        """Return the value of key, None where it is not held."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, cost: int) -> None:
        """Hold a value; one that alone costs more than the limit is not held."""
        dropped = []  # let go after the lock: a value's end may take time
        with self._lock:
            held = self._held
            old = held.pop(key, None)
            total = self._cost if old is None else self._cost - old[1]
            if cost <= self.cost_max:
                held[key] = (value, cost)
                total += cost
            while total > self.cost_max:
                oldest = held.popitem(last=False)[1]
                dropped.append(oldest)
                total -= oldest[1]
            self._cost = total
        del old
        dropped.clear()

    def remove(self, key: Key) -> None:
        """Let go of one value, if it is held."""
        with self._lock:
            dropped = self._pop(key)
        del dropped

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            held, self._held, self._cost = self._held, OrderedDict(), 0
        held.clear()

    def _pop(self, key: Key) -> Value | None:
        found = self._held.pop(key, None)
        if found is None:
            return None
        self._cost -= found[1]
        return found[0]
