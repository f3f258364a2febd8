"""The kernel: the hottest pure functions, in C where they could be compiled.

`native` is the compiled module, or None: no compiler at the installation, another interpreter, or
`CKPTLOG_PURE=1` in the environment. Each function is a short way through one in Python, which is
its meaning; the tests hold the two together to the byte:

    native.plain_wire    through model/value.py's `prepare`
    native.suspicious    through policy/sanitise.py's `may_hold_secret`
    native.end_of_value, native.run_of_items    through formats/json_text.py

Nothing here knows a room above; what a function needs is handed to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol, cast

__all__ = ["REVISION", "Kernel", "native"]

REVISION: Final = 2


class Kernel(Protocol):
    """What the compiled module offers.

    Threads: safe; nothing is kept between calls.
    """

    def plain_wire(
        self,
        value: Any,
        verdicts: dict[str, bool] | None,
        encode: Callable[[Any], bytes],
        depth_max: int,
        containers_max: int,
        /,
    ) -> bytes | None:
        """Return encode(value) if that is the value's wire; None where it must be lowered first.

        Args:
            verdicts: Which keys name a secret; one that is not in it is taken for one that may.
        """

    def suspicious(self, wire: bytes, table: bytes, /) -> bool:
        """Say whether some place in the wire may be a hint of the table (policy/hint_table.py)."""

    def end_of_value(self, text: bytes, at: int, limit: int, /) -> int:
        """Do as formats.json_text.end_of_value."""

    def run_of_items(  # noqa: PLR0917
        self,
        text: bytes,
        place: int,
        is_object: bool,  # noqa: FBT001
        gathered: int,
        inline_max: int,
        bounds: tuple[int, int, int],
        items_max: int,
        /,
    ) -> tuple[int, int, int, int, int]:
        """Do as formats.json_text.run_of_items."""


def _compiled() -> Kernel | None:
    if os.environ.get("CKPTLOG_PURE", "") not in {"", "0"}:
        return None
    try:
        module = import_module("ckptlog.kernel._kernel")
    except ImportError:
        return None
    # One that was compiled from another version of the source could miss what this one looks for.
    return cast("Kernel", module) if getattr(module, "REVISION", 0) == REVISION else None


native = _compiled()
