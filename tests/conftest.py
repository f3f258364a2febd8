"""Owns what every test shares: the markers' meaning, Hypothesis profiles, a safe surrounding.

Markers: `thorough` runs with --thorough only; `root` and `strace` are skipped, by name, where the
machine does not have what they need.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick",
    derandomize=True,
    max_examples=50,
    deadline=None,  # timings never decide a test
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", parent=settings.get_profile("quick"), derandomize=False, max_examples=1000
)

# Hunts are long, and how long says the machine; a test that hangs still ends.
THOROUGH_S = 7200

# Lines are covered by the tests of their own room. What a sweep of faults, an example or a model
# happens to run besides is not looked at by any of their asserts, so it counts for nothing; and
# measuring makes it twice as slow. Neither count tests that only kill and start again, and single
# ones with the marker.
UNMEASURED = {
    "architecture", "docs", "examples", "faults", "independent", "models", "notebooks", "stateful",
}  # fmt: skip
UNMEASURED_FILES = ("_crash.py", "_kill.py", "_machine.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="run the longer hunts (marker: thorough) too"
    )


def hear_interruptions() -> None:
    """Let Ctrl-C interrupt what Python waits for, also where it is ignored or restarts the wait.

    What a shell starts in the background ignores it, with nohup also a terminal that closes, and
    processes that tests start inherit that. The import of polars puts a handler before Python's
    behind which waiting goes on (SA_RESTART).
    """
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handler if callable(handler) else signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    # Keys lie in the user's home; those of tests never do, nor those of processes that they start.
    os.environ["CKPTLOG_KEYS"] = tempfile.mkdtemp(prefix="ckptlog-test-keys-")
    hear_interruptions()
    settings.load_profile("thorough" if config.getoption("--thorough") else "quick")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ.pop("CKPTLOG_KEYS", ""), ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--thorough"):
        config.hook.pytest_deselected(
            items=[item for item in items if item.get_closest_marker("thorough")]
        )
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    else:
        for item in items:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(THOROUGH_S))
    lacking = {}
    if os.geteuid() != 0:
        lacking["root"] = "needs root"
    if shutil.which("strace") is None:
        lacking["strace"] = "needs strace"
    for item in items:
        for marker, reason in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let no collection of garbage look at the thousands of tests, which stay to the end."""
    gc.collect()
    gc.freeze()


@contextmanager
def unmeasured() -> Iterator[None]:
    """Let coverage look away, in this process and in those that begin meanwhile."""
    measuring = sys.modules["coverage"].Coverage.current() if "coverage" in sys.modules else None
    if measuring is None:
        yield
        return
    started = {name: os.environ.pop(name) for name in list(os.environ) if "COVERAGE_PROC" in name}
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()
        os.environ.update(started)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    is_measured = (
        item.path.relative_to(Path(__file__).parent).parts[0] not in UNMEASURED
        and not item.path.name.endswith(UNMEASURED_FILES)
        and item.get_closest_marker("unmeasured") is None
    )
    hear_interruptions()
    with nullcontext() if is_measured else unmeasured():
        return (yield)


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own store and colours out of every test."""
    for name in ("CKPTLOG_STORE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
