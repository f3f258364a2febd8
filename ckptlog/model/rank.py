"""Ranked ids: checkpoint ids of adapters whose own ids have an order.

    <rank, escaped>~<salt of 12 characters>

The rank is another system's id, by which it orders its checkpoints; the salt tells apart where the
same one is used again (in another thread, after a delete), because ids of a store are unique for
ever. The view keeps the rank of such ids in a column of its own, so that a list in that order is
a walk along an index. An id that has this form by chance is merely in that index too.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from ckptlog.errors import ArgumentError
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX
from ckptlog.model.quotation import quoted

SALT_CHARACTERS: Final = 12
RANK_CHARACTERS_MAX: Final = CHECKPOINT_ID_CHARACTERS_MAX - SALT_CHARACTERS - 1

_FORBIDDEN: Final = re.compile("^ |[%\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SALT: Final = re.compile(r"[A-Za-z0-9_-]{12}").fullmatch


def ranked_id(rank: str, salt: str) -> str:
    """Return the id of a checkpoint that another system calls `rank`.

    Raises:
        ArgumentError: rank is empty or too long, or holds a lone surrogate.
    """
    try:
        name = _FORBIDDEN.sub(_escape, rank) if _FORBIDDEN.search(rank) else rank
        name.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"The checkpoint id {quoted(rank)} holds a lone surrogate.", argument="checkpoint_id"
        ) from error
    if not 0 < len(name) <= RANK_CHARACTERS_MAX:
        raise ArgumentError(
            f"The checkpoint id {quoted(rank)} has {len(name)} characters; "
            f"1 to {RANK_CHARACTERS_MAX} are possible.",
            argument="checkpoint_id",
        )
    return f"{name}~{salt}"


def rank_of(identifier: str) -> str:
    """Return the rank of a ranked id; "" for any other."""
    if identifier[-SALT_CHARACTERS - 1 : -SALT_CHARACTERS] != "~":
        return ""
    if _SALT(identifier, len(identifier) - SALT_CHARACTERS) is None:
        return ""
    rank = identifier[: -SALT_CHARACTERS - 1]
    return unquote(rank, errors="replace") if "%" in rank else rank


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())
