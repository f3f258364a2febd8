"""Objects as HTML, for notebooks: small tables in which every text is escaped, whoever wrote it.

What an object shows is decided where the object is; this module only writes it down. Nothing of
a value is ever executed: containers show their size, unknown objects the name of their type.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence, Sized
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

from ckptlog.model.visible import escape

CHARACTERS_MAX: Final = 200
ROWS_MAX: Final = 50
_LEFT: Final = 'style="text-align:left"'
# Their text says all there is to say, and making it runs no code of a stranger.
_SHOWN: Final = (str, int, float, bool, Decimal, UUID, date, datetime)


def text(value: object) -> str:
    """Return a text for HTML: escaped, on one line, cut where it is long."""
    shown = escape(value)
    if len(shown) > CHARACTERS_MAX:
        shown = f"{shown[:CHARACTERS_MAX]}\u2026"
    return html.escape(shown)


def outline(value: object) -> str:
    """Return what there is to say of any value in a few words, for HTML."""
    kind = type(value)
    if value is None:
        return "<i>none</i>"
    if isinstance(value, Enum):
        return text(value.value) if type(value.value) is str else text(value.name)
    if kind in _SHOWN or isinstance(value, PurePath):
        return text(value)
    if kind in {dict, list, tuple, set, frozenset, bytes, bytearray}:
        size = len(cast("Sized", value))
        noun = "byte" if kind in {bytes, bytearray} else "item"
        return f"<i>{kind.__name__}, {size:,} {noun}{'' if size == 1 else 's'}</i>"
    return f"<i>{text(kind.__name__)}</i>"


def card(title: str, facts: Mapping[str, Any], *parts: str) -> str:
    """Return an object: its title, facts by name, and whatever HTML follows them."""
    rows = "".join(
        f"<tr><th {_LEFT}>{text(name)}</th><td {_LEFT}>{outline(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<div><b>{text(title)}</b><table><tbody>{rows}</tbody></table>{''.join(parts)}</div>"


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, total: int) -> str:
    """Return a table; of many rows the first, and a line that says so.

    Args:
        total: Number of all rows.
    """
    head = "".join(f"<th {_LEFT}>{text(title)}</th>" for title in titles)
    body, shown = [], 0
    for row in rows:
        if shown == ROWS_MAX:
            break
        shown += 1
        cells = "".join(f"<td {_LEFT}>{outline(cell)}</td>" for cell in row)
        body.append(f"<tr>{cells}</tr>")
    more = f"<p>showing {shown:,} of {total:,}</p>" if total > shown else ""
    lines = "".join(body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>{more}"
