"""The claim: of all processes one runs a task.

A flock tells, on this machine, whether the one that ran it before is dead: it dies with it. So a
lease that a killed one has left is ended at once, and not waited for. Between machines the lease
alone decides.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from blake3 import blake3

from ckptlog.errors import LeaseHeldError
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.unfinished import FOLDER
from ckptlog.model.lease import Grant
from ckptlog.service.command.files import system_of
from ckptlog.service.command.process import boot, is_running
from ckptlog.storage.lock import WriterLock, describe_holder

TTL_S: Final = 60.0
GRANT: Final = "CKPTLOG_LEASE"
_HOST_CHARACTERS_MAX: Final = 100
_STOP_S: Final = 10.0
_LOOK_S: Final = 0.05


@contextmanager
def claimed(
    manager: CheckpointManager, names: list[str], on_lost: Callable[[], None]
) -> Iterator[list[Lease]]:
    """Be the only one who runs a task, for the time of a block.

    Args:
        names: The task, and what else is leased with it.
        on_lost: Called in a thread when a lease is lost.

    Raises:
        LeaseHeldError: Another process runs it.
    """
    task = names[0]
    folder = Path(manager.store.path) / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{blake3(task.encode()).hexdigest()[:32]}.run.lock"
    lock = WriterLock(path, manager.store.environment)
    with ExitStack() as stack:
        stack.callback(lock.close)
        if not lock.try_acquire():
            raise LeaseHeldError(
                f"Task {task!r} is run by {describe_holder(path)}.",
                hint="Wait for it, or stop that process.",
                task_id=task,
            )
        stack.callback(lock.release)
        leases = []
        for name in names:
            _end_of_dead(manager, name)
            # The command is handed the task's lease and may outlive us: then it is not ended by
            # our death, but by who has our lock and has seen to the command.
            lease = manager.acquire_lease(
                name, ttl_s=TTL_S, holder=f"{_host()} #{os.getpid()}", shared=name == task
            )
            leases.append(stack.enter_context(lease))
            lease.keep(lambda _: on_lost())
        yield leases


def own_systems(manager: CheckpointManager, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the systems that a command may work on because `ckptlog run` started it.

    It has the grant of its task in its environment; one that is over, or that somebody made up,
    gives nothing.
    """
    try:
        grant = msgspec.json.decode(environ.get(GRANT, ""), type=Grant)
    except (msgspec.MsgspecError, UnicodeError):
        return ()
    known = manager.store.lease(grant.task)
    if known is None or known.token != grant.token:
        return ()
    return grant.task, system_of(grant.task)


def end_left_over(identity: Mapping[str, Any]) -> bool:
    """End a command that outlived the process that ran it; False where there is none.

    SIGTERM to its group; SIGKILL where that is not enough.

    Raises:
        LeaseHeldError: It does not end: the system waits in it for something (a disk, a network).
    """
    if not is_running(identity):
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(identity["pid"], number)
        end_s = time.monotonic() + _STOP_S
        while time.monotonic() < end_s:
            if not is_running(identity):
                return True
            time.sleep(_LOOK_S)
    raise LeaseHeldError(
        f"The command of the attempt before still runs as process {identity['pid']}, and cannot "
        "be ended.",
        hint="See what it waits for, and whose it is (ps -o user,stat,wchan); then resume again.",
        pid=identity["pid"],
    )


def _end_of_dead(manager: CheckpointManager, name: str) -> None:
    """End a lease of a process of this machine: we have its lock, so it is dead."""
    grant = manager.store.lease(name)
    if grant is not None and grant.holder.rpartition(" #")[0] == _host():
        manager.release_lease(name, force=True)


def _host() -> str:
    return f"ckptlog run {socket.gethostname()[:_HOST_CHARACTERS_MAX]} {boot()[:8]}"
