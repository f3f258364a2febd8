"""Owns what the tests of values share: an exact comparison, values by name, random values."""

from __future__ import annotations

import datetime
import json
import math
import struct
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "values"


def fingerprint(value: Any) -> Any:  # noqa: PLR0911 - one line for each type
    """Return something hashable that is equal for two values when they are exactly the same."""
    kind = type(value).__name__
    match value:
        case dict():
            return kind, tuple((key, fingerprint(item)) for key, item in value.items())
        case list() | tuple():
            return kind, tuple(map(fingerprint, value))
        case set() | frozenset():
            return kind, frozenset(Counter(map(fingerprint, value)).items())
        case np.ndarray():
            is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
            return kind, value.dtype.str, value.shape, is_fortran, value.tobytes()
        case np.str_() | np.bytes_():
            return kind, value.tolist()
        case np.generic():
            return kind, value.dtype.str, value.tobytes()
        case float():
            return kind, "nan" if math.isnan(value) else struct.pack(">d", value)
        case complex():
            return kind, fingerprint(value.real), fingerprint(value.imag)
        case datetime.datetime() | datetime.time():
            wall = value.replace(tzinfo=None).isoformat()
            return kind, wall, value.fold, zone_fingerprint(value.tzinfo)
    return kind, repr(value)


def zone_fingerprint(zone: Any) -> Any:
    """Return what a datetime's zone is, beyond its offset."""
    match zone:
        case ZoneInfo():
            return zone.key
        case datetime.timezone():
            return zone.__getinitargs__()  # type: ignore[attr-defined]
    return None


def vectors(name: str) -> dict[str, Any]:
    """Return a file of tests/vectors/values."""
    found: dict[str, Any] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return found


BERLIN = ZoneInfo("Europe/Berlin")
HOUR = datetime.timedelta(hours=1)
AUTUMN = datetime.datetime(2024, 10, 27, 2, 30)  # noqa: DTZ001 - twice on Berlin's clocks

# The values of tests/vectors/values/good.json, by name.
GOOD: dict[str, Any] = {
    "none": None,
    "true": True,
    "one": 1,
    "one_float": 1.0,
    "zero": 0,
    "zero_float": 0.0,
    "zero_negative": -0.0,
    "int_64_bits": 2**64 - 1,
    "int_large": -(10**40),
    "float_shortest": 0.1,
    "float_least": 5e-324,
    "float_most": 1.7976931348623157e308,
    "nan": math.nan,
    "infinity": math.inf,
    "infinity_negative": -math.inf,
    "text": 'a "quoted" \\ text\n\x00\x7f\u2028 é 漢 😀',
    "text_empty": "",
    "list": [1, [2, []]],
    "dict": {"b": 1, "a": {"": None}},
    "dict_order": {"a": {"": None}, "b": 1},
    "tuple": (1, ("x",)),
    "tuple_empty": (),
    "bytes": b"\x00\xff",
    "bytes_empty": b"",
    "bytearray": bytearray(b"\x00\xff"),
    "set": {"b", "a", 10, 9, None},
    "set_nested": {frozenset({1}), (2, 3)},
    "frozenset": frozenset({b"x"}),
    "complex": complex(-0.0, math.inf),
    "date": datetime.date(1, 1, 1),
    "datetime_naive": datetime.datetime(2024, 5, 6, 7, 8, 9, 10),  # noqa: DTZ001
    "datetime_utc": datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
    "datetime_offset": AUTUMN.replace(tzinfo=datetime.timezone(-HOUR / 3600)),
    "datetime_offset_name": AUTUMN.replace(tzinfo=datetime.timezone(HOUR, "CET")),
    "datetime_zone": AUTUMN.replace(tzinfo=BERLIN),
    "datetime_zone_fold": AUTUMN.replace(tzinfo=BERLIN, fold=1),
    "datetime_fold": AUTUMN.replace(fold=1),
    "datetime_name_fold": AUTUMN.replace(fold=1, tzinfo=datetime.timezone(HOUR, "CET")),
    "time": datetime.time(23, 59, 59, 999999),
    "time_offset": datetime.time(1, tzinfo=datetime.timezone(HOUR)),
    "time_zone": datetime.time(1, fold=1, tzinfo=BERLIN),
    "timedelta": datetime.timedelta(days=-1, microseconds=1),
    "decimal": Decimal("-0E+3"),
    "decimal_nan": Decimal("-sNaN12"),
    "uuid": uuid.UUID(int=255),
    "object_escaped": {"$bytes": "not a tag"},
    "object_escaped_twice": {"$object": {"$x": 1}},
    "object_not_escaped": {"$a": 1, "b": 2},
    "object_dollar": {"$": [{"$": 1}]},
    "array": np.array([[1, 2, 3], [4, 5, 6]], "<i4"),
    "array_fortran": np.asfortranarray(np.array([[1, 2, 3], [4, 5, 6]], "|u1")),
    "array_big_endian": np.array([1.5, -0.0], ">f8"),
    "array_bool": np.array([True, False]),
    "array_empty": np.zeros((0, 3), "<c16"),
    "array_scalar": np.array(7, "<i8"),
    "array_text": np.array(["é", "漢字"], "<U2"),
    "array_bytes": np.array([b"a", b"bc"], "|S2"),
    "array_time": np.array(["2024-05-06", "NaT"], "<M8[D]"),
    "scalar_float": np.float64(1.5),
    "scalar_half": np.float16(-0.0),
    "scalar_bool": np.True_,
    "scalar_text": np.str_("a\x00"),
    "scalar_bytes": np.bytes_(b"a\x00"),
    "scalar_duration": np.timedelta64(25, "h"),
}

texts = st.text(max_size=12)
numbers = st.integers() | st.floats() | st.complex_numbers() | st.decimals() | st.booleans()
offsets = st.timedeltas(
    min_value=datetime.timedelta(hours=-23), max_value=datetime.timedelta(hours=23)
)
zones = (
    st.none()
    | st.builds(datetime.timezone, offsets)
    | st.builds(datetime.timezone, offsets, texts)
    | st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")])
)
folds = st.sampled_from([0, 1])
moments = st.builds(
    lambda time, zone, fold: time.replace(tzinfo=zone, fold=fold),
    st.datetimes() | st.times(),
    zones,
    folds,
)
hashable = st.recursive(
    st.none()
    | numbers.filter(lambda number: not (isinstance(number, Decimal) and number.is_snan()))
    | texts
    | st.binary(max_size=12)
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | moments,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
keys = texts | st.sampled_from(["$bytes", "$object", "$", "$x"])
values = st.recursive(
    hashable | st.decimals(allow_nan=True) | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(hashable, max_size=4)
    ),
    max_leaves=12,
)
