"""Where a value in JSON text ends: the plain functions, and their twins in C beside them."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from ckptlog.formats import json_text
from ckptlog.formats.json_text import Bounds, Run, end_of_string, end_of_value, run_of_items
from ckptlog.kernel import native

ITEMS_MAX = 2**62
LETTERS = st.sampled_from([*b'[]{}",:\\ n1x\n\x00\xff'])
UNSOUND = st.lists(LETTERS, min_size=1, max_size=60).map(bytes) | st.binary(min_size=1, max_size=80)
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=40)
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=9), inner, max_size=8)
    ),
    max_leaves=60,
)
BOUNDS = st.builds(Bounds, st.integers(0, 60), st.integers(1, 60), st.integers(1, 120))


def encoded(value, *, is_ascii=False):
    return json.dumps(value, ensure_ascii=is_ascii, separators=(",", ":")).encode(
        errors="surrogatepass"
    )


@pytest.fixture(params=["plain", "native"], autouse=True)
def kernel(request, monkeypatch):
    """Run every test here with and without the compiled functions."""
    if request.param == "plain":
        monkeypatch.setattr(json_text, "native", None)
    elif native is None:
        pytest.skip("no compiled kernel")


@given(VALUES, st.booleans(), st.sampled_from([b"", b",", b"]", b"}", b",null]"]))
def test_a_value_ends_where_its_encoder_stopped(value, is_ascii, behind):
    text = encoded(value, is_ascii=is_ascii)
    assert end_of_value(text + behind, 0, len(text)) == len(text)
    assert end_of_value(b"[" + text + behind, 1, len(text)) == len(text) + 1
    assert end_of_value(text + behind, 0, len(text) - 1) == -1
    if type(value) is str:
        assert end_of_string(text + behind, 0) == len(text)


@given(st.lists(VALUES, max_size=30), BOUNDS, st.integers(1, 200))
def test_a_run_of_items_is_what_a_decoder_says(items, bounds, inline_max):
    texts = list(map(encoded, items))
    text = b"[" + b",".join(texts) + b"]"
    expected = naive_run(texts, bounds, inline_max)
    assert (
        run_of_items(
            text, 1, 0, bounds, is_object=False, inline_max=inline_max, items_max=ITEMS_MAX
        )
        == expected
    )


@given(st.dictionaries(st.text(max_size=9), VALUES, max_size=30), BOUNDS, st.integers(1, 200))
def test_a_run_in_an_object(items, bounds, inline_max):
    texts = [encoded(key) + b":" + encoded(value) for key, value in items.items()]
    lengths = [len(encoded(value)) for value in items.values()]
    text = b"{" + b",".join(texts) + b"}"
    assert run_of_items(
        text, 1, 0, bounds, is_object=True, inline_max=inline_max, items_max=ITEMS_MAX
    ) == naive_run(texts, bounds, inline_max, lengths)


def naive_run(texts, bounds, inline_max, lengths=None):
    place, gathered, drawn = 1, 0, 0
    for number, item in enumerate(texts):
        if (lengths[number] if lengths else len(item)) > inline_max:
            return Run(place, gathered, number, drawn, is_closed=False)
        place += len(item) + (number > 0)
        gathered += len(item)
        if gathered >= bounds.least:
            drawn = xxhash.xxh64_intdigest(item)
            if drawn % bounds.mean < len(item) or gathered >= bounds.most:
                return Run(place, gathered, number + 1, drawn, is_closed=True)
    return Run(place, gathered, len(texts), drawn, is_closed=False)


@given(st.integers(0, 300))
def test_the_number_that_an_item_draws(size):
    text = b'["' + b"a" * size + b'"]'
    run = run_of_items(text, 1, 0, Bounds(1, 1, 1), is_object=False, inline_max=1000, items_max=1)
    assert run.drawn == xxhash.xxh64_intdigest(text[1:-1])


def test_items_max_and_what_was_gathered_before():
    text = b"[1,22,333]"
    bounds = Bounds(100, 1, 200)
    options = {"is_object": False, "inline_max": 9}
    assert run_of_items(text, 1, 0, bounds, items_max=2, **options) == Run(5, 3, 2, 0, False)
    run = run_of_items(text, 1, 98, bounds, items_max=9, **options)
    assert run == Run(5, 101, 2, xxhash.xxh64_intdigest(b"22"), True)


@given(UNSOUND)
@example(b"[,")
@example(b'{"a":,')
@example(b'["')
@example(b'"\\')
@example(b"]]")
def test_unsound_text_comes_to_an_end_within_it(text):
    for at in range(len(text)):
        end = end_of_value(text, at, 30)
        assert end == -1 or at <= end <= min(len(text), at + 30)
        for is_object in (False, True):
            run = run_of_items(
                text, at, 0, Bounds(3, 5, 9), is_object=is_object, inline_max=20, items_max=50
            )
            assert at <= run.place <= len(text)
            assert (run.place > at) == (run.items > 0)


def test_a_string_without_an_end_is_refused():
    for text in (b'"', b'"a', b'"\\"', b'"\\', b"x"):
        with pytest.raises(ValueError, match="no whole string"):
            end_of_string(text, 0)


def test_a_string_of_escapes_takes_no_memory_for_each():
    text = b'["' + b"\\n" * 1_000_000 + b'"]'
    tracemalloc.start()
    try:
        assert end_of_string(text, 1) == len(text) - 1
        assert end_of_value(text, 0, len(text)) == len(text)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# --- the twins ------------------------------------------------------------------------------------

needs_native = pytest.mark.skipif(native is None, reason="no compiled kernel")


@needs_native
@given(UNSOUND | VALUES.map(encoded), st.integers(0, 90), st.booleans(), BOUNDS)
def test_the_twins_say_the_same(text, limit, is_object, bounds):
    for at in range(len(text)):
        assert native.end_of_value(text, at, limit) == json_text._end_of_value(text, at, limit)
        plain = json_text._run_of_items(text, at, 7, bounds, is_object, limit, 5)
        assert Run(*native.run_of_items(text, at, is_object, 7, limit, bounds, 5)) == plain


@needs_native
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("text", 0, 5),
        (b"text", -1, 5),
        (b"text", 4, 5),
        (b"", 0, 5),
        (b"text", "0", 5),
        (b"text", 2**70, 5),
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises((TypeError, IndexError, OverflowError)):
        native.end_of_value(*arguments)


@needs_native
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (b"[1]", 9, False, 0, 9, (1, 1, 1), 9),
        (b"[1]", 1, False, 0, 9, (1, 1), 9),
        (b"[1]", 1, False, 0, 9, [1, 1, 1], 9),
        (b"[1]", 1, False, 0, 9, (1, 0, 1), 9),
        (b"[1]", 1, False, "0", 9, (1, 1, 1), 9),
    ],
)
def test_wrong_arguments_of_a_run_are_refused(arguments):
    with pytest.raises((TypeError, IndexError, ValueError)):
        native.run_of_items(*arguments)


@given(
    text=st.binary(max_size=40),
    other=st.binary(max_size=40),
    at=st.integers(0, 39),
    start=st.integers(0, 39),
    size=st.integers(0, 50),
)
def test_sameness_is_that_of_slices(text, other, at, start, size):
    if at < len(text) and start < len(other):
        stretch = other[start : start + size]
        expected = len(stretch) == size and text[at : at + size] == stretch
        assert json_text.is_same(text, at, other, start, size) == expected
        assert json_text.is_same(text, at, text, at, len(text) - at)
