"""The language of expressions: what it means, what it refuses, and that it reaches nothing else."""

from __future__ import annotations

import ast
import contextlib
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import ArgumentError
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.policy import comparison, expression
from ckptlog.policy.comparison import MISSING, equals, precedes
from ckptlog.policy.expression import FIELDS, parse

ROOT = {
    "checkpoint_id": "cp",
    "task_id": "t",
    "state": "failed",
    "step_number": 3,
    "total_steps": None,
    "created_at": datetime(2026, 1, 31, 12, tzinfo=UTC),
    "metadata": {"error_info": {"type": "TimeoutError"}},
    "data": {
        "loss": 3.5,
        "zero": 0,
        "yes": True,
        "none": None,
        "empty": [],
        "text": "hello",
        "messages": [{"role": "user"}, {"role": "error", "n": 1}],
        "pair": (1, 2),
        "set": {1, "two"},
        "other": {1, "three"},
        "one": [0],
        "like": "TimeoutError",
        "key with blanks": {"a": 1},
        "it's": 1,
        "price": Decimal("1.10"),
        "id": UUID(int=7),
        "day": date(2026, 1, 31),
        "bytes": b"ab",
        "array": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "scalar": np.float32(2.0),
        "big": 10**40,
        "and": 1,
        "nan": float("nan"),
    },
}

TRUE = [
    "data.loss > 3",
    "data.loss >= 3.5",
    "data.loss <= 3.5",
    "data.loss < 4e0",
    "data.loss != 4",
    "-1 < data.zero",
    'state == "failed"',
    "state == 'failed'",
    'state == "failed" and metadata.error_info.type == "TimeoutError"',
    'state == "x" or step_number == 3',
    'state == "x" or state == "y" or state == "failed"',
    "not data.zero",
    "not not data.yes",
    'not state == "x"',
    "true and not false and not null",
    "true or false and false",
    "not false and true",
    "(true or false) and true",
    "len(data.messages) == 2",
    "len(data.text) == 5",
    "len(data) > 10",
    "len(data.bytes) == 2",
    "len(data.array) == 2",
    '"error" in data.messages[*].role',
    '"nobody" not in data.messages[*].role',
    "len(data.messages[*].n) == 1",
    "len(data.messages[*].nothing) == 0",
    "1 in data.array[0]",
    "3 in data.array[1][*]",
    "data.array[1][0] == 3",
    "data.array",
    "data.scalar == 2",
    "data.scalar",
    '"ell" in data.text',
    '"loss" in data',
    "1 in data.pair and 1 in data.set and 'two' in data.set",
    "null in data.messages[*].n or 1 in data.messages[*].n",
    "data.pair == data.pair",
    "data.messages == data.messages",
    "data.set == data.set",
    'data["key with blanks"].a == 1',
    "data['key with blanks']['a'] == 1",
    'data["it\'s"] == 1',
    "data['it\\'s'] == 1",
    "data.messages[-1].role == 'error'",
    "data.messages[0].role == 'user'",
    "data . loss > 3",
    "data.and == 1",
    "data.nothing == null",
    "data.none == null",
    "total_steps == null",
    "data.nothing != 3",
    "exists(data.none)",
    "not exists(data.nothing)",
    "not exists(data.loss.deeper)",
    "not exists(data.messages[2])",
    "not exists(data.messages[-3])",
    "not exists(data.text[0])",
    "not data.empty",
    "data.text",
    'created_at >= "2026-01-31"',
    'created_at == "2026-01-31T13:00:00+01:00"',
    'created_at < "2026-01-31T12:00:00.000001Z"',
    'data.day == "2026-01-31"',
    "data.day < created_at",
    'data.id == "00000000-0000-0000-0000-000000000007"',
    "data.price == 1.10",
    "data.price >= 1.1 and 1.1 <= data.price and not data.price > 1.1",
    "data.price < 1.2 and 1 < data.price",
    "data.big > 1e39",
    "data.nan != data.nan",
    "data.yes == true",
    " and ".join(["true"] * 60),
    "data.one and len(data.one) == 1",
    "metadata == metadata and data.set == data.set and data.pair == data.pair",
    "data.one != data.pair and data.set != data.other",
    "data.like == metadata.error_info.type",
    'metadata.error_info != data.messages[1] and data["key with blanks"] != data.other',
]

FALSE = [
    "data.loss < 3.5",
    "data.loss > 3.5",
    "data.yes == 1",
    "data.zero == false",
    "data.yes > 0",
    "data.nothing < 1",
    "data.nothing > 1",
    "data.nothing >= null",
    "null <= null",
    "data.none >= data.nothing",
    "data.text > 3",
    "data.text == 3",
    "data.nothing",
    "data.none",
    "data.zero",
    "data.empty",
    'data.id < "ffffffff-0000-0000-0000-000000000007"',
    'data.id == "7"',
    'created_at == "yesterday"',
    'created_at < "yesterday"',
    "data.nothing in data.messages",
    "data.nothing in data.text",
    "1 in data.text",
    "1 in data",
    "1 in data.zero",
    "len(data.zero) == 0",
    "len(data.scalar) == 0",
    "data.pair == data.messages",
    "data.nan == data.nan",
    "data.nan <= data.nan",
    "data.array == data.array",
    "data.messages[*].nothing",
    "false and true or false",
    "not true or false",
]


@pytest.mark.parametrize("text", TRUE)
def test_what_is_true(text):
    assert parse(text).is_true(ROOT) is True


