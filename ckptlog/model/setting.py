"""A setting of a service: its name, its bounds and what it does, told once, where it is declared.

    interval_seconds: float = number(30, 0.05, 2_678_400, "seconds", "Time between ...")

From these declarations come the checks, the texts of errors, the parsing of variables and the table
of all keys in specs/service.md.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from ckptlog.errors import SettingsError
from ckptlog.model.quotation import quoted

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_KEY: Final = "setting"

Check = Callable[[Any], str]
"""Returns what a value must be; "" where it is."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of one setting.

    wanted: What it must be, in words. effect: What it does. check: Says whether a value will do.
    parse: A variable's text as a value; may raise ValueError.
    """

    wanted: str
    effect: str
    is_good: Callable[[Any], bool]
    parse: Callable[[str], Any] = str


def setting_of(one: dataclasses.Field[Any]) -> Setting | None:
    """Return what was declared of a field; None for a group of settings."""
    found = one.metadata.get(_KEY)
    return found if isinstance(found, Setting) else None


def declared(default: Any, setting: Setting) -> Any:
    """Return a dataclass field that carries its setting."""
    return dataclasses.field(default=default, metadata={_KEY: setting})


def number(
    default: float, least: float, most: float, unit: str, effect: str, *, whole: bool = False
) -> Any:
    """Declare a number from least to most."""
    wanted = f"{'a whole number' if whole else 'a number'} from {least:,} to {most:,} {unit}"

    def is_good(value: Any) -> bool:
        is_number = type(value) is int or (not whole and type(value) is float)
        return is_number and least <= value <= most  # NaN and infinity are in no range

    def parse(text: str) -> float:
        return int(text) if whole or text.strip().isdecimal() else float(text)

    return declared(default, Setting(wanted, effect, is_good, parse))


def switch(default: bool, effect: str) -> Any:  # noqa: FBT001 - a row of a table
    """Declare a switch."""

    def parse(text: str) -> bool:
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError(text)
        return word in _TRUE

    return declared(default, Setting("True or False", effect, lambda one: type(one) is bool, parse))


def word(default: str, wanted: str, effect: str, is_good: Callable[[str], bool]) -> Any:
    """Declare a text."""
    return declared(default, Setting(wanted, effect, lambda one: type(one) is str and is_good(one)))


def words(wanted: str, effect: str, is_good: Callable[[str], bool], *default: str) -> Any:
    """Declare a list of texts, parted by commas in a variable."""

    def check(value: Any) -> bool:
        if not isinstance(value, tuple):
            return False
        return all(type(one) is str and is_good(one) for one in value)

    def parse(text: str) -> tuple[str, ...]:
        return tuple(one.strip() for one in text.split(",") if one.strip())

    return declared(default, Setting(wanted, effect, check, parse))


def camel(name: str) -> str:
    """Return a name as the MAOS specification writes it: intervalSeconds."""
    first, *rest = name.split("_")
    return first + "".join(one.capitalize() for one in rest)


def snake(name: str) -> str:
    """Return a name as Python writes it: interval_seconds."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def nearest(name: str, among: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return what a misspelt name probably means."""
    import difflib  # takes a millisecond to load, and only mistakes need it

    by_snake = {snake(one): one for one in among}
    found = difflib.get_close_matches(snake(name), by_snake, 1, likeness)
    return by_snake[found[0]] if found else None


def wrong(path: str, value: object, wanted: str) -> SettingsError:
    """Return the error for a value that will not do."""
    return SettingsError(f"{path} is {quoted(value)}; it must be {wanted}.", argument=path)


def parsed(setting: Setting, text: str, variable: str) -> Any:
    """Return what a variable's text means.

    Raises:
        SettingsError: It means nothing for this setting.
    """
    try:
        return setting.parse(text)
    except (ValueError, json.JSONDecodeError):
        raise wrong(variable, text, setting.wanted) from None
