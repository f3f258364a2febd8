"""A small system to save, and a program that serves one until it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from ckptlog import create_checkpoint_system
from tests.architecture.tree import ROOT

WAIT_S = 60


class Agents:
    """An object of the specification: it gives its state, and takes it."""

    def __init__(self):
        self.state_now = {"step": 0}
        self.calls = 0
        self.at_once = 0
        self.at_once_max = 0
        self.pause_s = 0.0
        self.fault: Exception | None = None
        self.is_called = threading.Event()

    def get_state(self):
        self.calls += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        self.is_called.set()
        try:
            time.sleep(self.pause_s)
            if self.fault is not None:
                raise self.fault
            self.state_now = {"step": self.state_now["step"] + 1}
            return dict(self.state_now)
        finally:
            self.at_once -= 1

    def set_state(self, state):
        self.state_now = dict(state)


def settings(path, **more):
    """Return settings with a short interval and no signals."""
    return {
        "intervalSeconds": 0.1,
        "jitter": 0,
        "captureSignals": [],
        "captureOnShutdown": False,
        "storage": {"local": {"path": str(path)}},
        # On a machine that is busy with others half a second without a capture is nothing.
        "alerts": {"staleSeconds": 3600},
        **more,
    }


def serve(path, target=None, **more):
    """Return a service over one Agents, not started."""
    return create_checkpoint_system(settings(path, **more), {"agentManager": target or Agents()})


def until(is_so, what="it"):
    """Wait for something; a test that waits for ever fails by its own message."""
    end_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end_s, f"{what} did not happen"
        time.sleep(0.01)


PROGRAM = """
import sys, time
from tests.service.system import Agents, serve
import json
target = Agents()
target.pause_s = float(sys.argv[2])
service = serve(sys.argv[1], target, **json.loads(sys.argv[3]))
service.on("checkpointCreated", lambda info: print("created", info.number, info.reason, flush=True))
service.on("ownershipGained", lambda lease: print("gained", flush=True))
service.start()
print(service.state, flush=True)
while True:
    time.sleep(0.05)
"""


def start_process(path, pause_s=0.0, **more):
    """Start a process that serves a system."""
    import json

    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(pause_s), json.dumps(more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def read_until(process, word):
    """Read a process's lines up to one that begins with a word; return it."""
    for line in process.stdout:
        if line.startswith(word):
            return line.strip()
    raise AssertionError(f"the process ended before it said {word!r}")
