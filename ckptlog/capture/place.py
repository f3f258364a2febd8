"""Where a component may keep what it can do without: a disposable folder of its system's views."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from blake3 import blake3

FOLDER: Final = "capture"


def place_of(store: str | os.PathLike[str], system: str) -> Path:
    """Return the folder of a system's components in a store; it may be missing, or be removed."""
    return Path(store) / "views" / FOLDER / blake3(system.encode()).hexdigest()[:16]
