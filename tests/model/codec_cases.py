"""Classes of every registered kind, their codecs, and values that hold them."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ckptlog.model.codec import Built, Codecs, TypeCodec
from tests.model.value_cases import values


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("blue", 2)
    ONE = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: Any
    right: Any = None


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    held: Any


@dataclasses.dataclass
class Nothing:
    pass


class Message:
    """Like a pydantic model: everything in `__dict__`, and slots beside it."""

    __slots__ = ("__dict__", "extra", "private")

    def __init__(self, extra=None, private=None, **fields):
        self.__dict__.update(fields)
        self.extra, self.private = extra, private


class Model:
    """Like a pydantic model, with what is not stored."""

    __slots__ = ("__dict__", "extra", "fields_set")

    def __init__(self, **fields):
        self.__dict__.update(fields)
        self.extra, self.fields_set = None, set()

    def __setattr__(self, name, value):
        if name in self.__dict__:
            raise TypeError("it is frozen")
        super().__setattr__(name, value)


class Text:
    """Lowered by a function."""

    def __init__(self, text):
        self.text = text


class Measured:
    """Its attributes run Python code."""

    def __init__(self, number):
        self.number = number

    @property
    def twice(self):
        return [self.number, (self.number,)]


def new_message(content: Any) -> Message:
    fields, extra, private = content
    message = Message.__new__(Message)
    message.__dict__ = fields
    message.extra, message.private = extra, private
    return message


CODECS = Codecs(
    [
        *(TypeCodec.of(kind) for kind in (Colour, Mode, Pair, Point, Frozen, Nothing)),
        TypeCodec(
            kind=Message,
            name="test:message",
            attributes=("__dict__", "extra", "private"),
            lift=new_message,
        ),
        TypeCodec(
            kind=Model,
            name="model",
            attributes=("__dict__", "extra"),
            lift=Built(Model, ("__dict__", "extra"), {"fields_set": set}),
        ),
        TypeCodec(kind=Text, name="text", lower=lambda value: value.text, lift=Text),
        TypeCodec(
            kind=Measured,
            name="measured",
            attributes=("twice",),
            lift=lambda content: Measured(content[0][0]),
        ),
    ]
)


def shape(value: Any) -> Any:
    """Return what two values have in common exactly when nothing tells them apart.

    Objects of registered types become tuples that no plain value is.
    """
    codec = CODECS.by_kind.get(type(value))
    if codec is not None:
        return (type(value), shape(codec.content(value)))
    if isinstance(value, dict):
        return (dict, [(key, shape(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value), [shape(item) for item in value])
    if isinstance(value, set | frozenset):
        return (type(value), sorted(repr(shape(item)) for item in value))
    if hasattr(value, "dtype"):
        return (type(value), str(value.dtype), repr(getattr(value, "shape", "")), value.tobytes())
    return (type(value), repr(value))


def _wrapped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    return st.one_of(
        st.builds(Pair, inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Frozen, inner),
        st.builds(Text, inner),
        st.builds(lambda fields: Model(**fields), fields),
        st.builds(lambda fields, extra: Message(extra, **fields), fields, inner),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        fields,
    )


leaves = st.one_of(
    st.sampled_from([*Colour, *Mode, Mode.READ | Mode.WRITE, Nothing()]),
    st.builds(Measured, st.integers()),
    values,
)
typed_values = st.recursive(leaves, _wrapped, max_leaves=12)

# The values of tests/vectors/values/typed.json, by name.
TYPED: dict[str, Any] = {
    "enum": Colour.RED,
    "enum of a tuple": Colour.BLUE,
    "flag": Mode.READ | Mode.WRITE,
    "named tuple": Pair(1, [2]),
    "dataclass": Point(1),
    "frozen dataclass with slots": Frozen((1,)),
    "dataclass without fields": Nothing(),
    "attributes": Message("e", text="t", number=1),
    "attributes, built": Model(text="t", n=[1]),
    "lowered by a function": Text("t"),
    "lowered to an escaped dict": Text({"$x": 1}),
    "inside one another": Point(Text(Pair(Colour.ONE, b"x")), {"a": Message(a=[Frozen(None)])}),
}
