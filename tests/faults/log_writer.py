"""A process that appends to a log and tells what became of it: for strace and its like.

Usage: log_writer.py ROOT NAME COUNT SEGMENT_BYTES RECORD_BYTES

Prints `try ID...` before each append of two commits, then `ack`, `unknown` or `refused`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ckptlog.errors import CheckpointError, OutcomeUnknownError
from tests.log.sample import append, group, open_log


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main(root: str, name: str, count: str, segment_bytes: str, record_bytes: str) -> None:
    log = open_log(Path(root), segment_bytes=int(segment_bytes))
    for number in range(int(count)):
        ids = [f"{name}{number}.{part}" for part in "abc"]
        say("try " + " ".join(ids))
        try:
            append(
                log,
                group(ids[0], record_bytes=int(record_bytes)),
                group(*ids[1:], record_bytes=int(record_bytes)),
            )
        except OutcomeUnknownError:
            say("unknown")
        except CheckpointError:
            say("refused")
        else:
            say("ack")
    log.close()
    say("closed")


if __name__ == "__main__":
    main(*sys.argv[1:])
