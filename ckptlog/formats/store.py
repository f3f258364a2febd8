"""store.json: what a store is, and what a program must know to touch it (specs/store.md)."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from ckptlog.errors import FormatError, NotAStoreError, UnsupportedError

FORMAT: Final = 1
FORMAT_NAME: Final = "ckptlog"
TREES: Final = "payload-trees"
# Payloads of more than 1 GiB, which are read by parts (specs/capture-tree.md).
LARGE: Final = "payload-trees-large"
SETTLED: Final = "segments-settled"
DICTIONARY: Final = "chunks-dictionary-1"
LEASES: Final = "leases-1"
EVENTS_LONG: Final = "events-1"
EVENTS_SHORT: Final = "events-2"
FEATURES: Final = (
    "chunks-blake3",
    "chunks-delta",
    DICTIONARY,
    "chunks-fastcdc2020",
    EVENTS_SHORT,
    LEASES,
    "log-1",
    TREES,
    LARGE,
    SETTLED,
    "values-json1",
)
FEATURES_READ: Final = frozenset({*FEATURES, EVENTS_LONG})
JSON_BYTES_MAX: Final = 65_536
_ID = re.compile("[0-9a-f]{32}")


class Chunker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of FastCDC for values, in bytes; part of the format (specs/chunking.md)."""

    algorithm: str = "fastcdc2020"
    max: int = 8192
    mean: int = 2048
    min: int = 1024
    normalization: int = 2


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The content of store.json.

    created: UTC, ISO 8601.
    features: Names that a program must know to read or write the store.
    format: Version of the whole.
    id: 32 hexadecimal digits; random.
    id_scheme: plain, or keyed where chunk ids are keyed hashes.
    """

    chunker: Chunker = Chunker()
    created: str
    features: tuple[str, ...] = FEATURES
    format: int = FORMAT
    hash: str = "blake3-256"
    id: str
    id_scheme: str = "plain"
    kind: str = FORMAT_NAME

    @property
    def event_schema(self) -> int:
        """In which schema this store's events are written."""
        return 2 if EVENTS_SHORT in self.features else 1

    @property
    def id_bytes(self) -> bytes:
        """The id as 16 bytes."""
        return bytes.fromhex(self.id)


def encode(info: StoreInfo) -> bytes:
    """Return store.json: sorted, indented, for people too."""
    fields = msgspec.to_builtins(info)
    return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()


def decode(data: bytes, where: str) -> StoreInfo:
    """Return what store.json says; `where` names it in messages.

    Raises:
        NotAStoreError: It is another program's store.json.
        UnsupportedError: A newer format, or a feature that this version does not know; by name.
        FormatError: It is damaged.
    """
    fields = _parse(data, where)
    if fields.get("kind") != FORMAT_NAME:
        raise NotAStoreError(f"{where} was not written by ckptlog.", path=where)
    _refuse_newer(fields, where)
    _refuse_missing(fields, where)
    try:
        info = msgspec.convert(fields, StoreInfo)
    except msgspec.ValidationError as error:
        raise FormatError(f"{where} is damaged: {error}", path=where) from error
    _check(info, where)
    return info


def _parse(data: bytes, where: str) -> dict[str, Any]:
    if len(data) > JSON_BYTES_MAX:
        raise FormatError(
            f"{where} is longer than {JSON_BYTES_MAX} bytes; it is damaged.", path=where
        )
    try:
        fields = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where} is not JSON: {error}",
            hint="Restore it from a backup; the log itself may be whole.",
            path=where,
        ) from error
    if not isinstance(fields, dict):
        raise FormatError(f"{where} is not a JSON object.", path=where)
    return fields


def _refuse_newer(fields: dict[str, Any], where: str) -> None:
    number, features = fields.get("format"), fields.get("features", [])
    if isinstance(number, int) and number > FORMAT:
        raise UnsupportedError(
            f"{where} has store format {number}; this version of ckptlog knows up to {FORMAT}.",
            hint="Install a newer ckptlog.",
            path=where,
        )
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise FormatError(f"{where} has no list of features.", path=where)
    if unknown := sorted(ascii(name)[1:-1] for name in features if name not in FEATURES_READ):
        raise UnsupportedError(
            f"{where} needs features that this version of ckptlog does not know: "
            f"{', '.join(unknown)}.",
            hint="Install a newer ckptlog.",
            path=where,
            features=unknown,
        )


def _refuse_missing(fields: dict[str, Any], where: str) -> None:
    # Defaults are for making a store. A name that is missing here was damaged or left out.
    chunker = fields.get("chunker")
    missing = set(StoreInfo.__struct_fields__) - set(fields)
    if isinstance(chunker, dict):
        missing |= {f"chunker.{name}" for name in set(Chunker.__struct_fields__) - set(chunker)}
    if missing:
        raise FormatError(f"{where} lacks {', '.join(sorted(missing))}.", path=where)


def _check(info: StoreInfo, where: str) -> None:
    if not _ID.fullmatch(info.id):
        raise FormatError(
            f"{where} has no store id of 32 lower-case hexadecimal digits.", path=where
        )
    if info.format != FORMAT:
        raise FormatError(f"{where} has store format {info.format}; no such thing.", path=where)
    chunker = info.chunker
    sizes_rise = 64 <= chunker.min < chunker.mean < chunker.max <= 4 * 1024 * 1024
    if not sizes_rise or not 0 <= chunker.normalization <= 3:
        raise FormatError(f"{where} has chunk sizes out of range.", path=where)
    if chunker.algorithm != "fastcdc2020" or info.hash != "blake3-256":
        raise UnsupportedError(
            f"{where} names the chunker {chunker.algorithm!r} and the hash {info.hash!r}; "
            "this version has neither other than fastcdc2020 and blake3-256.",
            path=where,
        )
    if info.id_scheme != "plain":
        raise UnsupportedError(
            f"{where} has the id scheme {info.id_scheme!r}, which this version does not have.",
            hint="Install a newer ckptlog.",
            path=where,
        )
