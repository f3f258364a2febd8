"""Ends an act at its n-th change of the file system, as a kill would: nothing happens after it.

Half of a write that is ended has happened. Handlers and `finally` still run in this process, so every
further change is refused too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ACTS = (
    "pwrite",
    "replace",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "ftruncate",
    "fsync",
    "fdatasync",
)


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_after(count: int | None) -> Iterator[list[str]]:
    """Let so many acts happen, then none; None counts only. Yields the names of what happened."""
    done: list[str] = []
    real = {name: getattr(os, name) for name in ACTS}

    def acting(name: str) -> Callable[..., Any]:
        def act(*args: Any, **options: Any) -> Any:
            if count is not None and len(done) >= count:
                if name == "pwrite" and len(done) == count and len(args[1]) > 1:
                    real[name](args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
                done.append(f"({name})")
                raise Killed
            done.append(name)
            return real[name](*args, **options)

        return act

    for name in ACTS:
        setattr(os, name, acting(name))
    try:
        yield done
    finally:
        for name, function in real.items():
            setattr(os, name, function)
