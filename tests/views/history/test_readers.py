"""DuckDB, Polars and pandas read the real files and the dataset, as the page and README say."""

from __future__ import annotations

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from ckptlog.model.event import COMPLETED, FAILED
from tests.views.history.scribe import BEGIN


@pytest.fixture
def filled(scribe):
    for number in range(100):
        name = scribe.create(f"t{number % 3}", worker="w")
        scribe.tick(900)
        scribe.change(name, FAILED if number % 10 == 0 else COMPLETED, error="ValueError")
        scribe.commit()
    scribe.history = scribe.view().update()
    scribe.folder = scribe.root / "views" / "history"
    return scribe


def by_type(filled):
    counts = {}
    for row in filled.rows:
        counts[row["type"]] = counts.get(row["type"], 0) + 1
    return sorted(counts.items())


SQL = "SELECT type, count(*) FROM {} GROUP BY type ORDER BY type"


def test_duckdb_asks_the_dataset(filled):
    history = filled.history
    assert duckdb.sql(SQL.format("history")).fetchall() == by_type(filled)
    assert isinstance(history, ds.Dataset)


def test_duckdb_asks_the_files(filled):
    source = f"read_parquet('{filled.folder}/**/*.parquet', hive_partitioning = true)"
    assert duckdb.sql(SQL.format(source)).fetchall() == by_type(filled)
    day = BEGIN.date()
    of_day = f"SELECT count(*), min(state_us) FROM {source} WHERE date = DATE '{day}'"
    wanted = [row for row in filled.rows if row["date"] == day]
    assert duckdb.sql(of_day).fetchall()[0][0] == len(wanted)


def test_polars_scans_the_dataset(filled):
    frame = pl.scan_pyarrow_dataset(filled.history)
    found = frame.filter(pl.col("type") == FAILED).select("position", "error_class").collect()
    wanted = [row for row in filled.rows if row["type"] == FAILED]
    assert found.sort("position")["position"].to_list() == [row["position"] for row in wanted]
    assert set(found["error_class"]) == {"ValueError"}


def test_polars_scans_the_folder(filled):
    frame = pl.scan_parquet(filled.folder, hive_partitioning=True)
    found = frame.group_by("type").len().sort("type").collect()
    assert [tuple(row) for row in found.iter_rows()] == by_type(filled)
    of_day = frame.filter(pl.col("date") == BEGIN.date()).select(pl.len()).collect().item()
    assert of_day == sum(row["date"] == BEGIN.date() for row in filled.rows)


def test_pandas_takes_the_dataset(filled):
    frame = filled.history.to_table().to_pandas().sort_values("position")
    assert list(frame["age_us"].dropna()) == [
        row["age_us"] for row in filled.rows if row["age_us"] is not None
    ]
    assert str(frame["time"].dtype) == "datetime64[us, UTC]"


def test_pandas_reads_the_folder(filled):
    frame = pd.read_parquet(filled.folder).sort_values("position")
    assert list(frame["event_id"]) == [row["event_id"] for row in filled.rows]
    assert sorted(set(frame["date"])) == sorted({str(row["date"]) for row in filled.rows})


@pytest.mark.parametrize("columns", [None, ["position", "date"], ["type"]])
def test_all_see_every_row_once(filled, columns):
    table = filled.history.to_table(columns=columns)
    assert table.num_rows == filled.history.count_rows() == len(filled.rows)
    if columns is None:
        assert table.sort_by("position").to_pylist() == filled.rows


def test_a_filter_on_the_day_opens_only_its_files(filled):
    expression = ds.field("date") == pa.scalar(BEGIN.date())
    found = filled.history.to_table(filter=expression).sort_by("position").to_pylist()
    assert found == [row for row in filled.rows if row["date"] == BEGIN.date()]


def test_an_empty_history_has_columns_and_no_rows(scribe):
    found = scribe.view().update()
    assert found.count_rows() == 0
    assert found.schema.names[0] == "position"
    history = found  # noqa: F841 - DuckDB finds it by its name
    assert duckdb.sql("SELECT count(*) FROM history").fetchall() == [(0,)]
