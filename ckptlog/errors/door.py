"""Where errors of the operating system cross into the tree."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ckptlog.errors.storage import (
    CheckpointStorageError,
    DeniedError,
    FullError,
    InputOutputError,
    ReadOnlyError,
)

_BY_ERRNO: dict[int, type[CheckpointStorageError]] = {
    errno.ENOSPC: FullError,
    errno.EDQUOT: FullError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
    errno.EROFS: ReadOnlyError,
}

_OF_PATHS = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
)
_PATH_HINT = "Check the path: what it leads through is missing, or is no directory."

_HINTS: dict[type[CheckpointStorageError], str] = {
    FullError: "Free some space and call again; nothing was lost.",
    DeniedError: "Check the owner and the permissions of the directory (ckptlog doctor).",
    ReadOnlyError: "The medium is read-only; open the store with read_only=True.",
    InputOutputError: "Check the medium (ckptlog doctor, ckptlog verify).",
}


def from_os_error(error: OSError, doing: str) -> CheckpointStorageError:
    """Translate an OSError met while `doing` something into the tree."""
    kind = _BY_ERRNO.get(error.errno or 0, InputOutputError)
    where = f" ({error.filename})" if error.filename else ""
    name = errno.errorcode.get(error.errno or 0, "no errno")
    is_of_path = kind is InputOutputError and error.errno in _OF_PATHS
    return kind(
        f"{doing}{where}: {error.strerror or error} [{name}].",
        hint=_PATH_HINT if is_of_path else _HINTS[kind],
        errno=error.errno,
        path=str(error.filename) if error.filename else None,
    )


@contextmanager
def operating_system_door(doing: str) -> Iterator[None]:
    """Turn every OSError of the block into one of ours; `doing` starts the message."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing) from error
