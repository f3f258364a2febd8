"""The table of crash points in specs/log.md, as data."""

from __future__ import annotations

from pathlib import Path

SPEC = Path(__file__).parents[2] / "specs" / "log.md"
Cell = tuple[str, str]


def crash_table(text: str | None = None) -> dict[Cell, list[str]]:
    """Return {(step, column): the cell's clauses}, in the page's order."""
    page = text or SPEC.read_text(encoding="utf-8")
    lines = page.split("## Crash points")[1].split("\n## ")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    columns = rows[0][1:]
    table: dict[Cell, list[str]] = {}
    for row in rows[1:]:
        step = row[0].split()[0]
        for column, cell in zip(columns, row[1:], strict=True):
            if (step, column) in table:
                raise ValueError(f"{step} stands twice in the table")
            table[step, column] = [clause.strip() for clause in cell.split(";")]
    return table
