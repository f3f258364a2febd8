"""Reads what LangGraph's serialiser wrote, by its own means, and never anything less than that.

`JsonPlusSerializer` has an allow-list; what is not on it, or cannot be built again, it returns as
the bare content (a dict in place of an object), or as None. For a migration that would be silent
loss. So every object is compared with the name that its bytes have: one that is not of that class
becomes `Unread`, and the value is refused with the path.

Nothing is imported but what is on LangGraph's strict list, or was named by the caller as a class.
Pickle is never read.
"""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ckptlog.errors import SettingsError
from ckptlog.model.quotation import quoted

PICKLE: Final = "import.pickle"
UNKNOWN: Final = "import.unknown_type"
_DAMAGED: Final = "import.damaged"
# Extension codes of LangGraph's msgpack (its serde/jsonplus.py). Others name module and class.
_ARRAY: Final = 6
_SNAPSHOT: Final = 7
_SNAPSHOT_NAMES: Final = ("langgraph.checkpoint.serde.types", "_DeltaSnapshot")
# What a function of that name returns.
_MADE_BY: Final[dict[tuple[str, str], type]] = {("re", "compile"): re.Pattern}
# Classes that LangGraph has moved since; its strict list knows the new name alone.
_MOVED_SEND: Final = ("langgraph.constants", "Send")
_KINDS: Final = ("null", "bytes", "bytearray", "json", "msgpack")
_ADVICE: Final = "copy from a program and name it: import_sqlite(store, path, types=[...])"


class UnreadableError(Exception):
    """A value is not read; the migration reports it and goes on.

    code: As in the report. path: Where in the checkpoint. reason: A sentence without its end.
    """

    def __init__(self, code: str, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.code, self.path, self.reason = code, path, reason


class Unread:
    """Stands for an object that was not read, while the rest of its value is.

    reason: "" where only something in its content was not read.
    """

    __slots__ = ("content", "name", "reason")

    def __init__(self, name: str, content: Any, reason: str) -> None:
        self.name, self.content, self.reason = name, content, reason


class _Strict(JsonPlusSerializer):
    """LangGraph's serialiser; what it leaves bare in JSON (its first format) becomes `Unread`."""

    def _reviver(self, value: dict[str, Any]) -> Any:
        if value.get("lc") not in {1, 2} or not isinstance(value.get("id"), list):
            return value
        name = ".".join(map(str, value["id"]))
        if value.get("type") != "constructor":  # a secret would be taken from our environment
            return Unread(name, value, f"is a {quoted(value.get('type'))} of LangChain's")
        try:
            revived = super()._reviver(value)
        except Exception as error:  # noqa: BLE001 - told with the path, below
            return Unread(name, value, f"cannot be built again ({type(error).__name__})")
        if revived is None or revived is value:
            return Unread(name, value, "is of a type that is not known here")
        return revived


class Rereader:
    """Decodes serialised values.

    Args:
        types: Classes of the user's that may be built besides LangGraph's own list.

    Raises:
        SettingsError: The LangGraph that is installed builds whatever bytes name.

    Threads: not safe.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        _check_serialiser(_Strict)
        listed = list(types)
        named = [(kind.__module__, kind.__name__) for kind in listed]
        self._named = set(named)
        # With a list, even an empty one, LangGraph builds nothing else, whatever its setting is.
        self._builder = _Strict(allowed_json_modules=named, allowed_msgpack_modules=listed)
        hook: Callable[[int, bytes], Any] = self._extension
        self._serde = _Strict(
            allowed_json_modules=named, allowed_msgpack_modules=listed, __unpack_ext_hook__=hook
        )
        self._unread = 0

    def __call__(self, value: tuple[Any, Any], path: str) -> Any:
        """Return a value.

        Raises:
            UnreadableError: Something in it is not read; nothing is left out or replaced.
        """
        kind, raw = value
        if kind == "null":
            return None
        if kind == "pickle":
            raise UnreadableError(PICKLE, path, "it is pickled, and pickle runs what it is given")
        if kind not in _KINDS:
            raise UnreadableError(UNKNOWN, path, f"it was serialised as {quoted(kind)}")
        if not isinstance(raw, bytes):
            raise UnreadableError(_DAMAGED, path, f"it is {quoted(raw)}, not bytes")
        self._unread = 0
        try:
            read = self._serde.loads_typed((kind, raw))
        except Exception as error:  # whatever damaged bytes lead to
            raise UnreadableError(_DAMAGED, path, f"no {kind}: {error}") from error
        for at, reason in _unread(read, path):
            raise UnreadableError(UNKNOWN, at, reason)
        if self._unread:  # inside of something that has no path
            raise UnreadableError(UNKNOWN, path, "it holds an object that was not read")
        return read

    def _extension(self, code: int, data: bytes) -> Any:
        """Return an object of msgpack's; `Unread` unless it is what its bytes say."""
        before = self._unread
        content = ormsgpack.unpackb(
            data, ext_hook=self._extension, option=ormsgpack.OPT_NON_STR_KEYS
        )
        names = ("numpy", "ndarray") if code == _ARRAY else _SNAPSHOT_NAMES
        if code not in {_ARRAY, _SNAPSHOT}:
            if not _is_header(content):
                return self._refused(f"extension {code}", content, "is not what LangGraph writes")
            names, content = (content[0], content[1]), content[2]
        if self._unread > before:
            return Unread(".".join(names), content, "")
        if names == _MOVED_SEND:
            return self._send(content)
        built = self._builder.loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(code, data))))
        if _is_made_by(built, names):
            return built
        reason = "cannot be built again" if names in self._named else "is not known here"
        return self._refused(".".join(names), content, reason)

    def _send(self, content: Any) -> Any:
        try:
            from langgraph.types import Send

            node, argument = content
        except (ImportError, TypeError, ValueError):
            return self._refused(".".join(_MOVED_SEND), content, "cannot be built again")
        return Send(node, argument)

    def _refused(self, name: str, content: Any, reason: str) -> Unread:
        self._unread += 1
        return Unread(name, content, reason)


