"""What prune keeps: the newest checkpoint of each namespace, and what its channels are made of.

A `DeltaChannel` stands in few checkpoints; its value is made of the nearest ancestor that has it
and the writes from there on. LangGraph tells in `counters_since_delta_snapshot` of the metadata
which channels have such a past. Their ancestors are kept, up to the one that has the value; where
none has it, all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ckptlog.errors import ArgumentError
from ckptlog.integrations.langgraph.address import Address
from ckptlog.integrations.langgraph.reader import Named, Question, Reader
from ckptlog.model.quotation import quoted
from ckptlog.views.row import Row

STRATEGIES: Final = ("keep_latest", "delete")
_COUNTERS: Final = "counters_since_delta_snapshot"


def check_strategy(strategy: object) -> bool:
    """Return whether the newest are kept.

    Raises:
        ArgumentError: It is no strategy.
    """
    if strategy in STRATEGIES:
        return strategy == STRATEGIES[0]
    raise ArgumentError(
        f"The strategy {quoted(strategy)} is unknown.",
        hint=f"Strategies are: {', '.join(STRATEGIES)}.",
        argument="strategy",
    )


def doomed(reader: Reader, thread: str) -> list[Row]:
    """Return the rows of a thread's checkpoints that need not be kept, the oldest ids first."""
    spaces: dict[str, list[Named]] = {}
    for named in reader.named(Question(thread)):
        spaces.setdefault(named.space, []).append(named)
    found = []
    for checkpoints in spaces.values():
        newest, *others = checkpoints
        kept = set(_needed(reader, newest)) if others else set()
        found += [one.row for one in others if one.row.id not in kept]
    return found[::-1]


def _needed(reader: Reader, newest: Named) -> Iterator[str]:
    """Yield the ids in the store of the ancestors that a checkpoint's channels are made of."""
    channels = _delta_channels(newest)
    if not channels:
        return
    missing = set(channels) - reader.values(newest.row, channels).keys()
    address = Address(newest.thread, newest.thread, newest.space, newest.identifier)
    for entry, values, _ in reader.ancestors(address, channels) if missing else ():
        yield entry.event.subject.checkpoint
        missing -= values.keys()
        if not missing:
            return


def _delta_channels(named: Named) -> Sequence[str]:
    counters = named.metadata.get(_COUNTERS)
    return [name for name in counters if type(name) is str] if type(counters) is dict else []
