"""One process of a crowd: eight threads at one store, all at the same checkpoints.

Prints one JSON document: what was acknowledged to each thread.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ckptlog import CheckpointError, CheckpointManager

THREADS = 8
TURNS = 6


class Member:
    """One thread's work; `seen` is what it was told."""

    def __init__(self, manager: CheckpointManager, name: str, names: dict[str, list[str]]) -> None:
        self.manager = manager
        self.name = name
        self.names = names
        self.seen: dict[str, Any] = {"created": {}, "won": [], "codes": [], "doomed": []}

    def work(self) -> dict[str, Any]:
        for turn in range(TURNS):
            self.create(turn)
            for shared in self.names["shared"]:
                self.manager.update_checkpoint(
                    shared,
                    data={f"{self.name}-{turn}": turn, self.name: turn},
                    metadata={self.name: turn},
                )
            self.contest(turn)
            self.doom(turn)
        return self.seen

    def create(self, turn: int) -> None:
        data = {"by": self.name, "turn": turn}
        if turn % 3 == 2:
            with self.manager.batch() as batch:
                made = [batch.create_checkpoint("many", "T", 1, data=data) for _ in range(2)]
        else:
            made = [self.manager.create_checkpoint("many", "T", 1, data=data)]
        self.seen["created"].update(dict.fromkeys(made, turn))

    def contest(self, turn: int) -> None:
        """All want to end the same checkpoint, each with a result of its own: one can."""
        name = self.names["contested"][turn]
        end = self.manager.complete_checkpoint if turn % 2 else self.manager.fail_checkpoint
        try:
            end(name, {"winner": self.name})
            self.seen["won"].append(name)
        except CheckpointError as error:
            self.seen["codes"].append(error.code)
        # The same end with nothing new is no conflict, however many come.
        self.manager.complete_checkpoint(self.names["agreed"][turn], {"result": "same"})

    def doom(self, turn: int) -> None:
        """Half of the crowd updates what the other half deletes."""
        name = self.names["doomed"][turn]
        try:
            if self.name[-1] in "0246":
                self.manager.update_checkpoint(name, data={self.name: turn})
                self.seen["doomed"].append(["updated", name])
            else:
                answer = self.manager.delete_checkpoint(name)
                self.seen["doomed"].append(["deleted" if answer else "was deleted", name])
        except CheckpointError as error:
            self.seen["doomed"].append([error.code, name])


def main() -> None:
    path, who = sys.argv[1:]
    names = json.loads(sys.stdin.readline())
    with CheckpointManager(path) as manager, ThreadPoolExecutor(THREADS) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        members = [Member(manager, f"{who}{number}", names) for number in range(THREADS)]
        seen = list(pool.map(Member.work, members))
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
