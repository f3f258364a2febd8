"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

FIRST_S = 0.5
MOST_S = 60.0
RETRY_AFTER_MOST_S = 600.0


def waits(
    retries: int,
    chance: Callable[[], float],
    *,
    first_s: float = FIRST_S,
    most_s: float = MOST_S,
) -> Iterator[float]:
    """Yield the waits before each repetition: doubled each time, half of each at random.

    The random half keeps many senders that failed together from coming back together.

    Args:
        chance: Returns numbers from 0 to below 1.
    """
    bound_s = first_s
    for _ in range(retries):
        yield bound_s / 2 + chance() * bound_s / 2
        bound_s = min(2 * bound_s, most_s)
