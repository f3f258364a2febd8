from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

import pytest

from ckptlog.cli.moment import duration, moment, natural, place, positive, seconds


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:30:00", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        ("2026-01-31T12:30:00Z", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        ("2026-01-31T12:30:00+02:00", datetime(2026, 1, 31, 10, 30, tzinfo=UTC)),
        (" 2026-01-31 ", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_time(typed, meant):
    assert moment(typed) == meant


@pytest.mark.parametrize(
    ("typed", "age"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1.5h", timedelta(minutes=90)),
        ("3d", timedelta(days=3)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_an_age(typed, age):
    before = datetime.now(UTC)
    assert before - age <= moment(typed) <= datetime.now(UTC) - age


@pytest.mark.parametrize("typed", ["", "yesterday", "2026-13-01", "5", "5y", "9" * 20 + "d", "-3d"])
def test_no_time(typed):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time; use"):
        moment(typed)


def test_numbers():
    assert natural("0") == 0
    assert natural("12") == 12
    assert positive("1") == 1


@pytest.mark.parametrize("typed", ["-1", "", "1.5", "x", "٣", "1_000", "9" * 30])
@pytest.mark.parametrize("kind", [natural, positive])
def test_no_number(kind, typed):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number"):
        kind(typed)


def test_zero_is_not_positive():
    with pytest.raises(argparse.ArgumentTypeError):
        positive("0")


def test_places():
    assert [place(typed) for typed in ("beginning", "end", "7")] == ["beginning", "end", 7]
    assert place("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("typed", ["foo", "-1", "", "٣", "begin"])
def test_what_is_no_place_is_told_what_would_be(typed):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        place(typed)
    for form in ("beginning", "end", "a position", "2026-01-31T12:00:00Z", "15m"):
        assert form in str(caught.value)


def test_seconds():
    assert (seconds("0"), seconds("1.5"), duration("0.001")) == (0, 1.5, 0.001)
    for typed in ("0", "0.0", "-1", "x", "", "inf", "1e3"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds above 0"):
            duration(typed)
