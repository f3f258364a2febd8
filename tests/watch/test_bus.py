from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import pytest

from ckptlog.errors import ArgumentError, LogCorruptionError
from ckptlog.watch.bus import EventBus, InProcessEventBus


def test_callbacks_by_type_in_the_order_they_were_added():
    bus, got = InProcessEventBus(), []
    bus.subscribe("a", lambda event: got.append(("first", event)))
    end = bus.subscribe("*", lambda event: got.append(("any", event)))
    bus.subscribe("a", lambda event: got.append(("second", event)))
    bus.subscribe("b", lambda event: got.append(("b", event)))
    bus.publish("a", 1)
    assert got == [("first", 1), ("any", 1), ("second", 1)]
    got.clear()
    end()
    end()
    bus.publish("b", 2)
    bus.publish("c", 3)
    assert got == [("b", 2)]
    assert isinstance(bus, EventBus)


def test_the_same_function_twice_is_called_twice_and_ends_once_each():
    bus, got = InProcessEventBus(), []
    ends = [bus.subscribe("a", got.append) for _ in range(2)]
    bus.publish("a", 1)
    ends[0]()
    bus.publish("a", 2)
    assert got == [1, 1, 2]


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), LogCorruptionError("bad")])
def test_an_error_in_a_callback_is_logged_with_its_code_and_stops_nobody(caplog, error):
    bus, got = InProcessEventBus(), []

    def fail(event):
        raise error

    bus.subscribe("a", fail)
    bus.subscribe("a", got.append)
    with caplog.at_level(logging.ERROR, "ckptlog.events"):
        bus.publish("a", 1)
    assert got == [1]
    (record,) = caplog.records
    code = getattr(error, "code", "callback.failed")
    assert f"[{code}]" in record.message
    assert record.exc_info[1] is error


def test_a_callback_may_subscribe_and_unsubscribe():
    bus, got = InProcessEventBus(), []

    def once(event):
        got.append(event)
        end()
        bus.subscribe("a", lambda later: got.append(-later))

    end = bus.subscribe("a", once)
    bus.publish("a", 1)
    bus.publish("a", 2)
    assert got == [1, -2]


def test_many_threads_subscribe_and_publish():
    bus, got = InProcessEventBus(), []

    def work():
        for _ in range(200):
            end = bus.subscribe("a", got.append)
            bus.publish("a", 1)
            end()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) >= 800
    got.clear()
    bus.publish("a", 1)
    assert got == []


async def never_awaited(event):
    raise AssertionError


@pytest.mark.parametrize(
    ("kind", "callback"),
    [("", print), (7, print), (" a", print), ("a", None), ("a", "print"), ("a", never_awaited)],
)
def test_no_subscription(kind, callback):
    with pytest.raises(ArgumentError):
        InProcessEventBus().subscribe(kind, callback)


def test_a_bus_of_a_users_own_may_be_a_dataclass():
    @dataclass
    class Named(InProcessEventBus):
        name: str = ""

        def __post_init__(self):
            super().__init__()

    seen = []
    for bus in (Named("a"), Named("a")):
        bus.subscribe("*", seen.append)
        bus.publish("x", 1)
    assert seen == [1, 1]
