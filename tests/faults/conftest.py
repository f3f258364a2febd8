"""Where the tests of faults lay out their stores."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptlog.log import log as log_module
from ckptlog.manager import joint, preparation


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory where there is one: thousands of small images are made in it."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="ckptlog-test-", dir=memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# As they are before any test, or fixture of a whole module, has run.
_DEFAULTS = dict(log_module.Log.__init__.__kwdefaults__ or {})
_PREALLOCATION_BYTES = log_module.PREALLOCATION_BYTES
_LIMITS = [(module, module.CHUNK_BYTES_IN_LOG_MAX) for module in (preparation, joint)]


@pytest.fixture(autouse=True)
def own_sizes():
    """Tools make segments and packs small for their whole process; here others run after them."""
    yield
    log_module.Log.__init__.__kwdefaults__.update(_DEFAULTS)
    log_module.PREALLOCATION_BYTES = _PREALLOCATION_BYTES
    for module, limit in _LIMITS:
        module.CHUNK_BYTES_IN_LOG_MAX = limit