def _check_serialiser(serialiser: type) -> None:
    """Refuse a serialiser without a list: reading would import what a foreign file names."""
    if "allowed_msgpack_modules" not in inspect.signature(serialiser).parameters:
        raise SettingsError(
            "The langgraph-checkpoint that is installed has no list of classes that may be read, "
            "so nothing can be copied with it.",
            hint="Install 4.0.1 or newer, here or in an environment of its own: pip install "
            '"langgraph-checkpoint>=4.0.1"',
            argument="source",
        )


def _is_header(content: Any) -> bool:
    return (
        type(content) in {list, tuple}
        and len(content) >= 3
        and type(content[0]) is str
        and type(content[1]) is str
    )


def _is_made_by(value: Any, names: tuple[str, str]) -> bool:
    """Say whether a value is of the class that its bytes name."""
    kind = _MADE_BY.get(names)
    if kind is not None:
        return isinstance(value, kind)
    # Python 3.13 alone calls pathlib's classes by another module.
    wanted = names[0].removesuffix("._local"), names[1]
    return any(
        (base.__module__.removesuffix("._local"), base.__name__) == wanted
        for base in type(value).__mro__
    )


def _unread(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield where something was not read, and why."""
    if isinstance(value, Unread):
        if value.reason:
            yield path, f"{quoted(value.name)} {value.reason}"
        else:
            yield from _unread(value.content, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _unread(key, f"{path}.{key}")
            yield from _unread(item, f"{path}.{key}")
    elif isinstance(value, list | tuple | deque):
        for index, item in enumerate(value):
            yield from _unread(item, f"{path}[{index}]")
    elif isinstance(value, set | frozenset):
        for item in value:
            yield from _unread(item, path)
