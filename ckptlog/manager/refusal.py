"""Refusals in a caller's words: errors of the rooms below as the call that met them tells them."""

from __future__ import annotations

from ckptlog.errors import ArgumentError, BusyError, CheckpointError, OutcomeUnknownError
from ckptlog.policy.decide import Stale
from ckptlog.repository.intent import Intent

# Preparations of one change that others overtook; each time another one got through.
ATTEMPTS_MAX = 1000
# Of an exception that failed a checkpoint: some hold whole documents.
_MESSAGE_CHARACTERS_MAX = 10_000


def unknown(error: OutcomeUnknownError, intent: Intent) -> OutcomeUnknownError:
    """Return the error with the id by which this caller can retry; others have the same error."""
    if len(intent.steps) > 1:
        return OutcomeUnknownError(error.message, hint=error.hint, **error.context)
    command = intent.steps[0].command.command
    return OutcomeUnknownError(
        error.message,
        hint=f"Retry with command_id={command!r}; it is never applied twice.",
        **{**error.context, "command_id": command},
    )


def overtaken(what: str, last: Stale) -> BusyError:
    """Return the error for a change that others came before again and again."""
    return BusyError(
        f"{ATTEMPTS_MAX} attempts to {what} were overtaken; last: {last.why}.",
        hint="Let fewer writers change one checkpoint at once.",
    )


def renamed(error: ArgumentError, kind: type[CheckpointError]) -> CheckpointError:
    """Return a wrong argument as the class that the specification names for the call."""
    return kind(error.message, hint=error.hint, **error.context)


def told(error: BaseException) -> dict[str, str]:
    """Return an exception's type and message, fit to be stored whatever it holds."""
    try:
        message = str(error)[:_MESSAGE_CHARACTERS_MAX]
    except Exception as trouble:  # noqa: BLE001 - a stranger's __str__ may do anything
        message = f"(its message cannot be read: {type(trouble).__name__})"
    return {"type": type(error).__name__, "message": message.encode(errors="replace").decode()}
