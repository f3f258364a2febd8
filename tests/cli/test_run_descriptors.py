"""`ckptlog run` without a standard stream, or with one that takes nothing: the command runs."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import suppress

import pytest

from tests.cli import test_run
from tests.cli.test_run import PROGRAM, WAIT_S, _environ, _last, _start, _until
from tests.tmpfs import mounted

place, _store = test_run.place, test_run._store


def _through_shell(place, redirections, *words):
    line = f"{shlex.join([*PROGRAM, '--name', 'job', *words])} {redirections}"
    return subprocess.run(
        ["bash", "-c", line], cwd=place, env=_environ(place), timeout=WAIT_S, capture_output=True
    )


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">&- 2>&-", "<&- 2>&-", "<&- >&-"])
def test_what_it_prints_is_never_written_into_the_store(place, redirections):
    """A file of the store must not be given the number of a stream that is closed."""
    script = "echo PRINTED; echo PRINTED >&2; exit 3"
    ran = _through_shell(place, redirections, "--", "sh", "-c", script)
    assert ran.returncode == 3
    assert _last(place).data["exit_code"] == 3
    assert b"PRINTED" not in (place.parent / "store" / "log" / "end").read_bytes()


@pytest.mark.parametrize("stream", ["2> >(exit 0)", "2>/dev/full"])
def test_what_nobody_can_be_told_stops_nothing(place, stream):
    words = ["--store", str(place / "new"), "--", "sh", "-c", "sleep 0.2; touch ran; exit 3"]
    ran = _through_shell(place, stream, *words)  # that a store is made is told first
    assert (ran.returncode, (place / "ran").exists()) == (3, True)
    ran = _through_shell(place, stream, "--dir", "nope", "--", "touch", "ran")
    assert ran.returncode == 125


@pytest.mark.parametrize("status", [0, 3])
def test_output_that_cannot_be_written_is_told(place, status):
    script = f"echo lost; exit {status}"
    ran = _through_shell(place, ">/dev/full", "--", "sh", "-c", script)
    assert ran.returncode == (status or 125)
    assert ran.stderr.count(b"could not be written: No space left on device") == 1
    last = _last(place)
    assert last.data["output"] == "lost\n"
    assert "No space left" in last.data["output_fault"]


def test_a_full_disk_is_tried_again(place):
    with mounted(place.parent / "disk", 1 << 16) as disk:
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        script = f"echo first; while [ -e {ballast} ]; do sleep 0.05; done; echo second"
        out = disk / "out"
        with out.open("wb") as sink:
            running = _start(place, "--name", "job", "--", "sh", "-c", script, stdout=sink)
        _until(lambda: b"could not be written" in running.stderr.read1())
        ballast.unlink()
        assert running.wait(WAIT_S) == 125
        running.stderr.close()
        assert out.read_text() == "second\n"
    assert _last(place).data["output"] == "first\nsecond\n"
