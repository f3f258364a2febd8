"""An environment whose clock a test sets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ckptlog
from ckptlog import Store
from ckptlog.storage.environment import Environment


class SettableEnvironment(Environment):
    """The real world with another time of day."""

    def __init__(self) -> None:
        super().__init__()
        self._offset_us = 0

    def advance(self, *, days: float = 0, seconds: float = 0) -> None:
        """Move the clock; negative moves it back."""
        self._offset_us += int((days * 86400 + seconds) * 1_000_000)

    def now_us(self) -> int:
        """Return the set time."""
        return time.time_ns() // 1000 + self._offset_us


@contextmanager
def open_at(path: Path, environment: Environment) -> Iterator[Store]:
    """Open a store in an environment."""
    with ckptlog.open(path, create=True, environment=environment) as store:
        yield store
