"""A process of the tests: puts steps of threads and says on stdout what was acknowledged.

Usage: putter.py STORE THREAD COUNT [RACE]   (RACE: every process puts on the thread's newest)
"""

from __future__ import annotations

import sys

from langchain_core.messages import HumanMessage

from ckptlog.errors import ConflictError
from ckptlog.integrations.langgraph import CkptlogSaver
from tests.integrations.langgraph.thread import config, put


def run(folder: str, thread: str, count: int) -> None:
    """Put steps, each with a write, and tell of each when it is acknowledged."""
    with CkptlogSaver.open(folder) as saver:
        found = saver.get_tuple(config(thread))
        where, messages = config(thread), []
        if found is not None:
            where, messages = found.config, found.checkpoint["channel_values"]["messages"]
        for number in range(len(messages), count):
            messages.append(HumanMessage(f"message {number} " * 20, id=str(number)))
            where = put(saver, where, {"messages": messages, "n": number}, step=number)
            print("put", where["configurable"]["checkpoint_id"], number, flush=True)
            saver.put_writes(where, [("n", number)], f"task{number}")
            print("writes", where["configurable"]["checkpoint_id"], number, flush=True)


def race(folder: str, thread: str, count: int) -> None:
    """Put on the newest checkpoint until this process has won `count` times."""
    with CkptlogSaver.open(folder, second_children="refuse") as saver:
        print("ready", flush=True)
        sys.stdin.readline()  # until all are ready
        won = 0
        while won < count:
            found = saver.get_tuple(config(thread))
            number = found.checkpoint["channel_values"]["n"] + 1
            try:
                put(saver, found.config, {"n": number})
            except ConflictError:
                continue
            won += 1
            print("won", number, flush=True)


if __name__ == "__main__":
    how = race if sys.argv[4:] else run
    how(sys.argv[1], sys.argv[2], int(sys.argv[3]))
