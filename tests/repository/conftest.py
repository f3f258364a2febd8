"""Stores to damage."""

from __future__ import annotations

import pytest

import ckptlog
from tests.repository.damage import fill


@pytest.fixture
def store_path(tmp_path):
    fill(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def small_packs(monkeypatch):
    """Let every commit with chunks write a pack."""
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 300)


@pytest.fixture
def chained(tmp_path):
    """Make a store of several segments; return its path."""
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        manager.store.log._segment_bytes = 3000
        for step in range(1, 30):
            manager.create_checkpoint("t", "T", step, data={"n": step})
    assert len(list(path.glob("log/*.seg"))) > 3
    return path
