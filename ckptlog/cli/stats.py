"""`ckptlog stats`: how much there is, and how much room it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK


def add_commands(commands: Commands) -> None:
    """Add `stats`."""
    add_command(commands, "stats", run_stats, about="print sizes and counts")


def run_stats(context: Context) -> int:
    """Print what the store holds."""
    with context.store(is_reading=True) as store:
        figures = store.stats()
    answer = {"store": figures.pop("path"), **figures}
    if context.output.is_json:
        context.output.document(answer)
    else:
        context.output.details(dict(_lines(answer)))
    return OK


def _lines(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and values of a page; numbers by state go on one line."""
    for name, value in values.items():
        label = name.replace("_", " ").removesuffix(" bytes")
        if isinstance(value, Mapping):
            there = [f"{number:,} {state}" for state, number in value.items() if number]
            yield label, ", ".join(there) or "none"
        else:
            yield label, _shown(name, value)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return text.plain(value)
    if name == "created":
        return text.instant(value)
    if "bytes" in name and isinstance(value, (int, float)):
        return text.size(value)
    if name.endswith("ratio") and isinstance(value, (int, float)):
        return f"{value:.1f}:1"
    if isinstance(value, int):
        return f"{value:,}"
    return text.plain(value)
