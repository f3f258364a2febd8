"""A file of settings or small state as a component: JSON, YAML, TOML, or any bytes.

The bytes are captured and restored exactly: comments, order, line ends. What they say is parsed
beside them, so that a difference between two captures is told by key; it is never written back.
What cannot be parsed, or parses to something that cannot be stored, is captured as bytes alone
and says why. A file that is not there is a state as well: a restore removes it again.

What a file says is read before the barrier (`look_ahead`): it may take seconds. Of a file that did
not change it is known.

Stability: re-read. A file has no snapshot, so it is read until its stat is the same before and
after. Writers that replace the file (rename) are always seen whole; of a writer in place that stops
between two writes a capture has what it had written.

Secrets: bytes are restored exactly, so they are stored exactly.

specs/capture-components.md, section 3.
"""

from __future__ import annotations

import json
import os
import stat
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from ckptlog.capture.argument import number_of, path_of
from ckptlog.capture.draft import clear_drafts, draft_of
from ckptlog.capture.shape import Shape, refuse_faults
from ckptlog.errors import (
    CheckpointError,
    ComponentError,
    SourceBusyError,
    SourceError,
    UnstorableError,
    operating_system_door,
)
from ckptlog.model.component import COPIED, Change, Plan
from ckptlog.model.lift import said
from ckptlog.model.quotation import quoted
from ckptlog.model.value import prepare
from ckptlog.storage.files import (
    publish,
    sync_directory,
    sync_file,
    write_all,
)
from ckptlog.storage.likeness import take_likeness

SIZE_MAX: Final = 16 * 1024 * 1024
"""Bytes: a file is captured whole, as a value; larger ones belong in a directory component."""

_FORMATS: Final = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
_YAML_CHARACTERS_MAX: Final = 1024 * 1024
"""Of the largest YAML file that is parsed: it takes seconds, where JSON takes milliseconds."""
_KEPT_BYTES_MAX: Final = 1024 * 1024
"""Of the largest file of which what it says is kept from one capture to the next."""
_MODE_MAX: Final = 0o7777
_TRIES: Final = 20
_PAUSE_S: Final = 0.01
_SHAPE: Final = Shape(
    "file-1",
    {
        "format": (str,),
        "exists": (bool,),
        "mode": (int,),
        "content": (bytes,),
        "value": (),
        "unparsed": (str,),
    },
)


