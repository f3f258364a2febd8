"""The wire that the kernel writes is the long way's, to the byte, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.errors import UnstorableError
from ckptlog.kernel import native
from ckptlog.model import value as values
from ckptlog.model.codec import NO_CODECS, Codecs, TypeCodec
from ckptlog.policy.sanitise import Sanitiser
from tests.model.codec_cases import CODECS, TYPED, Measured, Message, Text, typed_values
from tests.model.value_cases import GOOD
from tests.model.value_cases import values as any_values

pytestmark = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")

texts = st.text() | st.text(st.sampled_from('a"\\\n\x00\x1f\x7fé€😀'), max_size=50)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(texts | st.just("$x"), inner, max_size=4)
    ),
    max_leaves=20,
)


def short_way(value, sanitiser=None, codecs=CODECS, left=10**6, depth_max=values.DEPTH_MAX):
    verdicts = None if sanitiser is None else sanitiser.verdicts
    return native.wire(
        *(value, codecs.table, verdicts, "[redacted]", values._odd_wire, (sanitiser, codecs)),
        *(values._encode, depth_max, left),
    )


def long_way(value, sanitiser=None, codecs=CODECS):
    return values._walked(value, "data", sanitiser, codecs)[1]


class TestAlike:
    @given(plain | any_values | typed_values)
    @settings(max_examples=400)
    def test_every_value(self, value):
        assert short_way(value) == long_way(value)

    @given(st.text(st.characters(), max_size=40))
    def test_texts_with_surrogates(self, text):
        for value in (text, {text: 1}, [Message(a=text)], ({"k": [text]},)):
            wire = short_way(value)
            try:
                assert wire == long_way(value)
            except UnstorableError:
                assert wire is None

    @given(plain | typed_values)
    def test_with_keys_judged(self, value):
        sanitiser = Sanitiser()
        assert short_way(value, sanitiser) == long_way(value, sanitiser)
        assert short_way([value, value], sanitiser) == long_way([value, value], sanitiser)

    @pytest.mark.parametrize("name", GOOD)
    def test_every_type(self, name):
        for value in (GOOD[name], [GOOD[name]], {"a": {"b": GOOD[name]}}, (GOOD[name],)):
            assert short_way(value) == long_way(value)

    @pytest.mark.parametrize("name", TYPED)
    def test_every_registered_type(self, name):
        value = TYPED[name]
        assert short_way([value, {"a": (value,)}]) == long_way([value, {"a": (value,)}])

    @pytest.mark.parametrize("byte", [*'"\\\b\t\n\r\f\x00\x1f é', "\x7f", "\u2028", "€", "😀"])
    def test_every_length_and_place(self, byte):
        texts = [
            "x" * before + byte + "y" * behind for before in range(70) for behind in (0, 1, 17)
        ]
        assert short_way(texts) == long_way(texts)
        for text in texts:
            assert short_way({text: text}) == long_way({text: text})

    def test_every_character(self):
        for first in range(0, sys.maxunicode, 4096):
            points = [point for point in range(first, first + 4096) if not 0xD800 <= point < 0xE000]
            text = "".join(map(chr, points))
            assert short_way(text) == long_way(text)

    def test_texts_at_every_place_in_memory(self):
        """Short texts are read by 16 bytes: at the end of a page that must not be done."""
        texts = [str(number) for number in range(60_000)]
        assert short_way(texts) == json.dumps(texts, separators=(",", ":")).encode()
        keys = dict.fromkeys(texts)
        assert short_way(keys) == json.dumps(keys, separators=(",", ":")).encode()

    def test_numbers(self):
        near = [sign * 2**bits + step for bits in range(66) for sign in (1, -1) for step in (-1, 0)]
        floats = [float(number) * 1.1 for number in near]
        for value in (near, floats, [*floats, float("nan")], [*floats, 1], tuple(floats)):
            assert short_way(value) == long_way(value)
            assert [short_way(one) for one in value] == [long_way(one) for one in value]

    def test_large_values(self):
        for value in ("\n" * 300_000, ["é" * 1000] * 500, {"a" * 100_000: "b" * 1_000_000}):
            assert short_way(value) == long_way(value)


class TestLongWay:
    @pytest.mark.parametrize(
        "value",
        [
            {1: 2},
            object(),
            Codecs,
            "\ud800",
            {"\udfff": 1},
            type("Text", (str,), {})("text"),
            type("Number", (int,), {})(1),
            type("List", (list,), {})(),
            type("Dict", (dict,), {})(),
            type("Pair", (tuple,), {})(),
            type("Narrow", (Message,), {})(),
            {type("Text", (str,), {})("key"): 1},
            {object()},
            Message(object()),
            Text(object()),
            Message.__new__(Message),
            10**5000,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_cannot_be_stored(self, value):
        for wrapped in (value, [[value]], {"a": 1, "b": [value]}, (Message(a=value),)):
            assert short_way(wrapped) is None
            with pytest.raises(UnstorableError):
                values.prepare(wrapped, codecs=CODECS)

    def test_containers_inside_themselves(self):
        loop: list = []
        loop.append(loop)
        message = Message()
        message.me = (message,)
        for value in (loop, message, {"a": {"b": loop}}):
            assert short_way(value) is None

    @given(typed_values, st.integers(0, 12), st.integers(0, 12))
    def test_the_same_limits(self, value, left, depth_max):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(values, "DEPTH_MAX", depth_max)
            walk = values._Lowering(None, CODECS, left)
            try:
                expected = values._encode(walk.lowered(value, 1))
            except values.Refusal:
                expected = None
            assert short_way(value, left=left, depth_max=depth_max) == expected

    def test_secrets(self):
        sanitiser = Sanitiser()
        for secret in ("x", ["x"], {"a": b"x"}, b"x", Message(a="x"), (), []):
            assert short_way({"a": [{"password": secret}]}, sanitiser) is None
        for harmless in ("", "[redacted]", None, True, 5, 2**70, 1.5, float("nan")):
            value = {"a": [{"password": harmless}]}
            assert short_way(value, sanitiser) == long_way(value, sanitiser)
            assert values.prepare(value, sanitiser=sanitiser).sanitised_count == 0
        assert short_way({"s": {Text({"password": "x"})}}, sanitiser) is None
        keep = Sanitiser(keep_keys=["password"], extra_keys=["note"])
        assert short_way({"password": "x"}, keep) == b'{"password":"x"}'
        assert short_way({"note": "x"}, keep) is None

    def test_keys_are_judged_anew_each_time(self):
        value = {"note": "x"}
        assert short_way(value, Sanitiser()) is not None
        assert short_way(value, Sanitiser(extra_keys=["note"])) is None

    @given(typed_values, st.sampled_from(["ghp_" + "A1" * 20, "none", "Bearer abc"]))
    def test_sanitised_values_are_the_long_ways(self, value, text):
        value = {"a": [value, text], "password": text, "n": Message(token=text)}
        for part in (value, value["a"], [value["n"]]):
            prepared = values.prepare(part, sanitiser=Sanitiser(), codecs=CODECS)
            _, wire, count = values._walked(part, "data", Sanitiser(), CODECS)
            assert (prepared.wire, prepared.sanitised_count) == (wire, count)


class TestErrors:
    def test_of_the_encoder(self):
        def broken(_value):
            raise ZeroDivisionError

        for encode, kind in ((broken, ZeroDivisionError), (repr, TypeError)):
            with pytest.raises(kind):
                native.wire([1.5], (), None, "", values._odd_wire, (), encode, 9, 9)

    @pytest.mark.parametrize(
        ("answer", "kind"), [(5, TypeError), (("x", 1), TypeError), ((b"", "x"), TypeError)]
    )
    def test_of_the_callback(self, answer, kind):
        with pytest.raises(kind):
            native.wire([b""], (), None, "", lambda *_: answer, None, values._encode, 9, 9)
        with pytest.raises(ZeroDivisionError):
            native.wire([b""], (), None, "", lambda *_: 1 // 0, None, values._encode, 9, 9)

    def test_of_the_verdicts(self):
        class Broken(dict):
            def __missing__(self, key):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            native.wire({"a": 1}, (), Broken(), "", values._odd_wire, (), values._encode, 9, 9)

    @pytest.mark.parametrize("error", [ValueError, RecursionError, KeyError])
    def test_of_an_attribute_take_the_long_way(self, error):
        codecs = raising(error)
        assert short_way([Measured(1)], codecs=codecs) is None
        # A short stack says so itself, all else is told of the codec.
        with pytest.raises(UnstorableError, match=r"nested too deep|could not be lowered"):
            values.prepare([Measured(1)], codecs=codecs)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_passes(self, error):
        with pytest.raises(error):
            short_way([Measured(1)], codecs=raising(error))

    @pytest.mark.parametrize(
        "changed",
        [
            {1: []},
            {1: (1, 2)},
            {1: (int, "x", ())},
            {1: (int, b"x", [])},
            {2: []},
            {3: b""},
            {7: "x"},
            {8: None},
        ],
    )
    def test_wrong_arguments(self, changed):
        arguments = [{}, (), None, "", values._odd_wire, (), values._encode, 9, 9]
        for place, argument in changed.items():
            arguments[place] = argument
        with pytest.raises(TypeError):
            native.wire(*arguments)
        with pytest.raises(TypeError):
            native.wire()


def raising(error):
    class Hooked:
        def __get__(self, _value, _kind):
            raise error

    Measured.broken = Hooked()
    return Codecs(
        [TypeCodec(kind=Measured, name="m", attributes=("number", "broken"), lift=Measured)]
    )


class Meddler:
    """An object that changes what it stands in while it is read."""

    def __init__(self, meddle):
        self._meddle = meddle

    @property
    def number(self):
        self._meddle()
        gc.collect()
        return 1


MEDDLING = Codecs(
    [
        TypeCodec(kind=Meddler, name="meddler", attributes=("number",), lift=Meddler),
        TypeCodec(kind=Text, name="text", lower=lambda text: text.text(), lift=Text),
    ]
)


def meddled(make, meddle):
    """Return a value whose middle changes all of it, and what must be stored."""

    def change():
        meddle(value)
        return 1

    value = make(Meddler(change))
    other = make(Text(change))
    expected = make(Meddler(lambda: None))
    assert long_way(expected, codecs=MEDDLING) == short_way(expected, codecs=MEDDLING)
    return value, other, expected


def cleared(value):
    for container in gc.get_referents(value):
        if isinstance(container, list | dict):
            container.clear()
    value.clear()


def grown(value):
    if isinstance(value, list):
        value[:] = [str(number) for number in range(1000)]
        return
    for number in range(1000):
        value[f"new{number}"] = [number]
    for key in list(value)[:3]:
        del value[key]


MAKERS = {
    "list": lambda odd: ["a" * 100, ["x" * 50], odd, ["b" * 50], {"c": ["d"] * 3}, (1, ["e"])],
    "dict": lambda odd: {"a" * 50: ["b"], "k": odd, "c" * 40: ["d" * 60], "e": {"f": ("g",)}},
    "deep": lambda odd: [[1, {"k": [0, (odd, ["after"]), "z" * 40], "l": ["m"]}, "n"], ["o" * 50]],
    "first": lambda odd: {"k": odd, "l": [1]},
    "last": lambda odd: [[1], {"k": odd}],
    "several": lambda odd: [odd, ["a" * 40], odd, {"b": odd, "c": ["d" * 40]}, odd],
}


class TestMeddling:
    @pytest.fixture(autouse=True)
    def _few_objects(self):
        """Let the many collections look at what a test makes, not at all that others have left."""
        gc.freeze()

    @pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
    @pytest.mark.parametrize("meddle", [cleared, grown], ids=["cleared", "grown"])
    def test_each_container_is_stored_as_it_was(self, make, meddle):
        # What is reached after the change shows it: only what was being read is fixed.
        value, _, expected = meddled(make, meddle)
        again, _, _ = meddled(make, meddle)
        wire = short_way(value, codecs=MEDDLING)
        assert wire == long_way(again, codecs=MEDDLING)
        if make in (MAKERS["first"], MAKERS["last"], MAKERS["deep"]):
            assert wire is not None
            assert json.loads(wire).__class__ is expected.__class__

    @pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
    @pytest.mark.parametrize("meddle", [cleared, grown], ids=["cleared", "grown"])
    def test_the_callback_may_meddle_too(self, make, meddle):
        value = make(odd := Text(None))
        again = make(other := Text(None))
        odd.text = lambda: meddle(value)
        other.text = lambda: meddle(again)
        assert short_way(value, codecs=MEDDLING) == long_way(again, codecs=MEDDLING)

    def test_a_large_wire_of_a_container_that_is_gone(self):
        """How large it becomes is foreseen by what is left of it, not by itself."""
        texts = ["x" * 1000 + str(number) for number in range(500)]

        def meddle():
            value.clear()
            gc.collect()

        for place in (0, 20, 100):
            items: list = list(texts)
            items[place] = Meddler(meddle)
            value = {"items": items, "fields": {text: text for text in texts}}
            again = json.loads(long_way({"items": [*texts], "fields": value["fields"]}))
            again["items"][place] = {"$type": ["meddler", [1]]}
            del items
            assert json.loads(short_way(value, codecs=MEDDLING)) == again

    def test_verdicts_may_meddle(self):
        class Verdicts(dict):
            def __missing__(self, key):
                value.clear()
                gc.collect()
                return False

        value = {"a": ["b" * 100], "c": {"d": ["e" * 100]}}
        wire = native.wire(
            value, (), Verdicts(), "", values._odd_wire, (None, NO_CODECS), values._encode, 9, 99
        )
        assert wire == b'{"a":["%s"],"c":{"d":["%s"]}}' % (b"b" * 100, b"e" * 100)

    def test_the_death_of_an_attribute_may_meddle(self):
        class Mortal(list):
            def __del__(self):
                value.clear()

        class Holder:
            @property
            def number(self):
                return (1, [Text(Mortal)])

        codecs = Codecs(
            [
                TypeCodec(kind=Holder, name="h", attributes=("number",), lift=Holder),
                TypeCodec(kind=Text, name="t", lower=lambda _: [1], lift=Text),
            ]
        )
        value = [[Holder(), ["x" * 50]], "y" * 50]
        text = (b"x" * 50, b"y" * 50)
        inside = b'{"$tuple":[1,[{"$type":["t",[1]]}]]}'
        assert short_way(value, codecs=codecs) == (
            b'[[{"$type":["h",[' + inside + b']]},["%s"]],"%s"]' % text
        )

    def test_metaclasses_are_not_asked(self):
        class Meta(type):
            def __eq__(cls, other):
                raise AssertionError

            def __hash__(cls):
                raise AssertionError

        odd = Meta("Odd", (), {})()
        with contextlib.suppress(AssertionError):
            assert short_way([odd]) is None


class TestThreads:
    @pytest.mark.unmeasured
    def test_a_list_and_a_dict_that_others_replace(self):
        """Both hold one number several times, put there at one stroke, with code run in between."""
        pause = Text(lambda: threading.Event().wait(0))
        numbers: list = [0, pause, 0, [0], 0]
        fields: dict = {"a": 0, "b": pause, "c": 0, "d": 0}
        value = {"numbers": numbers, "plain": {"items": [1]}, "fields": fields}
        stop = threading.Event()

        def change():
            number = 0
            while not stop.is_set():
                number += 1
                numbers[:] = [number, pause, number, [number], number]
                fields.update({"a": number, "b": pause, "c": number, "d": number})
                value["plain"] = {"items": [number, (number,)]}

        threads = [threading.Thread(target=change) for _ in range(2)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        try:
            for _ in range(1500):
                found = json.loads(short_way(value, codecs=MEDDLING))
                one, _, two, (three,), four = found["numbers"]
                assert one == two == three == four
                assert len({found["fields"][name] for name in "acd"}) == 1
        finally:
            stop.set()
            sys.setswitchinterval(interval)
            for thread in threads:
                thread.join()

    @pytest.mark.unmeasured
    def test_a_value_that_grows_and_shrinks(self):
        value: dict = {"list": [], "dict": {}, "objects": []}
        stop = threading.Event()

        def change():
            number = 0
            while not stop.is_set():
                number += 1
                value["list"] = [str(n) for n in range(number % 50)]
                value["dict"][f"k{number % 200}"] = Message([number], text="x" * (number % 90))
                value["dict"].pop(f"k{(number * 7) % 200}", None)
                value["objects"].append(Measured(number))
                if number % 20 == 0:
                    value["objects"].clear()

        thread = threading.Thread(target=change)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        thread.start()
        try:
            for _ in range(1500):
                wire = short_way(value)
                values.decode(wire, CODECS)
        finally:
            stop.set()
            sys.setswitchinterval(interval)
            thread.join()


class TestReferences:
    def counts(self, things):
        return [sys.getrefcount(thing) for thing in things]

    def test_none_is_kept(self):
        key, text, odd = f"key{len(CODECS)}", f"text{len(CODECS)}", bytes(len(CODECS))
        inner = {key: text, "odd": odd, "list": [text, (odd, 1.5)]}
        message = Message([text], a=inner, m=Measured(text))
        refused = object()
        sanitiser = Sanitiser()
        values_ = [
            [message, inner, (text,), {key: [inner]}],
            {key: [message, {"b": refused, "c": [text]}]},
            {key: {"password": text}, "m": [message]},
        ]
        things = [key, text, odd, inner, message, refused, Message, Measured, CODECS.table, None]
        for value in values_:
            short_way(value, sanitiser)
        before = self.counts(things[:-1])
        for value in values_:
            for _ in range(100):
                short_way(value, sanitiser)
                with contextlib.suppress(KeyboardInterrupt):
                    short_way([value, Measured(1)], sanitiser, INTERRUPTED)
        assert self.counts(things[:-1]) == before

    def test_no_memory_is_kept(self):
        value = [Message(text="x" * 50, n=[Measured(1), b"y"]), {"a": object()}]
        for _ in range(50):
            short_way(value)
        gc.collect()
        blocks = sys.getallocatedblocks()
        for _ in range(2000):
            short_way(value)
            short_way(value[:1])
        gc.collect()
        assert sys.getallocatedblocks() - blocks < 200


class Interrupting:
    @property
    def stop(self):
        raise KeyboardInterrupt


INTERRUPTED = Codecs(
    [
        *(codec for codec in CODECS if codec.kind is not Measured),
        TypeCodec(kind=Measured, name="m", attributes=("number", "missing"), lift=Measured),
    ]
)
