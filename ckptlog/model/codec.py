"""Codecs: how values of a user's own types are stored, each registered by its exact type.

On the wire such a value is the tag `$type` with a name and a content (specs/values.md). The name
is found in the registry and nowhere else: nothing is ever imported because a wire says so.

Invariants:
- By exact type on the way in, by name on the way out; a registry has each once.
- No codec for what the wire has already: a str stays a str, whoever registers what.
- What `lift` returns is of exactly the codec's type, or the wire is refused.

An opaque registry (`OPAQUE`) needs no codec: what it reads stands as `Typed`, and is written back
as it was. The command line and `verify` use it, for they have no classes of the user's.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn, Self

import msgspec

from ckptlog.errors import SettingsError
from ckptlog.model.quotation import quoted
from ckptlog.model.scalar import LOWERED

TYPE: Final = "$type"

_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_HOW: Final = "Give attributes=(...) or lower=..., and lift=...; or use TypeCodec.of(cls)."


class Typed(msgspec.Struct, frozen=True, eq=False):
    """A value of a type that is not registered here, as an opaque reader shows it.

    Each is equal to itself alone, as a set may hold several of one content.

    name: The codec's name.
    content: What its `lift` would be given.
    """

    name: str
    content: Any


_ON_THE_WIRE: Final = frozenset(
    {type(None), bool, int, float, str, list, dict, tuple, set, frozenset, Typed, *LOWERED}
)


class Built:
    """A `lift` that makes an object without `__init__` and gives it its attributes.

    They are set by `object.__setattr__`, whatever the class has of its own; the kernel does so
    without running Python.

    kind: Of the object; made by `kind.__new__(kind)`.
    names: Of the attributes, as many as the content has.
    fresh: Attributes that are not stored, one after the other with what makes each.
    """

    __slots__ = ("fresh", "kind", "names")

    def __init__(
        self,
        kind: type,
        names: tuple[str, ...],
        fresh: Mapping[str, Callable[[], Any]] = MappingProxyType({}),
    ) -> None:
        """Make a lift.

        Args:
            fresh: Attributes that are not stored, and what makes each.
        """
        self.kind: Any = kind
        self.names = tuple(map(sys.intern, names))
        made = [(sys.intern(name), make) for name, make in fresh.items()]
        self.fresh: tuple[Any, ...] = tuple(part for pair in made for part in pair)

    def __call__(self, content: Any) -> Any:
        """Return the object of a content.

        Raises:
            ValueError: It is no list of as many attributes.
        """
        names = self.names
        if type(content) is not list or len(content) != len(names):
            raise ValueError(f"{self.kind.__name__} needs the attributes {', '.join(names)}")
        value = self.kind.__new__(self.kind)
        for name, item in zip(names, content, strict=True):
            object.__setattr__(value, name, item)
        for name, make in zip(self.fresh[::2], self.fresh[1::2], strict=True):
            object.__setattr__(value, name, make())
        return value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TypeCodec:
    """How values of one type are stored.

    kind: The type; values of its subclasses are refused.
    name: What stands for it on the wire, for ever: 1 to 64 letters, digits, `.`, `_`, `:`, `-`.
    lift: Makes the value of the content that was stored; it must return a `kind`. `Built` is one
        that sets attributes, and the fastest.
    attributes: The content is a list of these attributes' values, in this order.
    lower: Makes the content of a value, where there are no attributes.

    Content is any storable value, other registered types included. It may come back with secrets
    in its texts replaced (specs/sanitise.md).

    Raises:
        SettingsError: A field is of the wrong type, or the wire has `kind` already.
    """

    kind: type
    name: str
    lift: Callable[[Any], Any]
    attributes: tuple[str, ...] = ()
    lower: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what could not work, when it is made and not when a value is met."""
        if not isinstance(self.kind, type):
            raise _unfit(f"kind is {quoted(self.kind)}, which is no class")
        if self.kind in _ON_THE_WIRE or _is_numpys(self.kind):
            raise _unfit(f"{self.kind.__qualname__} is stored as it is and takes no codec", "")
        if type(self.name) is not str or not _NAME.fullmatch(self.name):
            raise _unfit(
                f"the name {quoted(self.name)} is not 1 to 64 of the characters A-Z a-z 0-9 . _ : -"
            )
        names: Any = self.attributes
        if type(names) is not tuple or not all(type(name) is str for name in names):
            raise _unfit(f"the attributes of {self.name!r} are no tuple of names")
        if (self.lower is None) is not bool(names):
            raise _unfit(f"{self.name!r} needs either attributes or lower, and not both")
        for call in (self.lift, *(() if self.lower is None else (self.lower,))):
            if not callable(call):
                raise _unfit(f"lift or lower of {self.name!r} is {quoted(call)}, no function")

    @classmethod
    def of(cls, kind: type, *, name: str | None = None) -> TypeCodec:
        """Return the codec of a dataclass, an enum or a named tuple.

        Dataclasses keep their fields and nothing else, and are built without `__init__`. Fields
        that are added later must stand last and have defaults, which older values then get. Enums
        keep their value.

        Args:
            name: The name on the wire; that of the class by default.

        Raises:
            SettingsError: It is another kind of class, or its name cannot be used.
        """
        if not isinstance(kind, type):
            raise _unfit(f"kind is {quoted(kind)}, which is no class")
        name = kind.__name__ if name is None else name
        if issubclass(kind, enum.Enum):
            return cls(kind=kind, name=name, lower=_value_of, lift=_enum_lift(kind))
        if dataclasses.is_dataclass(kind):
            fields = dataclasses.fields(kind)
            attributes = tuple(field.name for field in fields)
            if attributes:
                lift = _BuiltOfFields(kind, fields)
                return cls(kind=kind, name=name, attributes=attributes, lift=lift)
            return cls(kind=kind, name=name, lower=_nothing, lift=_lift_nothing(kind))
        if issubclass(kind, tuple) and hasattr(kind, "_fields") and not kind.__dictoffset__:
            return _named_tuple(cls, kind, name)
        raise _unfit(f"{kind.__qualname__} is no dataclass, no enum and no named tuple")

    def content(self, value: Any) -> Any:
        """Return the content of a value of this type; what the user's code raises passes."""
        if self.lower is not None:
            return self.lower(value)
        return [getattr(value, name) for name in self.attributes]

    def lifted(self, content: Any) -> Any:
        """Return the value of a content.

        Raises:
            ValueError: Lifting failed, or gave something else than a `kind`.
        """
        try:
            value = self.lift(content)
        except Exception as error:  # noqa: BLE001 - told as what it means here
            failed(self.name, self.kind, error)
        return value if type(value) is self.kind else failed(self.name, self.kind, value)


