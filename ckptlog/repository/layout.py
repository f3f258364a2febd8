"""Where a store keeps its things, and how one is recognised, made, or refused."""

from __future__ import annotations

import os
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from ckptlog.errors import (
    NotAStoreError,
    ReadOnlyError,
    StoreMissingError,
    UnsupportedError,
    operating_system_door,
)
from ckptlog.formats import segment
from ckptlog.formats import store as store_format
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.formats.store import StoreInfo
from ckptlog.log.log import Log
from ckptlog.storage import files
from ckptlog.storage.environment import Environment
from ckptlog.storage.file_system import file_system_of
from ckptlog.storage.lock import WriterLock

STORE_JSON: Final = "store.json"
VIEWS: Final = "views"
HISTORY: Final = "history"
RESERVE: Final = "reserve"
RESERVE_BYTES: Final = 256 * 1024
RESERVE_LAST_BYTES: Final = 64 * 1024
"""What of it deletions leave to the collection that gives their room back."""
FOLDERS: Final = ("log", "packs", "views", "consumers", "keys")
# Made when the first head is signed.
HEADS: Final = "heads"
_OWN_NAMES: Final = frozenset({*FOLDERS, HEADS, "lock", RESERVE, STORE_JSON})
_LEGACY_FOLDERS: Final = frozenset({"active", "completed", "failed"})
_LEGACY_FILES: Final = frozenset({"index.json"})
# flock or mmap are unreliable there, or another machine may write at once.
_REFUSED_FILE_SYSTEMS: Final = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs")


class LegacyLayoutWarning(UserWarning):
    """The directory also holds checkpoints of the old one-file-each layout."""


def read_info(root: Path) -> StoreInfo:
    """Return what store.json says.

    Raises:
        StoreMissingError, NotAStoreError, UnsupportedError, FormatError: By what is there.
    """
    path = root / STORE_JSON
    with operating_system_door("Cannot read the store"):
        try:
            fd = files.open_regular(path)
        except FileNotFoundError:
            raise _missing(root) from None
        except NotADirectoryError:
            raise NotAStoreError(
                f"{root} is not a directory.", hint="Name a store's directory.", path=str(root)
            ) from None
    try:
        data = files.read_at(fd, store_format.JSON_BYTES_MAX + 1, 0)
    finally:
        os.close(fd)
    return store_format.decode(data, str(path))


def _missing(root: Path) -> StoreMissingError | NotAStoreError:
    if root.is_dir() and any(root.iterdir()):
        hint = "Name another directory, or make a store in an empty one: ckptlog init PATH."
        if any(root.glob("log/*.se[gt]")):
            hint = (
                f"It has a log: put the {STORE_JSON} of a copy, or of a backup of it, in its place."
            )
        return NotAStoreError(
            f"{root} is not a store: it has no {STORE_JSON}.", hint=hint, path=str(root)
        )
    return StoreMissingError(
        f"There is no store at {root}.",
        hint=f"Correct the path, or make one: ckptlog init {root}",
        path=str(root),
    )


def refuse_unsafe_file_system(root: Path, environment: Environment) -> None:
    """Refuse to write where a lock or a sync cannot be relied on.

    Raises:
        UnsupportedError: The file system or the operating system is not supported for writing.
    """
    if sys.platform == "win32":  # pragma: no cover
        raise UnsupportedError("Windows is not supported for writing yet.")
    kind = file_system_of(root, environment)
    if kind in _REFUSED_FILE_SYSTEMS:
        raise UnsupportedError(
            f"{root} lies on {kind}, where locks and syncs of several machines cannot be relied "
            "on; ckptlog does not write there.",
            hint="Put the store on a local disk; reading with read_only=True works.",
            path=str(root),
            file_system=kind,
        )


def create(root: Path, environment: Environment) -> StoreInfo:
    """Make a store in a missing or empty directory, or beside the old layout.

    Two processes may call at once: one makes the store, both return it. A creation that was
    killed half-way is taken up again: store.json is written last.

    Raises:
        NotAStoreError: The directory holds something else.

    Durability: the empty store is on the medium when it returns.
    """
    _refuse_foreign(root)
    _refuse_filled(root)
    with operating_system_door("Cannot make the store"):
        root.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(root / "lock", environment)
    lock.acquire(30.0)
    try:
        if (root / STORE_JSON).exists():
            return read_info(root)
        return _fill(root, environment)
    finally:
        lock.release()
        lock.close()


def _fill(root: Path, environment: Environment) -> StoreInfo:
    store_id = environment.random_bytes(16)
    _refuse_filled(root)
    with operating_system_door("Cannot make the store"):
        for name in FOLDERS:
            (root / name).mkdir(exist_ok=True, mode=0o700 if name == "keys" else 0o777)
        _clear_unfinished(root / "log")
    log = Log(root, store_id, environment)
    log.create_first()
    log.published.sync()
    log.abandon()
    files.write_atomically(root / RESERVE, bytes(RESERVE_BYTES))
    created = _iso(environment.now_us())
    info = StoreInfo(created=created, id=store_id.hex())
    files.write_atomically(root / STORE_JSON, store_format.encode(info))
    files.sync_directory(root)
    files.sync_directory(root.parent)
    if is_legacy(root):
        warnings.warn(
            f"{root} also holds checkpoints of the old layout (checkpoint_*.json). They stay as "
            f"they are; bring them in with: ckptlog import legacy {root}",
            LegacyLayoutWarning,
            stacklevel=2,
        )
    return info


def make_folders(root: Path) -> None:
    """Make the folders that are not there: a copy may have lost those that were empty."""
    with operating_system_door("Cannot make a folder of the store"):
        for name in ("packs", "consumers"):
            if not (root / name).exists():
                (root / name).mkdir(exist_ok=True)


