"""Names and paths as people type them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def filled(text: str) -> str:
    """Return a name or a path, which has at least one character.

    An unset variable in a script gives an empty one: it must not mean the working directory.

    Raises:
        argparse.ArgumentTypeError: It is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; leave it out for the default")
    return text


def given_again(
    arguments: argparse.Namespace, valued: Iterable[str], flags: Iterable[str] = ()
) -> list[str]:
    """Return the options of a command as words of another one, which is about the same store.

    Args:
        valued: Names of arguments with a value. flags: Of those without.
    """
    words = []
    for name in valued:
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words + [f"--{name.replace('_', '-')}" for name in flags if getattr(arguments, name)]
