"""What a checkpoint of LangGraph's is in the store: the values, and their wires.

    data    {"writes": [[task id, index, channel, value, task path], ...], "checkpoint": {...}}
    meta    {"title": thread, "description": namespace, "metadata": {...}}   (names only where cut)

Writes first, channel values last: a message that was a pending write and becomes part of the next
state lies in one place. Writes may come before their checkpoint; then `checkpoint` is missing, and
there is no meta.

Adding writes never decodes the state: the wire of one value is a part of the wire of the whole, so
the new text is the old one with text put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeGuard

import msgspec

from ckptlog.errors import CheckpointError, FormatError, UnstorableError
from ckptlog.formats.json_text import end_of_value
from ckptlog.integrations.langgraph.codec import PAIRS, Pairs
from ckptlog.model import value as values
from ckptlog.model.codec import Codecs
from ckptlog.model.event import INTEGER_MAX
from ckptlog.model.secret import Sanitiser
from ckptlog.model.tag import DEPTH_MAX, OBJECT
from ckptlog.model.value import Prepared

WRITES: Final = "writes"
CHECKPOINT: Final = "checkpoint"
VALUES: Final = "channel_values"
ID: Final = "id"
STEP: Final = "step"
STEP_SHIFT: Final = 2

_HEAD: Final = b'{"writes":['
_PAIRS_MARK: Final = f'"{PAIRS}"'.encode()
_ADVICE: Final = "Name the class: CkptlogSaver(..., types=[TheClass]), or give a TypeCodec."


class Write(NamedTuple):
    """One pending write. number: Below zero for special channels (WRITES_IDX_MAP)."""

    task: str
    number: int
    channel: str
    value: Any
    path: str

    @property
    def order(self) -> tuple[str, str, int]:
        """In which order writes are applied."""
        return self.path, self.task, self.number


class _Stored(msgspec.Struct, gc=False):
    """The parts of a data wire; values stay text."""

    writes: list[tuple[str, int, str, msgspec.Raw, str]]
    checkpoint: msgspec.Raw = msgspec.Raw()


class _Channels(msgspec.Struct, gc=False):
    channel_values: dict[str, msgspec.Raw] = {}


_decode_stored = msgspec.json.Decoder(_Stored).decode
_decode_channels = msgspec.json.Decoder(_Channels).decode
_decode_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Wiring:
    """Turns values into wires and back, by one saver's codecs.

    Args:
        leaves_out_id: Whether a checkpoint's id stands in its event alone.

    Threads: safe.
    """

    def __init__(
        self, codecs: Codecs, sanitiser: Sanitiser | None, *, leaves_out_id: bool = False
    ) -> None:
        self.codecs = codecs
        self._sanitiser = sanitiser
        self._leaves_out_id = leaves_out_id

    # --- in ---------------------------------------------------------------------------------

    def checkpoint(self, checkpoint: Mapping[str, Any], writes: Iterable[Write] = ()) -> Prepared:
        """Return the data wire of a checkpoint, and of writes that it has already.

        Raises:
            UnstorableError: A value cannot be stored; the message has the path.
        """
        parts = {name: item for name, item in checkpoint.items() if name != VALUES}
        if self._leaves_out_id and type(parts.get(ID)) is str:
            parts[ID] = None  # in its place
        parts[VALUES] = dict(checkpoint[VALUES])
        listed = [list(write) for write in sorted(writes, key=lambda write: write.order)]
        return self.prepare({WRITES: listed, CHECKPOINT: parts})

    def writes(self, writes: Sequence[Write]) -> Prepared:
        """Return the data wire of writes without a checkpoint.

        Raises:
            UnstorableError: As `checkpoint`.
        """
        return self.prepare({WRITES: [list(write) for write in writes]})

    def meta(self, title: str, description: str, metadata: Mapping[str, Any]) -> Prepared:
        """Return the meta wire.

        LangGraph's step stands in the event (`step_in_store`): without it the metadata of the steps
        of a run is mostly the same, and stored once.

        Raises:
            UnstorableError: As `checkpoint`.
        """
        told = dict(metadata)
        if is_step_told(told.get(STEP)):
            told[STEP] = None  # in its place
        return self.prepare({"title": title, "description": description, "metadata": told})

    def prepare(self, value: dict[str, Any]) -> Prepared:
        """Return the wire of a dictionary."""
        try:
            return self._prepared(value)
        except UnstorableError as error:
            # Only then are keys looked at: most states have text for keys.
            if "has a key of type" not in error.message:
                raise _advised(error) from error
        try:
            return self._prepared(_with_pairs(value, 0))
        except UnstorableError as error:
            raise _advised(error) from error

    def _prepared(self, value: Any) -> Prepared:
        return values.prepare(value, path="", sanitiser=self._sanitiser, codecs=self.codecs)

    # --- out --------------------------------------------------------------------------------

    def decode(self, wire: bytes) -> Any:
        """Return the value of a wire.

        Raises:
            FormatError: These bytes are no wire.
            UnregisteredTypeError: A type is not among the codecs.
        """
        value = values.decode(wire, self.codecs)
        return without_pairs(value) if _PAIRS_MARK in wire else value

    def data(self, wire: bytes, identifier: str) -> tuple[dict[str, Any], list[Write]]:
        """Return the checkpoint and its writes, in the order in which they are applied.

        Args:
            identifier: LangGraph's id of the checkpoint, from its event.

        Raises:
            FormatError: It is the data of something else.
        """
        data = self.decode(wire)
        checkpoint = data.get(CHECKPOINT) if type(data) is dict else None
        if type(checkpoint) is not dict or type(checkpoint.get(VALUES)) is not dict:
            raise foreign()
        if checkpoint.get(ID, "") is None:
            checkpoint[ID] = identifier
        return checkpoint, _listed(data.get(WRITES))

    def metadata(self, wire: bytes, step: int) -> tuple[str, str, dict[str, Any]]:
        """Return title, description and metadata.

        Args:
            step: Of the checkpoint's event.

        Raises:
            FormatError: It is the meta of something else.
        """
        meta = self.decode(wire)
        meta = meta if type(meta) is dict else {}
        title, text = meta.get("title", ""), meta.get("description", "")
        metadata = meta.get("metadata")
        if type(metadata) is not dict or type(title) is not str or type(text) is not str:
            raise foreign()
        if metadata.get(STEP, 0) is None and step > 1:
            metadata[STEP] = step - STEP_SHIFT
        return title, text, metadata

    def channels(self, wire: bytes, names: Iterable[str]) -> tuple[dict[str, Any], list[Write]]:
        """Return the values and the writes of some channels alone.

        Raises:
            FormatError: It is the data of something else.
        """
        stored = _parted(wire)
        there = _channel_raws(stored.checkpoint)
        wanted = set(names)
        found = {name: self.decode(bytes(there[name])) for name in wanted & there.keys()}
        writes = [
            Write(task, index, channel, self.decode(bytes(raw)), path)
            for task, index, channel, raw, path in stored.writes
            if channel in wanted
        ]
        return found, sorted(writes, key=lambda write: write.order)


def step_in_store(metadata: Mapping[str, Any]) -> int:
    """Return the step in the store: LangGraph's begins at -1, ours at 1."""
    step = metadata.get(STEP)
    return step + STEP_SHIFT if is_step_told(step) else 1


