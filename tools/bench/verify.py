"""Full verification: beside `b3sum` over the same packs, and `zstd -t` over the same frames.

b3sum hashes the bytes of the packs with as many threads as there are processors; two of ours do as
much, and check each frame's sum and each chunk's own name. zstd -t decompresses the same frames,
put together into one file; we hash what comes out as well. Where b3sum is not installed, the blake3
package hashes the same bytes with two threads, and is named so.
Usage: tools/bench/run verify [--mb N] [--rounds N] [--memory] [--dir DIR]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

import ckptlog
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.pack import read_index
from ckptlog.formats import chunk, frame
from ckptlog.log.batch import Item
from ckptlog.model.event import IMPORTED, SCHEMA, Event, Reference, Subject
from ckptlog.repository.verify import verify_directory
from tools.bench import measure
from tools.bench.measure import Contestant, Round

_TIME = "2026-01-02T03:04:05.000006Z"
_CHUNKS_RSS = 400_000
# An index of a pack is in memory while the pack is read: 64 MiB hold some 60,000 of these.
_SMALL = 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Full verification beside b3sum and zstd -t.")
    parser.add_argument("--mb", type=int, default=512, help="bytes of chunks in each store")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="measure memory only")
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, "blake3", "zstandard", "xxhash")
        if not options.memory:
            for size in (64 * 1024, 256 * 1024):
                _incompressible(folder, size, options.mb, options.rounds)
            _compressible(folder, 64 * 1024, options.mb, options.rounds)
        _memory(folder)


def _incompressible(folder: Path, size: int, mb: int, rounds: int) -> None:
    root = folder / f"random-{size}"
    _build(root, size, mb, lambda _: os.urandom(size))
    packs = sorted(root.glob("packs/*.pack"))
    total = sum(path.stat().st_size for path in packs)
    name, act = _b3sum(packs)
    ours = Contestant("ckptlog verify --level full", _work(lambda: _verify(root), total))
    peer = Contestant(name, _work(act, total))
    _compare(f"incompressible chunks of {size // 1024} KiB", ours, peer, rounds, least=0.5)
    shutil.rmtree(root)


def _compressible(folder: Path, size: int, mb: int, rounds: int) -> None:
    root = folder / f"text-{size}"
    chance = random.Random(1)  # noqa: S311 - the same text each time

    def text(number: int) -> bytes:
        words = (f"{chance.getrandbits(32):08x} step {number} value {at} " for at in range(size))
        made, length = [], 0
        for word in words:
            made.append(word)
            length += len(word)
            if length >= size:
                break
        return "".join(made).encode()[:size]

    _build(root, size, mb, text)
    frames = folder / "frames.zst"
    total = _frames(root, frames)
    zstd = shutil.which("zstd")
    if zstd is None:
        print("  zstd is not installed: not compared")
        return
    command = [zstd, "-t", "-q", "-T2", str(frames)]
    ours = Contestant("ckptlog verify --level full", _work(lambda: _verify(root), total))
    peer = Contestant("zstd -t -T2", _work(lambda: _call(command), total))
    _compare(f"zstd-compressed chunks of {size // 1024} KiB", ours, peer, rounds, least=0.6)
    shutil.rmtree(root)


def _memory(folder: Path) -> None:
    """Print how memory grows with the number of chunks."""
    measure.heading("memory (RSS) of a full verification")
    root, rise = folder / "many", {}
    for part in (0.25, 1.0):
        count = int(_CHUNKS_RSS * part)
        _build(root, _SMALL, 0, lambda _: os.urandom(_SMALL), count=count)
        rise[count] = int(_in_process(root)) / 1e6
        shutil.rmtree(root)
    (few, less), (many, more) = rise.items()
    slope = max(0.0, (more - less) / (many - few))
    note = f"{less:.0f} MB at {few:,} chunks, {more:.0f} MB at {many:,}"
    measure.judge(
        "at 10,000,000 chunks, at most (a straight line)",
        more + slope * (10**7 - many),
        note,
        unit=" MB",
    )


def _in_process(root: Path) -> str:
    script = (
        "import sys; from pathlib import Path;"
        "from ckptlog.repository.verify import verify_directory;"
        "assert verify_directory(Path(sys.argv[1])).ok;"
        # Not ru_maxrss, which begins with what the parent had.
        "lines = Path('/proc/self/status').read_text().splitlines();"
        "print(next(int(one.split()[1]) * 1024 for one in lines if one.startswith('VmHWM')))"
    )
    command = [sys.executable, "-c", script, str(root)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _compare(title: str, ours: Contestant, peer: Contestant, rounds: int, *, least: float) -> None:
    measure.heading(title)
    measure.alternate((ours, peer), rounds)
    for one in (ours, peer):
        seconds = sum(each.wall_s for each in one.rounds) / sum(e.operations for e in one.rounds)
        print(f"  {one.name:<44}{1e-6 / seconds:>9.0f} MB/s; {one.cpu_s * 1e9:.2f} s cpu a GB")
    measure.judge_ratio("times the speed", measure.rate_ratios(ours, peer), least=least)
    print(f"  {'times, by processor time':<56}{peer.cpu_s / ours.cpu_s:>9.2f}")


def _verify(root: Path) -> None:
    report = verify_directory(root)
    if not report.ok:
        raise SystemExit(str(report.problems[0]))


def _work(act: Callable[[], object], size: int) -> Callable[[], Round]:
    """Return a round: an operation is one byte; processor time is ours and our children's."""

    def run() -> Round:
        cpu_s, begin_s = _cpu_s(), time.perf_counter()
        act()
        wall_s = time.perf_counter() - begin_s
        return Round(size, wall_s, _cpu_s() - cpu_s, [wall_s])

    return run


