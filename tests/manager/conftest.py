"""A store on a settable clock, and a manager on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptlog import CheckpointManager, Store
from tests.manager.clock import SettableEnvironment, open_at


@pytest.fixture
def environment() -> SettableEnvironment:
    return SettableEnvironment()


@pytest.fixture
def store(tmp_path: Path, environment: SettableEnvironment) -> Iterator[Store]:
    with open_at(tmp_path / "store", environment) as store:
        yield store


@pytest.fixture
def manager(store: Store) -> CheckpointManager:
    return CheckpointManager(store=store, actor="tester")