def failed(name: str, kind: type, value: Any) -> NoReturn:
    """Tell what a codec's lift raised, or gave in place of a `kind`.

    Raises:
        ValueError: Always.
    """
    if isinstance(value, Exception):
        said = f"{type(value).__name__}: {value}"[:200]
        raise ValueError(  # noqa: TRY004 - as all faults of a wire
            f"{TYPE} {name!r} could not be lifted ({said})"
        ) from value
    raise ValueError(
        f"{TYPE} {name!r} was lifted to a {type(value).__name__}, not to a {kind.__name__}"
    )


class Codecs:
    """A registry of codecs; it never changes.

    Attributes:
        is_opaque: Whether names that are not registered are read as `Typed`.
        by_kind, by_name: Its codecs.
        table: For the kernel: type, start of the wire, attributes, of each that has attributes.
        lifts: For the kernel: type and lift by name, and of `Built` what it sets.

    Threads: safe.
    """

    __slots__ = ("by_kind", "by_name", "is_opaque", "lifts", "table")

    by_kind: Mapping[type, TypeCodec]
    by_name: Mapping[str, TypeCodec]
    is_opaque: bool
    table: tuple[Any, ...]
    lifts: dict[str, tuple[Any, ...]]

    def __init__(self, codecs: Iterable[TypeCodec] = (), *, is_opaque: bool = False) -> None:
        """Make a registry.

        Raises:
            SettingsError: Something in it is no codec, or a type or a name stands in it twice.
        """
        by_kind: dict[type, TypeCodec] = {}
        by_name: dict[str, TypeCodec] = {}
        for codec in _listed(codecs):
            if codec.kind in by_kind:
                raise _unfit(f"{codec.kind.__qualname__} is registered twice", "")
            if codec.name in by_name:
                raise _unfit(f"the name {codec.name!r} is registered twice", "Rename one.")
            by_kind[codec.kind] = by_name[codec.name] = codec
        self.by_kind = MappingProxyType(by_kind)
        self.by_name = MappingProxyType(by_name)
        self.is_opaque = is_opaque
        self.table = tuple(
            part
            for codec in by_kind.values()
            if codec.attributes
            for part in (codec.kind, _start(codec.name), tuple(map(sys.intern, codec.attributes)))
        )
        self.lifts = {codec.name: _lift_of(codec) for codec in by_kind.values()}

    @classmethod
    def of(cls, given: Codecs | Iterable[TypeCodec]) -> Codecs:
        """Return a registry as it is, or that of some codecs."""
        return given if isinstance(given, Codecs) else cls(given)

    def opaque(self) -> Self:
        """Return the same codecs with names that are not registered read as `Typed`."""
        return self if self.is_opaque else type(self)(self, is_opaque=True)

    def __iter__(self) -> Iterator[TypeCodec]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def __repr__(self) -> str:
        return f"<Codecs {', '.join(self.by_name) or 'of nothing'}>"


