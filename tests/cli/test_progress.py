from __future__ import annotations

import io

import pytest

from ckptlog.cli.output import Output
from ckptlog.cli.progress import Progress, bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar():
    assert bar("verify", 0, 8).startswith("verify [........................]   0%")
    assert bar("verify", 2, 8) == "verify [######..................]  25%  2/8"
    assert bar("verify", 9, 8).endswith("100%  9/8")
    assert bar("x", 1500, 3000, is_bytes=True).endswith(" 50%  1.5 KB/3.0 KB")
    assert "100%" in bar("verify", 0, 0)


def test_a_terminal_sees_the_bar_and_then_nothing_of_it(monkeypatch):
    monkeypatch.setattr("ckptlog.cli.progress.time.monotonic", lambda: 7.0)
    stdout, stderr = io.StringIO(), Terminal()
    output = Output(stdout, stderr)
    progress = Progress(output, "verify")
    progress(1, 2)
    progress(2, 2)  # too soon after the first
    progress.close()
    assert stdout.getvalue() == ""
    shown = stderr.getvalue()
    assert shown.count("verify") == 1
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), False), (Terminal(), True)])
def test_nobody_else_does(stream, is_json):
    progress = Progress(Output(io.StringIO(), stream, is_json=is_json), "verify")
    progress(1, 2)
    progress.close()
    assert stream.getvalue() == ""
