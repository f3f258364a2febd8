"""A small language of comparisons over one checkpoint: parsed, never evaluated as code.

    text -> tokens -> tree of closures -> truth, for as many checkpoints as are asked about

Theory (specs/bisect.md has grammar and meaning): there are no names but the checkpoint's fields, no
calls but `len` and `exists`, no loops; so an expression ends, and reaches nothing else. Evaluation
never raises: values of kinds that do not compare are simply not equal, less or greater.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ckptlog.errors import ArgumentError
from ckptlog.model.tag import key_step
from ckptlog.policy.comparison import (
    MISSING,
    at_step,
    contains,
    elements,
    equals,
    is_true,
    length,
    precedes,
)

CHARACTERS_MAX: Final = 4096
_DEPTH_MAX: Final = 50
FIELDS: Final = (
    "checkpoint_id",
    "task_id",
    "task_title",
    "state",
    "step_number",
    "total_steps",
    "step_description",
    "data",
    "metadata",
    "created_at",
    "updated_at",
    "worker_id",
    "parent_checkpoint_id",
    "position",
    "namespace",
)
_LITERALS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>[^\W\d]\w*)
      | (?P<sign>==|!=|<=|>=|<|>|\[\*\]|[.()\[\]])
      | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": equals,
    "!=": lambda left, right: not equals(left, right),
    "<": precedes,
    ">": lambda left, right: precedes(right, left),
    "<=": lambda left, right: precedes(left, right) or _are_level(left, right),
    ">=": lambda left, right: precedes(right, left) or _are_level(left, right),
    "in": lambda left, right: contains(right, left),
    "not in": lambda left, right: not contains(right, left),
}

Root = Mapping[str, Any]
_Read = Callable[[Root], Any]
_Step = str | int | None  # a key, an index, or each element


def _are_level(left: Any, right: Any) -> bool:
    """Say whether two values that have an order are equal; null and missing have none."""
    return left is not MISSING and left is not None and equals(left, right)


class _Token(NamedTuple):
    kind: str
    value: Any
    at: int


class Expression(msgspec.Struct, frozen=True):
    """A parsed expression.

    text: As it was given. reads: Every path in it, as text, and what reads it.
    """

    text: str
    reads: tuple[tuple[str, _Read], ...]
    truth: Callable[[Root], bool]

    def is_true(self, root: Root) -> bool:
        """Say whether it is true of a checkpoint's fields, which hold values as users have them."""
        return self.truth(root)

    def missing(self, root: Root) -> frozenset[str]:
        """Return the paths that find nothing in a checkpoint."""
        return frozenset(text for text, read in self.reads if _is_nothing(read(root)))


def _is_nothing(value: Any) -> bool:
    return value is MISSING or (type(value) is _Each and not value)


def parse(text: str) -> Expression:
    """Return an expression that is ready to be asked.

    Raises:
        ArgumentError: It does not follow the grammar; the message has the place.
    """
    if type(text) is not str or not text.strip():
        raise ArgumentError(
            f"{text!r} is no expression.",
            hint='Write a comparison: data.loss > 10, state == "failed".',
            argument="expression",
        )
    if len(text) > CHARACTERS_MAX:
        raise ArgumentError(
            f"The expression has {len(text)} characters; at most {CHARACTERS_MAX} are allowed.",
            argument="expression",
        )
    parser = _Parser(text)
    read = parser.whole()
    return Expression(text, tuple(parser.reads.items()), lambda root: is_true(read(root)))