def _lift_of(codec: TypeCodec) -> tuple[Any, ...]:
    built = codec.lift
    if not isinstance(built, Built) or built.kind is not codec.kind:
        return codec.kind, built
    return codec.kind, built, built.names, built.fresh


def _start(name: str) -> bytes:
    return b'{"%s":["%s",[' % (TYPE.encode(), name.encode())


def is_name(name: object) -> bool:
    """Say whether a wire's name is one that a codec can have."""
    return type(name) is str and _NAME.fullmatch(name) is not None


def _listed(codecs: Any) -> list[TypeCodec]:
    if isinstance(codecs, str | bytes | TypeCodec) or not isinstance(codecs, Iterable):
        raise _unfit(f"they are of type {type(codecs).__name__}; a list of TypeCodec is needed", "")
    listed = list(codecs)
    for codec in listed:
        if not isinstance(codec, TypeCodec):
            raise _unfit(f"{quoted(codec)} is no TypeCodec", "Wrap a class: TypeCodec.of(cls).")
    return listed


def _unfit(reason: str, hint: str = _HOW) -> SettingsError:
    return SettingsError(f"codecs cannot be used: {reason}.", hint=hint, argument="codecs")


def _is_numpys(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    array, generic = getattr(numpy, "ndarray", None), getattr(numpy, "generic", None)
    return kind is array or (generic is not None and issubclass(kind, generic))


def _value_of(member: enum.Enum) -> Any:
    return member._value_


def _nothing(_value: object) -> None:
    return None


def _enum_lift(kind: type[enum.Enum]) -> Callable[[Any], Any]:
    def lift(content: Any) -> Any:
        member = kind(content)
        # 1.0 and True find the member of 1, and a hook may find one for anything.
        if type(_value_of(member)) is not type(content) or _value_of(member) != content:
            raise ValueError(f"{kind.__name__} has no member of exactly this value")
        return member

    return lift


class _BuiltOfFields(Built):
    """Builds a dataclass; fields at the end that were not stored get their defaults."""

    __slots__ = ("_fields",)

    def __init__(self, kind: type, fields: tuple[dataclasses.Field[Any], ...]) -> None:
        super().__init__(kind, tuple(field.name for field in fields))
        self._fields = fields

    def __call__(self, content: Any) -> Any:
        if type(content) is not list or len(content) >= len(self._fields):
            return super().__call__(content)
        return super().__call__([*content, *map(_default_of, self._fields[len(content) :])])


def _lift_nothing(kind: Any) -> Callable[[Any], Any]:
    def lift(content: Any) -> Any:
        if content is not None:
            raise ValueError(f"{kind.__name__} has no fields")
        return kind.__new__(kind)

    return lift


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise ValueError(f"the field {field.name} was not stored and has no default")


def _named_tuple(cls: type[TypeCodec], kind: Any, name: str) -> TypeCodec:
    fields = kind._fields

    def lift(content: Any) -> Any:
        if type(content) is not list or len(content) != len(fields):
            raise ValueError(f"{kind.__name__} has the fields {', '.join(fields)}")
        return tuple.__new__(kind, content)

    if fields:
        return cls(kind=kind, name=name, attributes=fields, lift=lift)
    return cls(kind=kind, name=name, lower=list, lift=lift)


NO_CODECS: Final = Codecs()
OPAQUE: Final = Codecs(is_opaque=True)
