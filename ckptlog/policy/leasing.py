"""Who may hold a lease, and whose writes are refused: pure, asked by `policy.decide`.

Under the log's lock, from what is true there: a token either is the task's newest or it is not.
Page: specs/lease.md.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from ckptlog.errors import LeaseHeldError, LeaseLostError, LeaseRequiredError
from ckptlog.model.event import LEASE_CLAIMED, LEASE_RELEASED, LEASE_RENEWED
from ckptlog.model.lease import Grant, Held, facts_of
from ckptlog.policy.command import Claim, Leasing, Release, Renew

_MILLION = 1_000_000


class Step(msgspec.Struct, frozen=True, gc=False):
    """What happens to a lease: the event's type and facts; answer: what the caller is told."""

    type: str
    facts: dict[str, int | str]
    answer: int | bool


def refuse_write(task: str, held: Held, grant: Grant | None, now_us: int) -> None:
    """Refuse a write about a task under a lost lease, or beside another's live one.

    Args:
        held: Tokens that the writer has.
        grant: The task's lease, if it has one.

    Raises:
        LeaseLostError: The writer's token is not the task's.
        LeaseRequiredError: The writer has none, and another holds a live lease.
    """
    token = next((own for name, own in held if name == task), None)
    if token is not None:
        _refuse_lost(task, token, grant)
    elif grant is not None and grant.is_live(now_us):
        raise LeaseRequiredError(
            f"Task {task!r} is leased to {grant.holder!r} until {until(grant)}.",
            hint="Write with its lease (lease=), or wait for its end; an operator can end it: "
            "ckptlog leases release TASK --force.",
            **_context(grant),
        )


def decide_lease(grant: Grant | None, command: Leasing, now_us: int, position: int) -> Step | None:
    """Return what a command does to a task's lease; None where there is nothing to do.

    Args:
        grant: The task's lease, if it has one.
        position: Of the event to be made; a claim's token.

    Raises:
        LeaseHeldError, LeaseLostError: It is another's.
    """
    if isinstance(command, Claim):
        return _claim(grant, command, now_us, position)
    if isinstance(command, Renew):
        return _renew(grant, command, now_us)
    return _release(grant, command, now_us)


def _claim(grant: Grant | None, command: Claim, now_us: int, position: int) -> Step:
    if grant is not None and grant.is_held(now_us, command.dead):
        raise LeaseHeldError(
            f"Task {command.task!r} is leased to {grant.holder!r} until {until(grant)}, "
            f"for {(grant.expires_us - now_us) / _MILLION:.1f} s more.",
            hint="Wait (wait_s=), or leave the task to that one; an operator can end the lease: "
            "ckptlog leases release TASK --force.",
            **_context(grant),
        )
    ttl_us = command.ttl_us
    own = Grant(command.task, position, command.holder, now_us + ttl_us, ttl_us, command.process)
    facts = facts_of(own)
    if grant is not None:  # it expired, or its holder died: who was overtaken is for the auditor
        facts |= {"former_holder": grant.holder, "former_token": grant.token}
        if grant.is_live(now_us):
            facts["former_dead"] = 1
    return Step(LEASE_CLAIMED, facts, position)


def _renew(grant: Grant | None, command: Renew, now_us: int) -> Step:
    own = _refuse_lost(command.task, command.token, grant)
    ttl_us = own.ttl_us if command.ttl_us is None else command.ttl_us
    # Whose death proves nothing when it is claimed stays so.
    process = command.process if own.process else ""
    renewed = msgspec.structs.replace(
        own, expires_us=now_us + ttl_us, ttl_us=ttl_us, process=process
    )
    return Step(LEASE_RENEWED, facts_of(renewed), renewed.expires_us)


def _release(grant: Grant | None, command: Release, now_us: int) -> Step | None:
    if grant is None or command.token not in (None, grant.token):
        return None  # it is over already
    is_ended = command.token is None
    if is_ended and not command.is_forced and grant.is_held(now_us, command.dead):
        raise LeaseHeldError(
            f"The lease of {grant.holder!r} on task {command.task!r} is live until {until(grant)}.",
            hint="With --force (force=True) it ends all the same: its holder's writes are refused "
            "from then on.",
            **_context(grant),
        )
    facts: dict[str, int | str] = {"holder": grant.holder, "token": grant.token}
    if is_ended:
        facts["forced"] = 1
    return Step(LEASE_RELEASED, facts, True)


def _refuse_lost(task: str, token: int, grant: Grant | None) -> Grant:
    if grant is not None and grant.token == token:
        return grant
    now = "nobody holds it now" if grant is None else f"{grant.holder!r} has it now"
    hint = "Stop working on the task; what the present holder writes counts."
    if grant is None:
        hint = "What was written until then counts; whoever goes on with the task acquires it anew."
    raise LeaseLostError(
        f"Lease {token} on task {task!r} is over: it was released or taken over; {now}.",
        hint=hint,
        task_id=task,
        token=token,
        holder=None if grant is None else grant.holder,
    )


def until(grant: Grant) -> str:
    """Return when a lease ends, as text."""
    moment = datetime.fromtimestamp(min(grant.expires_us // _MILLION, 253_402_300_799), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _context(grant: Grant) -> dict[str, object]:
    return {
        "task_id": grant.task,
        "holder": grant.holder,
        "expires_us": grant.expires_us,
        "token": grant.token,
    }
