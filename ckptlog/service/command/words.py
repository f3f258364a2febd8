"""The words of a command line, fit to be stored: secrets replaced, always text."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from blake3 import blake3

from ckptlog.policy.sanitise import Sanitiser

_TITLE_CHARACTERS_MAX: Final = 200
_NAME_CHARACTERS_MAX: Final = 60
_pair = re.compile(r"(-{0,2}[A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_odd = re.compile(r"[^A-Za-z0-9_.-]+")


def shown(words: Sequence[str], sanitiser: Sanitiser) -> list[str]:
    """Return a command line as it may be stored.

    A secret is known by its own form, by the name before a `=`, and by the option before it.
    """
    return list(_shown(words, sanitiser))


def title_of(words: Sequence[str]) -> str:
    """Return one line for people, of words that are fit to be stored."""
    line = shlex.join(words)
    return line if len(line) <= _TITLE_CHARACTERS_MAX else line[: _TITLE_CHARACTERS_MAX - 1] + "…"


def name_of(words: Sequence[str], directory: str) -> str:
    """Return what a task is called that nobody named: the same for the same words and place."""
    own = _odd.sub("_", Path(words[0]).name)[:_NAME_CHARACTERS_MAX] or "command"
    whole = b"\0".join(os.fsencode(one) for one in (os.path.realpath(directory), *words))
    return f"{own}-{blake3(whole).hexdigest()[:8]}"


def _shown(words: Sequence[str], sanitiser: Sanitiser) -> Iterator[str]:
    is_secret_next = False
    for given in words:
        word = os.fsencode(given).decode("utf-8", "replace")
        is_secret, is_secret_next = is_secret_next and not word.startswith("-"), False
        pair = _pair.fullmatch(word)
        if is_secret:
            yield sanitiser.replacement
        elif pair is not None and sanitiser.key_is_secret(pair[1]):
            yield f"{pair[1]}={sanitiser.replacement}"
        else:
            is_secret_next = word.startswith("-") and sanitiser.key_is_secret(word)
            yield sanitiser.clean_text(word)[0]