def is_step_told(step: object) -> TypeGuard[int]:
    """Say whether a step stands in the event alone; then that is above 1."""
    return type(step) is int and 0 <= step <= INTEGER_MAX - STEP_SHIFT


def merged(wire: bytes, fresh: Sequence[Write], fresh_wire: bytes) -> bytes | None:
    """Return a data wire with writes added; None where all of them are there already.

    A special channel's write replaces the one of its task and index; any other is kept as it is.

    Args:
        fresh_wire: The wire that `Wiring.writes` made of `fresh`.

    Raises:
        FormatError: The wire is something else's.
    """
    stored, rest = _split(wire)
    kept = {
        (task, index): _Text(path, task, index, channel, raw)
        for task, index, channel, raw, path in stored.writes
    }
    is_new = False
    for write, text in zip(fresh, _parted(fresh_wire).writes, strict=True):
        key = write.task, write.number
        if key in kept and write.number >= 0:
            continue
        new = _Text(write.path, write.task, write.number, write.channel, text[3])
        is_new |= key not in kept or kept[key].text != new.text
        kept[key] = new
    return _composed(kept.values(), rest) if is_new else None


def replaced(wire: bytes, checkpoint_wire: bytes) -> bytes:
    """Return the data wire of a checkpoint with the writes that stand in another wire.

    Raises:
        FormatError: The wire is something else's.
    """
    stored, _ = _split(wire)
    texts = (
        _Text(path, task, index, channel, raw) for task, index, channel, raw, path in stored.writes
    )
    return _composed(texts, _split(checkpoint_wire)[1])


