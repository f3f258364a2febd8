"""Attributes that the kernel reads in place are what Python would say, whatever the type does."""

from __future__ import annotations

import pytest

from ckptlog.kernel import native
from ckptlog.model.codec import Codecs, TypeCodec
from tests.kernel.test_wire import long_way, short_way

pytestmark = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")


def both(value, kind, *names):
    """Return the wire of the long way, with the short way's held against it."""
    codecs = Codecs([TypeCodec(kind=kind, name="k", attributes=names, lift=kind)])
    expected = long_way(value, codecs=codecs)
    assert short_way(value, codecs=codecs) == expected
    return expected


class Slotted:
    __slots__ = ("__dict__", "a", "b")

    def __init__(self, a, b, **others):
        self.a, self.b = a, b
        self.__dict__.update(others)


class Modelled(Slotted):
    """As pydantic's models: what is not found is asked for."""

    __slots__ = ()

    def __getattr__(self, name):
        return f"asked for {name}"


def test_slots_and_the_dict():
    for kind in (Slotted, Modelled):
        wire = both([kind(1, "x", c=[2]), kind(None, {}, d=3)], kind, "__dict__", "a", "b")
        assert wire.count(b'"c":[2]') == 1
        assert b'{"d":3},null,{}' in wire


def test_a_dict_that_nobody_has_touched():
    class Plain:
        def __init__(self):
            self.x = 1

    assert b'{"x":1}' in both([Plain(), Plain()], Plain, "__dict__")


def test_an_empty_slot_is_asked_for():
    full, empty = Modelled(1, 2), Modelled(1, 2)
    del empty.b
    wire = both([full, empty, full], Modelled, "a", "b")
    assert wire.count(b"asked for b") == 1


def test_a_type_that_looks_up_otherwise():
    class Otherwise(Slotted):
        __slots__ = ()

        def __getattribute__(self, name):
            return f"not {name}" if name == "a" else super().__getattribute__(name)

    assert b"not a" in both([Otherwise(1, 2)], Otherwise, "a", "b")


def test_what_a_subclass_puts_in_place_of_a_slot():
    class Covered(Slotted):
        __slots__ = ()
        a = property(lambda self: Slotted.a.__get__(self) * 2, Slotted.a.__set__)

    assert b"[14,1]" in both([Covered(7, 1)], Covered, "a", "b")


def test_a_dict_that_is_a_property():
    class Told:
        @property
        def __dict__(self):
            return {"told": 1}

    assert b'{"told":1}' in both([Told()], Told, "__dict__")


def test_a_dict_under_a_base_written_in_c():
    class BrokenError(Exception):
        pass

    fault = BrokenError("x")
    fault.seen = 1
    assert b'{"seen":1}' in both([fault, fault], BrokenError, "__dict__")


def test_a_dict_beside_a_base_written_in_c():
    class Other:
        pass

    class BrokenError(Other, Exception):
        pass

    fault = BrokenError("x")
    fault.seen = 1
    assert b'{"seen":1}' in both([fault, fault], BrokenError, "__dict__")


def test_a_slot_of_a_class_that_has_nothing_to_do_with_it():
    class Stranger:
        __slots__ = ()
        a = Slotted.a

    codecs = Codecs([TypeCodec(kind=Stranger, name="k", attributes=("a",), lift=Stranger)])
    assert short_way([Stranger()], codecs=codecs) is None  # the long way tells the TypeError


@pytest.mark.parametrize("in_base", [False, True])
def test_a_type_that_changes_between_two_of_its_objects(in_base):
    class Base:
        __slots__ = ("a",)

    class Changing(Base):
        __slots__ = ("b",)

    class Meddler:
        @property
        def run(self):
            (Base if in_base else Changing).a = property(lambda _: "changed")
            assert first.b == 1  # it is looked up again: the type has a new version
            return 0

    first, second = Changing(), Changing()
    first.a = second.a = first.b = second.b = 1
    codecs = Codecs(
        [
            TypeCodec(kind=Changing, name="c", attributes=("a", "b"), lift=Changing),
            TypeCodec(kind=Meddler, name="m", attributes=("run",), lift=Meddler),
        ]
    )
    wire = short_way([first, Meddler(), second], codecs=codecs)
    assert wire.count(b"[1,1]") == 1
    assert wire.count(b'["changed",1]') == 1


def test_more_attributes_than_are_read_in_place():
    names = tuple(f"a{number}" for number in range(12))
    kind = type("Wide", (), {"__slots__": names})
    value = kind()
    for number, name in enumerate(names):
        setattr(value, name, number)
    assert b"[0,1,2,3,4,5,6,7,8,9,10,11]" in both([value, value], kind, *names)


def test_more_types_than_are_remembered():
    kinds = [type(f"K{number}", (), {"__slots__": ("a",)}) for number in range(60)]
    codecs = Codecs(
        TypeCodec(kind=kind, name=kind.__name__, attributes=("a",), lift=kind) for kind in kinds
    )
    values = [kind() for kind in kinds] * 2
    for number, value in enumerate(values):
        value.a = number
    assert short_way(values, codecs=codecs) == long_way(values, codecs=codecs)


def test_more_keys_than_are_remembered():
    keys = [f"key {number}" * (1 + number % 9) for number in range(500)]
    value = [{key: [number, "é", chr(34)] for key in keys} for number in range(3)]
    assert short_way(value) == long_way(value)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 200])
def test_texts_of_every_length_with_an_escape_anywhere(size):
    text = "a" * size
    spoilt = [text[:at] + sign + text[at + 1 :] for at in range(size) for sign in '"\n\x1f\\\x7fé']
    for value in ([text, *spoilt], dict.fromkeys([text, *spoilt], text)):
        assert short_way(value) == long_way(value)
