"""Objects of registered types come back as they were, or everybody says what is missing."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
from typing import NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError, SettingsError, UnregisteredTypeError, UnstorableError
from ckptlog.model.codec import NO_CODECS, OPAQUE, Built, Codecs, TypeCodec, Typed
from ckptlog.model.difference import differences
from ckptlog.model.value import decode, lift, lower, prepare
from ckptlog.policy.sanitise import Sanitiser
from tests.model.codec_cases import (
    CODECS,
    TYPED,
    Colour,
    Frozen,
    Message,
    Model,
    Pair,
    Point,
    Text,
    shape,
    typed_values,
)
from tests.model.value_cases import vectors

WIRES = vectors("typed.json")


def wire_of(value, codecs=CODECS):
    return prepare(value, codecs=codecs).wire


class TestRoundTrip:
    @given(typed_values)
    def test_exact(self, value):
        wire = wire_of(value)
        assert shape(decode(wire, CODECS)) == shape(value)
        assert wire_of(decode(wire, CODECS)) == wire
        assert shape(lift(lower(value, codecs=CODECS), CODECS)) == shape(value)

    @given(typed_values)
    def test_opaque_is_written_back_as_it_was(self, value):
        wire = wire_of(value)
        opaque = decode(wire, opaque=True)
        assert wire_of(opaque, OPAQUE) == wire
        assert shape(decode(wire_of(opaque, OPAQUE), CODECS)) == shape(value)

    @given(typed_values, typed_values)
    def test_injective(self, one, other):
        assert (wire_of(one) == wire_of(other)) == (shape(one) == shape(other))

    def test_every_typed_value_has_a_wire(self):
        assert list(TYPED) == list(WIRES)

    @pytest.mark.parametrize("name", TYPED)
    def test_vectors(self, name):
        wire = WIRES[name].encode()
        assert wire_of(TYPED[name]) == wire
        assert shape(decode(wire, CODECS)) == shape(TYPED[name])

    def test_sets_hold_objects(self):
        value = {Colour.RED, Colour.ONE, Pair(1, 2)}
        assert decode(wire_of(value), CODECS) == value
        assert len(decode(wire_of(value), opaque=True)) == 3

    def test_equal_objects_in_a_set_stay_several(self):
        one, other = (Message(number=1), Message(number=1))
        wire = wire_of({one, other})
        assert len(decode(wire, CODECS)) == 2
        assert len(decode(wire, opaque=True)) == 2

    def test_nothing_is_shared(self):
        inside = [1]
        value = Message(inside=inside)
        back = lift(lower(value, codecs=CODECS), CODECS)
        back.inside.append(2)
        assert inside == [1]

    def test_an_escaped_key_is_no_tag(self):
        value = {"$type": ["Colour", "red"]}
        assert decode(wire_of(value), CODECS) == value
        assert wire_of(value) != wire_of(Colour.RED)


class TestRefusals:
    def test_without_a_codec(self):
        with pytest.raises(UnstorableError, match=r"data\.a\[0\] is of type .*Point") as caught:
            prepare({"a": [Point(1)]})
        assert "TypeCodec.of" in caught.value.hint

    def test_a_subclass_is_refused(self):
        class Narrow(Point):
            pass

        with pytest.raises(UnstorableError, match="Narrow"):
            wire_of([Narrow(1)])

    def test_a_name_that_is_not_registered(self):
        wire = wire_of({"a": [Colour.RED]})
        for codecs in (NO_CODECS, Codecs([TypeCodec.of(Point)])):
            with pytest.raises(UnregisteredTypeError, match="'Colour'") as caught:
                decode(wire, codecs)
            assert caught.value.context == {"name": "Colour"}

    def test_what_was_read_opaque_is_not_stored_as_if_it_were_the_object(self):
        opaque = decode(wire_of([Colour.RED]), opaque=True)
        assert repr(opaque) == "[Typed(name='Colour', content='red')]"
        with pytest.raises(UnstorableError, match=r"data\[0\] was read without the codec 'Colour'"):
            wire_of(opaque)

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            ([Point(1, {1})], None),
            ([Point(1, object())], "data[0].y"),
            ([Message(a={"b": object()})], "data[0].a.b"),
            ([Message(object())], "data[0].extra"),
            ({"k": Text([object()])}, "data.k[0]"),
            ({"k": (Pair(Pair(1, object())),)}, "data.k[0].left.right"),
        ],
    )
    def test_paths(self, value, path):
        if path is None:
            wire_of(value)
            return
        with pytest.raises(UnstorableError) as caught:
            wire_of(value)
        assert caught.value.context["path"] == path.replace(".left.right", "[0][1]") or (
            caught.value.context["path"] == path
        )

    def test_an_object_that_holds_itself(self):
        value = Message()
        value.me = [value]
        with pytest.raises(UnstorableError, match=r"data\.a contains itself, at data\.a\.me\[0\]"):
            wire_of({"a": value})

    def test_the_codecs_own_errors_name_the_path(self):
        def broken(_value):
            raise ZeroDivisionError("by zero")

        codecs = Codecs([TypeCodec(kind=Text, name="text", lower=broken, lift=Text)])
        with pytest.raises(UnstorableError, match=r"data\[1\] could not be lowered.*by zero") as e:
            wire_of([0, Text(1)], codecs)
        assert isinstance(e.value.__cause__, ZeroDivisionError)
        missing = Message.__new__(Message)
        with pytest.raises(UnstorableError, match=r"data\[0\] could not be lowered.*extra"):
            wire_of([missing])

    def test_deep_objects_are_refused(self):
        value = 0
        for _ in range(101):
            value = Point(value)
        with pytest.raises(UnstorableError, match="nested deeper"):
            wire_of(value)

    def test_the_deepest_object_comes_back(self):
        value = 0
        for _ in range(100):
            value = Point(value)
        assert shape(decode(wire_of(value), CODECS)) == shape(value)


class TestHostileWires:
    @pytest.mark.parametrize(
        "content",
        [
            "1",
            "[]",
            '["Colour"]',
            '["Colour","red",1]',
            '[1,"red"]',
            '["","red"]',
            '["no blanks","red"]',
            '{"Colour":"red"}',
            '["Colour","green"]',
            '["Colour",1.0]',
            '["Colour",true]',
            '["Point",[1,2,3]]',
            '["Point",[]]',
            '["Point",{}]',
            '["Pair",[1]]',
            '["test:message",[{},1]]',
            '["Point",[{"$bytes":"!"}]]',
            '["Nothing",1]',
        ],
    )
    def test_malformed(self, content):
        with pytest.raises(FormatError):
            decode(b'[{"$type":' + content.encode() + b"}]", CODECS)

    def test_a_lift_that_gives_something_else(self):
        codecs = Codecs([TypeCodec(kind=Text, name="text", lower=str, lift=str)])
        with pytest.raises(FormatError, match="'text' was lifted to a str, not to a Text"):
            decode(b'{"$type":["text","x"]}', codecs)

    def test_a_lift_that_raises_is_named(self):
        def broken(_content):
            raise ZeroDivisionError("by zero")

        codecs = Codecs([TypeCodec(kind=Text, name="text", lower=str, lift=broken)])
        with pytest.raises(FormatError, match=r"'text' could not be lifted .*by zero"):
            decode(b'{"$type":["text","x"]}', codecs)

    @pytest.mark.parametrize("content", ["[{},null,1]", "[{}]", "[1,null]", "{}", "null", "[]"])
    def test_what_cannot_be_built(self, content):
        wire = b'[{"$type":["model",%s]}]' % content.encode()
        for way in (decode, lambda wire, codecs: lift(json.loads(wire), codecs)):
            with pytest.raises(FormatError, match="'model' could not be lifted"):
                way(wire, CODECS)

    @pytest.mark.parametrize("error", [ValueError, AttributeError])
    def test_what_makes_an_attribute_may_fail(self, error):
        def broken():
            raise error("so be it")

        names = ("__dict__",)
        for fresh in ({"extra": broken}, {"no_slot_has_this": int, "extra": broken}):
            built = Built(Model, names, fresh)
            codecs = Codecs([TypeCodec(kind=Model, name="m", attributes=names, lift=built)])
            with pytest.raises(FormatError, match=r"'m' could not be lifted .*so be it"):
                decode(b'{"$type":["m",[{}]]}', codecs)

    def test_what_is_built_is_of_the_codecs_type(self):
        built = Built(Point, ("x",))
        codecs = Codecs([TypeCodec(kind=Model, name="m", attributes=("extra",), lift=built)])
        with pytest.raises(FormatError, match="lifted to a Point, not to a Model"):
            decode(b'{"$type":["m",[1]]}', codecs)

    def test_built_objects_have_their_own(self):
        one, other = decode(prepare([Model(a=1), Model(a=1)], codecs=CODECS).wire, CODECS)
        one.fields_set.add(1)
        assert (other.fields_set, other.extra, other.a) == (set(), None, 1)

    def test_an_exception_is_a_value_only_where_it_is_returned(self):
        class TroubleError(Exception):
            pass

        def broken(content):
            raise TroubleError(content)

        for lift_it, is_sound in ((TroubleError, True), (broken, False)):
            codecs = Codecs(
                [TypeCodec(kind=TroubleError, name="t", attributes=("args",), lift=lift_it)]
            )
            wire = wire_of([TroubleError("x")], codecs)
            assert wire == b'[{"$type":["t",[{"$tuple":["x"]}]]}]'
            if is_sound:
                assert type(decode(wire, codecs)[0]) is TroubleError
                continue
            with pytest.raises(FormatError, match="could not be lifted"):
                decode(wire, codecs)
            with pytest.raises(FormatError, match="could not be lifted"):
                lift(lower([TroubleError("x")], codecs=codecs), codecs)

    def test_a_name_is_never_imported(self):
        with pytest.raises(UnregisteredTypeError):
            decode(b'{"$type":["os.system","true"]}', CODECS)

    def test_too_deep(self):
        wire = b'{"$type":["text",' * 201 + b"1" + b"]}" * 201
        with pytest.raises(FormatError, match="nested"):
            decode(wire, CODECS)


class TestRegistry:
    @pytest.mark.parametrize(
        "kind",
        [
            *(str, int, float, bool, dict, list, tuple, set, frozenset, bytes, type(None)),
            *(datetime.datetime, decimal.Decimal, Typed, numpy.ndarray, numpy.float32),
        ],
    )
    def test_types_that_the_wire_has(self, kind):
        with pytest.raises(SettingsError, match="takes no codec"):
            TypeCodec(kind=kind, name="x", lower=str, lift=str)

    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": "Text"},
            {"name": ""},
            {"name": "a b"},
            {"name": "a" * 65},
            {"name": "é"},
            {"name": None},
            {"attributes": ("a",)},
            {"lower": None},
            {"lower": None, "attributes": ["a"]},
            {"lower": None, "attributes": (1,)},
            {"lift": None},
            {"lower": 5},
        ],
    )
    def test_unfit(self, fields):
        with pytest.raises(SettingsError):
            TypeCodec(**{"kind": Text, "name": "text", "lower": str, "lift": Text, **fields})

    def test_twice(self):
        with pytest.raises(SettingsError, match="Point is registered twice"):
            Codecs([TypeCodec.of(Point), TypeCodec.of(Point, name="other")])
        with pytest.raises(SettingsError, match="'Point' is registered twice"):
            Codecs([TypeCodec.of(Point), TypeCodec.of(Frozen, name="Point")])

    @pytest.mark.parametrize("given", [[Point], 5, "text", TypeCodec.of(Point), None])
    def test_no_codecs(self, given):
        with pytest.raises(SettingsError, match="codecs cannot be used"):
            Codecs(given)

    def test_of_refuses_other_classes(self):
        class Bare:
            pass

        class Wide(Pair):
            pass

        class Local(NamedTuple):
            a: int

        for kind in (Bare, Wide, object, "Point", Point(1)):
            with pytest.raises(SettingsError):
                TypeCodec.of(kind)
        assert TypeCodec.of(Local).name == "Local"

    def test_it_is_a_collection(self):
        assert len(NO_CODECS) == 0
        assert Codecs.of(CODECS) is CODECS
        assert [codec.name for codec in Codecs.of([TypeCodec.of(Point)])] == ["Point"]
        assert "Point" in repr(CODECS)
        assert CODECS.opaque().is_opaque
        assert CODECS.opaque().opaque().by_kind == CODECS.by_kind

    def test_opaque_with_codecs_lifts_what_it_knows(self):
        wire = wire_of([Colour.RED, Point(1)])
        red, point = decode(wire, Codecs([TypeCodec.of(Point)]).opaque())
        assert type(red) is Typed
        assert point == Point(1)


def test_fields_that_came_later_get_their_defaults():
    @dataclasses.dataclass
    class Old:
        a: int

    @dataclasses.dataclass
    class New:
        a: int
        b: int = 5
        c: list = dataclasses.field(default_factory=list)

    old = prepare(Old(1), codecs=Codecs([TypeCodec.of(Old, name="x")])).wire
    new = Codecs([TypeCodec.of(New, name="x")])
    assert decode(old, new) == New(1, 5, [])
    with pytest.raises(FormatError, match="attributes"):
        decode(prepare(New(1), codecs=new).wire, Codecs([TypeCodec.of(Old, name="x")]))


def test_an_enum_with_a_generous_hook_stays_exact():
    class Loose(enum.Enum):
        A = "a"

        @classmethod
        def _missing_(cls, _value):
            return cls.A

    codecs = Codecs([TypeCodec.of(Loose)])
    assert decode(b'{"$type":["Loose","a"]}', codecs) is Loose.A
    with pytest.raises(FormatError):
        decode(b'{"$type":["Loose","b"]}', codecs)


class TestSecrets:
    token = "ghp_" + "A1" * 20

    def test_texts_inside_are_cleaned(self):
        prepared = prepare({"m": Message(text=self.token)}, sanitiser=Sanitiser(), codecs=CODECS)
        back = decode(prepared.wire, CODECS)
        assert type(back["m"]) is Message
        assert self.token not in back["m"].text
        assert prepared.sanitised_count == 1

    def test_under_a_secret_key_the_object_goes_as_a_whole(self):
        value = {"password": Colour.RED, "token": Point("x", ["y"]), "secret": Point(1, 2)}
        prepared = prepare(value, sanitiser=Sanitiser(), codecs=CODECS)
        back = decode(prepared.wire, CODECS)
        assert back == {"password": "[redacted]", "token": "[redacted]", "secret": Point(1, 2)}
        assert prepared.sanitised_count == 2
        again = prepare(back, sanitiser=Sanitiser(), codecs=CODECS)
        assert (again.wire, again.sanitised_count) == (prepared.wire, 0)

    def test_secret_keys_inside(self):
        prepared = prepare([Message(password="x")], sanitiser=Sanitiser(), codecs=CODECS)
        assert decode(prepared.wire, CODECS)[0].password == "[redacted]"

    def test_a_name_is_no_text(self):
        codecs = Codecs([TypeCodec.of(Point, name=self.token)])
        prepared = prepare(Point(1), sanitiser=Sanitiser(), codecs=codecs)
        assert decode(prepared.wire, codecs) == Point(1)


class TestDifferences:
    @given(typed_values)
    def test_none(self, value):
        wire = wire_of(value)
        assert differences(decode(wire, CODECS), decode(wire, CODECS), codecs=CODECS) == []
        one, other = (decode(wire, opaque=True) for _ in range(2))
        assert differences(one, other) == []

    def test_inside_objects(self):
        before = {"m": [Message(a=1, b=[1, 2]), Point(1, Text("x"))], "c": Colour.RED}
        after = {"m": [Message(a=1, b=[1, 3]), Point(2, Text("y"))], "c": Colour.ONE}
        found = differences(before, after, codecs=CODECS)
        assert [one.path for one in found] == ["m[0].b[1]", "m[1].x", "m[1].y", "c"]
        opaque = (decode(wire_of(value), opaque=True) for value in (before, after))
        found = differences(*opaque)
        assert [one.path for one in found] == ["m[0][0].b[1]", "m[1][0]", "m[1][1]", "c"]

    @given(st.sampled_from([(Pair(1), Point(1)), (Point(1), Point(True)), (Pair(1), (1, None))]))
    def test_types_count(self, pair):
        assert len(differences(*pair, codecs=CODECS)) == 1
        assert len(differences({frozenset([1])}, {frozenset([True])})) == 1
