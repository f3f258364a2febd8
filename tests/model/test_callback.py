"""What is called must do something by that."""

from __future__ import annotations

from functools import partial

import pytest

from ckptlog.errors import ArgumentError
from ckptlog.model.callback import refuse_deferred


async def coroutine(_what):
    """Does nothing until it is awaited."""


def generator(_what):
    yield


async def both(_what):
    yield


class Called:
    async def __call__(self, _what):
        """Does nothing until it is awaited."""


AWAITED = [coroutine, partial(coroutine), Called()]


@pytest.mark.parametrize("callback", [*AWAITED, generator, both])
def test_what_would_never_run_is_refused(callback):
    with pytest.raises(ArgumentError, match="would never run") as caught:
        refuse_deferred("on_progress", callback)
    assert caught.value.context["argument"] == "on_progress"


@pytest.mark.parametrize("callback", [generator, both])
def test_nobody_iterates_where_one_awaits(callback):
    with pytest.raises(ArgumentError, match="generator function"):
        refuse_deferred("callback", callback, is_awaited=True)


@pytest.mark.parametrize("callback", [*AWAITED, print, [].append, Called, None])
def test_what_may_run_is_not(callback):
    refuse_deferred("callback", callback, is_awaited=callback in AWAITED)
