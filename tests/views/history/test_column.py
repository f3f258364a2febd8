"""The page and the code show the same columns."""

from __future__ import annotations

import re

from ckptlog.views.history import column
from ckptlog.views.history.column import COLUMNS
from tests.architecture.tree import ROOT

PAGE = (ROOT / "specs" / "history.md").read_text(encoding="utf-8")


def test_the_page_shows_every_column():
    told = re.findall(r"^\| `(\w+)` \| (int64|string|double|timestamp[^|]*) \| (.*?) ?\| (.*?) ?\| (.*) \|$",
                      PAGE, re.MULTILINE)  # fmt: skip
    own = [
        (one.name, one.kind, one.unit, "yes" if one.is_always else "", one.meaning)
        for one in COLUMNS
    ]
    assert told == own


def test_the_schema_is_that_of_the_columns():
    fields = {field.name: field for field in column.schema()}
    assert list(fields) == [one.name for one in COLUMNS]
    assert all(fields[one.name].nullable is not one.is_always for one in COLUMNS)
    kinds = {one.name: one.kind.replace("UTC", "tz=UTC") for one in COLUMNS}
    assert {name: str(field.type) for name, field in fields.items()} == kinds
    assert column.dataset_schema().names[-1] == column.PARTITION


def test_sizes_and_durations_name_their_unit():
    for one in COLUMNS:
        for suffix, unit in (("_us", "us"), ("_bytes", "bytes"), ("_ratio", "ratio")):
            assert one.name.endswith(suffix) == (one.unit == unit), one.name
