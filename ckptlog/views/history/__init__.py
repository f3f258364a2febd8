"""The view `history`: one row for each event of the log, in Parquet (specs/history.md)."""
