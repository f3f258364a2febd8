"""An order: what is to be run as a checkpointed task, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ckptlog.errors import ArgumentError
from ckptlog.service.command.files import Named

INTERVAL_S: Final = 30.0


@dataclass(frozen=True)
class Order:
    """What is to be run, and how.

    words: Program and arguments. name: Of the task; made of words and directory by default.
    interval_s: Between two captures. named: Which files. is_resumed: Go on from the last attempt.
    has_rewind: Bring the files back when resumed. is_moved: They were captured at other paths and
    are these now. outputs: Where stdout and stderr go.
    """

    words: Sequence[str]
    cwd: str
    environ: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    interval_s: float = INTERVAL_S
    named: Named = field(default_factory=Named)
    is_resumed: bool = False
    has_rewind: bool = True
    is_moved: bool = False
    outputs: tuple[int, int] = (1, 2)


def check(order: Order) -> None:
    """Check an order.

    Raises:
        ArgumentError: Something is wrong with it.
    """
    if not order.words or not order.words[0]:
        raise ArgumentError(
            "There is no command to run.",
            hint="ckptlog run -- COMMAND ARGUMENT ...",
            argument="command",
        )
    if not (math.isfinite(order.interval_s) and order.interval_s > 0):
        raise ArgumentError(
            f"interval is {order.interval_s}; seconds above 0 are needed.", argument="interval"
        )
    if order.named.keep < 0:
        raise ArgumentError("keep is below 0.", argument="keep")
