"""What surrounds a store: the machine, the medium, the rights, the libraries, the lock.

Each check looks at one thing and answers with findings that say what to do. Nothing here opens
the store, so a store that cannot be opened is diagnosed too. Page: specs/cli.md.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ckptlog.repository.report import Finding
from ckptlog.storage.environment import Environment
from ckptlog.storage.file_system import file_system_of
from ckptlog.storage.lock import holders

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"
PACKAGES = ("blake3", "msgspec", "pyfastcdc", "rich", "shtab", "xxhash", "zstandard")
FREE_BYTES_LOW = 1_000_000_000
FREE_BYTES_NEEDED = 16_000_000
# flock and fdatasync of these do not promise what the log needs between machines.
_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs")
_VOLATILE = ("tmpfs", "ramfs")
_LOCKS_SHOWN: Final = 10


def surroundings(path: Path, environment: Environment) -> Iterator[Finding]:
    """Yield the findings about everything around the store at path."""
    yield from versions()
    yield kernel()
    if not path.is_dir():
        return
    yield from permissions(path)
    yield free_space(path)
    yield file_system(path, environment)
    yield lock_holder(path)
    yield from other_locks(path)


def versions() -> Iterator[Finding]:
    """Yield the versions of Python, SQLite and the libraries; and whether chunking is fast."""
    import sqlite3
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [f"Python {sys.version.split()[0]}", f"SQLite {sqlite3.sqlite_version}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Finding(OK, "doctor.versions", ", ".join(found) + ".")
    if missing:
        yield Finding(
            ERROR,
            "doctor.versions",
            f"Not installed: {', '.join(missing)}.",
            "Install ckptlog again with pip; it brings them.",
        )
    if "pyfastcdc" not in missing:
        yield chunker_speed()


def chunker_speed() -> Finding:
    """Say whether the chunker runs compiled."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns on import; the finding below says more
        from pyfastcdc import FastCDC
    if FastCDC.__module__.startswith("pyfastcdc.cy"):
        return Finding(OK, "doctor.chunker", "The chunker (pyfastcdc) is compiled.")
    return Finding(
        WARNING,
        "doctor.chunker",
        "The chunker (pyfastcdc) runs in pure Python, about 200 times slower.",
        "Install a pyfastcdc wheel that fits this Python and machine.",
    )


def kernel() -> Finding:
    """Say whether the hottest functions run compiled."""
    from ckptlog.kernel import native

    if native is not None:
        return Finding(OK, "doctor.kernel", "The kernel (ckptlog.kernel) is compiled.")
    why = "CKPTLOG_PURE is set" if os.environ.get("CKPTLOG_PURE") else "it could not be compiled"
    return Finding(
        WARNING,
        "doctor.kernel",
        f"The kernel runs in pure Python, slower and with the same results: {why}.",
        "Unset CKPTLOG_PURE, or install ckptlog again where there is a C compiler.",
    )


def permissions(path: Path) -> Iterator[Finding]:
    """Yield what this user may not do in the store, and whether others may do too much.

    Of a medium that nobody can write to nothing else is said: no right would change it.
    """
    folders = [path, *(path / name for name in ("log", "packs") if (path / name).is_dir())]
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        yield Finding(
            ERROR,
            "store.read_only",
            f"{path} lies on a file system that is mounted read-only.",
            "Mount it for writing; commands that only read work as it is.",
        )
        return
    closed = [str(f) for f in folders if not os.access(f, os.R_OK | os.W_OK | os.X_OK)]
    locked = [str(f) for f in _files(folders) if not os.access(f, os.R_OK)]
    if closed or locked:
        yield Finding(
            ERROR,
            "doctor.permissions",
            f"This user ({_user()}) may not use: {', '.join((closed + locked)[:5])}"
            + (f" and {len(closed + locked) - 5} more." if len(closed + locked) > 5 else "."),
            "Give the files back to the user who runs the job (chown), or run as that user.",
        )
    else:
        yield Finding(OK, "doctor.permissions", f"This user ({_user()}) may read and write.")
    if path.stat().st_mode & 0o002:
        yield Finding(
            WARNING,
            "doctor.permissions_open",
            f"Every user of this machine may change {path}.",
            f"chmod o-w {path}",
        )


def _files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        if os.access(folder, os.R_OK | os.X_OK):
            yield from (f for f in sorted(folder.iterdir()) if f.is_file())


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"id {os.getuid()}"


def free_space(path: Path) -> Finding:
    """Say how much room is left."""
    from ckptlog.cli.text import size

    free_bytes = shutil.disk_usage(path).free
    nodes = os.statvfs(path)
    left = f"{size(free_bytes)} free"
    if free_bytes < FREE_BYTES_NEEDED or (nodes.f_files and not nodes.f_favail):
        nodes_left = "" if nodes.f_favail or not nodes.f_files else ", no inodes"
        hint = "Free some space, or move the store; reading, deleting and clean-up still work."
        return Finding(ERROR, "doctor.disk", f"The disk is full ({left}{nodes_left}).", hint)
    if free_bytes < FREE_BYTES_LOW:
        hint = "`ckptlog stats` shows what the store takes; `ckptlog cleanup` takes old ones away."
        return Finding(WARNING, "doctor.disk", f"Little room is left ({left}).", hint)
    return Finding(OK, "doctor.disk", f"The disk has room ({left}).")


def file_system(path: Path, environment: Environment) -> Finding:
    """Say whether the kind of file system can keep the log's promises."""
    kind = file_system_of(path, environment)
    if kind == "unknown":
        return Finding(WARNING, "doctor.file_system", "The kind of file system is unknown.")
    if kind.startswith(_REMOTE):
        return Finding(
            ERROR,
            "doctor.file_system",
            f"The store lies on {kind}, a network file system; writing is refused there.",
            "Move the directory to a local disk; reading it works from anywhere.",
        )
    if kind in _VOLATILE:
        return Finding(
            WARNING,
            "doctor.file_system",
            f"The store lies in memory ({kind}) and is gone after a restart of the machine.",
            "Keep what must last on a disk.",
        )
    return Finding(OK, "doctor.file_system", f"The file system is {kind}.")


def lock_holder(path: Path) -> Finding:
    """Say who holds the writer's lock at this moment."""
    found = holders(path / "lock")
    if not found:
        return Finding(OK, "doctor.lock", "No process holds the writer's lock.")
    return Finding(
        OK,
        "doctor.lock",
        f"The writer's lock is held by {', '.join(found)}.",
        "Writers hold it for the time of a commit; it dies with its process.",
    )


def other_locks(path: Path) -> Iterator[Finding]:
    """Say who holds the locks of consumers and of imports."""
    locks = [*sorted((path / "consumers").glob("*.lock")), path / "import.lock"]
    found = [(lock.relative_to(path), holders(lock)) for lock in locks]
    held = [f"{name}: {', '.join(who)}" for name, who in found if who]
    if held:
        shown = "; ".join(held[:_LOCKS_SHOWN])
        more = f" and {len(held) - _LOCKS_SHOWN} more" * (len(held) > _LOCKS_SHOWN)
        yield Finding(OK, "doctor.locks", f"Other locks that are held: {shown}{more}.")
