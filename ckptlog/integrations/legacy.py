"""Imports a folder of the old layout: one JSON file a checkpoint.

    DIR/active/checkpoint_<id>.json      also completed/, failed/, and files in DIR itself;
    DIR/index.json                       ignored: it holds nothing that the files do not

Files are only read, never changed or deleted. What is promised:
* ids, ids of parents and workers, data and metadata arrive as they were; the original times and
  the file's name stand in metadata["imported"], since the log's own times tell when it happened;
* the order of creation is that of the files' `created_at`, so that "latest" stays the latest;
* only legal transitions are appended, the shortest way to the file's state;
* running it again changes nothing: command ids come from the content of the file; a run that
  brought something ends with one `import.finished` event;
* a bad file is reported with its path and the reason, and the others are imported all the same.
Page: specs/cli.md.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointStorageError,
    operating_system_door,
)
from ckptlog.integrations.source import open_regular
from ckptlog.model.event import IMPORTED
from ckptlog.model.state import CheckpointState

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

FOLDERS: Final = ("active", "completed", "failed", "created", "restored")
PATTERNS: Final = ("checkpoint_*.json", "checkpoint_*.json.gz")
# A checkpoint has 10 MB at most (semantics); a packed file that claims more is not read on.
SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
_FIELDS = frozenset(
    {
        "checkpoint_id",
        "created_at",
        "data",
        "metadata",
        "parent_checkpoint_id",
        "state",
        "step_description",
        "step_number",
        "task_id",
        "task_title",
        "total_steps",
        "updated_at",
        "worker_id",
    }
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OldCheckpoint:
    """The content of one file.

    fields: Its JSON object, checked for the types of the named fields.
    digest: Of the file's content; hexadecimal.
    """

    path: Path
    fields: dict[str, Any]
    digest: str

    @property
    def identifier(self) -> str:
        """The checkpoint's id."""
        return str(self.fields["checkpoint_id"])

    @property
    def state(self) -> CheckpointState:
        """The state that the file tells."""
        return CheckpointState(self.fields["state"])

    @property
    def order(self) -> tuple[float, int, str]:
        """Sorts files as their checkpoints were created."""
        return _seconds(self.fields.get("created_at")), self.fields["step_number"], self.identifier

    @property
    def freshness(self) -> float:
        """Sorts copies of one checkpoint by their last change."""
        return _seconds(self.fields.get("updated_at"))


@dataclass(frozen=True)
class Fault:
    """A file that was not imported, and why."""

    path: Path
    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return the fields, safe for JSON."""
        return {"path": str(self.path), "code": self.code, "message": self.message}


@dataclass
class ImportReport:
    """What an import did.

    imported: Checkpoints that are new in the store, or moved on to their file's state.
    unchanged: Checkpoints that an earlier run had imported whole.
    faults: Files that were not imported.
    """

    imported: int = 0
    unchanged: int = 0
    faults: list[Fault] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, safe for JSON."""
        return {
            "imported": self.imported,
            "unchanged": self.unchanged,
            "failed": [fault.to_dict() for fault in self.faults],
        }


def import_folder(
    manager: CheckpointManager,
    folder: Path,
    *,
    namespace: str = "",
    progress: Progress | None = None,
) -> ImportReport:
    """Import every checkpoint of a folder of the old layout.

    Returns:
        What was done; look at `faults`: a bad file does not raise.

    Raises:
        ArgumentError: The folder is missing or holds no checkpoint files.
        CheckpointStorageError: The store refused; what was imported so far is there.

    Durability: as the manager's calls. Running it again goes on where it stopped.
    """
    report = ImportReport()
    plan = _plan(find_files(folder), report)
    for done, (path, digest) in enumerate(plan, 1):
        try:
            _import_file(manager, _read_again(path, digest), namespace, report)
        except CheckpointError as error:
            if isinstance(error, CheckpointStorageError):
                raise
            report.faults.append(Fault(path, error.code, error.message))
        if progress is not None:
            progress(done, len(plan))
    if report.imported:
        _record(manager, report)
    return report


def _record(manager: CheckpointManager, report: ImportReport) -> None:
    """Append the fact of the import; a run that found nothing new appends nothing."""
    facts: dict[str, int | str] = {
        "failed": len(report.faults),
        "imported": report.imported,
        "unchanged": report.unchanged,
    }
    manager.record(IMPORTED, facts)


