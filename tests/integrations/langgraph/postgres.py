"""A PostgreSQL server of the tests' own: on loopback, in a new directory, stopped afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path


def programs():
    """Return the directory of initdb and pg_ctl; None where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: float(one.parent.name)
    )
    return versions[-1] if versions else None


def _as_user():
    """PostgreSQL refuses to run as root; Debian's package has a user for it."""
    return (
        {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    )


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def server(folder):
    """Run a server for the time of a block, and give its address."""
    bin_, who = programs(), _as_user()
    if who:
        shutil.chown(folder, "postgres", "postgres")
        for parent in (folder, *folder.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o011)
    data, port = folder / "data", _free_port()
    options = f"-c listen_addresses=127.0.0.1 -c fsync=off -p {port} -k {folder}"

    def call(*words):
        # A file, not a pipe: the server would keep a pipe open.
        with (folder.parent / "postgres.log").open("ab") as log:
            subprocess.run(words, check=True, cwd="/", stdout=log, stderr=log, timeout=120, **who)

    call(bin_ / "initdb", "-D", data, "-U", "tester", "--auth=trust", "-E", "UTF8", "--no-sync")
    control = (bin_ / "pg_ctl", "-D", data, "-w")
    call(*control, "-o", options, "-l", folder / "server.log", "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        call(*control, "-m", "immediate", "stop")
