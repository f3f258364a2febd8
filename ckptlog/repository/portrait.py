"""What a store looks like in a notebook: where it is, how much is in it, in which states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.errors import CheckpointError
from ckptlog.model import html
from ckptlog.model.state import CheckpointState
from ckptlog.views.current import CurrentView

if TYPE_CHECKING:
    from ckptlog.repository.store import Store


def portrait(store: Store, *, is_closed: bool) -> str:
    """Return a store as HTML; what cannot be told just now is said to be so, and never raised."""
    facts: dict[str, Any] = {
        "path": store.path,
        "id": store.id,
        "mode": "read-only" if store.read_only else f"durability {store.durability!r}",
    }
    if is_closed:
        return html.card("Store (closed)", facts)
    from ckptlog.repository.statistics import ask

    try:
        facts |= ask(store, _sums)
    except CheckpointError as error:
        facts["trouble"] = f"{error.code}: {error.message}"
    return html.card("Store", facts)


def _sums(view: CurrentView) -> dict[str, Any]:
    totals, states = view.totals(), view.counts_by_state()
    counts = [
        f"{states[one.value]:,} {one.value}" for one in CheckpointState if one.value in states
    ]
    return {
        "events": f"{totals.events:,}",
        "checkpoints": f"{totals.checkpoints:,} ({', '.join(counts) or 'none'})",
        "saved": f"{totals.logical_bytes:,} bytes",
        "stored for it": f"{totals.new_bytes:,} bytes",
    }