class FileComponent:
    """One file: its bytes and mode, and what it says.

    Attributes:
        name: Of the component.
        location: {"path": the file}.

    Durability: what `restore` returned for is on the medium, as is the name.
    Threads: safe; the last of two restores wins.
    """

    kind = "file"
    stability = COPIED

    def __init__(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 - the word of the specification
        size_max: int = SIZE_MAX,
    ) -> None:
        """Make the component; the file need not be there yet.

        Args:
            name: Of the component.
            path: Of the file; a symbolic link is followed, and stays.
            format: "json", "yaml", "toml" or "bytes"; by the name's ending if None.
            size_max: Bytes of the largest file that is captured.

        Raises:
            ComponentError: The format is unknown, or an argument is not what it must be.
        """
        place = path_of(name, path)
        chosen = _FORMATS.get(place.suffix.lower(), "bytes") if format is None else format
        if chosen not in {*_PARSERS, "bytes"}:
            raise ComponentError(
                f"format of the component {quoted(name)} is {quoted(format)}.",
                hint='One of "json", "yaml", "toml", "bytes".',
            )
        self.name = name
        self.location = {"path": str(place)}
        self._path = place
        self._format = chosen
        self._size_max = number_of(name, "size_max", size_max)
        self._restored: dict[str, Any] | None = None
        self._said: tuple[bytes, Any, str] | None = None  # by the BLAKE3 of the content

    def at(self, path: str | os.PathLike[str]) -> FileComponent:
        """Return this component for a file elsewhere: what restoring to another place needs."""
        return FileComponent(self.name, path, format=self._format, size_max=self._size_max)

    def look_ahead(self) -> None:
        """Parse the file, which may take long; capture() finds it parsed, unless it was changed.

        What cannot be read now is told by capture(): its writer may be stopped by then.
        """
        with suppress(CheckpointError):
            found = self._read()
            if found is not None:
                self._meaning(found[0])

    def capture(self) -> dict[str, Any]:
        """Return bytes, mode and meaning of the file.

        Raises:
            SourceBusyError: It was written all the time.
            SourceError: It is too large, or no file.
        """
        found = self._present()
        value, fault = self._meaning(found["content"]) if found["exists"] else (None, "")
        if len(found["content"]) > _KEPT_BYTES_MAX:
            self._said = None
        return {
            "form": _SHAPE.form,
            "format": self._format,
            **found,
            "value": value,
            "unparsed": fault,
        }

    def _present(self) -> dict[str, Any]:
        found = self._read()
        content, mode = found or (b"", 0)
        return {"exists": found is not None, "mode": mode, "content": content}

    def _meaning(self, content: bytes) -> tuple[Any, str]:
        digest, said = blake3(content).digest(), self._said
        if said is None or said[0] != digest:
            said = self._said = (digest, *parsed(content, self._format))
        return said[1:]

    def restore(self, payload: Any) -> None:
        """Make the file hold the captured bytes, by one rename; or remove it if it was not there.

        Raises:
            ForeignPayloadError: The payload is not of a file; nothing was changed.
            CheckpointStorageError: The file could not be written; the old one is still there.
        """
        refuse_faults(self.name, self.validate(payload))
        self._restored = {key: payload[key] for key in ("exists", "mode", "content")}
        target = self._target()
        if payload["exists"]:
            with operating_system_door(f"Restoring {target} failed"):
                target.parent.mkdir(parents=True, exist_ok=True)
            self._replace(target, payload["content"], payload["mode"])
            return
        clear_drafts(target)  # what a killed restore of the file has left
        with operating_system_door(f"Removing {target} failed"):
            target.unlink(missing_ok=True)
        if target.parent.is_dir():
            sync_directory(target.parent)

    def validate(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload."""
        faults = _SHAPE.faults(payload)
        if not faults and not 0 <= payload["mode"] <= _MODE_MAX:
            faults.append(f"has the mode {payload['mode']}")
        return faults

    def verify_restored(self) -> list[str]:
        """Return how the file differs from what was restored last."""
        return [f"{key} is not what was restored" for key in self._differing(self._restored)]

    def plan(self, stored: Any) -> Plan:
        """Return what a restore would change (of a Stored)."""
        payload = stored.value()
        refuse_faults(self.name, self.validate(payload))
        differing = self._differing(payload)
        size = len(payload["content"])
        if not differing:
            return Plan((), size, "nothing to change")
        kind, what = "change", " and ".join(sorted(differing))
        if "exists" in differing:
            kind, what = ("add" if payload["exists"] else "remove"), "the file"
        return Plan((Change(kind, str(self._path), size),), size, f"{what} to {kind}")

    def _differing(self, payload: dict[str, Any] | None) -> list[str]:
        if payload is None:
            return []
        return [key for key, now in self._present().items() if now != payload[key]]

    def _target(self) -> Path:
        """Return the file itself, behind symbolic links."""
        with operating_system_door(f"Looking for {self._path} failed"):
            return Path(os.path.realpath(self._path))

    def _read(self) -> tuple[bytes, int] | None:
        """Return the bytes and mode of a file that stood still while it was read; None: none."""
        for _ in range(_TRIES):
            with operating_system_door(f"Reading the component {quoted(self.name)} failed"):
                try:
                    found = self._read_once()
                except FileNotFoundError:
                    return None
            if found is not None:
                return found
            time.sleep(_PAUSE_S)
        raise SourceBusyError(
            f"{self._path} changed each time that it was read ({_TRIES} times).",
            hint="Let its writer replace it by a rename, or pause the writer in `prepare`.",
            component=self.name,
            path=str(self._path),
        )

    def _read_once(self) -> tuple[bytes, int] | None:
        # Not blocking: what is called a file may be a pipe.
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(fd)
            self._check_kind(before)
            content = _all_of(fd, before.st_size)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        still = len(content) == after.st_size and _stamp(before) == _stamp(after)
        return (content, stat.S_IMODE(after.st_mode)) if still else None

    def _check_kind(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(
                f"{self._path} is no regular file.",
                hint="Name a file; a folder belongs in a directory component.",
                component=self.name,
                path=str(self._path),
            )
        if found.st_size > self._size_max:
            raise SourceError(
                f"{self._path} has {found.st_size} bytes; at most {self._size_max} are captured.",
                hint="Raise size_max, or capture its folder with a directory component.",
                component=self.name,
                path=str(self._path),
            )

    @staticmethod
    def _replace(target: Path, content: bytes, mode: int) -> None:
        with operating_system_door(f"Restoring {target} failed"), draft_of(target) as draft:
            write_all(draft.fd, content, 0)
            take_likeness(draft.fd, target)
            os.fchmod(draft.fd, mode)
            sync_file(draft.fd)
            publish(draft.path, target)


def parsed(content: bytes, format: str) -> tuple[Any, str]:  # noqa: A002
    """Return (what a file says, ""), or (None, why it cannot be told).

    Args:
        content: Of the file.
        format: "json", "yaml", "toml" or "bytes".

    Durability: none; pure.        Threads: safe.
    """
    parse = _PARSERS.get(format)
    if parse is None:
        return None, "bytes"
    try:
        value = parse(content.decode("utf-8-sig"))
        prepare(value, path=format)
    except ModuleNotFoundError:
        return None, "pyyaml is not installed"
    except UnstorableError as error:
        return None, error.message
    except (ValueError, RecursionError) as error:
        return None, said(error)
    except Exception as error:  # noqa: BLE001 - PyYAML has a base of its own, not importable here
        return None, said(error)
    return value, ""


def _yaml(text: str) -> Any:
    import yaml

    if len(text) > _YAML_CHARACTERS_MAX:
        raise ValueError(f"YAML of more than {_YAML_CHARACTERS_MAX} characters is not parsed")
    # That of libyaml takes a fifth of the time, where it is there.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": _yaml,
}


def _all_of(fd: int, size: int) -> bytes:
    """Return what a file holds, read to its end and one byte more than its size at most."""
    parts, left = [], size + 1
    while left and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
