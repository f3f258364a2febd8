"""Calls a function in the thread of an event loop, from any thread, and waits for its answer.

What belongs to a loop (an asyncio.Queue, an agent of coroutines) may be touched in the loop's
thread only. A capture runs in threads of its own, so it asks there. Called from the loop's own
thread the function runs at once; a loop that does not run is nobody's, so the caller's will do.

A loop whose thread itself waits for the capture never answers: after the timeout that is said.
Where the loop was closed, as behind `asyncio.run` at the program's end, another one runs for the
one answer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ckptlog.errors import ComponentError, SourceBusyError, SourceError
from ckptlog.model.quotation import quoted

LOOP_TIMEOUT_S: Final = 5.0
"""Seconds that a loop may take until it answers."""

Loop = asyncio.AbstractEventLoop
T = TypeVar("T")


def running_loop() -> Loop | None:
    """Return the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def checked_loop(name: str, loop: Loop | None) -> Loop | None:
    """Return what a component was given as its loop.

    Raises:
        ComponentError: It is none.
    """
    given: object = loop
    if given is None or isinstance(given, Loop):
        return loop
    raise ComponentError(
        f"loop of the component {quoted(name)} is {quoted(given)}.",
        hint="Give an event loop of asyncio, or leave it out.",
        component=name,
    )


def bound(loop: Loop | None, other: Loop) -> Loop:
    """Return a loop, or another one where that is none, or was closed."""
    return other if loop is None or loop.is_closed() else loop


def call_in_loop(
    loop: Loop | None,
    function: Callable[[], T],
    *,
    name: str,
    timeout_s: float = LOOP_TIMEOUT_S,
) -> T:
    """Return what function returns when it is called in the loop's thread.

    Args:
        loop: None or one that does not run: the function is called here.
        name: Of the component, for messages.
        timeout_s: Seconds to wait for the loop.

    Raises:
        SourceBusyError: The loop did not answer in time; the function will not be called any more.

    Threads: safe.
    """
    if loop is None or not loop.is_running() or loop is running_loop():
        return function()
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(function())
        except BaseException as error:  # noqa: BLE001 - the caller's thread gets it
            answer.set_exception(error)

    loop.call_soon_threadsafe(run)
    return _waited(answer, name, timeout_s)


def resolve_in_loop(
    loop: Loop | None, value: object, *, name: str, timeout_s: float = LOOP_TIMEOUT_S
) -> object:
    """Return a value, or what it comes to if it is awaitable: the loop runs it.

    Where the loop was closed, one that is made for it does.

    Raises:
        SourceBusyError: The loop did not bring it to an end in time; it was cancelled.
        SourceError: It is awaitable and there is no other running loop to run it.
    """
    if not inspect.isawaitable(value):
        return value

    async def wait() -> object:
        return await value

    if loop is not None and loop.is_closed() and running_loop() is None:
        return _run(wait(), name, timeout_s)
    if loop is None or not loop.is_running() or loop is running_loop():
        if inspect.iscoroutine(value):
            value.close()
        raise SourceError(
            f"The component {quoted(name)} answers with a coroutine, and no loop that could run it "
            "is at hand.",
            hint="Make the component in the running loop, or with loop=..., and capture from "
            "another thread (await asyncio.to_thread(capturer.capture)).",
            component=name,
        )

    return _waited(asyncio.run_coroutine_threadsafe(wait(), loop), name, timeout_s)


def _run(coroutine: Coroutine[Any, Any, object], name: str, timeout_s: float) -> object:
    """Run a coroutine in a loop of its own."""

    async def bounded() -> tuple[object, bool]:
        task = asyncio.ensure_future(coroutine)
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        return (task.result(), True) if done else (None, False)

    found, is_done = asyncio.run(bounded())
    if is_done:
        return found
    raise SourceBusyError(
        f"The component {quoted(name)} did not answer in {timeout_s:g} s, in a loop of its own: "
        "its own one was closed.",
        hint="Close the service before the loop ends (async with).",
        component=name,
    )


def _waited(answer: concurrent.futures.Future[T], name: str, timeout_s: float) -> T:
    try:
        return answer.result(timeout_s)
    except concurrent.futures.TimeoutError as error:
        if answer.done() and not answer.cancelled():
            raise  # the function's own
        if not answer.cancel():
            return answer.result()  # it runs at this moment; what it changes is changed
        raise SourceBusyError(
            f"The event loop of the component {quoted(name)} did not answer in {timeout_s:g} s.",
            hint="It is busy, or waits for this capture itself: capture from another thread "
            "(await asyncio.to_thread(capturer.capture)).",
            component=name,
        ) from error
