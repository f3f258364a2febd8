"""One process that lets states grow: one of its own, and one that others change too.

Usage: grower.py STORE NAME TURNS SEGMENT_BYTES SHARED [DURABILITY]; prints what it was told.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ckptlog
from ckptlog import CheckpointManager


def grow(manager: CheckpointManager, name: str, turns: int, shared: str) -> list[Any]:
    """Return [checkpoint, messages] of each step that was acknowledged."""
    seen: list[Any] = []
    messages: list[dict[str, Any]] = []
    own = manager.create_checkpoint(name, "T", 1)
    for turn in range(turns):
        messages.append({"by": name, "turn": turn, "text": f"{name} {turn} said " * 60})
        manager.update_checkpoint(own, data={"messages": messages})
        seen.append([own, [dict(one) for one in messages]])
        # Two values in turn, the same ones in every process.
        manager.update_checkpoint(
            shared, data={"side": turn % 2, "common": [f"line {n}" * 5 for n in range(80)]}
        )
    return seen


def main() -> None:
    path, name, turns, segment_bytes, shared, *durability = sys.argv[1:]
    store = ckptlog.open(path, durability=durability[0] if durability else "commit")
    store.log._segment_bytes = int(segment_bytes)
    with store:
        manager = CheckpointManager(store=store)
        with ThreadPoolExecutor(3) as pool:
            parts = [
                pool.submit(grow, manager, f"{name}{thread}", int(turns), shared)
                for thread in range(3)
            ]
            print(json.dumps([step for part in parts for step in part.result()]))


if __name__ == "__main__":
    main()
