"""What the kernel lifts is what Python lifts, and nothing of it is kept."""

from __future__ import annotations

import gc
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import CheckpointError
from ckptlog.kernel import native
from ckptlog.model import value as values
from ckptlog.model.codec import failed
from ckptlog.model.lift import Lifting
from tests.model.codec_cases import CODECS, Colour, Message, Model, Pair, shape, typed_values

pytestmark = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")

tags = st.sampled_from(
    ["$type", "$tuple", "$object", "$bytes", "$set", "$float", "$", "$x", "a", "$typed"]
)
lowered = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["Point", "model", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(tags, inner, max_size=2)
        | st.builds(lambda name, content: {"$type": [name, content]}, tags, inner)
        | st.builds(
            lambda name, content: {"$type": [name, content]},
            st.sampled_from(list(CODECS.by_name)),
            inner | st.lists(inner, max_size=3),
        )
    ),
    max_leaves=15,
)


def outcome(call):
    try:
        return shape(call())
    except CheckpointError as error:
        return type(error), error.message.partition(": ")[2]


@given(lowered | typed_values.map(lambda value: values.lower(value, codecs=CODECS)))
def test_the_same_values_and_the_same_refusals(value):
    wire = values.encode(value)
    assert outcome(lambda: values.decode(wire, CODECS)) == outcome(
        lambda: values.lift(value, CODECS)
    )


@pytest.mark.parametrize("depth", [199, 200, 201, 202])
@pytest.mark.parametrize("wrap", ["[%s]", '{"a":%s}', '{"$tuple":[%s]}', '{"$object":{"$":%s}}'])
def test_the_same_depths(depth, wrap):
    text = "1"
    for _ in range(depth):
        text = wrap.replace("%s", text)
    wire = f'[{{"$tuple":[]}},{text}]'.encode()
    found = outcome(lambda: values.decode(wire, CODECS))
    assert found == outcome(lambda: values.lift(json.loads(wire), CODECS))
    assert (found[0] is list) == (depth <= 199)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ([], [], None, failed, 9),
        ([], {"a": 1}, None, failed, 9),
        ([], {"a": (int,)}, None, failed, 9),
        ([], {"a": (1, int)}, None, failed, 9),
        ([], {"a": (int, int, [], ())}, None, failed, 9),
        ([], {}, None, failed, ""),
    ],
)
def test_wrong_arguments(arguments):
    with pytest.raises(TypeError):
        native.lift(*arguments)


def test_a_judge_that_does_not_raise():
    codecs = {"a": (Pair, str)}
    with pytest.raises(SystemError):
        native.lift({"$type": ["a", 1]}, codecs, None, lambda *_: None, 9)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(error):
    def interrupted(_content):
        raise error

    with pytest.raises(error):
        native.lift({"$type": ["a", 1]}, {"a": (Pair, interrupted)}, None, failed, 9)


def test_scalars_and_plain_values_pass():
    lifting = Lifting(CODECS, is_opaque=False)
    for value in (None, 1, "x", [], {}, [1, {"a": [None]}]):
        assert lifting.decoded(value) == value


def test_nothing_is_kept():
    sound = [Message([1], a=(1, {"b": Colour.RED})), Model(a=[1]), Pair(1, b"x"), {"$x": 1}]
    wire = values.prepare(sound, codecs=CODECS).wire
    bad = [
        wire.replace(b'["Colour","red"]', b'["Colour","green"]'),
        wire.replace(b'["model",[{"a":[1]},null]]', b'["model",[1,2]]'),
        wire.replace(b'["Pair",', b'["Unknown",'),
    ]
    assert len({wire, *bad}) == 4

    def work(times):
        for _ in range(times):
            values.decode(wire, CODECS)
            for one in bad:
                with pytest.raises(CheckpointError):
                    values.decode(one, CODECS)

    work(30)
    gc.collect()
    blocks, kinds = sys.getallocatedblocks(), sys.getrefcount(Model)
    work(300)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 200
    assert sys.getrefcount(Model) - kinds < 5
