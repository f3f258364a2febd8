"""What operations and metrics may be called: the names are labels in expositions, which are UTF-8.

One text with a lone surrogate (a file name of other bytes, say) would spoil all that is exposed.
"""

from __future__ import annotations

from typing import Final, TypeGuard

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted

_CHARACTERS_MAX: Final = 200


def check_name(argument: str, name: object) -> None:
    """Refuse what is no name.

    Raises:
        ArgumentError: By the argument's name.
    """
    if not is_text(name) or not name.strip() or len(name) > _CHARACTERS_MAX:
        raise ArgumentError(
            f"{argument} is {quoted(name)}; a name of 1 to {_CHARACTERS_MAX} characters is needed.",
            argument=argument,
        )


def is_text(value: object) -> TypeGuard[str]:
    """Say whether a value is a text that UTF-8 can hold."""
    return type(value) is str and not any("\ud800" <= one <= "\udfff" for one in value)
