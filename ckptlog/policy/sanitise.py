"""Secrets are replaced before anything is hashed or written: by key, and by shape in texts.

Theory. A false alarm destroys data that a recovery needs; a miss stores a secret for ever. So:
- A key counts by its words, never by letters inside one (policy/secret_key.py). Under a secret key
  texts and bytes are replaced, at any depth; numbers, bools, None, dates and arrays stay.
- A text counts by shapes that their issuers made to be found, or by its place after `Bearer` or
  in a URL (policy/secret_text.py). Only the secret part of the text is replaced.
- Sanitising twice changes nothing and counts nothing: merged data is sanitised again and again.

Not searched: bytes and arrays of texts by shape, and JSON inside a text by key. specs/sanitise.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from ckptlog.errors import SettingsError
from ckptlog.kernel import native
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.quotation import quoted
from ckptlog.policy.hint_table import ATOM, hint_table
from ckptlog.policy.secret_key import is_secret_key, words_of
from ckptlog.policy.secret_text import RULES, Hint

REPLACEMENT: Final = "[redacted]"

_SHORTEST: Final = 8  # characters: no shape of the table is shorter
_LONG: Final = 4096  # bytes of a wire from which on its parts are remembered
_SEAM: Final = b'","'  # between texts; no hint matches across it
_PARTS_REMEMBERED: Final = 32_768
_KEYS_REMEMBERED: Final = 4096
_KEY_CHARACTERS_REMEMBERED: Final = 100


def _class_of(atoms: Iterable[str]) -> str:
    return f"[{''.join(atom.strip('[]') for atom in atoms)}]"


def _expression(letter: str, hints: list[Hint]) -> re.Pattern[bytes]:
    """Return one expression for all hints around a letter; the letter leads, for speed.

    What stands two before the letter in any hint is asked first, in one look-behind: letters like
    `_` are frequent, and this spares nine in ten of them the tries of each hint.
    """
    tails = [ATOM.findall(hint.before)[-2:] for hint in hints]
    classes = [_class_of(atoms) for atoms in zip(*tails, strict=False)]
    guard = f"(?<={''.join(classes)}{letter})" if len(classes) == 2 else ""
    tries = [(f"(?<={hint.before}{letter})" if hint.before else "") + hint.after for hint in hints]
    return re.compile(f"{letter}{guard}(?:{'|'.join(dict.fromkeys(tries))})".encode())


def _expressions() -> tuple[tuple[int, str, re.Pattern[bytes]], ...]:
    """Return (byte that must be there, letter, expression), one for each letter of the hints."""
    groups: dict[tuple[str, str], list[Hint]] = {}
    for rule in RULES:
        for hint in rule.hints:
            groups.setdefault((hint.needs or hint.letter, hint.letter), []).append(hint)
    return tuple(
        (ord(needs), letter, _expression(letter, hints))
        for (needs, letter), hints in groups.items()
    )


_EXPRESSIONS: Final = _expressions()
_SEARCHES: Final = tuple((needs, expression.search) for needs, _, expression in _EXPRESSIONS)
_MATCHES: Final = {
    ord(letter): [
        (needs, expression.match) for needs, own, expression in _EXPRESSIONS if own == letter
    ]
    for _, letter, _ in _EXPRESSIONS
}
_TABLE: Final = hint_table(hint for rule in RULES for hint in rule.hints)
_PATTERNS: Final = tuple(re.compile(rule.pattern) for rule in RULES)


class _Verdicts(dict[str, bool]):
    """Whether keys are secret, remembered: a value's keys come again with every checkpoint."""

    def __init__(self, judge: Callable[[str], bool]) -> None:
        super().__init__()
        self._judge = judge

    def __missing__(self, key: str) -> bool:
        verdict = self._judge(key)
        if len(key) <= _KEY_CHARACTERS_REMEMBERED:
            if len(self) >= _KEYS_REMEMBERED:
                self.clear()
            self[key] = verdict
        return verdict


def _has_hint(wire: bytes) -> bool:
    if native is not None:
        return _has_hint_at_suspects(wire, native.suspect)
    for needs, search in _SEARCHES:  # noqa: SIM110 - any() takes half as long again
        if needs in wire and search(wire):
            return True
    return False


def _has_hint_at_suspects(wire: bytes, suspect: Callable[[bytes, bytes, int], int]) -> bool:
    """Try the expressions only where what stands next to a letter does not clear it."""
    at = suspect(wire, _TABLE, 0)
    while at >= 0:
        for needs, match in _MATCHES[wire[at]]:
            if needs in wire and match(wire, at):
                return True
        at = suspect(wire, _TABLE, at + 1)
    return False


