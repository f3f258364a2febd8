"""Small stores, damage done to them, and events written past every rule."""

from __future__ import annotations

import os
from contextlib import contextmanager

import ckptlog
from ckptlog.log.batch import Item
from ckptlog.model.event import SCHEMA, Event, Subject

TIME = "2026-01-02T03:04:05.000006Z"


def fill(path, *, blobs=400):
    """Make a store with a completed and a deleted checkpoint; return the id of the first."""
    with ckptlog.CheckpointManager(path, actor="tester") as manager:
        first = manager.create_checkpoint("t1", "One", 1, data={"noise": os.urandom(blobs).hex()})
        manager.update_checkpoint(first, data={"more": [1, 2, 3]})
        manager.complete_checkpoint(first)
        second = manager.create_checkpoint("t2", "Two", 1)
        manager.delete_checkpoint(second)
    return first


def only(path, pattern):
    (found,) = path.glob(pattern)
    return found


@contextmanager
def flipped(path, offset, mask=1):
    """Flip bits of one byte for the time of a block."""
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte[0] ^ mask]), offset)
        try:
            yield
        finally:
            os.pwrite(file.fileno(), byte, offset)


def notes(report):
    return "\n".join(report.notes)


def codes(report):
    return [problem.code for problem in report.problems]


def append(store, *events, records=()):
    """Write events as one commit, past every rule."""
    items = [Item(one, records if index == 0 else ()) for index, one in enumerate(events)]
    store.log.append([items], store.position)


def record(command, kind="import.finished", **fields):
    fields = {"actor": "x", "schema": SCHEMA, "subject": Subject(), "time": TIME, **fields}
    return Event(id=command, type=kind, **fields)


def created(name="cp", **fields):
    return record(
        f"make {name}",
        "checkpoint.created",
        subject=Subject(name, "", "", "t", ""),
        **{"state": "created", "step": 1, **fields},
    )


def changed(kind, state, previous, *, name="cp", number=1, **fields):
    subject = Subject(name, "", "", "t", "")
    return record(
        f"change {number}",
        f"checkpoint.{kind}",
        **{
            "subject": subject,
            "created": TIME,
            "origin": 0,
            "previous": previous,
            "state": state,
            "step": 1,
            **fields,
        },
    )
