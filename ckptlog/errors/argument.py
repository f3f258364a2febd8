"""Wrong arguments."""

from __future__ import annotations

from ckptlog.errors.base import CheckpointError


class ArgumentError(CheckpointError, ValueError):
    """An argument of a call that only reads, or of a function below the manager, is wrong."""

    code = "argument.invalid"


class AddressError(ArgumentError, KeyError):
    """A configuration of LangGraph's names no thread, or a part of it is of a wrong type."""

    code = "argument.address"


class NoSuchPartError(ArgumentError, LookupError):
    """A value has nothing at the path that was asked for."""

    code = "argument.no_such_part"


class UnstorableError(ArgumentError, TypeError):
    """A value cannot be stored exactly; the message names the path to it."""

    code = "argument.unstorable"


class ForeignPayloadError(ArgumentError):
    """What is to be restored into a component is not what this kind of component captures."""

    code = "component.foreign_payload"


class TooLargeError(ArgumentError):
    """A value is too large to be put together in memory; it is read by parts."""

    code = "argument.too_large"


class SettingsError(ArgumentError):
    """A configuration value is out of range, unknown, or contradicts another."""

    code = "argument.settings"


class ComponentError(ArgumentError):
    """A component, or a set of them, is not what it must be; the message names it."""

    code = "component.invalid"