class Sanitiser:
    """Finds secrets and says what takes their place; `model.value.prepare` asks it.

    Attributes:
        is_enabled: Whether anything is looked for.
        key_is_secret: Whether the values under a key are secrets: a call of one argument.
        replacement: Text that takes a secret's place.
        verdicts: What key_is_secret has answered lately.

    Threads: safe.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        extra_keys: Iterable[str] = (),
        extra_patterns: Iterable[str | re.Pattern[str]] = (),
        keep_keys: Iterable[str] = (),
        replacement: str = REPLACEMENT,
    ) -> None:
        """Make a sanitiser.

        Args:
            enabled: False finds nothing.
            extra_keys: More keys whose values are secrets; case and punctuation do not matter.
            extra_patterns: More regular expressions over texts; the group `secret`, or the whole
                match, is replaced. With one of them every text is read at every write.
            keep_keys: Keys that are no secrets whatever the tables say; before extra_keys.
            replacement: Text that takes a secret's place.

        Raises:
            SettingsError: A pattern is no regular expression, or the replacement is no plain text
                or would itself be found.
        """
        self.replacement = replacement
        self.is_enabled = enabled
        self._extra_keys = _keys("extra_keys", extra_keys)
        self._keep_keys = _keys("keep_keys", keep_keys)
        extra = tuple(map(_compiled, _listed("extra_patterns", extra_patterns)))
        self._has_extra = bool(extra)
        self._patterns = _PATTERNS + extra
        self.verdicts: dict[str, bool] = _Verdicts(self._judged)
        self.key_is_secret: Callable[[str], bool] = self.verdicts.__getitem__
        self._clean_parts: set[int] = set()
        _check_replacement(self)

    def _judged(self, key: str) -> bool:
        if not self.is_enabled:
            return False
        words = words_of(key)
        if words in self._keep_keys:
            return False
        return words in self._extra_keys or is_secret_key(key)

    def may_hold_secret(self, wire: bytes) -> bool:
        """Say whether a text in this wire may hold a secret.

        Cost: with the kernel 0.2 ns a byte; without 4 to 7, and 1 for what was in an earlier wire
        and had no secret.
        """
        if not self.is_enabled:
            return False
        if self._has_extra:
            return True
        if len(wire) < _LONG or native is not None:  # the kernel is faster than remembering
            return _has_hint(wire)
        clean = self._clean_parts
        parts = [part for part in wire.split(_SEAM) if hash(part) not in clean]
        if not _has_hint(_SEAM.join(parts)):
            self._remember(parts)
            return False
        self._remember([part for part in parts if not _has_hint(part)])
        return True

    def _remember(self, parts: list[bytes]) -> None:
        # Only hashes of parts without a secret are kept: 64 bits, keyed anew in each process.
        if len(self._clean_parts) + len(parts) > _PARTS_REMEMBERED:
            self._clean_parts.clear()
        self._clean_parts.update(map(hash, parts[-_PARTS_REMEMBERED:]))

    def clean_text(self, text: str) -> tuple[str, int]:
        """Return text with its secrets replaced, and how many there were."""
        if not self._is_suspect(text):
            return text, 0
        count = 0
        for pattern in self._patterns:
            text, found = self._replaced(pattern, text)
            count += found
        return text, count

    def _is_suspect(self, text: str) -> bool:
        if self._has_extra or not self.is_enabled:
            return self.is_enabled
        return len(text) >= _SHORTEST and _has_hint(text.encode("utf-8", "surrogatepass"))

    def _replaced(self, pattern: re.Pattern[str], text: str) -> tuple[str, int]:
        group = "secret" if "secret" in pattern.groupindex else 0
        parts, end = [], 0
        for match in pattern.finditer(text):
            first, last = match.span(group)
            if first < last and match[group] != self.replacement:
                parts += [text[end:first], self.replacement]
                end = last
        return ("".join([*parts, text[end:]]), len(parts) // 2) if parts else (text, 0)


def sanitiser_of(config: CheckpointConfiguration) -> Sanitiser:
    """Return the sanitiser that a configuration asks for.

    Raises:
        SettingsError: One of its patterns would find the replacement.
    """
    return Sanitiser(
        enabled=config.sanitise,
        extra_keys=config.sanitise_extra_keys,
        extra_patterns=config.sanitise_extra_patterns,
        keep_keys=config.sanitise_keep_keys,
    )


def _listed(name: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise SettingsError(
            f"{name} is of type {type(values).__name__}; a list is needed.", argument=name
        )
    return list(values)


def _keys(name: str, keys: Iterable[str]) -> frozenset[tuple[str, ...]]:
    found = set()
    for key in _listed(name, keys):
        words = words_of(key) if isinstance(key, str) else ()
        if not words:
            raise SettingsError(
                f"{name} has {quoted(key)}, which is no text with letters.", argument=name
            )
        found.add(words)
    return frozenset(found)


def _compiled(pattern: Any) -> re.Pattern[str]:
    try:
        compiled: re.Pattern[Any] = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise SettingsError(
            f"extra_patterns has {quoted(pattern)}, which is no regular expression: {error}.",
            argument="extra_patterns",
        ) from error
    if not isinstance(compiled.pattern, str):
        raise SettingsError(
            f"extra_patterns has {quoted(pattern)}, which is over bytes, not text.",
            argument="extra_patterns",
        )
    return compiled


def _check_replacement(sanitiser: Sanitiser) -> None:
    text: Any = sanitiser.replacement
    if type(text) is not str or not text.isprintable():
        raise SettingsError(
            "The replacement is no text of printable characters.", argument="replacement"
        )
    if sanitiser.is_enabled and sanitiser.clean_text(text)[1]:
        raise SettingsError(
            f"The replacement {quoted(text)} would itself be taken for a secret.",
            hint="Narrow the extra patterns, or take another replacement.",
            argument="replacement",
        )
