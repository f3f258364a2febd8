"""Leases: a task is one holder's at a time, and a holder that was overtaken cannot write.

    with manager.acquire_lease("task-1", ttl_s=60, background=True) as lease:
        manager.create_checkpoint("task-1", "A task", 1, lease=lease)

What a lease is: model.lease. Who is refused: policy.leasing, under the log's lock. Page:
specs/lease.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from threading import Event as Signal
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeAlias, cast

from ckptlog.errors import ArgumentError, CheckpointError, LeaseLostError, StoreClosedError
from ckptlog.model.lease import TTL_US_MAX, TTL_US_MIN, Grant, Held
from ckptlog.model.quotation import quoted
from ckptlog.storage.fork import free_in_child

if TYPE_CHECKING:
    from ckptlog.manager.leasing import Leases

_logger = logging.getLogger("ckptlog")
_MILLION: Final = 1_000_000
# A lease is renewed when a third of it is over, so that two renewals may fail.
_RENEWALS: Final = 3
_ACTOR_CHARACTERS_MAX: Final = 180

OnLost = Callable[[CheckpointError], None]


class Lease:
    """A lease that was acquired; its holder's handle. Made by `CheckpointManager.acquire_lease`.

    As a context manager it is released at the end. In a forked child, or another process, it is
    the parent's: there it can be shown (`lease=`), and is not released at the end of a block.

    Attributes:
        grant: What the log said when it was acquired or renewed last; send this to another process
            (it is a plain value), and make a handle of it there with `adopt_lease`.

    Threads: safe.
    """

    def __init__(self, manager: Leases, grant: Grant) -> None:
        self._manager = manager
        self.grant = grant
        self._pid = os.getpid()
        self._lost: CheckpointError | None = None
        self._stop = Signal()
        free_in_child(self, "_stop")

    @property
    def task(self) -> str:
        """The task that it is about."""
        return self.grant.task

    @property
    def token(self) -> int:
        """Its number: greater than that of every earlier lease of the task."""
        return self.grant.token

    @property
    def holder(self) -> str:
        """Who has it, as it was named."""
        return self.grant.holder

    @property
    def expires_at(self) -> datetime:
        """From when on another may take it, unless it is renewed; UTC."""
        return datetime.fromtimestamp(self.grant.expires_us / _MILLION, UTC)

    @property
    def is_valid(self) -> bool:
        """Whether it is the task's lease and has not expired, by the log as it is now.

        Only a write decides: in the next moment it may be another's.
        """
        found = self._manager.store.lease(self.task)
        now_us = self._manager.store.environment.now_us()
        return found is not None and found.token == self.token and found.is_live(now_us)

    @property
    def is_lost(self) -> bool:
        """Whether this process was told that it is over; no look at the log."""
        return self._lost is not None

    def renew(self, ttl_s: float | None = None) -> datetime:
        """Let it end later: ttl_s from now on, or as long as before; return when.

        It may have expired, as long as nobody took it.

        Raises:
            LeaseLostError: It was released or taken over.

        Durability: as any event's.
        """
        ttl_us = None if ttl_s is None else ttl_us_of(ttl_s)
        try:
            self.grant = self._manager.renew_grant(self.grant, ttl_us)
        except LeaseLostError as error:
            self._lose(error)
            raise
        return self.expires_at

    def release(self) -> bool:
        """End it, so that another can have the task at once; False where it was over already."""
        self._stop.set()
        return self._manager.release_grant(self.grant)

    def keep(self, on_lost: OnLost | None = None) -> Self:
        """Renew it from a thread from now on, until it is released or lost, or the manager closed.

        Args:
            on_lost: Called once, in that thread, when it is lost: stop the work.
        """
        self._manager.kept_leases.add(self)
        Thread(
            target=self._keep, args=(on_lost,), name=f"ckptlog-lease-{self.token}", daemon=True
        ).start()
        return self

    def let_expire(self) -> None:
        """Renew it no more; it is held until it expires."""
        self._stop.set()

    def _keep(self, on_lost: OnLost | None) -> None:
        while not self._stop.wait(self.grant.ttl_us / _MILLION / _RENEWALS):
            try:
                self.renew()
            except LeaseLostError as error:
                _tell(on_lost, error)
                return
            except StoreClosedError:
                return
            except CheckpointError as error:
                # The medium, the lock: until another takes it, it is ours; so try on.
                _logger.warning("Lease on %r was not renewed: %s", self.task, error)

    def _lose(self, error: CheckpointError) -> None:
        self._lost = error
        self._stop.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self.release()
        except CheckpointError as trouble:
            if error is None:
                raise
            error.add_note(f"The lease on {self.task!r} was not released: {trouble}")

    def __repr__(self) -> str:
        return f"<Lease {self.token} on {self.task!r} of {self.holder!r} until {self.expires_at}>"


LeaseArgument: TypeAlias = Lease | Grant | Iterable[Lease | Grant] | None
"""A lease, or several: of the tasks that a call writes about."""


def held_of(lease: LeaseArgument) -> Held:
    """Return the tokens that a caller shows.

    Raises:
        ArgumentError: It is no lease, and no several.
    """
    if lease is None:
        return ()
    found: list[object] = [lease] if isinstance(lease, Lease | Grant) else []
    if not found:
        try:
            found = list(cast("Iterable[object]", lease))
        except TypeError:
            found = [lease]
    for one in found:
        if not isinstance(one, Lease | Grant):
            raise ArgumentError(
                f"lease is {quoted(one)}; what acquire_lease returns is needed, or several.",
                argument="lease",
            )
    return tuple((one.task, one.token) for one in cast("list[Lease | Grant]", found))


def ttl_us_of(ttl_s: object) -> int:
    """Return the time that a lease is asked for, in microseconds.

    Raises:
        ArgumentError: It is no number of seconds in the bounds.
    """
    if type(ttl_s) in (int, float) and 0 <= (given := cast("float", ttl_s)) <= TTL_US_MAX:
        ttl_us = round(given * _MILLION)
        if TTL_US_MIN <= ttl_us <= TTL_US_MAX:
            return ttl_us
    raise ArgumentError(
        f"ttl_s is {quoted(ttl_s)}; seconds from {TTL_US_MIN / _MILLION} to "
        f"{TTL_US_MAX // _MILLION} are needed.",
        argument="ttl_s",
    )


def pid_name(actor: str) -> str:
    """Return how a process is called that does not say it."""
    return f"{actor[:_ACTOR_CHARACTERS_MAX].strip()}#{os.getpid()}"


def _tell(on_lost: OnLost | None, error: CheckpointError) -> None:
    if on_lost is None:
        _logger.warning("%s", error)
        return
    try:
        on_lost(error)
    except Exception:
        _logger.exception("A callback for a lost lease failed")