def upgrade(root: Path, info: StoreInfo, feature: str) -> StoreInfo:
    """Add a feature to a store: programs that do not know it refuse it from now on, by name.

    Durability: the new store.json, when it returns.
    """
    features = tuple(sorted({*info.features, feature}))
    upgraded = msgspec.structs.replace(info, features=features)
    files.write_atomically(root / STORE_JSON, store_format.encode(upgraded))
    files.sync_directory(root)
    return upgraded


def _refuse_filled(root: Path) -> None:
    """Refuse folders of our names that hold more than a killed creation leaves."""
    with operating_system_door("Cannot list"):
        fault = _filled(root)
        # Without the lock another process may have made the store while we looked.
        if fault is not None and not (root / STORE_JSON).exists():
            raise fault


def _filled(root: Path) -> NotAStoreError | None:
    log = root / "log"
    left = list(log.iterdir()) if log.is_dir() else []
    segments = [path for path in left if segment.parse_name(path.name)]
    if any(_size(path) > HEADER_FRAME_BYTES for path in segments):
        return NotAStoreError(
            f"{log} holds events, but {root / STORE_JSON} is missing.",
            hint="Restore that file from a backup; nothing was changed.",
            path=str(root),
        )
    foreign = [path for path in left if not _is_unfinished(path)]
    for name in FOLDERS[1:]:
        folder = root / name
        foreign += folder.iterdir() if folder.is_dir() else []
    foreign += [root / name for name in FOLDERS if (root / name).is_file()]
    if not foreign:
        return None
    return _foreign(root, sorted(str(path.relative_to(root)) for path in foreign))


def _is_unfinished(path: Path) -> bool:
    """Say whether a file in the log's folder can be what a killed creation left."""
    name = path.name
    is_ours = name == "end" or name.endswith(files.TEMPORARY_SUFFIX) or segment.parse_name(name)
    # Where another process makes the store just now, files come and go while we look.
    return bool(is_ours) and (path.is_file() or not path.exists())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _clear_unfinished(log: Path) -> None:
    for path in list(log.iterdir()):
        path.unlink()


def is_legacy(root: Path) -> bool:
    """Say whether the directory holds checkpoints of the one-file-each layout."""
    folders = [root, *(root / name for name in _LEGACY_FOLDERS)]
    return any(next(folder.glob("checkpoint_*.json*"), None) for folder in folders)


def _refuse_foreign(root: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise NotAStoreError(
            f"{root} is not a directory.", hint="Name a directory.", path=str(root)
        )
    with operating_system_door("Cannot list"):
        names = set(os.listdir(root)) - _OWN_NAMES
    foreign = sorted(name for name in names if not _is_known(name))
    if foreign:
        raise _foreign(root, foreign)


def _foreign(root: Path, names: list[str]) -> NotAStoreError:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return NotAStoreError(
        f"{root} is not empty and is not a store (it holds {shown}).",
        hint="Choose an empty directory, or name the store inside it.",
        path=str(root),
    )


def _is_known(name: str) -> bool:
    is_checkpoint = name.startswith("checkpoint_") and name.endswith((".json", ".json.gz"))
    is_left_over = name.endswith(files.TEMPORARY_SUFFIX)
    return is_checkpoint or is_left_over or name in _LEGACY_FOLDERS | _LEGACY_FILES


def lend_reserve(root: Path) -> bool:
    """Give back the part of the reserve that deletions may use; say if there was any."""
    path = root / RESERVE
    try:
        if path.stat().st_size <= RESERVE_LAST_BYTES:
            return False
        os.truncate(path, RESERVE_LAST_BYTES)
    except OSError:
        return False
    return True


def release_reserve(root: Path) -> bool:
    """Give back the whole reserve, for a collection on a full disk; say if it was there."""
    try:
        (root / RESERVE).unlink()
    except OSError:
        return False
    return True


def restore_reserve(root: Path) -> None:
    """Make the reserve again where there is room: when a store is opened, compacted or closed."""
    path = root / RESERVE
    if not _is_filled(path):
        try:
            files.write_atomically(path, bytes(RESERVE_BYTES))
        except Exception as error:  # noqa: BLE001 - no room yet; the next opening tries again
            del error


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size >= RESERVE_BYTES
    except OSError:
        return False


def discard_history(root: Path) -> None:
    """Throw a store's own history away; the next question makes it anew.

    What cannot be removed is not believed either: it proves itself.
    """
    files.remove(root / VIEWS / f"{HISTORY}.json")


def refuse_read_only(root: Path) -> None:
    """Raise ReadOnlyError where nobody, or not this user, may write.

    Whatever else refuses later is an error of its own; this is what can be told beforehand.
    """
    with operating_system_door("Cannot look at the medium"):
        is_mounted_so = bool(os.statvfs(root).f_flag & os.ST_RDONLY)
    if is_mounted_so:
        raise ReadOnlyError(
            f"{root} lies on a medium that is mounted read-only.",
            hint="Mount it for writing, or open the store with read_only=True.",
            path=str(root),
        )
    folders = [one for one in (root, root / "log") if one.exists()]
    closed = [one for one in folders if not os.access(one, os.W_OK | os.X_OK)]
    if closed:
        raise ReadOnlyError(
            f"The directory {closed[0]} cannot be written by this user.",
            hint="Change its permissions, or open it with read_only=True.",
            path=str(closed[0]),
        )
    for name in ("lock", "log/end"):
        path = root / name
        if path.exists() and not os.access(path, os.W_OK):
            raise ReadOnlyError(
                f"The file {path} cannot be written by this user.",
                hint="Change its permissions, or open the store with read_only=True.",
                path=str(path),
            )


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="seconds")
