"""Runs work as a user who is nobody, in a forked child."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534


def as_nobody(work: Callable[[], Any]) -> Any:
    """Return what work returned in a child that is no superuser any more, through JSON."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = json.dumps(work())
        except BaseException:
            answer = json.dumps(traceback.format_exc())
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = json.loads(file.read())
    os.waitpid(pid, 0)
    return answer


@contextmanager
def public_directory() -> Iterator[Path]:
    """Make a directory that everybody may enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="ckptlog-public-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def give_away(path: Path, *, but: str) -> None:
    """Let nobody own everything below a path, but not what lies in a folder of some name."""
    for file in [path, *path.rglob("*")]:
        if but not in file.parts:
            os.chown(file, NOBODY, NOBODY)
