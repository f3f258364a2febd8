"""Bytes on disk for states that grow: ckptlog beside whole copies, SqliteSaver, restic and borg.

Logical bytes are the sum of whole states as plain JSON without blanks. A store counts closed, all
its files but views and reserve; a database closed, its log written back. A backup program gets
each state as the same file, one snapshot each; it is left out where it is not installed.
Usage: tools/bench/run size [--transcripts DIR] [--versions N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard

from ckptlog import CheckpointManager
from tools.bench import measure, peer, workload
from tools.bench.workload import State

_TASK = "a growing task"
_PASSWORD = {"RESTIC_PASSWORD": "bench", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

Sizer = Callable[[Path, list[State]], int]


def our_bytes(folder: Path, states: Iterable[State]) -> int:
    """Create one checkpoint for each state; return the bytes of the closed store."""
    with CheckpointManager(folder / "store") as manager:
        for number, state in enumerate(states, 1):
            manager.create_checkpoint(_TASK, "Title", number, data=state)
    return store_bytes(folder / "store")


def store_bytes(store: Path) -> int:
    """Return the bytes of a store's files, without views and reserve."""
    left_out = {store / "views", store / "reserve"}
    return sum(
        path.stat().st_size
        for path in store.rglob("*")
        if path.is_file() and not left_out & {path, *path.parents}
    )


def saver_bytes(folder: Path, states: Iterable[State]) -> int:
    """Put each state; return the bytes of the closed database."""
    path = folder / "saver.sqlite"
    saver = peer.SaverPeer(path)
    for state in states:
        saver.put(saver.prepare("task", state, {"source": "loop"}))
    saver.close()
    return sum(one.stat().st_size for one in folder.glob("saver.sqlite*"))


def zlib_bytes(_: Path, states: Iterable[State]) -> int:
    """Return the bytes of each state compressed alone with zlib."""
    return sum(len(zlib.compress(workload.as_text(state))) for state in states)


def zstd_bytes(_: Path, states: Iterable[State]) -> int:
    """Return the same with zstd."""
    compressor = zstandard.ZstdCompressor()
    return sum(len(compressor.compress(workload.as_text(state))) for state in states)


def restic_bytes(folder: Path, states: Iterable[State]) -> int:
    """Return the bytes of a restic repository with one snapshot a state."""
    restic = ["restic", "--quiet", "--no-cache", "--repo", str(folder / "restic")]
    backup = [*restic, "backup", "--host", "bench", "state.json"]
    return _backed_up(folder, states, [*restic, "init"], lambda _: backup)


def borg_bytes(folder: Path, states: Iterable[State]) -> int:
    """Return the bytes of a borg repository with one archive a state."""
    repository = str(folder / "borg")
    return _backed_up(
        folder,
        states,
        ["borg", "init", "--encryption", "none", repository],
        lambda number: ["borg", "create", f"{repository}::{number}", "state.json"],
    )


def _backed_up(
    folder: Path,
    states: Iterable[State],
    begin: list[str],
    backup: Callable[[int], list[str]],
) -> int:
    place = folder / "file"
    place.mkdir(exist_ok=True)
    environment = {**os.environ, **_PASSWORD, "HOME": str(folder)}

    def run(command: list[str]) -> None:
        subprocess.run(command, env=environment, cwd=place, stdout=subprocess.DEVNULL, check=True)

    run(begin)
    for number, state in enumerate(states):
        (place / "state.json").write_bytes(workload.as_text(state))
        run(backup(number))
    repository = folder / begin[0]
    return sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())


PEERS: dict[str, Sizer] = {
    "SqliteSaver": saver_bytes,
    "zlib copies": zlib_bytes,
    "zstd copies": zstd_bytes,
    "restic": restic_bytes,
    "borg": borg_bytes,
}
_PROGRAMS = ("restic", "borg")


def compare(name: str, states: list[State], least: float, above: Path) -> None:
    """Print the bytes of every contestant for one series of states."""
    logical = sum(len(workload.as_text(state)) for state in states)
    measure.heading(f"{name}: {len(states)} steps, {logical / 1e6:,.2f} MB of whole states")
    sizers: dict[str, Sizer] = {"ckptlog": our_bytes, **PEERS}
    for who, sizer in sizers.items():
        if who in _PROGRAMS and shutil.which(who) is None:
            print(f"  {who:<56}not installed")
            continue
        begin = time.perf_counter()
        try:
            with measure.scratch(str(above)) as folder:
                stored = sizer(folder, states)
        except subprocess.CalledProcessError as error:
            print(f"  {who:<56}does not run here (status {error.returncode})")
            continue
        spent = time.perf_counter() - begin
        note = f"{stored / 1e6:,.3f} MB in {spent:,.2f} s"
        measure.judge(
            f"{who}: logical over stored", logical / stored, note, least=least * (who == "ckptlog")
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Bytes on disk for states that grow.")
    parser.add_argument("--transcripts", type=Path, default=workload.TRANSCRIPTS)
    parser.add_argument("--versions", type=int, default=60, help="of the growing state")
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, *peer.PACKAGES)
        for path in workload.transcripts(options.transcripts):
            compare(path.name, workload.transcript_states(path), 8, folder)
        if options.versions:
            # The target is for 60 versions: fewer share less.
            least = 50 if options.versions >= 60 else 0
            compare("growing JSON", list(workload.growing(options.versions)), least, folder)


if __name__ == "__main__":
    main()
