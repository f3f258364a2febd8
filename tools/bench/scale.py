"""How much memory upkeep takes with very many chunks: compaction, verification, a new index.

Makes a store of small chunks (64 random-looking bytes each, in payloads of 50,000, two to a commit
and its packs), deletes every second checkpoint, so that half of every pack is to be copied, and
lets each act run in a process of its own, whose peaks of memory are printed: RssAnon, its own, and
RssFile, the pages of files that it has mapped, which the system takes back when it needs the room.
What is bounded does not grow with --chunks.
Usage: tools/bench/run scale [--chunks N ...] [--dir DIR]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Final

import ckptlog
from ckptlog.blobs.codec import Codec
from ckptlog.formats import branch, chunk
from ckptlog.formats.branch import BRANCH, BYTES, LEAF, Link
from ckptlog.model.event import Reference
from ckptlog.policy.command import Create, Payloads
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.store import Store
from tools.bench import measure

_PER_PAYLOAD: Final = 50_000
_LEAF_BYTES: Final = 64
_FANOUT: Final = 64
_LOOK_S: Final = 0.02
_ACTS: Final = ("open", "compact", "verify", "rebuild")


def main() -> None:
    """Run the benchmark; or, told so, one act of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dir")
    parser.add_argument("--act", choices=("fill", *_ACTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.act:
        _act(arguments.act, Path(arguments.dir), arguments.chunks[0])
        return
    with measure.scratch(arguments.dir) as folder:
        measure.machine(folder)
        for count in arguments.chunks:
            _report(folder / str(count), count)


def _report(path: Path, count: int) -> None:
    print(f"{count:,} chunks")
    for act in ("fill", *_ACTS):
        command = [sys.executable, "-m", "tools.bench.scale", "--act", act, "--dir", str(path)]
        told = subprocess.run(
            [*command, "--chunks", str(count)], check=True, capture_output=True, text=True
        ).stdout.split()
        seconds, own_kib, file_kib, all_kib = float(told[0]), *map(int, told[1:])
        if act != "fill":
            peaks = (
                f"RssAnon {own_kib / 1024:6.0f} MiB, RssFile {file_kib / 1024:6.0f} MiB, "
                f"together {all_kib / 1024:6.0f} MiB"
            )
            print(f"  {act:<8}{seconds:9.1f} s   peaks: {peaks}", flush=True)


def _act(act: str, path: Path, count: int) -> None:
    begin_s = time.perf_counter()
    peak = _Peak()
    with ckptlog.open(path, create=act == "fill") as store:
        if act == "fill":
            _fill(store, count)
        elif act == "compact":
            store.compact()
        elif act == "verify":
            report = store.verify()
            if report.problems:
                raise SystemExit(str(report.problems[:3]))
        elif act == "rebuild":
            store.rebuild_views()
        peak.stop()
    all_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(time.perf_counter() - begin_s, peak.own_kib, peak.file_kib, all_kib)


class _Peak:
    """The most memory of each kind, looked at again and again."""

    def __init__(self) -> None:
        self.own_kib = self.file_kib = 0
        self._end = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kib = {line[:8]: line.split()[1] for line in status.splitlines() if "kB" in line}
        self.own_kib = max(self.own_kib, int(kib["RssAnon:"]))
        self.file_kib = max(self.file_kib, int(kib["RssFile:"]))


def _fill(store: Store, count: int) -> None:
    manager = ckptlog.CheckpointManager(store=store)
    for first in range(0, count, 2 * _PER_PAYLOAD):
        number = min(_PER_PAYLOAD, (count - first) // 2)
        records: list[tuple[bytes, bytes]] = []
        creates = [_payload(manager.new_command_id(), number, records) for _ in range(2)]
        packs, placements = store.write_packs(records)
        intent = Intent(tuple(map(Step, creates)), packs, placements)
        _, name = store.submit(intent)  # type: ignore[misc]
        manager.delete_checkpoint(str(name))


def _payload(command: str, count: int, records: list[tuple[bytes, bytes]]) -> Create:
    """Return what makes a checkpoint whose data are `count` chunks of raw bytes under one root."""
    codec = Codec(1)

    def keep(domain: int, raw: bytes) -> bytes:
        digest = chunk.digest_of(domain, raw)
        records.append((digest, codec.encode(domain, digest, raw)))
        return digest

    links = [
        Link(LEAF, keep(chunk.LEAF, os.urandom(_LEAF_BYTES)), _LEAF_BYTES, 0) for _ in range(count)
    ]
    while len(links) > 1:
        links = [
            Link(BRANCH, keep(chunk.BRANCH, branch.encode(run)), sum(one.size for one in run), 0)
            for run in _runs(links)
        ]
    raw = Link(BYTES, links[0].digest, links[0].size, 0)
    top = [b'{"raw":{"$bytes":"', raw, b'"}}']
    size = len(top[0]) + 4 * -(-raw.size // 3) + len(top[2])  # type: ignore[arg-type]
    root = keep(chunk.BRANCH, branch.encode(top))  # type: ignore[arg-type]
    return Create(
        actor="bench",
        command=command,
        task="scale",
        step=1,
        payloads=Payloads(Reference("tree", root.hex(), size), None, size),
    )


def _runs(links: list[Link]) -> Iterator[list[Link]]:
    for first in range(0, len(links), _FANOUT):
        yield links[first : first + _FANOUT]


if __name__ == "__main__":
    main()
