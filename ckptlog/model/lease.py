"""A lease: who alone may write about a task, and the token that every such write must show.

    claimed --renewed--> ... --released--> (none)
       |  expired, or its process is dead: another may claim; until one does, the holder's token
       |  is still the task's
       `--> claimed by another: the old token is worth nothing, for ever

What is safe does not hang on clocks. A token is the log position of its claim, so later ones are
greater, and a write with any other token than the newest is refused where it is decided: under
the log's lock. Clocks only say from when on another *may* claim. Page: specs/lease.md.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

import msgspec

from ckptlog.model.event import (
    LEASE_RELEASED,
    LEASE_TYPES,
    TASK_DELETED,
    Event,
    Natural,
)

# Long enough for anything that is at work; a lease of years would be a lock that nobody opens.
TTL_US_MAX: Final = 31 * 24 * 3_600_000_000
TTL_US_MIN: Final = 1_000

Held = tuple[tuple[str, int], ...]
"""Tasks, and the token that a writer has for each."""


class Grant(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """A lease as the log has it: not released, maybe expired.

    task: Whose. token: Log position of the claim. holder: Who has it, as it calls itself.
    expires_us: Unix microseconds. ttl_us: How long it was given for, the last time.
    process: The process that claimed or renewed it last (storage.process); "" where its death
        would prove nothing, or the system does not tell.
    """

    task: str
    token: Natural
    holder: str
    expires_us: Natural
    ttl_us: Natural
    process: str = ""

    def is_live(self, now_us: int) -> bool:
        """Say whether nobody else may claim the task now.

        One that ends later than anybody could have given it (a clock that was wrong then, or is
        now) binds nobody: else a wrong clock would lock a task for years.
        """
        return 0 < self.expires_us - now_us <= 2 * self.ttl_us

    def is_held(self, now_us: int, dead: str) -> bool:
        """Say whether it is live, and its process not known to be dead.

        Args:
            dead: A process that was seen dead, by its name; "" for none. It stays dead, so it does
                not matter when that was.
        """
        return self.is_live(now_us) and not (self.process and self.process == dead)


def facts_of(grant: Grant) -> dict[str, int | str]:
    """Return what an event says of a lease."""
    facts: dict[str, int | str] = {
        "expires": grant.expires_us,
        "holder": grant.holder,
        "token": grant.token,
        "ttl": grant.ttl_us,
    }
    return facts | {"process": grant.process} if grant.process else facts


def grant_of(event: Event) -> Grant | None:
    """Return the lease that a claim or a renewal gives; None where its facts are malformed."""
    facts = event.facts
    token, expires, ttl = facts.get("token"), facts.get("expires"), facts.get("ttl")
    holder = facts.get("holder")
    if type(token) is not int or type(expires) is not int or type(ttl) is not int:
        return None
    if type(holder) is not str or min(token, expires, ttl) < 0:
        return None
    process = facts.get("process", "")
    known = process if type(process) is str else ""
    return Grant(event.subject.task, token, holder, expires, ttl, known)


def lease_after(event: Event) -> Grant | None:
    """Return the task's lease after an event of LEASE_TYPES or the deletion of the task."""
    if event.type in (LEASE_RELEASED, TASK_DELETED):
        return None
    return grant_of(event)


def apply(leases: MutableMapping[str, Grant], event: Event) -> None:
    """Let an event be true for the leases by task; each tells all of its lease."""
    if event.type not in LEASE_TYPES and event.type != TASK_DELETED:
        return
    grant = lease_after(event)
    if grant is None:
        leases.pop(event.subject.task, None)
    else:
        leases[grant.task] = grant
