"""Opening a store: the one function behind `ckptlog.open` and the manager."""

from __future__ import annotations

import os
from pathlib import Path

from ckptlog.errors import ArgumentError
from ckptlog.repository import layout
from ckptlog.repository.store import Durability, Store
from ckptlog.storage.environment import Environment


def open_store(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    read_only: bool = False,
    durability: Durability = "commit",
    interval_s: float = 0.05,
    timeout_s: float = 30.0,
    queue_max: int = 100,
    cache_bytes: int = 100 * 1024 * 1024,
    compression_level: int = 1,
    environment: Environment | None = None,
) -> Store:
    """Open the store in a directory.

    Args:
        create: Make it where the directory is missing or empty, or holds only the old layout of
            one JSON file for each checkpoint (which stays as it is).
        read_only: Write nothing at all, not even views; for media that cannot be written.
        durability: "commit": durable when a call returns. "interval": within interval_s; a power
            cut may take what was acknowledged since the last sync.
        interval_s: Seconds between syncs for "interval"; above 0.
        timeout_s: Seconds to wait for another process's lock, or for a place in the queue.
        queue_max: Operations that may wait for a commit at once.
        cache_bytes: Verified payload bytes kept in memory.
        compression_level: zstd's, 1 to 19.

    Raises:
        StoreMissingError: There is none, and create is off.
        NotAStoreError: The directory holds something else.
        UnsupportedError: A newer version made it, or the file system is refused for writing.
        LogCorruptionError: Its log is damaged where it was durable.
        CheckpointStorageError: The operating system refused.
    """
    root = _path(path)
    if not interval_s > 0:
        raise ArgumentError(f"interval_s is {interval_s}; seconds above 0 are needed.")
    environment = environment or Environment()
    if create and not read_only and not (root / layout.STORE_JSON).exists():
        layout.refuse_unsafe_file_system(root, environment)
        layout.create(root, environment)
    return Store(
        root,
        read_only=read_only,
        durability=durability,
        interval_s=interval_s,
        timeout_s=timeout_s,
        queue_max=queue_max,
        cache_bytes=cache_bytes,
        compression_level=compression_level,
        environment=environment,
    )


def _path(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ArgumentError(f"{path!r} is not a path.", hint="Name a directory.", argument="path")
    return Path(text).expanduser()
