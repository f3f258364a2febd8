"""Commands: what a caller asks of the log, with payloads already named by their digests."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ckptlog.model.event import SCHEMA, Reference
from ckptlog.model.lease import Held
from ckptlog.model.state import CheckpointState


class Witness(msgspec.Struct, frozen=True, gc=False):
    """A checkpoint whose retained payload already holds chunks that a command relies on.

    checkpoint: Its id.
    root: Root of the payload (data or meta) that holds them, hexadecimal.
    """

    checkpoint: str
    root: str


class Moment(msgspec.Struct, frozen=True, gc=False):
    """When a round decides: Unix microseconds, and the same as ISO text.

    schema: Of the events to be made; the store's.
    """

    us: int
    iso: str
    schema: int = SCHEMA


class Command(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What all commands carry.

    actor: Who asks.
    command: The command's id; unique.
    fingerprint: Digest of the content, where the caller gave the id; "" where we made it.
    leases: Tokens that the caller has; looked at by what writes about a task (specs/lease.md).
    """

    actor: str
    command: str
    fingerprint: str = ""
    leases: Held = ()


class Payloads(msgspec.Struct, frozen=True, gc=False):
    """New roots for a checkpoint; None keeps what is there.

    new: Bytes that the commit adds for them. sanitised: Secrets replaced in them.
    """

    data: Reference | None = None
    meta: Reference | None = None
    new: int = 0
    sanitised: int = 0
    witnesses: tuple[Witness, ...] = ()


class Create(Command, frozen=True, gc=False, kw_only=True):
    """Begin a checkpoint; with is_active, also its first step to `active`, in the same commit.

    checkpoint: An explicit id (imports, adapters), or "" for the specification's.
    incarnation: How often the task was deleted before, where the id was made from that; None where
        it does not matter.
    is_late_accepted: Whether the parent may be a deleted one.
    is_only_child: Refuse where the parent has a child in this namespace already, or, without a
        parent, where the task has such a checkpoint there: compare-and-swap on the parent.
    """

    task: str
    step: int
    payloads: Payloads
    checkpoint: str = ""
    incarnation: int | None = None
    is_active: bool = False
    is_late_accepted: bool = False
    is_only_child: bool = False
    namespace: str = ""
    parent: str = ""
    total: int = 0
    worker: str = ""


class Change(Command, frozen=True, gc=False, kw_only=True):
    """Move a checkpoint to a state, with new payloads or the old ones.

    based_on: Position of the checkpoint's event that the payloads were made from; None where
        they do not depend on what is there.
    expected: Position that the caller last saw, for compare-and-swap; None where any will do.
    is_only_child: As in `Create`, where the parent is another one than before.
    parent: Another parent; None keeps.
    state: None means: active, as a plain update does.
    step, total: None keeps.
    """

    checkpoint: str
    payloads: Payloads = Payloads()
    based_on: int | None = None
    expected: int | None = None
    is_only_child: bool = False
    parent: str | None = None
    state: CheckpointState | None = None
    step: int | None = None
    total: int | None = None


class Pin(Command, frozen=True, gc=False, kw_only=True):
    """Say in a checkpoint's metadata whether clean-ups must spare it; its state stays.

    based_on: Position of the event that the new metadata was made from.
    """

    checkpoint: str
    based_on: int
    is_pinned: bool
    payloads: Payloads


class Delete(Command, frozen=True, gc=False, kw_only=True):
    """End a checkpoint.

    based_on: Position as of which it was chosen: where its task has changed since, the choice is
        made again. None where it does not matter.
    cause: Id of the clean-up that asked.
    """

    checkpoint: str
    based_on: int | None = None
    cause: str = ""
    expected: int | None = None


class DeleteTask(Command, frozen=True, gc=False, kw_only=True):
    """End every living checkpoint of a task; its id may be used again.

    count: The living checkpoints, as counted at position based_on.
    """

    task: str
    based_on: int
    count: int = 0


class Record(Command, frozen=True, gc=False, kw_only=True):
    """Append a fact that is about no single checkpoint (a clean-up, an import).

    data: A payload that says more; new: bytes that the commit adds for it.
    """

    type: str
    facts: dict[str, int | str]
    task: str = ""
    data: Reference | None = None
    new: int = 0


class Settle(Command, frozen=True, gc=False, kw_only=True):
    """Say that chunks were moved: what containers count no more (specs/collection.md).

    fence: Position that the collection marked at; its packs have it as their base.
    removes: Containers. facts: What was done, in numbers.
    """

    fence: int
    facts: dict[str, int | str]
    removes: tuple[str, ...]


class Claim(Command, frozen=True, gc=False, kw_only=True):
    """Take the lease of a task that nobody has, or whose lease has expired, or whose holder died.

    ttl_us: For how long, in microseconds.
    process: The process that claims, where its death shall end the lease; else "".
    dead: A process that was seen dead: its lease counts as expired. "" for none.
    """

    task: str
    holder: str
    ttl_us: int
    process: str = ""
    dead: str = ""


class Renew(Command, frozen=True, gc=False, kw_only=True):
    """Let a lease end later.

    ttl_us: From now on, in microseconds; None for as long as before.
    process: The process that renews.
    """

    task: str
    token: int
    ttl_us: int | None = None
    process: str = ""


class Release(Command, frozen=True, gc=False, kw_only=True):
    """End a lease.

    token: The holder's; None for an operator, who ends any.
    is_forced: End also one that is live, without its token.
    dead: As of a claim.
    """

    task: str
    token: int | None = None
    is_forced: bool = False
    dead: str = ""


Leasing = Claim | Renew | Release
AnyCommand = Create | Change | Pin | Delete | DeleteTask | Record | Settle | Leasing
Commands = Sequence[AnyCommand]