@pytest.mark.parametrize("text", FALSE)
def test_what_is_false(text):
    assert parse(text).is_true(ROOT) is False


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", None),
        ("   ", None),
        ("data.", 5),
        ("data..x", 5),
        ("data.x = 3", 7),
        ("data.x === 3", 9),
        ("data.x & 3", 7),
        ("data.x + 3", 7),
        ("len(data", 8),
        ("len data", 0),
        ('data["a', 5),
        ("data[x]", 5),
        ("data[1.5]", 5),
        ("data[]", 5),
        ("data[*", 5),
        ("data.x not 3", 11),
        ("1 < step_number < 3", 16),
        ("1 == step_number in data", 17),
        ('state == "a" "b"', 13),
        ("state ==", 8),
        ("== 3", 0),
        ("(true", 5),
        ("true)", 4),
        ("exists(3)", 7),
        ("exists(data.x == 1)", 14),
        ("data.x; 1", 6),
        ("$", 0),
        ("data.2x", 5),
        ("1x", 1),
        ("not", 3),
        ("true and", 8),
        ("data.x # comment", 7),
        ("data\n.x ==\t1 )", 13),
    ],
)
def test_what_does_not_follow_the_grammar(text, at):
    with pytest.raises(ArgumentError) as caught:
        parse(text)
    if at is not None:
        place = caught.value.context.get("at", caught.value.message)
        assert place == at or f"at {at + 1} in" in str(place)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "open",
        "data.x.__class__ == 1 or eval('1')",
        "lambda: 1",
        "words > 3",
        "len",
        "True",
        "None == null",
    ],
)
def test_names_that_are_no_fields(text):
    with pytest.raises(ArgumentError) as caught:
        parse(text)
    assert caught.value.context["argument"] == "expression"


def test_attributes_of_objects_are_not_reached():
    for name in ("__class__", "shape", "year", "real", "keys", "imag", "dtype"):
        for path in ("data", "data.array", "data.scalar", "created_at", "data.loss", "data.pair"):
            assert not parse(f"exists({path}.{name})").is_true(ROOT)


def test_the_modules_do_no_more_than_compare():
    """No call of Python's can be reached by a name that comes from the expression."""
    for module in (expression, comparison):
        with open(module.__file__, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__", "vars"}
                if node.func.id in {"getattr", "hasattr"}:
                    assert isinstance(node.args[1], ast.Constant)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 60 + "1" + ")" * 60,
        "len(" * 200 + "data" + ")" * 200,
        "(" * 2000,
        "a" * 5000,
        "1" * 4096,
        "not " * 1000 + "true",
        "data" + ".x" * 2000,
        "data" + "[*]" * 1300,
        "true" + " and true" * 450,
        "'" + "\\\\" * 2000 + "'",
    ],
    ids=lambda text: text[:10],
)
def test_long_and_deep_ones_end(text):
    with contextlib.suppress(ArgumentError):
        parse(text).is_true(ROOT)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parsed = parse(text)
    except ArgumentError:
        return
    assert parsed.is_true(ROOT) in (True, False)


WORDS = [
    "data",
    "data.loss",
    "data.messages",
    "data.messages[*].role",
    "state",
    "step_number",
    "exists(",
    "len(",
    "(",
    ")",
    "and",
    "or",
    "not",
    "in",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "1",
    "-2",
    "3.5",
    "'a'",
    '"failed"',
    "true",
    "false",
    "null",
    ".",
    "[",
    "]",
    "[*]",
    "[0]",
]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_words_of_the_language_are_read_or_refused(words):
    try:
        parsed = parse(" ".join(words))
    except ArgumentError:
        return
    assert parsed.is_true(ROOT) in (True, False)
    assert parsed.is_true({}) in (True, False)


def test_what_was_missing_is_told_by_path():
    parsed = parse(
        "data.loss > 1 and (data.wrods == 1 or data.messages[*].nobody) and data['a b'] "
        "and data.empty and data.messages[*].role and data.none"
    )
    assert parsed.missing(ROOT) == {"data.wrods", "data.messages[*].nobody", 'data["a b"]'}


def test_the_fields_are_those_of_a_checkpoint():
    assert set(FIELDS) == set(CheckpointData.__dataclass_fields__)


# --- comparing, by itself -------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.decimals(allow_nan=None)
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.uuids()
    | st.just(MISSING)
    | st.builds(np.float32, st.floats(width=32)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(values, values)
def test_comparing_never_raises_and_is_fair(left, right):
    assert equals(left, right) == equals(right, left)
    assert not (precedes(left, right) and precedes(right, left))
    assert not (precedes(left, right) and equals(left, right))


@given(values)
def test_a_value_equals_itself_unless_it_holds_nan(value):
    if "nan" not in repr(value).lower():
        assert equals(value, value)
    assert comparison.is_true(value) in (True, False)
    comparison.length(value)
    comparison.contains(value, value)


def test_containers_are_equal_where_everything_in_them_is():
    assert equals({"a": 1}, {"a": 1.0})
    assert not equals({"a": 1}, {"a": 2})
    assert not equals({"a": 1}, {"b": 1})
    assert not equals({"a": 1}, {"a": 1, "b": 2})
    assert equals({1, 2}, frozenset({2, 1.0}))
    assert not equals({1, 2}, {1, 3})
    assert not equals({1}, {1, 2})
    assert not equals({1}, [1])
    assert equals([1, (2,)], (1, [2]))
    assert not equals([1], [1, 2])
    assert not equals([], {})
    assert not equals(set(), [])
    assert not equals(None, 0)
    assert not equals(MISSING, "")


def test_signalling_numbers_and_the_ends_of_time():
    assert not precedes(Decimal("sNaN"), 1)
    assert not equals(Decimal("sNaN"), Decimal("sNaN"))
    assert comparison.is_true(Decimal("sNaN")) is False
    first = datetime.min.replace(tzinfo=UTC)
    assert not precedes(first, "0001-01-01T00:00:00+14:00")
    assert equals(time(12), time(12))
    assert not precedes(time(12), time(13, tzinfo=UTC))
