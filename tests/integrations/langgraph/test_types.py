"""What a state may hold, and comes back as it was; what it may not, fails loudly."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import ipaddress
import pathlib
import re
import typing
import uuid
import zoneinfo
from dataclasses import dataclass, field

import numpy as np
import pytest
from langchain_core import messages as lc
from langchain_core.documents import Document
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import Item
from langgraph.types import Command, Interrupt, Overwrite, Send
from pydantic import BaseModel, PrivateAttr

from ckptlog.errors import (
    FormatError,
    SettingsError,
    UnregisteredTypeError,
    UnstorableError,
)
from ckptlog.integrations.langgraph import CkptlogSaver
from ckptlog.integrations.langgraph.codec import Pairs, codecs_of, named_in
from ckptlog.integrations.langgraph.record import Wiring
from ckptlog.model.codec import TypeCodec
from tests.integrations.langgraph.thread import config, put, values_of

UTC = datetime.UTC
MESSAGES = [
    lc.HumanMessage("hello", id="1", name="ada", extra_field=5),
    lc.HumanMessage(
        [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "u"}}]
    ),
    lc.AIMessage(
        "",
        id="2",
        tool_calls=[{"name": "search", "args": {"q": [1, {"a": None}]}, "id": "call"}],
        invalid_tool_calls=[
            {"name": "x", "args": "{", "id": "c", "error": "bad", "type": "invalid_tool_call"}
        ],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        response_metadata={"model": "m", "at": datetime.datetime(2026, 1, 1, tzinfo=UTC)},
        additional_kwargs={"reasoning": "..."},
    ),
    lc.AIMessageChunk("par", tool_call_chunks=[{"name": "s", "args": "{", "id": "c", "index": 0}]),
    lc.ToolMessage("found", tool_call_id="call", artifact={"rows": (1, 2)}, status="error"),
    lc.ToolMessageChunk("fo", tool_call_id="call"),
    lc.SystemMessage("be good"),
    lc.SystemMessageChunk("be"),
    lc.ChatMessage("x", role="critic"),
    lc.ChatMessageChunk(content="x", role="critic"),
    lc.FunctionMessage("1", name="f"),
    lc.FunctionMessageChunk(content="1", name="f"),
    lc.HumanMessageChunk("x"),
    lc.RemoveMessage(id="1"),
    Document("page", id="d", metadata={"source": pathlib.Path("a/b")}),
]
OTHERS = [
    Send("node", {"messages": MESSAGES[:2]}),
    Command(goto=[Send("a", 1), "b"], update={"x": 1}, resume=5, graph=Command.PARENT),
    Interrupt("really?", id="i"),
    (Interrupt({"a": [1]}, id="j"),),
    Overwrite([1]),
    _DeltaSnapshot([1, 2]),
    collections.deque([1, "a", (2,)], maxlen=5),
    collections.deque(),
    collections.OrderedDict([("b", 1), (2, [3])]),
    pathlib.Path("/a/b"),
    pathlib.PureWindowsPath("c:/x"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_interface("10.0.0.1/8"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_address("::1"),
    ipaddress.ip_interface("::1/64"),
    ipaddress.ip_network("::/64"),
    re.compile("a+", re.IGNORECASE | re.MULTILINE),
    re.compile(rb"\x00"),
    zoneinfo.ZoneInfo("Europe/Berlin"),
    datetime.UTC,
    datetime.timezone(datetime.timedelta(hours=2), "here"),
    datetime.timezone(datetime.timedelta(hours=-2)),
    datetime.datetime(2026, 1, 1, 12, tzinfo=zoneinfo.ZoneInfo("Asia/Tokyo")),
    datetime.timedelta(days=1, microseconds=5),
    datetime.time(1, 2),
    decimal.Decimal("1.00"),
    uuid.UUID(int=7),
    {1: "a", 2: {None: [{(1, 2): True}]}},
    {True: 1, "x": 2},
    {1, 2, "c"},
    frozenset({(1, 2)}),
    b"bytes",
    float("inf"),
    -0.0,
    2**100,
    [True, 1, 1.0, None, (), [], {}],
    {"$bytes": "an escape"},
]


def round_trip(wiring, value):
    prepared = wiring.checkpoint({"id": "a", "channel_values": {"it": value}})
    return wiring.data(prepared.wire, "1")[0]["channel_values"]["it"]


@pytest.mark.parametrize("value", MESSAGES, ids=lambda one: type(one).__name__)
def test_messages_come_back_as_they_were(value):
    got = round_trip(Wiring(codecs_of(()), None), value)
    assert type(got) is type(value)
    assert got == value
    assert got.model_dump() == value.model_dump()
    assert got.__dict__ is not value.__dict__
    assert got.model_copy(update={"id": "z"}).id == "z"


@pytest.mark.parametrize("value", OTHERS, ids=lambda one: type(one).__name__)
def test_other_values_come_back_as_they_were(value):
    got = round_trip(Wiring(codecs_of(()), None), value)
    assert type(got) is type(value)
    assert repr(got) == repr(value) or got == value
    assert got == value


def test_every_message_class_of_langchain_is_known():
    kinds = {
        kind
        for kind in vars(lc).values()
        if isinstance(kind, type) and issubclass(kind, lc.BaseMessage)
    } | {
        getattr(lc, name)
        for name in lc.__all__
        if name.endswith(("Message", "MessageChunk")) and name != "AnyMessage"
    }
    assert kinds <= codecs_of(()).by_kind.keys()


def test_an_item_and_an_array_come_back():
    wiring = Wiring(codecs_of(()), None)
    now = datetime.datetime.now(UTC)
    item = Item(value={"a": 1}, key="k", namespace=("x",), created_at=now, updated_at=now)
    assert round_trip(wiring, item) == item
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = round_trip(wiring, array)
    assert got.dtype == array.dtype
    assert (got == array).all()


@dataclass
class Plan:
    steps: list[str]
    done: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frozen:
    colour: typing.Any


class Colour(enum.StrEnum):
    RED = "red"


class Point(typing.NamedTuple):
    x: int
    y: int


class Profile(BaseModel):
    name: str
    plan: Plan | None = None
    _note: str = PrivateAttr(default="")


class Odd:
    def __init__(self, text):
        self.text = text


ODD = TypeCodec(kind=Odd, name="odd", lower=lambda value: value.text, lift=Odd)


@pytest.mark.parametrize("value", [Interrupt("really?", id="i"), Send("node", [1])])
def test_what_a_newer_langgraph_stored_is_read_where_nothing_is_lost(value):
    codec = codecs_of(()).by_kind[type(value)]
    content = codec.content(value)
    assert codec.lifted([*content, None, None]) == value
    with pytest.raises(ValueError, match="newer LangGraph"):
        codec.lifted([*content, None, {"new": 1}])
    assert codec.lifted(content[:2]) == value  # an older one's


def test_own_types_are_named(tmp_path):
    profile = Profile(name="ada", plan=Plan(["a"]))
    profile._note = "private"
    state = {
        "plan": Plan(["x"], {}),
        "frozen": Frozen(Colour.RED),
        "point": Point(1, 2),
        "profile": profile,
        "nested": [{"deep": Colour.RED}],
    }
    types = [Plan, Frozen, Colour, Point, Profile, ODD]
    with CkptlogSaver.open(tmp_path, types=types) as saver:
        where = put(saver, config(), {**state, "odd": Odd("o")})
        got = values_of(saver, where)
        assert got.pop("odd").text == "o"
        assert got == state
        assert got["profile"]._note == "private"
        assert type(got["nested"][0]["deep"]) is Colour
    with CkptlogSaver.open(tmp_path) as saver:
        with pytest.raises(UnregisteredTypeError):
            saver.get_tuple(where)
        with pytest.raises(UnregisteredTypeError):
            list(saver.list(config()))
        assert not saver.store.verify().problems


@pytest.mark.parametrize(
    "value",
    [
        Plan(["x"]),
        Colour.RED,
        Odd("x"),
        Point(1, 2),
        object(),
        len,
        ValueError("x"),
        type,
        1j**0.5 and iter([]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_not_named_is_refused(saver, value):
    with pytest.raises(UnstorableError, match="types="):
        put(saver, config(), {"a": value})
    assert saver.store.position == 0


def test_a_subclass_of_a_message_is_refused(saver):
    class Mine(lc.HumanMessage):
        pass

    with pytest.raises(UnstorableError):
        put(saver, config(), {"messages": [Mine("x")]})


def test_two_classes_of_one_name_are_refused(tmp_path):
    other = dataclass(type("Plan", (), {}))
    with pytest.raises(SettingsError, match="Plan"):
        CkptlogSaver.open(tmp_path, types=[Plan, other])


def test_a_codec_of_the_users_takes_the_place_of_ours(tmp_path):
    codec = TypeCodec(
        kind=pathlib.PosixPath,
        name="path",
        lower=str,
        lift=lambda text: pathlib.PosixPath(text) / "x",
    )
    with CkptlogSaver.open(tmp_path, types=[codec]) as saver:
        where = put(saver, config(), {"p": pathlib.PosixPath("/a")})
        assert values_of(saver, where) == {"p": pathlib.PosixPath("/a/x")}


def test_the_schema_of_a_graph_may_name_types(saver):
    names = {
        (__name__, "Plan"),
        (__name__, "Absent"),
        ("not.loaded", "X"),
        ("os", "path"),
        Colour,
        5,
    }
    assert set(named_in(names)) == {Plan, Colour}
    wider = saver.with_allowlist(names | {(__name__, "Odd")})
    where = put(wider, config(), {"plan": Plan(["a"]), "colour": Colour.RED})
    assert values_of(wider, where) == {"plan": Plan(["a"]), "colour": Colour.RED}
    with pytest.raises(UnregisteredTypeError):
        saver.get_tuple(where)
    assert saver.with_allowlist(set()) is saver
    wider.close()
    assert saver.get_tuple(config("other")) is None  # the clone does not own the store


@pytest.mark.parametrize(
    "content",
    [
        '["py.Pattern",["(",0]]',
        '["py.Pattern",["a"]]',
        '["py.ZoneInfo","../etc/passwd"]',
        '["py.deque",[1,2,3]]',
        '["py.deque",[]]',
        '["py.dict",[[1,2],[1,3]]]',
        '["py.dict",[[[],2]]]',
        '["py.dict",5]',
        '["py.timezone",[5]]',
        '["py.IPv4Address","x"]',
        '["lc.HumanMessage",[{},null]]',
        '["lc.HumanMessage",[5,null,null]]',
        '["lg.Send",5]',
    ],
)
def test_hostile_content_is_refused(content):
    wire = b'{"writes":[],"checkpoint":{"channel_values":{"a":{"$type":%b}}}}' % content.encode()
    with pytest.raises(FormatError):
        Wiring(codecs_of(()), None).data(wire, "1")


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"[]",
        b"{}",
        b'{"writes":[]}',
        b'{"writes":5,"checkpoint":{"channel_values":{}}}',
        b'{"writes":[[1]],"checkpoint":{"channel_values":{}}}',
        b'{"writes":[[1,2,3,4,5],["a","b","c",1,2]],"checkpoint":{"channel_values":{}}}',
        b'{"writes":[],"checkpoint":{"channel_values":5}}',
        b'{"writes":[],"checkpoint":5}',
    ],
)
def test_data_of_something_else_is_refused(wire):
    with pytest.raises(FormatError):
        Wiring(codecs_of(()), None).data(wire, "1")


def test_pairs_are_no_value_of_their_own():
    wiring = Wiring(codecs_of(()), None)
    assert round_trip(wiring, Pairs([["a", 1]])) == {"a": 1}
    # The mark alone, in a text, is no reason for a mistake.
    assert round_trip(wiring, ['"py.dict"', {"py.dict": 1}]) == ['"py.dict"', {"py.dict": 1}]
