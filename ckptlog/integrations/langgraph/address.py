"""Addresses: which thread, namespace and checkpoint a RunnableConfig means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from ckptlog.errors import AddressError
from ckptlog.model.quotation import quoted

Config = Mapping[str, Any]


class Address(NamedTuple):
    """What a config names.

    thread: As text. given: As the caller wrote it; it goes back to him.
    namespace: None where the config has none: any in a list, "" elsewhere.
    checkpoint: None means the newest one.
    """

    thread: str
    given: object
    namespace: str | None
    checkpoint: str | None

    @property
    def space(self) -> str:
        """The namespace, where one is needed."""
        return self.namespace or ""


def address_of(config: object) -> Address:
    """Return what a config names.

    Raises:
        AddressError: It has no thread_id, is no config, or a part of it is of a wrong type.
    """
    configurable = _configurable(config)
    if configurable.get("thread_id") is None:
        raise AddressError(
            "The config has no thread_id.",
            hint='Pass {"configurable": {"thread_id": "..."}}.',
            argument="thread_id",
        )
    given = configurable["thread_id"]
    namespace = configurable.get("checkpoint_ns")
    if namespace is not None and not isinstance(namespace, str):
        raise _wrong("checkpoint_ns", namespace)
    return Address(thread_of(given), given, namespace, checkpoint_of(configurable))


def thread_of(given: object) -> str:
    """Return a thread id as text.

    Raises:
        AddressError: It is none: no text, whole number or UUID.
    """
    if isinstance(given, str):
        return str(given)
    if isinstance(given, int | UUID) and not isinstance(given, bool):
        return str(given)
    raise _wrong("thread_id", given)


def before_of(config: object) -> str | None:
    """Return the checkpoint that a `before` names; None where it names none."""
    return None if config is None else checkpoint_of(_configurable(config))


def checkpoint_of(configurable: Mapping[str, Any]) -> str | None:
    """Return the id of the checkpoint; an empty one is none, as LangGraph takes it."""
    identifier = configurable.get("checkpoint_id")
    if identifier is not None and not isinstance(identifier, str):
        raise _wrong("checkpoint_id", identifier)
    return identifier or None


def config_of(thread: object, namespace: str, checkpoint: str) -> dict[str, Any]:
    """Return the config that names a checkpoint."""
    return {
        "configurable": {
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint,
        }
    }


def _configurable(config: object) -> Mapping[str, Any]:
    if not isinstance(config, Mapping):
        raise _wrong("config", config)
    configurable = config.get("configurable")
    if configurable is None:
        raise AddressError(
            'The config has no part "configurable".',
            hint='Pass {"configurable": {"thread_id": "..."}}.',
            argument="configurable",
        )
    if not isinstance(configurable, Mapping):
        raise _wrong("configurable", configurable)
    return configurable


def _wrong(name: str, value: object) -> AddressError:
    return AddressError(
        f"{name} is {quoted(value)}, of type {type(value).__name__}.",
        hint="thread_id is text, a whole number or a UUID; the others are text.",
        argument=name,
    )
