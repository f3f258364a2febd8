from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from ckptlog.views.history.instant import known, read_times, to_times
from ckptlog.views.history.past import UNKNOWN_US


def texts(values):
    return pa.array(values, pa.string())


GOOD = "2026-01-31T12:00:00.000001Z"


def test_good_times_are_read_whole():
    found = read_times(
        texts([GOOD, None, "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00.000000Z"])
    )
    assert found.to_pylist() == [
        datetime(2026, 1, 31, 12, 0, 0, 1, UTC),
        None,
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    "bad",
    ["", "yesterday", "2026-13-01T00:00:00Z", "0000-01-01T00:00:00.000000Z", "../../x"],
)
def test_what_is_no_time_is_null_and_spoils_no_other(bad):
    found = read_times(texts([GOOD, bad, GOOD]))
    assert [one is None for one in found.to_pylist()] == [False, True, False]
    assert found.type == pa.timestamp("us", "UTC")


def test_other_spellings_of_a_time_mean_the_same():
    for text in ("2026-01-31T13:00:00.000001+01:00", "2026-01-31 12:00:00.000001"):
        assert read_times(texts([text, "no"])).to_pylist()[0] == datetime(
            2026, 1, 31, 12, 0, 0, 1, UTC
        )


def test_unknown_numbers_are_null():
    numbers = pa.array([5, UNKNOWN_US, None])
    assert known(numbers).to_pylist() == [5, None, None]
    assert [one is None for one in to_times(numbers).to_pylist()] == [False, True, True]
