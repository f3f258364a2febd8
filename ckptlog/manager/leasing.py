"""The part of a manager that gives, lists and ends leases (manager.lease)."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

import msgspec

from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    LeaseHeldError,
    LeaseLostError,
    UnsupportedError,
)
from ckptlog.formats.store import LEASES
from ckptlog.manager.lease import Lease, OnLost, pid_name, ttl_us_of
from ckptlog.model.identifier import check_id
from ckptlog.model.lease import Grant, grant_of
from ckptlog.model.quotation import quoted
from ckptlog.policy.command import Claim, Release, Renew
from ckptlog.repository import layout
from ckptlog.repository.store import Store

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

_MILLION: Final = 1_000_000
_WAIT_MIN_S: Final = 0.01
_WAIT_MAX_S: Final = 0.25


class LeaseState(msgspec.Struct, frozen=True, kw_only=True):
    """A lease as `list_leases` tells it.

    is_live: Whether nobody else may claim the task now, by the clock.
    is_dead: Whether its process is surely dead: a claim from this machine takes it over at once.
    is_visible: Whether that can be told from here: not of a process of another boot, machine or
        container, nor of a shared lease. Such a one ends by time, or by force.
    """

    task: str
    holder: str
    token: int
    expires_at: datetime
    ttl_s: float
    is_live: bool
    is_dead: bool = False
    is_visible: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        found = msgspec.to_builtins(self)
        return {"task_id": found.pop("task"), **found}


class Leases:
    """What a manager inherits."""

    store: Store
    actor: str
    # Leases that are renewed from threads.
    kept_leases: WeakSet[Lease]

    def acquire_lease(
        self,
        task_id: str,
        *,
        ttl_s: float = 60.0,
        holder: str | None = None,
        wait_s: float = 0.0,
        background: bool = False,
        on_lost: OnLost | None = None,
        command_id: str | None = None,
        shared: bool = False,
    ) -> Lease:
        """Claim a task, so that writes about it need this lease; return it.

        A lease that has expired is taken over, and one whose process is dead on this machine at
        once: from then on its former holder's writes under it are refused. The task may have no
        checkpoint yet.

        Args:
            ttl_s: For how long, in seconds; 0.001 to 31 days. Renew it in time (`Lease.renew`).
            holder: Who asks, for people; by default this process. Names lend nothing: who has
                lost a lease does not get it back by its name.
            wait_s: How long to wait for another's to end.
            background: Renew it from a thread; on_lost is called there when it is lost.
            command_id: Makes the call idempotent: the same id again returns the first lease.
            shared: Others will work under it who may outlive this process (its grant is handed
                over): that this process dies ends nothing then, only time does.

        Raises:
            LeaseHeldError: Another holds a live lease; says who, and until when.
            UnsupportedError: The store was made before there were leases (`enable_leases`).
            ArgumentError: An argument is wrong.

        Durability: always on the medium when it returns, or a token could be given twice.
        Threads: safe.        Cost: one commit.
        """
        check_id("task_id", task_id)
        manager = cast("CheckpointManager", self)
        self._refuse_without_leases()
        identity = manager.identity(command_id, "claim", task_id)
        command = Claim(
            actor=self.actor,
            command=identity.command,
            fingerprint=identity.fingerprint,
            holder=self._holder(holder),
            task=task_id,
            ttl_us=ttl_us_of(ttl_s),
            process="" if shared else self.store.environment.process(),
        )
        wait_s = _checked_wait(wait_s)
        try:
            self._claim(command, wait_s)
            lease = Lease(self, self._granted(command))
        except Exception:
            raise
        except BaseException:
            if command_id is None:  # otherwise who asks again is answered
                self._give_back(command)
            raise
        return lease.keep(on_lost) if background else lease

    def _claim(self, command: Claim, wait_s: float) -> None:
        environment = self.store.environment
        end_s, pause_s = environment.monotonic_s() + wait_s, _WAIT_MIN_S
        while True:
            command = msgspec.structs.replace(command, dead=self.dead_holder(command.task))
            try:
                cast("CheckpointManager", self).submit(command)
                break
            except LeaseHeldError:
                if environment.monotonic_s() >= end_s:
                    raise
            # Looked at without the log's lock until there is a chance.
            while (left_s := end_s - environment.monotonic_s()) > 0:
                environment.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _WAIT_MAX_S)
                if self.live_grant(command.task) is None:
                    break
        self.store.opened()  # "interval": what is not durable could be claimed once more

    def _give_back(self, command: Claim) -> None:
        """End what an interrupted claim has got: nobody has a handle of it.

        It may be written and not yet published. The next commit, the same claim, publishes it, and
        is refused for it then; otherwise this one is ended.
        """
        with suppress(CheckpointError):
            cast("CheckpointManager", self).submit(command)
        with suppress(CheckpointError):
            self.release_grant(self._granted(command))

    def live_grant(self, task_id: str) -> Grant | None:
        """Return the lease that keeps others from claiming a task now; None where none does."""
        grant = self.store.lease(task_id)
        environment = self.store.environment
        if grant is None or not grant.is_live(environment.now_us()):
            return None
        return None if environment.is_dead(grant.process) else grant

    def dead_holder(self, task_id: str) -> str:
        """Return the name of the process that has a task's live lease and is surely dead, or ""."""
        grant = self.store.lease(task_id)
        environment = self.store.environment
        if grant is None or not grant.is_live(environment.now_us()):
            return ""
        return grant.process if environment.is_dead(grant.process) else ""

    def end_dead_lease(self, task_id: str) -> bool:
        """End a task's live lease whose process is surely dead; False where there is none such.

        Who was killed would otherwise keep out, until it expires, whoever writes without a lease.
        """
        if not self.dead_holder(task_id):
            return False
        try:
            return self.release_lease(task_id)
        except LeaseHeldError:  # another has claimed it since
            return False

    def _granted(self, command: Claim) -> Grant:
        event = self.store.command(command.command)
        grant = None if event is None else grant_of(event)
        if grant is None:  # pragma: no cover - we have just written it
            raise LeaseLostError(f"The claim {command.command!r} is not in the log.")
        return grant

    def _holder(self, holder: str | None) -> str:
        if holder is not None:
            return check_id("holder", holder)
        return pid_name(self.actor)

    def adopt_lease(self, grant: Grant) -> Lease:
        """Return a handle on a lease that another process has acquired and handed over.

        Nothing is written, and nothing checked: whoever shows its token writes.
        """
        if not isinstance(grant, Grant):
            raise ArgumentError(
                f"grant is {quoted(grant)}; the `grant` of a Lease is needed.", argument="grant"
            )
        return Lease(self, grant)

    def list_leases(self) -> list[LeaseState]:
        """Return every lease that was not released, by task; some may have expired."""
        environment = self.store.environment
        now_us = environment.now_us()
        return [
            LeaseState(
                task=one.task,
                holder=one.holder,
                token=one.token,
                expires_at=datetime.fromtimestamp(one.expires_us / _MILLION, UTC),
                ttl_s=one.ttl_us / _MILLION,
                is_live=one.is_live(now_us),
                is_dead=environment.is_dead(one.process),
                is_visible=environment.is_visible(one.process),
            )
            for _, one in sorted(self.store.leases().items())
        ]

    def release_lease(self, task_id: str, *, force: bool = False) -> bool:
        """End a task's lease as an operator, without its token; False where there is none.

        Args:
            force: Also one that is live: its holder's writes are refused from then on. One whose
                process is dead needs no force.

        Raises:
            LeaseHeldError: It is live, and force was not given.
        """
        check_id("task_id", task_id)
        manager = cast("CheckpointManager", self)
        command = Release(
            actor=self.actor,
            command=manager.new_command_id(),
            task=task_id,
            is_forced=force,
            dead=self.dead_holder(task_id),
        )
        return bool(manager.submit(command))

    def enable_leases(self) -> bool:
        """Let a store from before there were leases have some; False where it may already.

        Programs that do not know leases would write in spite of them, so they refuse the store
        from now on: let none of them have it open.

        Durability: on the medium when it returns.
        """
        if self._has_leases():
            return False
        self.store.info = layout.upgrade(self.store.path, self.store.info, LEASES)
        return True

    def renew_grant(self, grant: Grant, ttl_us: int | None) -> Grant:
        """Renew a lease; see `Lease.renew`."""
        manager = cast("CheckpointManager", self)
        process = self.store.environment.process()
        expires_us = manager.submit(
            Renew(
                actor=self.actor,
                command=manager.new_command_id(),
                task=grant.task,
                token=grant.token,
                ttl_us=ttl_us,
                process=process,
            )
        )
        ttl_us = grant.ttl_us if ttl_us is None else ttl_us
        return msgspec.structs.replace(
            grant,
            expires_us=int(expires_us),
            ttl_us=ttl_us,
            process=process if grant.process else "",
        )

    def release_grant(self, grant: Grant) -> bool:
        """End a lease with its token; see `Lease.release`."""
        manager = cast("CheckpointManager", self)
        command = Release(
            actor=self.actor,
            command=manager.new_command_id(),
            task=grant.task,
            token=grant.token,
        )
        return bool(manager.submit(command))

    def _has_leases(self) -> bool:
        if LEASES not in self.store.info.features:
            self.store.info = layout.read_info(self.store.path)
        return LEASES in self.store.info.features

    def _refuse_without_leases(self) -> None:
        if not self._has_leases():
            raise UnsupportedError(
                f"The store {self.store.path} was made by an older version of ckptlog, which would "
                "write in spite of a lease.",
                hint="Once no older program has it open: ckptlog leases enable (enable_leases()).",
                path=str(self.store.path),
            )


def _checked_wait(wait_s: object) -> float:
    if type(wait_s) in (int, float) and cast("float", wait_s) >= 0:
        return cast("float", wait_s)
    raise ArgumentError(f"wait_s is {quoted(wait_s)}; seconds are needed.", argument="wait_s")
