"""Stored text cannot move a terminal's cursor, and people read sizes and times."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.cli import text

ANY_TEXT = st.text(st.characters(), max_size=60)


@given(ANY_TEXT)
def test_escaped_text_is_one_line_that_only_prints(value):
    escaped = text.escape(value)
    assert len(escaped.splitlines()) <= 1
    for character in escaped:
        assert character >= " "
        assert not "\x7f" <= character <= "\x9f"
        assert character not in "\u202a\u202b\u202d\u202e\u2066\u2067\u200f\u2028\ufeff"
    escaped.encode()  # no surrogate is left


@given(ANY_TEXT)
def test_escaped_json_is_the_same_document(value):
    document = json.dumps({"key": value}, ensure_ascii=False)
    assert json.loads(text.escape_json(document)) == {"key": value}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
        ("\x1b[2J", "\\u001b[2J"),
        ("\x9b1m", "\\u009b1m"),
        ("a\u202eb", "a\\u202eb"),
        ("\ud800", "\\ud800"),
        ("\u061c\u200e\u2029\u2069", "\\u061c\\u200e\\u2029\\u2069"),
        ("schön 日本", "schön 日本"),
    ],
)
def test_escape(value, shown):
    assert text.escape(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("short", "short"),
        ("a\n b   c", "a b c"),
        ("x" * 20, "x" * 7 + "..."),
        ("ten chars!", "ten chars!"),
    ],
)
def test_shorten(value, shown):
    assert text.shorten(value, 10) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (12_345, "12.3 KB"),
        (999_960, "1.0 MB"),
        (1_500_000_000, "1.5 GB"),
        (10**18, "1000.0 PB"),
    ],
)
def test_size(size_bytes, shown):
    assert text.size(size_bytes) == shown


def test_count_and_ratio():
    assert text.count(1, "event") == "1 event"
    assert text.count(2000, "event") == "2,000 events"
    assert text.ratio(56, 10) == "5.6:1"
    assert text.ratio(56, 0) == "-"


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (None, "-"),
        ("", "-"),
        ("2026-01-02T03:04:05.678901Z", "2026-01-02 03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05Z"),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02 01:00:00Z"),
    ],
)
def test_instant(moment, shown):
    assert text.instant(moment) == shown


def test_progress():
    assert text.progress(3, 12) == "3/12"
    assert text.progress(3, None) == "3"


@pytest.mark.parametrize(("value", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("é", 1)])
def test_width(value, width):
    assert text.columns_wide(value) == width


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "-"),
        ("", "-"),
        (7, "7"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00Z"),
    ],
)
def test_plain(value, shown):
    assert text.plain(value) == shown
