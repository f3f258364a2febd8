"""Types of events as people ask for them: whole, without their `checkpoint.`, or as a pattern.

A word that asks for nothing this version knows is refused: a slip of the pen would wait for ever
for events that never come. Page: specs/consumers.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ckptlog.errors import ArgumentError
from ckptlog.model.event import CHECKPOINT_TYPES, TYPES

_SHORT = {kind.partition(".")[2]: kind for kind in CHECKPOINT_TYPES}
_ANY = "*"


class AskedTypes(msgspec.Struct, frozen=True):
    """What is asked for. whole: Types. starts: What others begin with."""

    whole: frozenset[str]
    starts: tuple[str, ...] = ()

    def has(self, kind: str) -> bool:
        """Say whether a type is asked for."""
        return kind in self.whole or kind.startswith(self.starts)


def asked_types(argument: str, words: Iterable[str]) -> AskedTypes:
    """Return what words ask for: `checkpoint.failed`, `failed`, `checkpoint.*`, `*`.

    Args:
        argument: Its name, for the error.

    Raises:
        ArgumentError: A word is no type, and no pattern of one, that this version knows.
    """
    whole, starts = set(), []
    for word in words:
        start = word.removesuffix(_ANY)
        is_known = any(kind.startswith(start) for kind in TYPES)
        if start != word and is_known:
            starts.append(start)
        elif (kind := _SHORT.get(word, word)) in TYPES:
            whole.add(kind)
        else:
            raise unknown_type(argument, word)
    return AskedTypes(frozenset(whole), tuple(starts))


def unknown_type(argument: str, word: str) -> ArgumentError:
    """Return the error for a word that names no type."""
    from difflib import get_close_matches

    names = sorted(kind.removeprefix("checkpoint.") for kind in TYPES)
    close = get_close_matches(word, sorted({*TYPES, *names}), 1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return ArgumentError(
        f"There is no event of the type {word!r}.",
        hint=f"{meant}The types are: {', '.join(names)}.",
        argument=argument,
    )
