"""How many descriptors one task of a process may hold, of those that the system lets it have."""

from __future__ import annotations

import resource


def share(most: int, part: int) -> int:
    """Return how many descriptors may be held at once: at most a part of the process's limit.

    Args:
        most: What is held where the limit is no concern.
        part: What the limit is divided by; 1024 is common, and 256 on macOS.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft < 0 else min(most, max(1, soft // part))
