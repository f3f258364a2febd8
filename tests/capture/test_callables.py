"""Objects that give and take their state are found by protocol; halves are told by name."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict

import pytest

from ckptlog.capture.callables import CallableComponent, MappingComponent, state_component
from ckptlog.errors import ComponentError, ForeignPayloadError, SourceBusyError, SourceError
from ckptlog.model.component import faults_of, migrated, traits_of


class Store:
    def __init__(self, state=None):
        self.held = state


def pair(getter, setter):
    return type(
        "Manager",
        (Store,),
        {
            getter: lambda self: self.held,
            setter: lambda self, state: setattr(self, "held", state),
        },
    )


PAIRS = [
    ("get_state", "set_state"),
    ("get_state", "restore_state"),
    ("capture_state", "restore_state"),
    ("state_dict", "load_state_dict"),
]


@pytest.mark.parametrize(("getter", "setter"), PAIRS)
def test_each_protocol_is_found(getter, setter):
    target = pair(getter, setter)({"a": 1})
    part = state_component("agents", target)
    assert traits_of(part).stability == "live"
    assert part.capture() == {"a": 1}
    part.restore({"b": 2})
    assert target.held == {"b": 2}


@pytest.mark.parametrize(("getter", "setter"), PAIRS)
def test_half_a_protocol_is_told(getter, setter):
    whole = pair(getter, setter)
    for gone, left in ((getter, setter), (setter, getter)):
        half = type("Half", (Store,), {left: getattr(whole, left)})
        with pytest.raises(ComponentError, match=f"has {left} but not .*{gone}"):
            state_component("agents", half())


def test_a_state_that_is_a_dict_is_changed_in_place():
    class Agent:
        def __init__(self):
            self.state = {"a": 1}

    agent = Agent()
    held, part = agent.state, state_component("agent", agent)
    taken = part.capture()
    held["a"] = 2
    held["b"] = 3
    part.restore(taken)
    assert held == {"a": 1}
    assert agent.state is held
    with pytest.raises(ForeignPayloadError):
        part.restore([1])
    assert held == {"a": 1}


def test_a_state_that_is_no_dict_is_set():
    class Agent:
        state = 5

    agent = Agent()
    part = state_component("agent", agent)
    taken = part.capture()
    agent.state = 6
    part.restore(taken)
    assert agent.state == 5


def test_a_state_that_cannot_be_set_is_told():
    class Agent:
        @property
        def state(self):
            return 5

    with pytest.raises(ComponentError, match="cannot be set"):
        state_component("agent", Agent())

    class Holder:
        def __init__(self):
            self.inner = {"a": 1}

        @property
        def state(self):
            return self.inner

    holder = Holder()
    state_component("agent", holder).restore({"b": 2})
    assert holder.inner == {"b": 2}


def test_a_dict_is_a_component():
    held = OrderedDict(a=1)
    part = state_component("memory", held)
    assert isinstance(part, MappingComponent)
    assert part.capture() == {"a": 1}
    part.restore({"b": 2, "a": 3})
    assert list(held) == ["b", "a"]


@pytest.mark.parametrize("target", [None, 5, object(), Store, "text"])
def test_what_gives_no_state_is_told(target):
    with pytest.raises(ComponentError, match="agents"):
        state_component("agents", target)


def test_an_objects_own_check_is_asked():
    class Agent(pair("get_state", "set_state")):
        def validate_state(self, state):
            return [] if "a" in state else ["has no a"]

    part = state_component("agent", Agent({}))
    assert faults_of(part, {}) == ["has no a"]
    assert faults_of(part, {"a": 1}) == []


def test_hooks_and_versions_are_passed_on():
    calls = []
    part = CallableComponent(
        "x",
        lambda: 1,
        calls.append,
        schema_version=2,
        depends_on=["y"],
        stability="immutable",
        prepare=lambda: calls.append("prepare"),
        migrate=lambda payload, version: [payload, version],
    )
    traits = traits_of(part)
    assert (traits.schema_version, traits.depends_on, traits.stability) == (2, ("y",), "immutable")
    assert migrated(part, 7, 1) == [7, 1]
    part.prepare()
    part.restore(3)
    assert calls == ["prepare", 3]
    assert not hasattr(part, "commit")


@pytest.mark.parametrize(
    "options",
    [{"stability": "soft"}, {"prepare": 5}, {"preparee": print}],
)
def test_wrong_options_are_told(options):
    with pytest.raises(ComponentError):
        CallableComponent("x", lambda: 1, lambda state: None, **options)


@pytest.mark.parametrize(
    ("capture", "restore"),
    [(lambda a: a, lambda state: None), (lambda: 1, lambda: None), (1, print), (dict, None)],
)
def test_callables_that_take_other_arguments_are_told(capture, restore):
    with pytest.raises(ComponentError, match=r"cannot be called|no callable"):
        CallableComponent("x", capture, restore)


class Slow:
    def __init__(self):
        self.held, self.threads = 1, set()

    async def get_state(self):
        await asyncio.sleep(0)
        self.threads.add(threading.get_ident())
        return self.held

    async def set_state(self, state):
        await asyncio.sleep(0)
        self.threads.add(threading.get_ident())
        self.held = state


def test_coroutines_run_in_their_loop():
    async def scenario():
        agent = Slow()
        part = state_component("agent", agent)
        taken = await asyncio.to_thread(part.capture)
        agent.held = 2
        await asyncio.to_thread(part.restore, taken)
        assert agent.held == 1
        assert agent.threads == {threading.get_ident()}

    asyncio.run(scenario())


def test_coroutines_without_a_loop_are_told():
    with pytest.raises(SourceError, match="no loop"):
        state_component("agent", Slow()).capture()

    async def scenario():
        with pytest.raises(SourceError, match="no loop"):
            state_component("agent", Slow()).capture()  # from the loop's own thread

    asyncio.run(scenario())


def test_a_coroutine_that_hangs_is_cancelled(monkeypatch):
    class Stuck(Slow):
        async def get_state(self):
            try:
                await asyncio.sleep(300)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    cancelled = []

    async def scenario():
        part = state_component("agent", Stuck(), timeout_s=0.05)
        with pytest.raises(SourceBusyError, match="did not answer"):
            await asyncio.to_thread(part.capture)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert cancelled


def test_coroutines_whose_loop_was_closed_run_in_another_one():
    class Agent(Slow):
        async def get_state(self):
            await asyncio.sleep(self.pause_s)
            return {"n": 1}

        pause_s = 0.0

    agent, made = Agent(), []

    async def make():
        made.append(state_component("agent", agent, timeout_s=0.2))

    asyncio.run(make())
    assert made[0].capture() == {"n": 1}
    agent.pause_s = 30.0
    with pytest.raises(SourceBusyError, match="closed"):
        made[0].capture()
