"""How values of Python's, LangChain's and LangGraph's own types are stored: the allow-list.

Each class by itself, subclasses never (they may hold more), and nothing is imported because
stored bytes say so. What is not here the user names: `types=[...]`.

Messages keep `__dict__`, extra and private attributes, and are built without validation, as they
were valid when they were stored. `__pydantic_fields_set__` is not kept: afterwards every field
counts as set, so `exclude_unset` leaves nothing out.
"""

from __future__ import annotations

import collections
import datetime
import ipaddress
import pathlib
import re
import sys
import zoneinfo
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any, Final

from ckptlog.errors import SettingsError
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.quotation import quoted

_MODEL: Final = ("__dict__", "__pydantic_extra__", "__pydantic_private__")
_MESSAGES: Final = (
    "AIMessage",
    "AIMessageChunk",
    "BaseMessage",
    "BaseMessageChunk",
    "ChatMessage",
    "ChatMessageChunk",
    "FunctionMessage",
    "FunctionMessageChunk",
    "HumanMessage",
    "HumanMessageChunk",
    "RemoveMessage",
    "SystemMessage",
    "SystemMessageChunk",
    "ToolMessage",
    "ToolMessageChunk",
)
# Plain classes of LangGraph's that its own serialiser knows; those that a version lacks are left
# out. Attributes in an order that never changes; a newer version's stand at the end.
_SLOTTED: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "langgraph.types": {"Send": ("node", "arg", "timeout")},
    "langgraph.store.base": {
        "Item": ("value", "key", "namespace", "created_at", "updated_at"),
    },
}
_DECLARED: Final = {
    "langgraph.types": (
        "Command",
        "Interrupt",
        "Overwrite",
        "PregelTask",
        "StateSnapshot",
        "TimeoutPolicy",
    ),
    "langgraph.store.base": ("GetOp",),
    "langgraph.checkpoint.serde.types": ("_DeltaSnapshot",),
}


