"""Bytes on disk for states that grow: ckptlog beside whole copies, SqliteSaver, restic and borg.

Logical bytes are the sum of whole states as plain JSON without blanks. A store counts closed, all
its files but views and reserve; a database closed, its log written back. A backup program gets
each state as the same file, one snapshot each; it is left out where it is not installed. "service"
is with the compression that a service has by default (compressionLevel 6), "compacted" after
`compact`, when every state was read back and was equal.
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

from ckptlog import CheckpointConfiguration, CheckpointManager, SystemConfiguration
from tools.bench import measure, peer, workload
from tools.bench.workload import State

_TASK = "a growing task"
# What the specification asks of the history of agents' states.
TARGET = 10
_PASSWORD = {"RESTIC_PASSWORD": "bench", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

Sizer = Callable[[Path, list[State]], int]


def our_bytes(folder: Path, states: Iterable[State], level: int = 1) -> int:
    """Create one checkpoint for each state; return the bytes of the closed store."""
    config = CheckpointConfiguration(
        storage_dir=str(folder / "store"), compression_level=level, cleanup_interval_hours=0
    )
    with CheckpointManager(config=config) as manager:
        for number, state in enumerate(states, 1):
            manager.create_checkpoint(_TASK, "Title", number, data=state)
    return store_bytes(folder / "store")


def service_bytes(folder: Path, states: Iterable[State]) -> int:
    """Return the same with a service's compression."""
    return our_bytes(folder, states, SystemConfiguration().compression_level)


def compacted(sizer: Sizer) -> Sizer:
    """Return what measures after `compact`, and makes sure that every state is what it was."""

    def measured(folder: Path, states: list[State]) -> int:
        sizer(folder, states)
        with CheckpointManager(folder / "store") as manager:
            manager.compact_checkpoint_storage()
        with CheckpointManager(folder / "store") as manager:
            found = [one.data for one in manager.get_task_checkpoints(_TASK)]
        if found != states:
            raise SystemExit("compact changed a state")
        return store_bytes(folder / "store")

    return measured


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


OURS: dict[str, Sizer] = {
    "ckptlog": our_bytes,
    "ckptlog, compacted": compacted(our_bytes),
    "ckptlog service": service_bytes,
    "ckptlog service, compacted": compacted(service_bytes),
}
PEERS: dict[str, Sizer] = {
    "SqliteSaver": saver_bytes,
    "zlib copies": zlib_bytes,
    "zstd copies": zstd_bytes,
    "restic": restic_bytes,
    "borg": borg_bytes,
}
_PROGRAMS = ("restic", "borg")


def compare(
    name: str, states: list[State], least: dict[str, float], above: Path
) -> dict[str, tuple[int, int]]:
    """Print the bytes of every contestant for one series of states.

    Args:
        least: Ratios to reach, by contestant.

    Returns:
        Logical and stored bytes, by contestant.
    """
    found: dict[str, tuple[int, int]] = {}
    logical = sum(len(workload.as_text(state)) for state in states)
    measure.heading(f"{name}: {len(states)} steps, {logical / 1e6:,.2f} MB of whole states")
    sizers: dict[str, Sizer] = {**OURS, **PEERS}
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
        found[who] = (logical, stored)
        name = f"{who}: logical over stored"
        measure.judge(name, logical / stored, note, least=least.get(who, 0))
    return found


def together(found: list[dict[str, tuple[int, int]]]) -> None:
    """Print what all transcripts take together."""
    measure.heading(f"all {len(found)} transcripts together")
    for who in found[0]:
        pairs = [one[who] for one in found if who in one]
        logical, stored = (sum(sizes) for sizes in zip(*pairs, strict=True))
        note = f"{logical / 1e6:,.3f} MB as {stored / 1e6:,.3f} MB"
        least = TARGET if who in OURS else 0
        measure.judge(f"{who}: logical over stored", logical / stored, note, least=least)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Bytes on disk for states that grow.")
    parser.add_argument("--transcripts", type=Path, default=workload.TRANSCRIPTS)
    parser.add_argument("--versions", type=int, default=60, help="of the growing state")
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, *peer.PACKAGES)
        least: dict[str, float] = {"ckptlog": 8, "ckptlog service, compacted": TARGET}
        found = [
            compare(path.name, workload.transcript_states(path), least, folder)
            for path in workload.transcripts(options.transcripts)
        ]
        if found:
            together(found)
        if options.versions:
            # The target is for 60 versions: fewer share less.
            least = dict.fromkeys(OURS, 50) if options.versions >= 60 else {}
            compare("growing JSON", list(workload.growing(options.versions)), least, folder)


if __name__ == "__main__":
    main()
