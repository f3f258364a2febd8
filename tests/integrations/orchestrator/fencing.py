"""What whoever lost a task to another meets: each write is refused, and the log stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ckptlog import CheckpointManager, LeaseLostError


def assert_refused(manager: CheckpointManager, writes: Iterable[Callable[[], object]]) -> None:
    """Try all writes, and all of them again."""
    before = manager.store.position
    for _ in range(2):
        for write in writes:
            with pytest.raises(LeaseLostError):
                write()
    assert manager.store.position == before