class _Parser:
    """Reads one expression from left to right; one method for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._index = 0
        self._depth = 0
        self.reads: dict[str, _Read] = {}

    def whole(self) -> _Read:
        read = self._either()
        if self._peek().kind != "end":
            raise self._fault("an operator was expected")
        return read

    def _either(self) -> _Read:
        parts = [self._both()]
        while self._take("name", "or"):
            parts.append(self._both())
        if len(parts) == 1:
            return parts[0]
        return lambda root: any(is_true(read(root)) for read in parts)

    def _both(self) -> _Read:
        parts = [self._negation()]
        while self._take("name", "and"):
            parts.append(self._negation())
        if len(parts) == 1:
            return parts[0]
        return lambda root: all(is_true(read(root)) for read in parts)

    def _negation(self) -> _Read:
        is_negated = False
        while self._take("name", "not"):
            is_negated = not is_negated
        read = self._comparison()
        if not is_negated:
            return read
        return lambda root: not is_true(read(root))

    def _comparison(self) -> _Read:
        left = self._operand()
        name = self._operator()
        if name is None:
            return left
        right = self._operand()
        if self._operator() is not None:
            self._index -= 1
            raise self._fault("comparisons do not chain; write a < b and b < c")
        compare = _OPERATORS[name]
        return lambda root: compare(left(root), right(root))

    def _operator(self) -> str | None:
        token = self._peek()
        if token.kind == "sign" and token.value in _OPERATORS:
            self._index += 1
            return str(token.value)
        if self._take("name", "in"):
            return "in"
        if token.kind == "name" and token.value == "not":
            self._index += 1
            self._expect("name", "in")
            return "not in"
        return None

    def _operand(self) -> _Read:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise self._fault("it is nested too deep")
        read = self._value()
        self._depth -= 1
        return read

    def _value(self) -> _Read:
        token = self._next()
        if token.kind in ("number", "text"):
            return _constant(token.value)
        if token.kind == "sign" and token.value == "(":
            read = self._either()
            self._expect("sign", ")")
            return read
        if token.kind != "name":
            self._index -= 1
            raise self._fault("a value was expected")
        if token.value in _LITERALS:
            return _constant(_LITERALS[token.value])
        if token.value in ("len", "exists") and self._take("sign", "("):
            return self._call(token.value)
        return self._path(token)

    def _call(self, name: str) -> _Read:
        if name == "len":
            read = self._operand()
            self._expect("sign", ")")
            return lambda root: length(read(root))
        read = self._path(self._expect("name"))
        self._expect("sign", ")")
        return lambda root: read(root) is not MISSING

    def _path(self, first: _Token) -> _Read:
        if first.value not in FIELDS:
            raise ArgumentError(
                f"A checkpoint has no field {first.value!r} (at {first.at + 1} in the expression).",
                hint=f"Did you mean data.{first.value}? Fields are: {', '.join(FIELDS)}.",
                argument="expression",
            )
        steps: list[_Step] = [first.value]
        while True:
            if self._take("sign", "."):
                steps.append(self._expect("name").value)
            elif self._take("sign", "[*]"):
                steps.append(None)
            elif self._take("sign", "["):
                steps.append(self._subscript())
            else:
                break
        read = _reader(tuple(steps))
        self.reads[_told(steps)] = read
        return read

    def _subscript(self) -> str | int:
        token = self._next()
        if token.kind == "text" or (token.kind == "number" and type(token.value) is int):
            self._expect("sign", "]")
            step: str | int = token.value
            return step
        self._index -= 1
        raise self._fault("an integer or a text in quotes was expected")

    # --- tokens -------------------------------------------------------------------------------

    def _peek(self) -> _Token:
        return self._tokens[self._index]

    def _next(self) -> _Token:
        self._index += 1
        return self._tokens[self._index - 1]

    def _take(self, kind: str, value: str) -> bool:
        token = self._peek()
        if token.kind != kind or token.value != value:
            return False
        self._index += 1
        return True

    def _expect(self, kind: str, value: str | None = None) -> _Token:
        token = self._peek()
        if token.kind != kind or value not in (None, token.value):
            raise self._fault(f"{value or f'a {kind}'} was expected")
        self._index += 1
        return token

    def _fault(self, why: str) -> ArgumentError:
        return _fault(self._text, self._peek().at, why)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, at)
        if match is None:
            rest = len(text[at:]) - len(text[at:].lstrip())
            raise _fault(text, at + rest, "nothing in the language begins like this")
        kind = str(match.lastgroup)
        found.append(_Token(kind, _value(kind, match[kind]), match.start(kind)))
        at = match.end()
    return found


def _value(kind: str, word: str) -> Any:
    if kind == "number":
        return int(word) if word.lstrip("-").isdigit() else float(word)
    return _ESCAPED.sub(r"\1", word[1:-1]) if kind == "text" else word


def _fault(text: str, at: int, why: str) -> ArgumentError:
    found = repr(text[at : at + 20]) if text[at:].strip() else "its end"
    return ArgumentError(
        f"The expression cannot be read at {at + 1}, before {found}: {why}.",
        hint="specs/bisect.md has the language.",
        argument="expression",
        at=at,
    )


def _constant(value: Any) -> _Read:
    return lambda _: value


def _reader(steps: tuple[_Step, ...]) -> _Read:
    return lambda root: _follow(root, steps)


def _follow(value: Any, steps: tuple[_Step, ...]) -> Any:
    for index, step in enumerate(steps):
        if step is None:
            rest = steps[index + 1 :]
            found = (_follow(element, rest) for element in elements(value))
            return _Each(one for one in found if one is not MISSING)
        value = at_step(value, step)
        if value is MISSING:
            return MISSING
    return value


class _Each(list[Any]):
    """What `[*]` finds; unlike a list that is stored, an empty one means that nothing was there."""


def _told(steps: Sequence[_Step]) -> str:
    """Return a path as its user writes it."""
    text = ""
    for step in steps:
        if step is None:
            text += "[*]"
        elif isinstance(step, int):
            text += f"[{step}]"
        else:
            text += key_step(step) if text else step
    return text
