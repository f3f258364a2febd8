"""Opening a store: the one function behind `ckptlog.open` and the manager."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from ckptlog.blobs.codec import LEVELS
from ckptlog.errors import ArgumentError, operating_system_door
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.quotation import quoted
from ckptlog.repository import layout
from ckptlog.repository.store import Durability, Store
from ckptlog.storage.descriptor import occupy_standard
from ckptlog.storage.environment import Environment

# Of seconds, the system refuses to wait for more than about 9 * 10**9.
_SECONDS_MAX = 10**9


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
    codecs: Codecs | Iterable[TypeCodec] = (),
    head_interval_s: float | None = None,
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
        cache_bytes: Verified payload bytes kept in memory, memos for next versions included.
        compression_level: zstd's, 1 to 19.
        codecs: How objects of your own types are stored, each registered by its exact type.
        head_interval_s: Seconds between two signed heads (specs/transparency.md); None: on request.

    Raises:
        StoreMissingError, NotAStoreError: There is none and create is off, or something else.
        UnsupportedError: A newer version made it, or the file system is refused for writing.
        LogCorruptionError: Its log is damaged where it was durable.
        CheckpointStorageError: The operating system refused.
    """
    root = directory_of(path)
    _check_times(interval_s, timeout_s, head_interval_s)
    _check_number("queue_max", queue_max, int, above=0)
    _check_number("cache_bytes", cache_bytes, int)
    _check_choice("durability", durability, get_args(Durability))
    _check_choice("compression_level", compression_level, LEVELS)
    registry = Codecs.of(codecs)  # a SettingsError where they do not fit together
    environment = environment or Environment()
    if not read_only:
        _prepare_writing(root, environment, is_created=create)
    return Store(
        root,
        read_only=read_only,
        durability=durability,
        interval_s=interval_s,
        timeout_s=timeout_s,
        queue_max=queue_max,
        cache_bytes=cache_bytes,
        compression_level=compression_level,
        codecs=registry,
        head_interval_s=head_interval_s,
        environment=environment,
    )


def _prepare_writing(root: Path, environment: Environment, *, is_created: bool) -> None:
    with operating_system_door("Cannot open the store"):
        occupy_standard()
    if is_created and not _exists(root / layout.STORE_JSON):
        layout.refuse_unsafe_file_system(root, environment)
        layout.create(root, environment)


def directory_of(path: object) -> Path:
    """Return the directory of a path, whatever the program's working directory will be.

    Raises:
        ArgumentError: It is no path.
        CheckpointStorageError: It is relative, and the working directory is gone.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ArgumentError(
            f"{quoted(path)} is not a path.", hint="Name a directory.", argument="path"
        )
    try:
        os.fsencode(text)
        with operating_system_door("Cannot tell the working directory"):
            return Path(text).expanduser().absolute()
    except (UnicodeEncodeError, RuntimeError) as error:  # a surrogate; a home that is not known
        raise ArgumentError(
            f"{quoted(text)} is not a path: {error}", hint="Name a directory.", argument="path"
        ) from error


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if type(value) not in {str, int} or value not in choices:
        words = [str(choice) for choice in choices]
        raise ArgumentError(
            f"{name} is {quoted(value)}; {', '.join(words[:-1])} or {words[-1]} is needed.",
            argument=name,
        )


def _exists(path: Path) -> bool:
    with operating_system_door("Cannot look for a store"):
        return path.exists()


def _check_times(interval_s: object, timeout_s: object, head_interval_s: object) -> None:
    _check_number("interval_s", interval_s, float, above=0)
    _check_number("timeout_s", timeout_s, float)
    if head_interval_s is not None:
        _check_number("head_interval_s", head_interval_s, float, above=0)


def _check_number(name: str, value: object, kind: type, *, above: float | None = None) -> None:
    """Refuse what is no number from 0 on, or no number above a bound."""
    is_number = isinstance(value, int | float) and type(value) in (int, kind)
    number = value if is_number and isinstance(value, int | float) else math.nan
    is_over = kind is float and number > _SECONDS_MAX
    if not is_over and (number > above if above is not None else number >= 0):
        return
    noun = "a whole number" if kind is int else "a number"
    bound = f"above {above:g}" if above is not None else "from 0 on"
    raise ArgumentError(f"{name} is {quoted(value)}; {noun} {bound} is needed.", argument=name)
