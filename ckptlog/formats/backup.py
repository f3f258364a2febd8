"""backup.json: which store a directory is a backup of, at which end, in which files.

JSON, one object, replaced as a whole by each run; its own BLAKE3 stands in it, so that a bit that
flips is noticed wherever it is. Names come from disk: only such as this program writes are let
through, for they become paths. Page: specs/backup.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from blake3 import blake3

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import end as end_format
from ckptlog.formats import pack, segment, settled
from ckptlog.formats.end import End

FORMAT: Final = 1
KIND: Final = "ckptlog-backup"
NAME: Final = "backup.json"
BYTES_MAX: Final = 64 * 1024 * 1024
# Folders whose files are small, and copied as a whole; one that lies in another comes after it.
SMALL_FOLDERS: Final = ("consumers", "heads", "heads/kept", "keys")
_SMALL = re.compile(r"(?!\.)[^/\x00-\x1f\x7f]{1,255}")
_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")
_encoder = msgspec.json.Encoder(order="deterministic")


class BackedFile(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One file of a backup.

    name: Path below the directory, with forward slashes.
    bytes: Its valid length; what lies behind does not count.
    blake3: Of those bytes, hexadecimal.
    """

    name: str
    bytes: int
    blake3: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds.

    created: UTC, ISO 8601. end: The 128 bytes of log/end, hexadecimal; empty while no state is
    whole. files: By name. serial: One more with each state. store: The store's id.
    """

    checksum: str = ""
    created: str
    end: str
    files: tuple[BackedFile, ...]
    format: int = FORMAT
    kind: str = KIND
    serial: int
    store: str

    @property
    def is_whole(self) -> bool:
        """Whether there is a state to restore."""
        return bool(self.end)

    @property
    def end_record(self) -> End:
        """The published end of the state; only where it is whole."""
        return end_format.decode(bytes.fromhex(self.end), bytes.fromhex(self.store))

    @property
    def by_name(self) -> dict[str, BackedFile]:
        """The files by name."""
        return {file.name: file for file in self.files}


class _Mark(msgspec.Struct):
    kind: str
    format: int


def encode(manifest: Manifest) -> bytes:
    """Return the file's bytes, checksum and all."""
    bare = msgspec.structs.replace(manifest, checksum="")
    sum_ = blake3(_encoder.encode(bare)).hexdigest()
    return _encoder.encode(msgspec.structs.replace(bare, checksum=sum_)) + b"\n"


def decode(data: bytes) -> Manifest:
    """Return what the bytes say.

    Raises:
        UnsupportedError: A newer version wrote it.
        FormatError: It is no manifest, or not as written.
    """
    try:
        mark = msgspec.json.decode(data, type=_Mark)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{NAME} is no manifest of a backup: {error}") from error
    if mark.kind != KIND:
        raise FormatError(f"{NAME} is of the kind {mark.kind!r}, not {KIND!r}.")
    if mark.format > FORMAT:
        raise UnsupportedError(
            f"The backup has format {mark.format}; this version of ckptlog knows {FORMAT}.",
            hint="Install a newer ckptlog.",
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{NAME} is no manifest of a backup: {error}") from error
    _check(manifest, data)
    return manifest


def _check(manifest: Manifest, data: bytes) -> None:
    if encode(manifest) != data:
        raise FormatError(f"{NAME} is not as it was written: its checksum is wrong.")
    if manifest.format != FORMAT or not _ID.fullmatch(manifest.store) or manifest.serial < 0:
        raise FormatError(f"{NAME} has a format, store or serial that no backup has.")
    names = [file.name for file in manifest.files]
    if names != sorted(set(names)):
        raise FormatError(f"{NAME} names a file twice, or not in order.")
    for file in manifest.files:
        if not is_name(file.name) or file.bytes < 0 or not _HASH.fullmatch(file.blake3):
            raise FormatError(f"{NAME} names {file.name!r}, which no backup holds.")
    if manifest.is_whole:
        try:
            bytes.fromhex(manifest.end)
        except ValueError as error:
            raise FormatError(f"{NAME} has an end that is not hexadecimal.") from error
        _ = manifest.end_record


def is_name(name: str) -> bool:
    """Say whether a backup may hold a file of this name."""
    folder, _, rest = name.rpartition("/")
    if folder == "":
        return rest == "store.json"
    if folder == "log":
        return (segment.parse_name(rest) or settled.parse_name(rest)) is not None
    if folder == "packs":
        return pack.parse_name(rest) is not None
    return folder in SMALL_FOLDERS and _SMALL.fullmatch(rest) is not None


def in_order(files: Iterable[BackedFile]) -> tuple[BackedFile, ...]:
    """Return files as a manifest lists them."""
    return tuple(sorted(files, key=lambda file: file.name))
