"""The options of `store.watch`."""

from __future__ import annotations

import math
import os
from typing import Any, TypedDict

import msgspec

from ckptlog.errors import ArgumentError
from ckptlog.watch.filter import Accepts, Words
from ckptlog.watch.start import Start, check_start

POLL_S = 0.1
IN_FLIGHT_MAX = 10_000
AUTO_ACK_INTERVAL_S = 0.5
_SECONDS_MAX = 10**9


class WatchOptions(TypedDict, total=False):
    """What `store.watch` takes besides the consumer's name; `Options` says what each means."""

    types: Words | None
    tasks: Words | None
    checkpoints: Words | None
    workers: Words | None
    namespaces: Words | None
    actors: Words | None
    states: Words | None
    where: Accepts | None
    start: Start
    reset: bool
    auto_ack: bool
    follow: bool
    timeout_s: float | None
    poll_s: float
    watcher: bool
    busy_timeout_s: float
    ack_interval_s: float | None
    ack_patience_s: float
    in_flight_max: int
    cursors: str | os.PathLike[str] | None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options that are no filter, checked.

    start: Where a consumer without a cursor begins. reset: And one with a cursor too.
    auto_ack: An event counts as acknowledged when the next one is asked for.
    follow: Whether to wait for more at the end of the log; else the iteration ends there.
    timeout_s: Ends the iteration when nothing came for so long; None waits for ever.
    poll_s: Longest time between two looks at the log's end, seconds.
    watcher: Whether to use the file system's notifications as hints.
    busy_timeout_s: How long to wait for another holder of the name.
    ack_interval_s: Acknowledgements become durable at most this often; 0: each at once. None: 0,
        and 0.5 with auto_ack.
    ack_patience_s: How long the next event waits for an acknowledgement when too many are out.
    in_flight_max: Events that may be delivered and not acknowledged.
    cursors: Folder for the cursor; None: `consumers` in the store.
    """

    start: Start = "beginning"
    reset: bool = False
    auto_ack: bool = False
    follow: bool = True
    timeout_s: float | None = None
    poll_s: float = POLL_S
    watcher: bool = True
    busy_timeout_s: float = 0.0
    ack_interval_s: float | None = None
    ack_patience_s: float = 10.0
    in_flight_max: int = IN_FLIGHT_MAX
    cursors: str | os.PathLike[str] | None = None

    @property
    def save_interval_s(self) -> float:
        """Least time between two writings of the cursor for acknowledgements, seconds."""
        if self.ack_interval_s is None:
            return AUTO_ACK_INTERVAL_S if self.auto_ack else 0.0
        return self.ack_interval_s


def check_options(**given: Any) -> Options:
    """Return the options.

    Raises:
        ArgumentError: One is unknown, or its value is wrong.
    """
    unknown = sorted(set(given) - set(Options.__struct_fields__))
    if unknown:
        raise ArgumentError(f"watch has no option {unknown[0]!r}.", argument=unknown[0])
    for name in ("reset", "auto_ack", "follow", "watcher"):
        if type(given.get(name, False)) is not bool:
            raise ArgumentError(f"{name} is {given[name]!r}; True or False.", argument=name)
    for name in ("poll_s", "busy_timeout_s", "ack_patience_s"):
        if name in given:
            _check_seconds(name, given[name])
    for name in ("timeout_s", "ack_interval_s"):
        if given.get(name) is not None:
            _check_seconds(name, given[name])
    if given.get("poll_s", POLL_S) == 0:
        raise ArgumentError("poll_s is 0; more is needed.", argument="poll_s")
    count = given.get("in_flight_max", 1)
    if type(count) is not int or count < 1:
        raise ArgumentError(f"in_flight_max is {count!r}; 1 or more.", argument="in_flight_max")
    options = Options(**given)
    check_start(options.start)
    return options


def _check_seconds(name: str, value: object) -> None:
    is_number = type(value) in (int, float)
    if not is_number or not 0 <= value <= _SECONDS_MAX or math.isnan(value):  # type: ignore[operator,arg-type]
        raise ArgumentError(f"{name} is {value!r}; seconds from 0 on are needed.", argument=name)
