"""The root of the tree."""

from __future__ import annotations

from typing import Any, ClassVar


class CheckpointError(Exception):
    """Base of the tree.

    Attributes:
        code: Stable `room.reason`; the same for every instance of a class.
        message: What went wrong and where.
        hint: What to do next; may be empty.
        context: JSON-safe facts (path, offset, id, ...) for programs.
        retryable: Whether the same call may succeed later, unchanged.
    """

    code: ClassVar[str] = "checkpoint.error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip() if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.context)

    def to_dict(self) -> dict[str, Any]:
        """Return code, message, hint, retryable and context, safe for JSON."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "context": self.context,
        }


def _rebuild(
    kind: type[CheckpointError], message: str, hint: str, context: dict[str, Any]
) -> CheckpointError:
    return kind(message, hint=hint, **context)
