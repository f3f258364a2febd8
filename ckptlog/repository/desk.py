"""Where a question works that a store on a medium for reading cannot give a folder to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptlog.errors import operating_system_door


@contextmanager
def desk() -> Iterator[Path]:
    """Give an empty folder among the system's temporary files, for as long as a block runs.

    No lock: whoever only asks keeps nobody away, and what is removed meanwhile is noticed.
    """
    with operating_system_door("Cannot make a folder to work in"):
        folder = tempfile.TemporaryDirectory(prefix="ckptlog-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)
