"""Small spans, so that a few hundred events have files of every size."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from ckptlog.views.history import span
from tests.views.history.scribe import Scribe


@pytest.fixture(autouse=True)
def small_spans(monkeypatch):
    monkeypatch.setattr(span, "SIZES", (64, 16, 4))


@pytest.fixture
def scribe(tmp_path):
    scribe = Scribe(tmp_path / "store")
    yield scribe
    scribe.close()


@pytest.fixture
def make_scribe():
    """Make scribes for the examples of one test, each with a folder of its own."""
    made = []

    def make() -> Scribe:
        folder = tempfile.mkdtemp(prefix="ckptlog-test-")
        made.append((Scribe(Path(folder) / "store"), folder))
        return made[-1][0]

    yield make
    for one, folder in made:
        one.close()
        shutil.rmtree(folder)


@pytest.fixture
def small_packs(monkeypatch):
    """Let every commit with more than a few chunks write a pack."""
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 3000)
