"""What a checkpoint that stays is made of: LangGraph's channels that only ancestors have.

A `DeltaChannel` stands in few checkpoints. Its value is made of the nearest ancestor that has it
and of the writes from there on (specs/langgraph.md, section 6). So a checkpoint that stays keeps
its ancestors, for each such channel up to the nearest one that has its value; where none has it,
all of them. Stored text is read, not decoded: neither LangGraph nor its classes are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from ckptlog.errors import CheckpointError
from ckptlog.model.event import Reference
from ckptlog.repository.store import Store
from ckptlog.views.row import Row

_ESCAPE: Final = "$object"
_FAULTS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


class _Channels(msgspec.Struct, gc=False):
    channel_values: dict[str, msgspec.Raw] = {}


class _Data(msgspec.Struct, gc=False):
    checkpoint: _Channels = msgspec.field(default_factory=_Channels)


_decode_data = msgspec.json.Decoder(_Data).decode
_decode_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Lineage:
    """The checkpoints of one task, and which of them others need.

    Args:
        rows: All living checkpoints of the task, by id.
        channels: Of each that has some: the channels made of its ancestors.
    """

    def __init__(
        self, store: Store, rows: Mapping[str, Row], channels: Mapping[str, frozenset[str]]
    ) -> None:
        self._store = store
        self._rows = rows
        self._channels = channels
        self._names: dict[str, frozenset[str]] = {}

    def needed(self, kept: Iterable[str]) -> set[str]:
        """Return the ancestors that checkpoints are made of."""
        found: set[str] = set()
        walked: set[tuple[str, frozenset[str]]] = set()
        for name in kept:
            if name in self._channels:
                for ancestor in self._ancestors(name, walked):
                    found.add(ancestor)
        return found

    def _ancestors(self, name: str, walked: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
        missing = self._channels[name] - self._values(name)
        while missing and (name, missing) not in walked:  # a ring of parents ends here too
            walked.add((name, missing))
            name = self._rows[name].parent
            if name not in self._rows or not self._rows[name].data_root:
                return
            yield name
            missing -= self._values(name)

    def _values(self, name: str) -> frozenset[str]:
        """Return the channels whose value a checkpoint has; none where it cannot be read."""
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = self._read(self._rows[name])
        return found

    def _read(self, row: Row) -> frozenset[str]:
        try:
            wire = self._store.wire(Reference(row.data_kind, row.data_root, row.data_size))
            there = _decode_data(wire).checkpoint.channel_values
            # One channel whose name begins with `$` is escaped.
            return frozenset(_decode_raws(there[_ESCAPE]) if list(there) == [_ESCAPE] else there)
        except (CheckpointError, *_FAULTS):
            return frozenset()
