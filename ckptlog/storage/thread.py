"""A thread that may be refused.

A process may have no more threads, and while the interpreter ends some versions of Python give no
new ones at all (RuntimeError).
"""

from __future__ import annotations

import threading


def is_begun(thread: threading.Thread) -> bool:
    """Start a thread; False where none is to be had."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
