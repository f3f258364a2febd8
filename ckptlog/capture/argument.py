"""What ready components are given, checked when they are made: a fault names the component.

What is wrong here would otherwise be told by the first capture, by Python, and without a name; or
not at all: a text where a list of texts belongs is taken apart into letters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from ckptlog.errors import ComponentError
from ckptlog.model.quotation import quoted

Number = TypeVar("Number", bound=float)


def path_of(component: str, path: object) -> Path:
    """Return the absolute path of what a component captures.

    Raises:
        ComponentError: It is no path, or none that a file can have.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ComponentError(
            f"path of the component {quoted(component)} is {quoted(path)}.",
            hint="Give a path: a text that is not empty, or a pathlib.Path.",
            component=component,
        )
    return Path(text).absolute()


def number_of(component: str, name: str, value: Number, *, least: float = 0) -> Number:
    """Return a finite number of at least `least`.

    Raises:
        ComponentError: It is none.
    """
    given: object = value
    is_number = type(given) is int or type(given) is float
    if not is_number or not math.isfinite(value) or value < least:
        raise ComponentError(
            f"{name} of the component {quoted(component)} is {quoted(value)}.",
            hint=f"A number from {least:g} on is needed.",
            component=component,
        )
    return value


def texts_of(component: str, name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return a list of texts.

    Raises:
        ComponentError: It is none; a single text is none either.
    """
    given: object = values
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ComponentError(
            f"{name} of the component {quoted(component)} is {quoted(given)}.",
            hint=f"A list of texts is needed: {name}=[...].",
            component=component,
        )
    found = tuple(values)
    for one in found:
        if type(one) is not str:
            raise ComponentError(
                f"{name} of the component {quoted(component)} holds {quoted(one)}.",
                hint="A list of texts is needed.",
                component=component,
            )
    return found
