"""Values of the standard library that JSON lacks, each as the content of one tag (specs/values.md).

Invariants:
- A tag's content has one spelling. Lifting refuses every other, so that two wires never mean the
  same value and a value that was read can be written again byte for byte.
- Exact types only: a subclass may carry more than its base shows, so the walk refuses it.
- What cannot come back exactly (a foreign tzinfo, a zone without a key) is refused on the way in.

`LOWERED` and `LIFTED` are the tables; `model/value.py` owns the walk, the paths and the errors.
A fault is a `Refusal` on the way in and a ValueError (or OverflowError) on the way out.
"""

from __future__ import annotations

import binascii
import datetime
import decimal
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

from ckptlog.errors import UnsupportedError
from ckptlog.model.tag import Refusal

Moment = datetime.datetime | datetime.time

_TEXT_OF_DECIMAL: Final = decimal.Context(capitals=1).to_sci_string
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,3}")
_INFINITIES: Final = {"inf": float("inf"), "-inf": float("-inf")}


def encode_base64(raw: bytes | bytearray | memoryview) -> str:
    """Return raw as base64: RFC 4648 section 4, padded, without line breaks."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def decode_base64(content: Any) -> bytes:
    """Return the bytes that canonical base64 text stands for."""
    text = exactly(str, content).encode("ascii")
    raw = binascii.a2b_base64(text)
    # The decoder skips strange characters and stray bits; only one spelling is ours.
    if binascii.b2a_base64(raw, newline=False) != text:
        raise ValueError("the base64 text is not canonical")
    return raw


def exactly(kind: type, content: Any) -> Any:
    """Return content when it is of exactly this type."""
    if type(content) is not kind:
        raise ValueError(f"{kind.__name__} is needed, not {type(content).__name__}")
    return content


def lower_number(value: float) -> Any:
    """Return a float as JSON can hold it: itself, or a `$float`."""
    if value - value == 0.0:
        return value
    if value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return {"$float": "nan"}
    return {"$float": "inf" if value > 0 else "-inf"}


def _lift_float(content: Any) -> float:
    # Every NaN is a new object: a set may hold several, told apart by identity.
    return float("nan") if content == "nan" else _INFINITIES[exactly(str, content)]


def _lift_number(content: Any) -> float:
    if type(content) is dict and list(content) == ["$float"]:
        return _lift_float(content["$float"])
    number: float = exactly(float, content)
    return number


def _lower_complex(value: complex) -> list[Any]:
    return [lower_number(value.real), lower_number(value.imag)]


def _lift_complex(content: Any) -> complex:
    real, imaginary = exactly(list, content)
    return complex(_lift_number(real), _lift_number(imaginary))


def _lower_moment(value: Moment) -> Any:
    """Return ISO 8601 text, or {iso, fold, name | zone} where the text alone is not exact.

    A wall time in a zone is stored as wall time and key, never as an offset: the offset of a time
    may change with the time zone database, the value does not.
    """
    extra: dict[str, Any] = {"fold": 1} if value.fold else {}
    zone = value.tzinfo
    if type(zone) is datetime.timezone:
        extra |= _timezone_name(zone)
    elif zone is not None:
        extra["zone"] = _zone_key(zone)
        value = value.replace(tzinfo=None)
    return {"iso": value.isoformat(), **extra} if extra else value.isoformat()


def _timezone_name(zone: datetime.timezone) -> dict[str, str]:
    # What a timezone was made from, as its copies and its pickles know it: (offset[, name]).
    arguments: tuple[Any, ...] = zone.__getinitargs__()  # type: ignore[attr-defined]
    if len(arguments) == 1:
        return {}
    if type(arguments[1]) is not str:
        raise Refusal("has a time zone whose name is not of type str")
    return {"name": arguments[1]}


def _zone_key(zone: datetime.tzinfo) -> str:
    from zoneinfo import ZoneInfo

    kind = type(zone)
    if not isinstance(zone, ZoneInfo) or kind is not ZoneInfo:
        raise Refusal(
            f"has a time zone of type {kind.__module__}.{kind.__qualname__}",
            "Use zoneinfo.ZoneInfo or datetime.timezone.",
        )
    if type(zone.key) is not str or not _ZONE_KEY.fullmatch(zone.key):
        raise Refusal("has a ZoneInfo without a plain key", "Make it by ZoneInfo(key).")
    return zone.key


def _lift_datetime(content: Any) -> datetime.datetime:
    moment: datetime.datetime = _lift_moment(datetime.datetime.fromisoformat, content)
    return moment


def _lift_time(content: Any) -> datetime.time:
    moment: datetime.time = _lift_moment(datetime.time.fromisoformat, content)
    return moment


def _lift_moment(parse: Callable[[str], Any], content: Any) -> Any:
    if type(content) is str:
        return _spelled(parse, content)
    facts = exactly(dict, content)
    if list(facts) not in _MOMENT_FIELDS:
        raise ValueError("it has other fields than iso, fold and name or zone")
    value = _spelled(parse, facts["iso"])
    if "fold" in facts:
        if type(facts["fold"]) is not int or facts["fold"] != 1:
            raise ValueError("fold is not 1")
        value = value.replace(fold=1)
    if "name" in facts:
        if value.tzinfo is None:
            raise ValueError("a time zone's name stands without an offset")
        name = exactly(str, facts["name"])
        value = value.replace(tzinfo=datetime.timezone(value.tzinfo.utcoffset(None), name))
    if "zone" in facts:
        if value.tzinfo is not None:
            raise ValueError("a zone stands beside an offset")
        value = value.replace(tzinfo=_zone(exactly(str, facts["zone"])))
    return value


_MOMENT_FIELDS: Final = (
    ["iso", "fold"],
    ["iso", "name"],
    ["iso", "zone"],
    ["iso", "fold", "name"],
    ["iso", "fold", "zone"],
)


def _zone(key: str) -> datetime.tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    # A key names a file: nothing but the characters of real ones may reach the file system.
    if not _ZONE_KEY.fullmatch(key):
        raise ValueError("the time zone has no legal key")
    try:
        return ZoneInfo(key)
    except ZoneInfoNotFoundError as error:
        # The value may be whole: it is this machine that does not know the zone.
        raise UnsupportedError(
            f"This machine knows no time zone {ascii(key)[:80]}.",
            hint="Install the system's time zone data, or the package tzdata.",
            zone=key[:80],
        ) from error
    except OSError as error:
        raise ValueError("the time zone's key names a folder") from error


def _spelled(parse: Callable[[str], Any], content: Any) -> Any:
    """Return what parse makes of ISO text that the value itself would write the same way."""
    value = parse(exactly(str, content))
    if value.isoformat() != content:
        raise ValueError("it is not spelled as ISO 8601 is written here")
    return value


def _lift_date(content: Any) -> datetime.date:
    date: datetime.date = _spelled(datetime.date.fromisoformat, content)
    return date


def _lower_timedelta(value: datetime.timedelta) -> int:
    return value // _MICROSECOND


def _lift_timedelta(content: Any) -> datetime.timedelta:
    return datetime.timedelta(microseconds=exactly(int, content))


def _lift_decimal(content: Any) -> decimal.Decimal:
    try:
        value = decimal.Decimal(exactly(str, content))
    except decimal.DecimalException as error:
        raise ValueError("it is no decimal number") from error
    if _TEXT_OF_DECIMAL(value) != content:
        raise ValueError("it is not spelled as decimal numbers are written here")
    return value


def _lift_uuid(content: Any) -> uuid.UUID:
    value = uuid.UUID(exactly(str, content))
    if str(value) != content:
        raise ValueError("it is not spelled as UUIDs are written here")
    return value


def _lift_bytearray(content: Any) -> bytearray:
    return bytearray(decode_base64(content))


# Exact type -> (tag, how to make its content).
LOWERED: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    bytes: ("$bytes", encode_base64),
    bytearray: ("$bytearray", encode_base64),
    complex: ("$complex", _lower_complex),
    datetime.date: ("$date", datetime.date.isoformat),
    datetime.datetime: ("$datetime", _lower_moment),
    datetime.time: ("$time", _lower_moment),
    datetime.timedelta: ("$timedelta", _lower_timedelta),
    decimal.Decimal: ("$decimal", _TEXT_OF_DECIMAL),
    uuid.UUID: ("$uuid", str),
}

# Tag -> how to make the value of its content.
LIFTED: Final[dict[str, Callable[[Any], Any]]] = {
    "$bytearray": _lift_bytearray,
    "$bytes": decode_base64,
    "$complex": _lift_complex,
    "$date": _lift_date,
    "$datetime": _lift_datetime,
    "$decimal": _lift_decimal,
    "$float": _lift_float,
    "$time": _lift_time,
    "$timedelta": _lift_timedelta,
    "$uuid": _lift_uuid,
}
