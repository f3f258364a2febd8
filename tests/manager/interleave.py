"""Lets something happen between a command's preparation and its commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from ckptlog import Store
from ckptlog.repository.intent import Intent, Outcome


@contextmanager
def before_commit(store: Store, *actions: Callable[[], object]) -> Iterator[list[Intent]]:
    """Run each action before one submission, the first before the next one, and so on.

    Yields the intents as they are submitted; those that the actions submit are not among them.
    """
    real = store.submit
    waiting = list(actions)
    seen: list[Intent] = []
    is_acting = False

    def submit(intent: Intent) -> Outcome:
        nonlocal is_acting
        if not is_acting:
            seen.append(intent)
            if waiting:
                is_acting = True
                try:
                    waiting.pop(0)()
                finally:
                    is_acting = False
        return real(intent)

    with patch.object(store, "submit", submit):
        yield seen
    assert not waiting, "an action was never run"


def written(store: Store) -> list[str]:
    """Return the types of all durable events, in short."""
    return [entry.event.type.removeprefix("checkpoint.") for entry in store.events()]