def find_files(folder: Path) -> list[Path]:
    """Return the checkpoint files of a folder, those of the state folders included.

    Raises:
        ArgumentError: There is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise ArgumentError(
            f"There is no folder {folder}.", hint="Name the old storage folder.", path=str(folder)
        )
    with operating_system_door("Listing the folder failed"):
        found = [path for part in _parts(folder) for path in _files(part)]
    if not found:
        raise ArgumentError(
            f"{folder} holds no checkpoint_*.json, nor do {', '.join(FOLDERS[:3])} in it.",
            hint="Name the folder that holds active/ and completed/.",
            path=str(folder),
        )
    return found


def read_file(path: Path) -> OldCheckpoint:
    """Return the checkpoint in a file.

    Raises:
        ArgumentError: It is not one; the message has the reason.
        CheckpointStorageError: It cannot be read.
    """
    raw = _read(path)
    fields = _parse(raw)
    name = path.name.removesuffix(".gz").removesuffix(".json").removeprefix("checkpoint_")
    fields.setdefault("checkpoint_id", name)
    _check(fields)
    return OldCheckpoint(path, fields, sha256(raw).hexdigest())


def _parts(folder: Path) -> Iterator[Path]:
    yield folder
    for name in FOLDERS:
        if (folder / name).is_dir():
            yield folder / name


def _files(folder: Path) -> list[Path]:
    return sorted(path for pattern in PATTERNS for path in folder.glob(pattern))


def _plan(files: list[Path], report: ImportReport) -> list[tuple[Path, str]]:
    """Return the readable files in order of creation; of copies of one checkpoint, the newest.

    Contents are read twice rather than held: only order, path and digest stay in memory.
    """
    chosen: dict[str, tuple[tuple[float, int, str], float, Path, str]] = {}
    for path in files:
        try:
            old = read_file(path)
        except CheckpointError as error:
            report.faults.append(Fault(path, error.code, error.message))
            continue
        other = chosen.get(old.identifier)
        if other is not None and other[1] >= old.freshness:
            report.faults.append(_copy(path, other[2]))
            continue
        if other is not None:
            report.faults.append(_copy(other[2], path))
        chosen[old.identifier] = (old.order, old.freshness, path, old.digest)
    return [(path, digest) for _, _, path, digest in sorted(chosen.values(), key=lambda c: c[0])]


def _copy(path: Path, newer: Path) -> Fault:
    return Fault(path, "import.copy", f"It is an older copy of the checkpoint in {newer}.")


def _read_again(path: Path, digest: str) -> OldCheckpoint:
    changed = ArgumentError("It changed while it was imported.", hint="Run the import again.")
    try:
        old = read_file(path)
    except CheckpointError as error:
        raise changed from error
    if old.digest != digest:
        raise changed
    return old


def _import_file(
    manager: CheckpointManager, old: OldCheckpoint, namespace: str, report: ImportReport
) -> None:
    before = manager.store.newest(old.identifier)
    _create(manager, old, namespace)
    if manager.store.newest(old.identifier) is not None:
        _reach(manager, old)
    after = manager.store.newest(old.identifier)
    # A checkpoint that was deleted after an earlier import stays deleted: None both times.
    if (before and before.position) == (after and after.position):
        report.unchanged += 1
    else:
        report.imported += 1


def _create(manager: CheckpointManager, old: OldCheckpoint, namespace: str) -> None:
    fields = old.fields
    manager.create_checkpoint(
        fields["task_id"],
        fields.get("task_title") or "",
        fields["step_number"],
        fields.get("step_description") or "",
        fields.get("total_steps"),
        fields.get("data") or {},
        {**(fields.get("metadata") or {}), "imported": _origin(old)},
        fields.get("worker_id"),
        fields.get("parent_checkpoint_id"),
        checkpoint_id=old.identifier,
        namespace=namespace,
        command_id=f"import-{old.digest}-create",
    )


def _reach(manager: CheckpointManager, old: OldCheckpoint) -> None:
    """Append what leads from created to the file's state."""
    identifier, command = old.identifier, f"import-{old.digest}-{old.state.value}"
    if old.state is CheckpointState.ACTIVE:
        manager.update_checkpoint(identifier, state=old.state, command_id=command)
    elif old.state is CheckpointState.COMPLETED:
        manager.complete_checkpoint(identifier, command_id=command)
    elif old.state is CheckpointState.FAILED:
        manager.fail_checkpoint(identifier, command_id=command)
    elif old.state is CheckpointState.RESTORED:
        manager.restore_checkpoint(identifier, command_id=command)


def _origin(old: OldCheckpoint) -> dict[str, Any]:
    origin = {
        "created_at": old.fields.get("created_at"),
        "updated_at": old.fields.get("updated_at"),
        "file": old.path.name,
        "sha256": old.digest,
    }
    if others := {name: v for name, v in old.fields.items() if name not in _FIELDS}:
        origin["fields"] = others
    return origin


def _read(path: Path) -> bytes:
    with operating_system_door("Reading a checkpoint file failed"), open_regular(path) as file:
        if path.suffix != ".gz":
            raw = file.read(SIZE_BYTES_MAX + 1)
        else:
            try:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    raw = unpacked.read(SIZE_BYTES_MAX + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ArgumentError(f"It is not a whole gzip file: {error}") from error
    if len(raw) > SIZE_BYTES_MAX:
        raise ArgumentError(f"It has more than {SIZE_BYTES_MAX} bytes.")
    return raw


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.strip(b"\0 \r\n\t"):
        raise ArgumentError("It is empty (written by a process that died).")
    try:
        fields = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"It is not JSON in UTF-8: {error}") from error
    if not isinstance(fields, dict):
        raise ArgumentError(f"It holds a JSON {type(fields).__name__}, not an object.")
    return fields


def _check(fields: dict[str, Any]) -> None:
    for name in ("checkpoint_id", "task_id", "state"):
        if not isinstance(fields.get(name), str):
            raise ArgumentError(f"It has no {name}, or one that is not text.")
    for name in ("data", "metadata"):
        if not isinstance(fields.get(name, {}), (dict, type(None))):
            raise ArgumentError(f"Its {name} is not an object.")
    for name in ("task_title", "step_description", "worker_id", "parent_checkpoint_id"):
        if not isinstance(fields.get(name, ""), (str, type(None))):
            raise ArgumentError(f"Its {name} is not text.")
    if type(fields.get("step_number")) is not int:
        raise ArgumentError("Its step_number is not a whole number.")
    if type(fields.get("total_steps")) not in {int, type(None)}:
        raise ArgumentError("Its total_steps is not a whole number.")
    if fields["state"] not in {state.value for state in CheckpointState}:
        raise ArgumentError(f"Its state {fields['state']!r} is unknown.")


def _seconds(value: object) -> float:
    """Return a time of the old layout as Unix seconds; 0 where it cannot be read."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
