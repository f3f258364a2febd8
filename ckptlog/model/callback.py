"""What a callback must not be: something whose call alone does nothing."""

from __future__ import annotations

import inspect

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted


def refuse_deferred(argument: str, callback: object, *, is_awaited: bool = False) -> None:
    """Refuse generator functions, and coroutine functions where nobody awaits them.

    Raises:
        ArgumentError: It is one, or an object whose `__call__` is.
    """
    for one in (callback, type(callback).__call__ if callable(callback) else None):
        if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
            kind = "generator function"
        elif inspect.iscoroutinefunction(one) and not is_awaited:
            kind = "coroutine function"
        else:
            continue
        raise ArgumentError(
            f"{argument} is the {kind} {quoted(callback)}, which would never run.",
            hint="Give a plain function. For callbacks that are coroutine functions there is "
            "AsyncCheckpointService.",
            argument=argument,
        )