def _cpu_s() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in found)


def _b3sum(packs: list[Path]) -> tuple[str, Callable[[], object]]:
    b3sum = shutil.which("b3sum")
    if b3sum:
        command = [b3sum, *map(str, packs)]
        return "b3sum", lambda: _call(command)

    def hash_one(path: Path) -> None:
        hasher = blake3()
        with path.open("rb") as file:
            while data := file.read(1024 * 1024):
                hasher.update(data)
        hasher.digest()

    def hash_all() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(hash_one, packs))

    return "blake3 package, 2 threads (no b3sum here)", hash_all


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _build(
    root: Path, size: int, mb: int, raw_of: Callable[[int], bytes], *, count: int = 0
) -> None:
    """Make a store whose packs hold chunks, and whose events name some of them."""
    codec, names = Codec(), []

    def records() -> Iterator[tuple[bytes, bytes]]:
        for number in range(count or mb * 1024 * 1024 // size):
            raw = raw_of(number)
            digest, record = codec.record(chunk.LEAF, raw)
            names.append((digest, len(raw)))
            yield digest, record

    with ckptlog.open(root, create=True) as store:
        packs, _ = store.write_packs(records())  # type: ignore[arg-type]
        fields = {"actor": "bench", "schema": SCHEMA, "time": _TIME, "subject": Subject()}
        for number, (digest, length) in enumerate(names[:50]):
            data = Reference("leaf", digest.hex(), length)
            event = Event(id=f"c{number}", type=IMPORTED, data=data, **fields)  # type: ignore[arg-type]
            store.log.append([[Item(event)]], store.position)
        last = Event(id="last", type=IMPORTED, packs=packs, **fields)  # type: ignore[arg-type]
        store.log.append([[Item(last)]], store.position)


def _frames(root: Path, to: Path) -> int:
    """Put the zstd frames of all chunks into one file; return its size."""
    with ckptlog.open(root, read_only=True) as store, to.open("wb") as out:
        for path in sorted(root.glob("packs/*.pack")):
            data = path.read_bytes()
            for place in read_index(path, store.info.id_bytes):
                begin = place.offset + frame.HEADER_BYTES
                out.write(chunk.decode(data[begin : place.offset + place.length]).stored)
    return to.stat().st_size


if __name__ == "__main__":
    main()