class Pairs:
    """Stands for a dict with a key that is no text, which the wire has no tag for."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[list[Any]]) -> None:
        self.pairs = pairs


PAIRS: Final = "py.dict"


def codecs_of(types: Iterable[type | TypeCodec], others: Iterable[TypeCodec] = ()) -> Codecs:
    """Return the registry of a saver: what every saver knows, and what its user adds.

    Args:
        types: Classes (dataclass, enum, named tuple, pydantic model) or codecs; these win.
        others: The store's own codecs.

    Raises:
        SettingsError: A class cannot be stored so, or two have one name.
    """
    if isinstance(types, str | bytes | type) or not isinstance(types, Iterable):
        raise SettingsError(
            f"types is {quoted(types)}; a list of classes is needed.", argument="types"
        )
    chosen = {codec.kind: codec for codec in known()}
    chosen.update((codec.kind, codec) for codec in others)
    chosen.update((codec.kind, codec) for codec in map(codec_of, types))
    return Codecs(chosen.values())


def codec_of(kind: Any) -> TypeCodec:
    """Return the codec of one of the user's classes, named as the class is.

    Raises:
        SettingsError: It is none that can be taken apart and built again.
    """
    if isinstance(kind, TypeCodec):
        return kind
    if isinstance(kind, type) and hasattr(kind, "__pydantic_fields__"):
        return _model(kind, kind.__name__)
    return TypeCodec.of(kind)


def named_in(names: Collection[Any]) -> list[type]:
    """Return the classes that a graph's schema names, as far as the program has loaded them.

    LangGraph derives (module, class) from the schema that the program compiles; nothing is
    imported for it, and names that lead to no storable class are left out.
    """
    found = []
    for name in names:
        kind = name if isinstance(name, type) else _loaded(name)
        if kind is not None and kind not in found:
            found.append(kind)
    return found


def _loaded(name: Any) -> type | None:
    if not isinstance(name, tuple) or len(name) != 2:
        return None
    kind = getattr(sys.modules.get(name[0]), name[1], None)
    return kind if isinstance(kind, type) else None


@cache
def known() -> tuple[TypeCodec, ...]:
    """Return the codecs that every saver has."""
    return (*_of_python(), *_of_langchain(), *_of_langgraph())


def _of_python() -> list[TypeCodec]:
    texts: list[type] = [
        ipaddress.IPv4Address,
        ipaddress.IPv4Interface,
        ipaddress.IPv4Network,
        ipaddress.IPv6Address,
        ipaddress.IPv6Interface,
        ipaddress.IPv6Network,
        type(pathlib.Path()),
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
    ]
    return [
        *(_plain(kind, str, kind) for kind in texts),
        _plain(collections.OrderedDict, _pairs, _ordered),
        _plain(collections.deque, lambda value: [value.maxlen, *value], _deque),
        _plain(datetime.timezone, _zone, lambda content: datetime.timezone(*content)),
        _plain(re.Pattern, lambda value: [value.pattern, value.flags], _pattern),
        _plain(zoneinfo.ZoneInfo, lambda value: _key(value.key), zoneinfo.ZoneInfo),
        TypeCodec(kind=Pairs, name=PAIRS, lower=lambda value: value.pairs, lift=_lifted_pairs),
    ]


def _plain(kind: type, lower: Callable[[Any], Any], lift: Callable[[Any], Any]) -> TypeCodec:
    return TypeCodec(kind=kind, name=f"py.{kind.__name__}", lower=lower, lift=lift)


def _pairs(value: Any) -> list[list[Any]]:
    return [[key, item] for key, item in value.items()]


def _lifted_pairs(content: Any) -> Pairs:
    if type(content) is not list or not all(
        type(pair) is list and len(pair) == 2 for pair in content
    ):
        raise ValueError("it is no list of pairs")
    if len({pair[0] for pair in content}) != len(content):
        raise ValueError("a key stands in it twice")
    return Pairs(content)


def _ordered(content: Any) -> Any:
    return collections.OrderedDict(_lifted_pairs(content).pairs)


def _deque(content: Any) -> Any:
    maxlen, *items = content
    if type(maxlen) is int and len(items) > maxlen:
        raise ValueError(f"it holds {len(items)} elements, and at most {maxlen} were possible")
    return collections.deque(items, maxlen)


def _zone(value: datetime.timezone) -> list[Any]:
    offset, name = value.utcoffset(None), value.tzname(None)
    return [offset] if name == datetime.timezone(offset).tzname(None) else [offset, name]


def _pattern(content: Any) -> re.Pattern[Any]:
    pattern, flags = content
    return re.compile(pattern, flags)


def _key(key: str | None) -> str:
    if key is None:
        raise ValueError("the zone was made of a file and has no key")
    return key


def _of_langchain() -> list[TypeCodec]:
    from langchain_core import messages
    from langchain_core.documents import Document

    kinds = [getattr(messages, name) for name in _MESSAGES]
    return [_model(kind, f"lc.{kind.__name__}") for kind in (*kinds, Document)]


def _model(kind: Any, name: str) -> TypeCodec:
    """Return the codec of a pydantic model: its state, as pydantic itself copies it."""
    fresh, write = kind.__new__, object.__setattr__

    def lift(content: Any) -> Any:
        fields, extra, private = content
        if type(fields) is not dict:
            raise ValueError("its fields are no dictionary")
        model = fresh(kind)
        write(model, "__dict__", fields)
        write(model, "__pydantic_fields_set__", set(fields))
        write(model, "__pydantic_extra__", extra)
        write(model, "__pydantic_private__", private)
        return model

    return TypeCodec(kind=kind, name=name, attributes=_MODEL, lift=lift)


def _of_langgraph() -> list[TypeCodec]:
    found = []
    for module, classes in _SLOTTED.items():
        found += [
            _slotted(kind, attributes)
            for kind, attributes in ((_get(module, name), at) for name, at in classes.items())
            if kind is not None
        ]
    for module, names in _DECLARED.items():
        kinds = (_get(module, name) for name in names)
        found += [_declared(kind) for kind in kinds if kind is not None]
    return found


def _declared(kind: type) -> TypeCodec:
    codec = TypeCodec.of(kind, name=_name(kind))
    count = len(codec.attributes)
    if not count:
        return codec
    lift = codec.lift
    return replace(codec, lift=lambda content: lift(_known_part(content, count)))


def _known_part(content: Any, count: int) -> Any:
    """Leave out what a newer LangGraph's class has more, where it says nothing (None).

    Raises:
        ValueError: It says something, which this version's class has no place for.
    """
    if type(content) is not list or len(content) <= count:
        return content
    if any(item is not None for item in content[count:]):
        raise ValueError("a newer LangGraph stored more attributes than this one's class has")
    return content[:count]


def _name(kind: type) -> str:
    return f"lg.{kind.__name__.lstrip('_')}"


def _get(module: str, name: str) -> type | None:
    """Return a class of LangGraph's; None where only langgraph-checkpoint is installed."""
    try:
        kind = getattr(import_module(module), name, None)
    except ImportError:
        return None
    return kind if isinstance(kind, type) else None


def _slotted(kind: Any, attributes: tuple[str, ...]) -> TypeCodec:
    slots = getattr(kind, "__slots__", ())
    attributes = tuple(name for name in attributes if name in slots)

    def lift(content: Any) -> Any:
        value = kind.__new__(kind)
        known = _known_part(content, len(attributes))
        for name, item in zip(attributes, [*known, None], strict=False):
            object.__setattr__(value, name, item)
        return value

    return TypeCodec(kind=kind, name=_name(kind), attributes=attributes, lift=lift)
