"""What to do with a value of a type that cannot be stored: advice by type, for messages only."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from typing import Final

_BY_BASE: Final = (
    (enum.Enum, "Store its .value, or register TypeCodec.of(its class)."),
    (os.PathLike, "Store str(path)."),
    (dict, "Store dict(value)."),
    (list, "Store list(value)."),
    (tuple, "Store tuple(value), or value._asdict() of a named tuple."),
    (set, "Store set(value)."),
    (frozenset, "Store frozenset(value)."),
    (str, "Store str(value)."),
    (int, "Store int(value)."),
    (float, "Store float(value)."),
    (bytes, "Store bytes(value)."),
    (bytearray, "Store bytearray(value)."),
    (memoryview, "Store bytes(value)."),
    (range, "Store list(value)."),
    (Iterator, "Store list(value)."),
    (BaseException, "Store its type's name and str(error)."),
)

# Methods by which well-known libraries turn their objects into plain ones.
_BY_METHOD: Final = (
    ("model_dump", "Store value.model_dump()."),
    (
        "__dataclass_fields__",
        "Store dataclasses.asdict(value), or TypeCodec.of its class.",
    ),
    ("__attrs_attrs__", "Store attrs.asdict(value)."),
    ("to_dict", "Store value.to_dict()."),
    ("numpy", "Store value.numpy()."),
)

_GENERAL: Final = (
    "Convert it to JSON types, bytes, dates, Decimal, UUID, tuples, sets or numpy arrays first, "
    "register a TypeCodec for its class, or leave it out."
)


def type_name(kind: type) -> str:
    """Return the name by which a message calls a type: int, collections.OrderedDict."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def advice(kind: type) -> str:
    """Return what to store in place of a value of this type."""
    for base, hint in _BY_BASE:
        if issubclass(kind, base):
            return hint
    for method, hint in _BY_METHOD:
        if hasattr(kind, method):
            return hint
    return _GENERAL
