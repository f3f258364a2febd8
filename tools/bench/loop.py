"""Captures a system at an interval for minutes, under load, and prints what grows.

Usage: tools/bench/run loop [--minutes N] [--interval SECONDS] [--megabytes N] [--burners N]

The system has five components of so many megabytes together, of which 2 % change in a second. The
load: processes that compute, and threads of this one that hold the interpreter. Printed each
minute: captures, how late the latest began after its slot, memory (own, and pages of mapped files,
which the system takes back), descriptors, threads, stored bytes; at the end the drift: how much
later the last slot is than whole intervals after the first.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ckptlog import CaptureInfo, CheckpointService, create_checkpoint_system

NAMES = ("agents", "memory", "queues", "tasks", "system")
_BLOCK_BYTES = 4096
_BURN = "while True: sum(i * i for i in range(10000))"


class Part:
    """One component: blocks of text, some of which change."""

    def __init__(self, size_bytes: int, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a workload
        self.blocks = [self._block() for _ in range(max(1, size_bytes // _BLOCK_BYTES))]

    def _block(self) -> str:
        return self._random.randbytes(_BLOCK_BYTES // 2).hex()

    def change(self) -> None:
        """Change 2 %."""
        for _ in range(max(1, len(self.blocks) // 50)):
            self.blocks[self._random.randrange(len(self.blocks))] = self._block()

    def get_state(self) -> dict[str, Any]:
        """Return the state."""
        return {"blocks": list(self.blocks)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take a state over."""
        self.blocks = list(state["blocks"])


class Watch:
    """Looks at the slots of captures, and at this process."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.begun: list[float] = []
        self.save_ms: list[float] = []

    def created(self, info: CaptureInfo) -> None:
        """Take in a capture."""
        self.begun.append(info.created_at.timestamp() - info.seconds)
        self.save_ms.append(info.seconds * 1000)

    def tell_drift(self) -> None:
        """Print how far the last automatic capture is from a whole number of intervals."""
        spent_s = self.begun[-2] - self.begun[0]  # the last one is that of the stop
        slots = round(spent_s / self._interval_s)
        print(
            f"slots {slots + 1}, captures {len(self.begun) - 1}; drift of the last one "
            f"{spent_s - slots * self._interval_s:+.3f} s (interval {self._interval_s:g} s, "
            "jitter 10 %)"
        )

    def line(self, service: CheckpointService) -> str:
        """Return the figures of now."""
        metrics = service.get_metrics()
        own_mb, mapped_mb = _resident_mb()
        return (
            f"{len(self.begun):6} captures  missed {metrics.missed:3}  "
            f"late at most {metrics.late_seconds_max:6.3f} s  "
            f"save {sum(self.save_ms[-50:]) / max(1, len(self.save_ms[-50:])):6.0f} ms  "
            f"memory {own_mb:7.1f} MB, of files {mapped_mb:5.1f} MB  "
            f"descriptors {len(os.listdir('/proc/self/fd')):3}  "  # noqa: PTH208 - a count
            f"threads {threading.active_count():3}  stored {metrics.storage_usage / 1e6:7.1f} MB"
        )


def _resident_mb() -> tuple[float, float]:
    """Return what of this process is in memory: its own, and pages of files that it has mapped."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    rows = dict(line.split(":", 1) for line in status.splitlines())
    own, mapped = (int(rows[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile"))
    return own, mapped


def _work(parts: list[Part], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        for part in parts:
            part.change()


def run(options: argparse.Namespace, folder: Path) -> None:
    """Capture for the time that was asked for."""
    size_bytes = int(options.megabytes * 1e6 / len(NAMES))
    parts = [Part(size_bytes, seed) for seed in range(len(NAMES))]
    settings = {
        "intervalSeconds": options.interval,
        "compressionLevel": 1,
        "skipUnchanged": False,
        "storage": {"local": {"path": str(folder / "store")}},
    }
    watch, stop = Watch(options.interval), threading.Event()
    worker = threading.Thread(target=_work, args=(parts, stop))
    with create_checkpoint_system(settings, dict(zip(NAMES, parts, strict=True))) as service:
        service.on("checkpointCreated", watch.created)
        worker.start()
        end_s = time.monotonic() + options.minutes * 60
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(60.0, left_s))
            print(watch.line(service), flush=True)
        stop.set()
        worker.join()
    watch.tell_drift()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Capture at an interval, under load.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--burners", type=int, default=1)
    options = parser.parse_args()
    burners = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(options.burners)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(options, Path(folder))
    finally:
        for one in burners:
            one.kill()
            one.wait()


if __name__ == "__main__":
    main()
