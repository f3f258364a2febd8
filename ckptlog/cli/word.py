"""Names and paths as people type them."""

from __future__ import annotations

import argparse


def filled(text: str) -> str:
    """Return a name or a path, which has at least one character.

    An unset variable in a script gives an empty one: it must not mean the working directory.

    Raises:
        argparse.ArgumentTypeError: It is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; leave it out for the default")
    return text
