"""Secrets: which keys and texts hold one, decided before anything is hashed or written.

Theory. A false alarm destroys data that a recovery needs; a miss stores a secret. So:
- A key counts by its words (`apiKey`, `API_KEY` and `x-api-key` hold the words api, key), never by
  letters inside one: `tokenizer`, `secretary` and `max_tokens` are harmless. Under a secret key
  texts and bytes are replaced, at any depth; numbers, bools, None, dates and arrays stay.
- A text counts by shapes that issuers made to be found (`ghp_`, `AKIA`, ...) or by its place (after
  `Bearer`, in a URL's user:password@). Only the secret part of the text is replaced.
- What was replaced once is not a secret any more: sanitising twice changes and counts nothing.

Cost. The wire of every value is searched, so each rule has a `hint`: an expression over the wire that
begins with one rare letter (the search skips to it at memory speed) and that matches wherever the
pattern could. Only when a hint matches are the patterns tried, text by text.

Not searched: bytes, numpy arrays, texts inside texts (JSON in a string) by key. specs/sanitise.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ckptlog.errors import SettingsError
from ckptlog.policy.secret_key import is_secret, words_of

REPLACEMENT: Final = "[redacted]"
_KEYS_REMEMBERED: Final = 8192


class Rule(NamedTuple):
    """One shape of secret.

    name: What it is, for the specification.
    why: By what it is recognised, in one line.
    hint: Bytes expression over the wire; begins with one rare literal; matches wherever pattern
        could (JSON writes a quote, a backslash and control characters in another way).
    pattern: Over a text; the group `secret` (or the whole match) is replaced.
    """

    name: str
    why: str
    hint: str
    pattern: str