class _Text(NamedTuple):
    """A write as text, in the fields' order of application."""

    path: str
    task: str
    number: int
    channel: str
    raw: msgspec.Raw

    @property
    def text(self) -> bytes:
        return _encode([self.task, self.number, self.channel, self.raw, self.path])


def _composed(texts: Iterable[_Text], rest: memoryview) -> bytes:
    writes = b",".join(one.text for one in sorted(texts, key=lambda one: one[:3]))
    return b"".join((_HEAD, writes, b"]", rest))


def _split(wire: bytes) -> tuple[_Stored, memoryview]:
    """Return what the writes are, and the wire from behind their list on, unread, not copied."""
    begin = len(_HEAD) - 1
    if not wire.startswith(_HEAD):
        raise foreign()
    try:
        end = end_of_value(wire, begin, len(wire))
    except (ValueError, IndexError) as error:
        raise foreign() from error
    return _parted(wire[:end] + b"}"), memoryview(wire)[end:]


def _parted(wire: bytes) -> _Stored:
    try:
        return _decode_stored(wire)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise foreign() from error


def _channel_raws(checkpoint: msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        found = _decode_channels(checkpoint).channel_values if bytes(checkpoint) else {}
        # One channel whose name begins with `$` is escaped.
        return _decode_raws(found[OBJECT]) if list(found) == [OBJECT] else found
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise foreign() from error


def _listed(writes: Any) -> list[Write]:
    if type(writes) is not list or not all(map(_is_write, writes)):
        raise foreign()
    return sorted((Write(*write) for write in writes), key=lambda write: write.order)


def _is_write(write: Any) -> bool:
    if type(write) is not list or len(write) != 5:
        return False
    task, number, channel, _, path = write
    return type(number) is int and all(type(text) is str for text in (task, channel, path))


def foreign() -> FormatError:
    """Return the error for data that no saver wrote."""
    return FormatError(
        "The checkpoint's data is not that of a LangGraph checkpoint.",
        hint="Run ckptlog verify; read it with ckptlog show.",
    )


def _advised(error: UnstorableError) -> CheckpointError:
    return UnstorableError(error.message, hint=f"{error.hint} {_ADVICE}".strip(), **error.context)


def _with_pairs(value: Any, depth: int) -> Any:
    """Return a value with each dict that has a key of another type as `Pairs`."""
    kind = type(value)
    if depth > DEPTH_MAX or kind not in {dict, list, tuple}:
        return value
    if kind is list:
        return [_with_pairs(item, depth + 1) for item in value]
    if kind is tuple:
        return tuple(_with_pairs(item, depth + 1) for item in value)
    if all(type(key) is str for key in value):
        return {key: _with_pairs(item, depth + 1) for key, item in value.items()}
    return Pairs([[key, _with_pairs(item, depth + 1)] for key, item in value.items()])


def without_pairs(value: Any) -> Any:
    """Return a lifted value with each `Pairs` as the dict that it stands for."""
    kind = type(value)
    if kind is Pairs:
        return {key: without_pairs(item) for key, item in value.pairs}
    if kind is list:
        return [without_pairs(item) for item in value]
    if kind is tuple:
        return tuple(without_pairs(item) for item in value)
    if kind is dict:
        return {key: without_pairs(item) for key, item in value.items()}
    return value
