"""Shared by the tests of the saver: small checkpoints, configs, and the states of threads."""

from __future__ import annotations

import itertools

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

_clock = itertools.count()


def config(thread="t", space="", checkpoint=None):
    parts = {"thread_id": thread, "checkpoint_ns": space}
    if checkpoint is not None:
        parts["checkpoint_id"] = checkpoint
    return {"configurable": parts}


def checkpoint(values=None, identifier=None, version="1"):
    made = empty_checkpoint()
    made["id"] = identifier or str(uuid6(clock_seq=next(_clock) % 16000))
    made["channel_values"] = {} if values is None else values
    made["channel_versions"] = dict.fromkeys(made["channel_values"], version)
    return made


def put(saver, where, values=None, *, identifier=None, **metadata):
    made = checkpoint(values, identifier)
    told = {"source": "loop", "step": 0, "parents": {}, **metadata}
    return saver.put(where, made, told, made["channel_versions"])


def identifiers(saver, where, **options):
    return [found.checkpoint["id"] for found in saver.list(where, **options)]


def identifier_of(where):
    return where["configurable"]["checkpoint_id"]


def values_of(saver, where):
    found = saver.get_tuple(where)
    return None if found is None else found.checkpoint["channel_values"]


def comparable(found):
    """A tuple as plain data, to be compared with another saver's."""
    if found is None:
        return None
    return (
        found.config["configurable"]["checkpoint_id"],
        found.config["configurable"]["checkpoint_ns"],
        found.checkpoint,
        dict(found.metadata),
        found.parent_config and found.parent_config["configurable"]["checkpoint_id"],
        list(found.pending_writes),
    )
