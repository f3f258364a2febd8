"""Delivering events to somebody outside: attempts, waits, dead letters.

One event after the other: an event that fails is repeated before the next one is tried, for order
is part of the promise. An event is acknowledged when it was delivered, or is durably a dead letter.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from ckptlog.errors import ArgumentError, DeliveryError
from ckptlog.storage.environment import Environment
from ckptlog.watch.backoff import RETRY_AFTER_MOST_S, waits
from ckptlog.watch.dead_letter import DeadLetters
from ckptlog.watch.event import WatchEvent

Outcome = Literal["delivered", "dead"]
RETRIES = 8
RETRIES_MAX = 1000


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt failed.

    is_final: The receiver wants no event any more; nothing is repeated, nothing goes on.
    retry_after_s: What the receiver asks for; None for nothing.
    """

    reason: str
    is_final: bool = False
    retry_after_s: float | None = None


class Target(Protocol):
    """Takes events; one attempt each call."""

    def deliver(self, event: WatchEvent) -> Failure | None:
        """Try once; None when the event was taken."""

    def close(self) -> None:
        """Let go of what is kept between two events."""


class Delivery:
    """Brings events to a target, with repetitions.

    Args:
        retries: Repetitions after the first attempt.
        dead_letters: Where an event goes that fails each time; without, that is an error.

    Threads: one at a time.
    """

    def __init__(
        self,
        target: Target,
        environment: Environment,
        *,
        retries: int = RETRIES,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        if type(retries) is not int or not 0 <= retries <= RETRIES_MAX:
            raise ArgumentError(f"retries is {retries!r}; 0 to {RETRIES_MAX}.", argument="retries")
        self._target = target
        self._environment = environment
        self._retries = retries
        self._dead_letters = dead_letters
        self.attempts = 0

    def deliver(self, event: WatchEvent) -> Outcome:
        """Deliver an event, or make it a dead letter; then it may be acknowledged.

        Raises:
            DeliveryError: It failed each time and there is no place for dead letters, or the
                receiver wants no more.
            CheckpointStorageError: The dead letter could not be written.
        """
        self.attempts = 1
        failure = self._target.deliver(event)
        for wait_s in waits(self._retries, self._chance):
            if failure is None or failure.is_final:
                break
            asked_s = min(failure.retry_after_s or 0.0, RETRY_AFTER_MOST_S)
            self._environment.sleep(max(wait_s, asked_s))
            self.attempts += 1
            failure = self._target.deliver(event)
        if failure is None:
            return "delivered"
        if self._dead_letters is None or failure.is_final:
            tried = "one attempt" if self.attempts == 1 else f"{self.attempts} attempts"
            raise DeliveryError(
                f"Event {event.id} was not delivered in {tried}: {failure.reason}",
                hint="It was not acknowledged: mend the receiver and start again. A file for "
                "dead letters lets the others go on.",
                event=event.id,
                attempts=self.attempts,
            )
        self._dead_letters.add(event, failure.reason, self.attempts)
        return "dead"

    def close(self) -> None:
        """Close the target."""
        self._target.close()

    def _chance(self) -> float:
        return int.from_bytes(self._environment.random_bytes(4)) / 2**32
