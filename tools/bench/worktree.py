"""A working tree of 20,000 files: ckptlog beside restic, git and a bare walk.

The tree is made of copies of this Python's site-packages; each copy after the first is another
version (one file in ten has another line). A bare walk is scandir and a stat of each name.

    first       the tree is captured into a new store    restic backup, git add -A
    unchanged   it is captured again                      bare walk, git add -A, restic backup
    rewind      50 files were changed; back again         git checkout -- .
                (files below 256 KiB, then of any size)

Before each rewind all that was written before is put on the medium: ours is durable when it
returns, and must not pay for what git left in memory.
Ours run in this process, as a library; restic and git are programs, as people run them.
restic is skipped where it is not installed (Debian: apt-get install restic).
Usage: tools/bench/run worktree [--rounds N] [--files N] [--dir DIR] [--source DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ckptlog import CheckpointManager
from ckptlog.capture.directory.workspace import Workspace
from tools.bench import measure
from tools.bench.measure import Contestant, Round

CHANGED = 50
# What people and agents edit is smaller; site-packages have libraries of tens of megabytes.
SMALL_BYTES = 256 * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A working tree of many files.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--first-rounds", type=int, default=1)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--dir")
    parser.add_argument("--source", default=sysconfig.get_paths()["purelib"])
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder)
        tree = folder / "tree"
        size = _make(tree, Path(options.source), options.files)
        measure.progress("")
        print(f"tree: {options.files:,} files, {size / 1e6:,.0f} MB")
        time.sleep(0.1)  # so that no file is of the walk's own tick
        _first(folder, tree, options.first_rounds)
        _again(folder, tree, options.rounds)
        _rewind(folder, tree, options.rounds)


def _make(tree: Path, source: Path, count: int) -> int:
    """Make the tree; return the bytes of its files."""
    made = size = 0
    version = 0
    while made < count:
        version += 1
        before = made
        for path in _files(source):
            if made == count:
                break
            target = tree / f"version{version}" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            if version > 1 and made % 10 == 0:
                with target.open("ab") as file:
                    file.write(b"\n# version %d\n" % version)
            size += target.stat().st_size
            made += 1
        if made == before:
            raise SystemExit(f"{source} has no files")
    return size


def _files(source: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(source):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _first(folder: Path, tree: Path, rounds: int) -> None:
    contestants = [_once("ckptlog", lambda: _capture_new(folder, tree))]
    if shutil.which("restic"):
        contestants.append(_once("restic backup", lambda: _restic_new(folder, tree)))
    else:
        print("restic is not installed: not compared (apt-get install restic)")
    contestants.append(_once("git add -A", lambda: _git_new(folder, tree)))
    measure.heading("the first capture")
    measure.alternate(contestants, rounds)
    measure.table(contestants)
    for other in contestants[1:]:
        ratios = measure.time_ratios(contestants[0], other)
        most = 1 if other.name.startswith("restic") else 0
        measure.judge_ratio(f"ours over {other.name}", ratios, most=most)
    for name in ("ckptlog", "restic", "git"):
        if (folder / name).is_dir():
            print(f"stored by {name}: {_size(folder / name) / 1e6:,.0f} MB")


def _again(folder: Path, tree: Path, rounds: int) -> None:
    with CheckpointManager(folder / "ckptlog") as manager:
        space = Workspace(manager, tree)
        contestants = [
            _once("ckptlog", lambda: _expect(space.capture(), None)),
            _once("bare walk", lambda: _bare(tree)),
            _once("git add -A", lambda: _git(folder, tree, "add", "-A")),
        ]
        if shutil.which("restic"):
            contestants.append(_once("restic backup", lambda: _restic(folder, tree)))
        for one in contestants:
            one.run()  # warm
            one.rounds.clear()
        measure.heading("nothing changed")
        measure.alternate(contestants, rounds)
        measure.table(contestants)
        ours, bare, git = contestants[:3]
        measure.judge_ratio("ours over a bare walk", measure.time_ratios(ours, bare), most=2.5)
        measure.judge_ratio("ours over git add -A", measure.time_ratios(ours, git), most=1)


def _rewind(folder: Path, tree: Path, rounds: int) -> None:
    _git(folder, tree, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")
    files = sorted(_files(tree))
    small = [path for path in files if path.stat().st_size < SMALL_BYTES]
    with CheckpointManager(folder / "ckptlog") as manager:
        space = Workspace(manager, tree)
        _rewind_some("files", folder, space, _spread(small), rounds)
        _rewind_some("files of any size", folder, space, _spread(files), rounds)


def _spread(files: list[Path]) -> list[Path]:
    return files[:: max(1, len(files) // CHANGED)][:CHANGED]


def _rewind_some(
    what: str, folder: Path, space: Workspace, chosen: list[Path], rounds: int
) -> None:
    space.capture()  # git checkout has given files another time
    info = space.find()
    tree = Path(space.path)

    def rewind() -> None:
        done = space.rewind(info)
        _expect(len(done.steps), len(chosen))

    ours = Contestant("ckptlog", _changing(chosen, rewind))
    git = Contestant(
        "git checkout",
        _changing(chosen, lambda: _git(folder, tree, "checkout", "-q", "--", ".")),
    )
    size = sum(path.stat().st_size for path in chosen)
    told = f"{len(chosen)} {what} ({size / 1e6:,.1f} MB)"
    measure.heading(f"{told} were changed; back again, with a safety capture")
    ours.run()  # warm
    ours.rounds.clear()
    measure.alternate([ours, git], rounds)
    measure.table([ours, git])
    measure.judge_ratio("ours over git checkout", measure.time_ratios(ours, git), most=0)
    measure.judge("rewind", ours.p50_s, most=0.3, unit=" s")


def _changing(files: list[Path], run: Callable[[], None]) -> Callable[[], Round]:
    def one() -> Round:
        os.sync()  # what others have left in memory is not ours, or theirs, to put on the medium
        change = b"changed at %d\n" % time.time_ns()  # in no capture yet
        for path in files:
            with path.open("ab") as file:
                file.write(change)
        time.sleep(0.1)
        return measure.timed(lambda _: run(), [0])

    return one


def _once(name: str, run: Callable[[], object]) -> Contestant:
    return Contestant(name, lambda: measure.timed(lambda _: run(), [0]))


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"{found!r} came, {wanted!r} was expected")


def _capture_new(folder: Path, tree: Path) -> None:
    shutil.rmtree(folder / "ckptlog", ignore_errors=True)
    with CheckpointManager(folder / "ckptlog") as manager:
        Workspace(manager, tree).capture()


def _restic_new(folder: Path, tree: Path) -> None:
    shutil.rmtree(folder / "restic", ignore_errors=True)
    _restic(folder, tree, "init")
    _restic(folder, tree)


def _restic(folder: Path, tree: Path, command: str = "backup") -> None:
    words = ["restic", "-q", "-r", str(folder / "restic"), "--cache-dir", str(folder / "cache")]
    words += [command, str(tree)] if command == "backup" else [command]
    subprocess.run(words, check=True, env={**os.environ, "RESTIC_PASSWORD": "x"})


def _git_new(folder: Path, tree: Path) -> None:
    shutil.rmtree(folder / "git", ignore_errors=True)
    _git(folder, tree, "init", "-q")
    _git(folder, tree, "add", "-A")


def _git(folder: Path, tree: Path, *words: str) -> None:
    places = [f"--git-dir={folder / 'git'}", f"--work-tree={tree}"]
    places += ["-c", "gc.auto=0", "-c", "maintenance.auto=false"]  # nothing stays at work behind it
    environ = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", *places, *words], check=True, env=environ, cwd=tree)


def _bare(tree: Path) -> int:
    """Walk: scandir, and a stat of each name."""
    count = 0
    waiting = [os.fspath(tree)]
    while waiting:
        with os.scandir(waiting.pop()) as names:
            for entry in names:
                entry.stat(follow_symlinks=False)
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return count


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
