"""`ckptlog run` without a standard stream, or with one that takes nothing: the command runs."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from tests.cli import test_run
from tests.cli.test_run import PROGRAM, WAIT_S, _environ, _last

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
