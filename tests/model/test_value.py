"""Values come back exactly or are refused by name; hostile wire ends in our own errors."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import re
import sys
import threading
import types
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.errors import CheckpointError, FormatError, UnstorableError, UnsupportedError
from ckptlog.model.value import DEPTH_MAX, DIGITS_MAX, decode, encode, lift, lower, prepare
from ckptlog.policy.sanitise import Sanitiser
from tests.model.value_cases import GOOD, VECTORS, fingerprint, values, vectors

GOOD_WIRES = vectors("good.json")
BAD_WIRES = vectors("bad.json")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    LONG = "long"


class Word(str):
    __slots__ = ()


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass
class Point:
    x: int


class Offset(datetime.tzinfo):
    def utcoffset(self, _time):
        return datetime.timedelta(hours=1)

    dst = tzname = lambda self, _time: None


def nested(depth: int, wrap=lambda inner: [inner], value: Any = 0) -> Any:
    for _ in range(depth):
        value = wrap(value)
    return value


class TestVectors:
    def test_every_good_value_has_a_wire(self):
        assert list(GOOD) == list(GOOD_WIRES)

    @pytest.mark.parametrize("name", GOOD)
    def test_good(self, name):
        wire = GOOD_WIRES[name].encode()
        assert encode(lower(GOOD[name])) == wire
        assert fingerprint(decode(wire)) == fingerprint(GOOD[name])

    @pytest.mark.parametrize("name", BAD_WIRES)
    def test_bad(self, name):
        with pytest.raises(FormatError) as caught:
            decode(BAD_WIRES[name].encode())
        assert caught.value.message.endswith(".")

    @pytest.mark.parametrize("name", GOOD)
    def test_good_inside_containers(self, name):
        value = {"a": [GOOD[name], {"b": (GOOD[name],)}]}
        assert fingerprint(decode(prepare(value).wire)) == fingerprint(value)


class TestRoundTrip:
    @given(values)
    def test_exact(self, value):
        prepared = prepare(value)
        assert fingerprint(decode(prepared.wire)) == fingerprint(value)
        assert fingerprint(lift(lower(value))) == fingerprint(value)
        assert encode(lower(value)) == prepared.wire
        assert prepare(decode(prepared.wire)).wire == prepared.wire

    @given(values, values)
    def test_injective(self, one, other):
        is_same = fingerprint(one) == fingerprint(other)
        assert (prepare(one).wire == prepare(other).wire) == is_same

    def test_values_that_python_calls_equal_differ(self):
        moment = datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC)
        alike: list[Any] = [
            *(1, 1.0, True, complex(1), decimal.Decimal(1), decimal.Decimal("1.0")),
            *(0, 0.0, -0.0, False, "", b"", bytearray(), [], (), {}, set(), frozenset(), None),
            *(moment, moment.replace(tzinfo=None), moment.replace(tzinfo=ZoneInfo("UTC"))),
            moment.replace(tzinfo=datetime.timezone(datetime.timedelta(0), "UTC")),
            *({"a": 1, "b": 2}, {"b": 2, "a": 1}, [["a", 1], ["b", 2]]),
            *({"$tuple": [1]}, (1,), {"$object": {"$tuple": [1]}}, ["$tuple", 1]),
        ]
        wires = [prepare(value).wire for value in alike]
        assert len(set(wires)) == len(alike)
        assert list(map(fingerprint, map(decode, wires))) == list(map(fingerprint, alike))

    @given(st.lists(st.integers() | st.text(max_size=3) | st.binary(max_size=3), unique=True))
    def test_equal_sets_have_equal_wires(self, elements):
        backwards = list(reversed(elements))
        assert prepare(set(elements)).wire == prepare(set(backwards)).wire

    def test_two_nans_in_a_set_stay_two(self):
        assert len(decode(prepare({float("nan"), float("nan")}).wire)) == 2

    @given(st.floats(), st.integers(min_value=-(10**60), max_value=10**60))
    @settings(max_examples=300)
    def test_numbers(self, real, whole):
        for value in (real, whole, [real] * 40, [whole] * 40, [real, whole] * 20):
            assert fingerprint(decode(prepare(value).wire)) == fingerprint(value)

    @pytest.mark.parametrize("bits", [31, 53, 62, 63, 64, 65, 127, 1000])
    def test_integers_at_the_borders_of_machine_words(self, bits):
        near = [sign * 2**bits + step for sign in (1, -1) for step in range(-3, 4)]
        assert decode(prepare(near).wire) == near

    def test_a_decimal_does_not_depend_on_the_context(self):
        value = decimal.Decimal("123456789E+20")
        wire = prepare(value).wire
        with decimal.localcontext(decimal.Context(prec=3, capitals=0)):
            assert prepare(value).wire == wire
            assert decode(wire).as_tuple() == value.as_tuple()

    def test_the_wire_is_json_for_everybody(self):
        value = {"a": [1, 2.5, "é", None, True], "when": datetime.date(2024, 5, 6)}
        wire = prepare(value).wire
        assert json.loads(wire) == {**value, "when": {"$date": "2024-05-06"}}
        assert wire == msgspec.json.encode(lower(value))

    @pytest.mark.parametrize("wire", [b'{ "a" : [ 1 ] }', b'{"\\u0061":[1]}', b'{"a":2,"a":[1]}'])
    def test_json_written_by_others_is_read(self, wire):
        assert decode(wire) == {"a": [1]}

    def test_an_escaped_dollar_is_a_dollar(self):
        assert decode(b'{"\\u0024bytes":"AP8="}') == b"\x00\xff"
        assert decode(b'{"\\u0024a":1,"b":"$"}') == {"$a": 1, "b": "$"}


class TestAliasing:
    def test_nothing_is_shared(self):
        value = {"list": [[1]], "dict": {"a": {}}, "tuple": ([],), "bytes": bytearray(b"a")}
        before = copy.deepcopy(value)
        lowered = lower(value)
        wire = encode(lowered)
        lifted = lift(lowered)
        for part in (lowered, lifted):
            part["list"][0].append(2)
            part["dict"]["a"]["b"] = 1
            part["new"] = 1
        lifted["tuple"][0].append(1)
        lifted["bytes"].append(1)
        assert value == before
        assert decode(wire) == before

    def test_long_plain_lists_are_copied_too(self):
        for value in (list(range(100)), ["a"] * 100, [0.5] * 100, [None, True, "x"] * 50):
            lowered = lower(value)
            assert lowered == value
            assert lowered is not value
            assert lift(lowered) is not lowered

    @given(values)
    def test_lowering_leaves_the_value_as_it_was(self, value):
        before = fingerprint(value)
        lowered = lower(value)
        after = json.dumps(lowered)
        lift(lowered)
        assert fingerprint(value) == before
        assert json.dumps(lowered) == after


REFUSED: dict[str, tuple[Any, str, str]] = {
    "object": (object(), "of type object", "Convert it"),
    "function": (print, "builtin_function_or_method", "Convert it"),
    "module": (types, "of type module", ""),
    "enum": (Colour.RED, "Colour", ".value"),
    "int enum": (Level.LOW, "Level", ".value"),
    "str subclass": (Word("a"), "Word", "str(value)"),
    "named tuple": (Pair(1, 2), "Pair", "_asdict()"),
    "ordered dict": (collections.OrderedDict(a=1), "collections.OrderedDict", "dict(value)"),
    "default dict": (collections.defaultdict(list), "defaultdict", "dict(value)"),
    "deque": (collections.deque([1]), "deque", ""),
    "dataclass": (Point(1), "Point", "dataclasses.asdict(value)"),
    "path": (pathlib.PurePosixPath("a"), "PurePosixPath", "str(path)"),
    "generator": ((item for item in "a"), "generator", "list(value)"),
    "range": (range(3), "range", "list(value)"),
    "memory": (memoryview(b"a"), "memoryview", "bytes(value)"),
    "error": (ValueError("a"), "ValueError", "str(error)"),
    "type": (int, "of type type", ""),
    "large int": (10**DIGITS_MAX, f"more than {DIGITS_MAX} digits", "text"),
    "large negative int": (-(10**DIGITS_MAX), f"more than {DIGITS_MAX} digits", "text"),
    "surrogate": ("a\ud800", "lone surrogate", "errors='replace'"),
    "foreign zone": (datetime.datetime(2024, 5, 6, tzinfo=Offset()), "Offset", "zoneinfo.ZoneInfo"),
    "key of int": ({1: 2}, "key of type int", "as text"),
    "key of none": ({None: 2}, "key of type NoneType", "as text"),
    "key of bytes": ({b"a": 2}, "key of type bytes", "as text"),
    "key of enum": ({Colour.RED: 2}, "Colour", "as text"),
    "key of str subclass": ({Word("a"): 2}, "Word", "as text"),
    "key with surrogate": ({"\ud800": 2}, "lone surrogate", ""),
    "class of str and enum": (Name.LONG, "Name", ".value"),
}


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSED)
    @pytest.mark.parametrize(
        ("wrap", "path"),
        [
            (lambda value: value, "data"),
            (lambda value: {"tools": [0, 1, 2, value]}, "data.tools[3]"),
            (lambda value: {"odd key": (value,)}, 'data["odd key"][0]'),
            (lambda value: {"$x": value}, 'data["$x"]'),
            (lambda value: {"été": [[value] * 40]}, "data.été[0][0]"),
        ],
    )
    def test_the_message_has_path_reason_and_hint(self, name, wrap, path):
        value, reason, hint = REFUSED[name]
        with pytest.raises(UnstorableError) as caught:
            prepare(wrap(value))
        error = caught.value
        # A bad key is named by its dict, a key that no UTF-8 can hold by itself.
        assert error.context["path"] == path + ('["\\ud800"]' if "with surrogate" in name else "")
        assert error.message.startswith(error.context["path"] + " ")
        assert reason in error.message
        assert hint in error.hint

    def test_the_root_has_the_callers_name(self):
        with pytest.raises(UnstorableError, match=r"^metadata\.a is of type object"):
            lower({"a": object()}, path="metadata")

    def test_a_root_without_a_name(self):
        with pytest.raises(UnstorableError, match=r"^metadata\.a\[0\] is of type object"):
            prepare({"title": "", "metadata": {"a": [object()]}}, path="")

    @pytest.mark.parametrize("element", ["\ud800", (1, "\ud800"), Word("a"), Colour.RED])
    def test_an_element_of_a_set(self, element):
        with pytest.raises(UnstorableError) as caught:
            lower({"tags": {1, element}})
        assert caught.value.context["path"].startswith("data.tags{...}")

    def test_a_surrogate_inside_tags(self):
        value = {"b": [[1], {"c": ["d"]}, {}], "a": [({"$x": [1, "\udfff"]},)]}
        with pytest.raises(UnstorableError) as caught:
            lower(value)
        assert caught.value.context["path"] == 'data.a[0][0]["$x"][1]'

    def test_a_surrogate_in_the_name_of_a_zone(self):
        zone = datetime.timezone(datetime.timedelta(0), "\ud800")
        with pytest.raises(UnstorableError) as caught:
            lower({"when": datetime.datetime(2024, 5, 6, tzinfo=zone)})
        assert caught.value.context["path"] == "data.when"

    def test_zones_that_cannot_be_found_again(self):
        path = next(
            pathlib.Path(folder, "Europe/Berlin")
            for folder in __import__("zoneinfo").TZPATH
            if pathlib.Path(folder, "Europe/Berlin").exists()
        )
        with path.open("rb") as file:
            zone = ZoneInfo.from_file(file)
        with pytest.raises(UnstorableError, match="ZoneInfo without a plain key"):
            lower(datetime.datetime(2024, 5, 6, tzinfo=zone))
        named = datetime.timezone(datetime.timedelta(0), Word("X"))
        with pytest.raises(UnstorableError, match="not of type str"):
            lower(datetime.datetime(2024, 5, 6, tzinfo=named))

    def test_long_keys_and_long_paths_are_shortened(self):
        with pytest.raises(UnstorableError) as caught:
            lower({"k" * 1000: nested(100, lambda inner: {"k" * 1000: inner}), "x": object()})
        assert len(str(caught.value)) < 500
        with pytest.raises(UnstorableError) as caught:
            lower(nested(100, lambda inner: {"k" * 1000: inner, "x": 1} if inner else object()))
        assert len(str(caught.value)) < 2000
        assert " ... " in caught.value.message

    def test_the_interpreters_own_limit_on_integers(self):
        limit = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(640)
        try:
            with pytest.raises(UnstorableError):
                prepare(10**1000)
            with pytest.raises(FormatError):
                decode(b"1" * 1000)
        finally:
            sys.set_int_max_str_digits(limit)

    def test_encode_alone_refuses_surrogates(self):
        with pytest.raises(UnstorableError, match=r"value\.a\[0\]"):
            encode({"a": ["\ud800"]})

    def test_errors_outside_are_not_chained_into_noise(self):
        with pytest.raises(UnstorableError) as caught:
            lower({"a": object()})
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


WRAPS = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"a": inner},
    lambda inner: {"$a": inner},
    lambda inner: frozenset([inner]),
]


class TestDepth:
    @pytest.mark.parametrize("wrap", WRAPS)
    def test_the_limit_is_reached_and_not_passed(self, wrap):
        value = nested(DEPTH_MAX, wrap)
        assert decode(prepare(value).wire) == value
        with pytest.raises(UnstorableError, match=f"nested deeper than {DEPTH_MAX}"):
            prepare(wrap(value))

    @pytest.mark.parametrize("wrap", WRAPS)
    def test_the_limit_is_reached_by_sanitising_too(self, wrap):
        secret = "ghp_" + "a" * 36
        value = nested(DEPTH_MAX - 1, wrap, (secret,))
        prepared = prepare(value, sanitiser=Sanitiser())
        assert prepared.sanitised_count == 1
        assert b"[redacted]" in prepared.wire

    def test_hostile_depth(self):
        for wire in (b"[" * 100_000, b'{"a":' * 100_000, b'{"$tuple":[' * 100_000):
            with pytest.raises(FormatError):
                decode(wire)
        deep = b'{"$tuple":[' * (DEPTH_MAX + 1) + b"]}" * (DEPTH_MAX + 1)
        with pytest.raises(FormatError, match="nested deeper"):
            decode(deep)

    @pytest.mark.parametrize(
        ("make", "where"),
        [
            (lambda one: one.append(one), "data contains itself, at data[0]"),
            (lambda one: one.append({"a": one}), "data contains itself, at data[0].a"),
            (lambda one: one.append(((one,),)), "data contains itself, at data[0][0][0]"),
        ],
    )
    def test_cycles(self, make, where):
        value: list[Any] = []
        make(value)
        with pytest.raises(UnstorableError) as caught:
            prepare(value)
        assert where in caught.value.message

    def test_a_cycle_further_down(self):
        inner: dict[str, Any] = {"x": []}
        inner["x"].append(inner)
        with pytest.raises(UnstorableError) as caught:
            prepare({"a": [1, inner]})
        assert caught.value.context["path"] == "data.a[1]"
        assert "at data.a[1].x[0]" in caught.value.message

    def test_shared_values_are_no_cycles(self):
        shared = [1]
        assert decode(prepare([shared, shared, {"a": shared}]).wire) == [[1], [1], {"a": [1]}]

    def test_a_stack_that_is_nearly_full(self):
        value = nested(150, lambda inner: frozenset([inner]))
        wire = prepare(value).wire

        def dig(depth: int, call) -> Any:
            return call() if depth == 0 else dig(depth - 1, call)

        room = sys.getrecursionlimit() - 300
        used = len(list(iter_frames()))
        with pytest.raises(UnstorableError, match="call stack"):
            dig(room - used, lambda: prepare(value))
        with pytest.raises(UnstorableError, match="call stack"):
            dig(room - used, lambda: prepare(value, sanitiser=Sanitiser()))
        with pytest.raises(FormatError, match="call stack"):
            dig(room - used, lambda: decode(wire))


def iter_frames():
    frame: types.FrameType | None = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back


class TestThreads:
    def test_a_value_that_changes_meanwhile(self):
        value: dict[str, Any] = {"list": [], "dict": {}, "set": set()}
        is_done = threading.Event()

        def change() -> None:
            number = 0
            while not is_done.is_set():
                number += 1
                value["dict"][str(number % 50)] = [number]
                value["dict"].pop(str((number + 25) % 50), None)
                value["list"].append({"n": number})
                del value["list"][:-20]
                value["set"] ^= {number % 30}

        threads = [threading.Thread(target=change) for _ in range(3)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        try:
            for _ in range(600):
                found = decode(prepare(value).wire)
                assert list(found) == ["list", "dict", "set"]
                assert all(list(item) == ["n"] for item in found["list"])
        finally:
            is_done.set()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)

    def test_a_container_that_changes_inside_its_own_copy(self, monkeypatch):
        def changed(_lowered):
            raise RuntimeError("dictionary changed size during iteration")

        monkeypatch.setattr("ckptlog.model.value.native", None)
        monkeypatch.setattr("ckptlog.model.value._encode", changed)
        with pytest.raises(UnstorableError, match="data cannot be stored: dictionary changed"):
            prepare({})


def _hostile() -> Any:
    names = (
        "$array $bytearray $bytes $complex $date $datetime $decimal $float $frozenset $object "
        "$scalar $set $time $timedelta $tuple $uuid $x dtype shape data order iso zone name fold"
    )
    texts = ["<f8", "|b1", "U", "UTC", "2024-05-06", "AAAAAAAAAAA=", "AQ==", "F", "nan", "1E+5"]
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    return st.recursive(
        leaves.filter(lambda leaf: leaf not in (float("inf"), -float("inf")))
        | st.sampled_from(texts),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(names.split()), inner, min_size=1, max_size=3)
        ),
        max_leaves=8,
    )


hostile_trees = _hostile()


class TestHostileWire:
    @given(st.binary(max_size=200))
    @settings(max_examples=300)
    def test_any_bytes(self, wire):
        try:
            value = decode(wire)
        except FormatError:
            return
        assert decode(prepare(value).wire) is not NotImplemented

    @given(st.sampled_from(sorted(GOOD_WIRES)), st.data())
    @settings(max_examples=300)
    def test_damaged_wires(self, name, data):
        wire = bytearray(GOOD_WIRES[name].encode())
        for _ in range(data.draw(st.integers(1, 3))):
            position = data.draw(st.integers(0, len(wire) - 1))
            wire[position] = data.draw(st.integers(0, 255))
        with contextlib.suppress(FormatError, UnsupportedError):
            decode(bytes(wire))

    @given(hostile_trees)
    @settings(max_examples=300)
    def test_tags_with_any_content(self, tree):
        try:
            value = lift(tree)
        except CheckpointError as error:
            assert isinstance(error, FormatError | UnsupportedError)
            return
        assert fingerprint(decode(prepare(value).wire)) == fingerprint(value)

    def test_a_zone_that_this_machine_does_not_know(self):
        wire = b'{"$datetime":{"iso":"2024-05-06T07:08:09","zone":"Mars/Olympus"}}'
        with pytest.raises(UnsupportedError, match="Mars/Olympus") as caught:
            decode(wire)
        assert "tzdata" in caught.value.hint

    @pytest.mark.parametrize("zone", ["Europe", "", ".", "Europe/"])
    def test_a_zone_that_is_a_folder(self, zone):
        wire = encode({"$datetime": {"iso": "2024-05-06T07:08:09", "zone": zone}})
        with pytest.raises((FormatError, UnsupportedError)):
            decode(wire)

    def test_the_specification_has_every_tag(self):
        page = VECTORS.parents[2].joinpath("specs", "values.md").read_text(encoding="utf-8")
        tags = {
            tag for wire in GOOD_WIRES.values() for tag in re.findall(r"{\"(\$[a-z]{2,})\"", wire)
        }
        assert len(tags) > 15
        assert [tag for tag in sorted(tags - {"$x"}) if f"`{tag}`" not in page] == []

    def test_messages_name_the_tag(self):
        with pytest.raises(FormatError, match=r"\$bytes: the base64 text is not canonical"):
            decode(b'{"a":[{"$bytes":"AP9="}]}')
        with pytest.raises(FormatError, match=r"the tag '\$new' is unknown; a newer ckptlog"):
            lift({"$new": 1})


def test_shared_parts_do_not_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of forty lists that spells out as a million million ends in a clear refusal."""
    monkeypatch.setattr("ckptlog.model.value.CONTAINERS_MAX", 1000)
    doubled: list[Any] = []
    for _ in range(40):
        doubled = [doubled, doubled]
    with pytest.raises(UnstorableError, match="more than 1,000 containers"):
        prepare({"x": doubled})
