"""The relay of `ckptlog run`: what it opens it closes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ckptlog.service.command.relay import Relay, Tail


@pytest.mark.parametrize("is_closed_first", [True, False])
def test_it_leaves_no_descriptor_open(tmp_path, is_closed_first):
    """Whether the command closes its output before it ends, or with its end."""
    with (tmp_path / "out").open("wb") as target:
        before = _open()
        reading, writing = os.pipe()
        ended = threading.Event()
        relay = Relay(
            {reading: target.fileno()}, Tail(), on_end=ended.set, on_refusal=lambda _: None
        )
        relay.start()
        os.write(writing, b"all of it")
        if is_closed_first:
            os.close(writing)
            assert ended.wait(30)
        relay.finish()
        assert ended.wait(30)
        if not is_closed_first:
            os.close(writing)
        assert _open() == before
    assert (tmp_path / "out").read_bytes() == b"all of it"


def _open():
    """Return the descriptors that are open, but the one that is opened to look."""
    return {name for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()}
