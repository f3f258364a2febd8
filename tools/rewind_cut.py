"""Cut the power of a real file system under a rewind, and judge the tree that is left.

As tools/power_cut.py, whose device this uses, but what is watched is a working tree: version A was
captured, version B stands there, and a process rewinds to A. When the power is back:

- a rewind that had returned is whole: every name, content, mode and link is that of A;
- one that had not left each file that both versions have as it is in A or in B, whole;
- where anything is not as in B, the store holds B, whole (the safety capture);
- the rewind is run again and makes it A, and nothing is left of the first one.

Usage: rewind_cut.py [--system NAME] [--cuts N] [--seed N] [--bug NAME] [--json]
Needs root. Exit status: 1 where a tree is wrong, 3 where this machine cannot mount.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ckptlog import CheckpointManager
from ckptlog.capture.directory import restoration
from ckptlog.capture.directory.batch import Batch
from ckptlog.capture.directory.mode import set_mode
from ckptlog.capture.directory.scan import STAGING
from ckptlog.capture.directory.stage import Stage, is_left_over
from ckptlog.capture.directory.workspace import SAFETY, Workspace
from tools.crash.bug import replaced
from tools.power_cut import (
    CANNOT,
    INSIDE,
    Device,
    Moment,
    Say,
    Unable,
    call,
    cut_at_work,
    go_inside,
)

SYSTEMS: Final = ("ext4", "xfs", "btrfs")
# ext4 helps who renames over a file without a sync, unless it is told not to.
_OPTIONS = {"ext4": ("noauto_da_alloc", "", "data=writeback,noauto_da_alloc")}
_FILES: Final = 40
_ALL: Final = 1_000_000
_LATER_S: Final = 5.0
_SIZES: Final = (0, 10, 700, 5_000, 40_000)
# Type, permission bits, content; of a directory without content.
Entry = tuple[str, int, bytes]
Picture = dict[str, Entry]


def version(root: Path, number: int) -> None:
    """Make version 0 or 1 of the tree; there is every kind of difference between them."""
    chance = random.Random(number)  # noqa: S311 - the same each time
    for one in range(_FILES):
        _put(root / f"d{one % 5}" / f"f{one}", chance.randbytes(chance.choice(_SIZES)))
        _put(root / f"only{number}" / f"e{one % 3}" / f"g{one % 12}", chance.randbytes(5_000))
        if one % 8 == 0:
            _put(root / f"d{one % 5}" / f"own{number}-{one}", chance.randbytes(700))
    _put(root / "mode" / "same", b"x" * 900, mode=(0o640, 0o755)[number])
    _put(root / "set" / "inner" / "file", b"inner")
    (root / "set").chmod((0o751, 0o755)[number])
    (root / "set" / "inner").chmod((0o700, 0o2755)[number])
    root.chmod((0o750, 0o755)[number])
    if number == 0:
        _put(root / "turned", b"a file" * 300)
        _put(root / "other" / "in", b"in a directory" * 100)
    else:
        _put(root / "turned" / "in", b"in a directory" * 100)
        _put(root / "other", b"a file" * 300)
    (root / "link").symlink_to(f"target{number}")


def _put(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(10**18, 10**18))  # the content alone, or the mode, tells versions apart


def picture(root: Path) -> Picture:
    """Return what lies in a tree, the root itself as "."; the staging directory is left out."""
    found: Picture = {".": ("directory", stat.S_IMODE(root.stat().st_mode), b"")}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.split("/", maxsplit=1)[0] == STAGING:
            continue
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            found[name] = ("link", 0, os.fsencode(path.readlink()))
        elif path.is_dir():
            found[name] = ("directory", mode, b"")
        else:
            found[name] = ("file", mode, path.read_bytes())
    return found


def _empty(root: Path) -> None:
    call("rm", "-rf", str(root))
    root.mkdir()


# --- bugs to be found ------------------------------------------------------------------------


def _drop(stage: Stage) -> None:
    stage.batch.close()  # without a sync
    stage.batch = Batch()


def _set_and_forget(name: str, folder: int, mode: int) -> None:
    fd = set_mode(name, folder, mode)
    if fd is not None:
        os.close(fd)


# The journal of ext4 takes all names and modes with the first sync at the end: there the last bug
# is found, and not the two before it, which tests/capture/directory/test_durability.py finds.
BUGS: Final[dict[str, dict[tuple[Any, str], object]]] = {
    "no_file_sync": {(Stage, "sync"): _drop},
    "no_folder_sync": {(restoration.Restoration, "_sync_folders"): lambda _: None},
    "no_mode_sync": {
        (restoration, "set_mode"): _set_and_forget,
        (restoration, "opened"): lambda *_: None,
        (restoration, "set_root"): os.fchmod,
    },
}
BUGS["no_end_sync"] = {**BUGS["no_folder_sync"], **BUGS["no_mode_sync"]}


# --- the rewind ------------------------------------------------------------------------------


class Scene:
    """The two versions, and a rewind between them."""

    def __init__(self, device: Device, bug: str) -> None:
        self._device = device
        self._bug = bug
        self.pictures: list[Picture] = []

    def fill(self, point: Path) -> None:
        """Make version A, capture it, and make version B of it."""
        root = point / "tree"
        for number in (0, 1):
            _empty(root) if root.exists() else root.mkdir()
            version(root, number)
            self.pictures.append(picture(root))
            if number == 0:
                with self.workspace() as space:
                    space.capture()
        call("sync")

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """Open the store, and the tree in it."""
        with CheckpointManager(self._device.point / "store") as manager:
            yield Workspace(manager, self._device.point / "tree")

    def work(self, say: Say) -> None:
        """Rewind, and tell of each step."""
        with self.workspace() as space, replaced({**_telling(say), **BUGS.get(self._bug, {})}):
            space.rewind(space.find("#1"))
            say("done")
            time.sleep(_LATER_S)  # closing the store syncs, too

    def judge(self, lines: list[str]) -> list[str]:
        """Return what is wrong with what is left."""
        wanted, before = self.pictures
        there = picture(self._device.point / "tree")
        wrong = []
        if "done\n" in lines and there != wanted:
            wrong += [f"not durable: {_difference(there, wanted)}"]
        wrong += list(self._torn(there))
        with self.workspace() as space:
            if there != before:
                wrong += self._safety(space)
            space.rewind(space.find("#1"))
            wrong += space.component.verify_restored()
        again = picture(self._device.point / "tree")
        if again != wanted:
            wrong += [f"run again it is not whole: {_difference(again, wanted)}"]
        if is_left_over(self._device.point / "tree"):
            wrong += ["the staging directory is left"]
        return wrong

    def _torn(self, there: Picture) -> Iterator[str]:
        wanted, before = self.pictures
        for name, entry in there.items():
            versions = [one[name] for one in (wanted, before) if name in one]
            if entry[0] == "directory":
                if "directory" not in [one[0] for one in versions]:
                    yield f"{name} is a directory in no version"
            elif entry not in versions:
                yield f"{name} has {len(entry[2])} bytes, mode {entry[1]:o}, of no version"
        for name, entry in wanted.items():
            both = name in before and before[name][0] == entry[0] != "directory"
            if both and name not in there:
                yield f"{name} is missing"

    def _safety(self, space: Workspace) -> list[str]:
        """Say what is wrong with the capture of what was there."""
        newest = space.captures(1)[0]
        if newest.reason != SAFETY:
            return ["there is no safety capture"]
        target = self._device.point / "safety"
        space.rewind(newest, to=target)
        found = picture(target)
        if found != self.pictures[1]:
            return [f"the safety capture is not whole: {_difference(found, self.pictures[1])}"]
        return []


def _telling(say: Say) -> dict[tuple[Any, str], object]:
    put, sync = Stage.put, Batch.sync

    def told_put(stage: Stage, *arguments: Any) -> Any:
        placed = put(stage, *arguments)
        say("put")
        return placed

    def told_sync(batch: Batch) -> None:
        say("syncing")
        sync(batch)
        say("synced")

    return {(Stage, "put"): told_put, (Batch, "sync"): told_sync}


def _difference(found: Picture, wanted: Picture) -> str:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    return f"{len(names)} names, {', '.join(names[:5])}"


def work(options: argparse.Namespace) -> int:
    """Do all of it, inside of the namespaces."""
    folder = Path("/mnt")  # under a tmpfs of our own, which nobody else sees
    try:
        call("mount", "-t", "tmpfs", "tmpfs", str(folder))
        device = Device(options.system, folder)
        scene = Scene(device, options.bug)
        device.make(scene.fill)
    except Unable as error:
        print(f"cannot cut the power of {options.system} here: {error}", file=sys.stderr)
        return CANNOT
    tally: dict[str, Any] = {"system": options.system, "cuts": 0, "done": 0, "ways": Counter()}
    tally["wrong"] = []
    for number in range(options.cuts):
        _cut(device, scene, tally, random.Random(f"{options.seed}/{number}"))  # noqa: S311
        if options.bug and tally["wrong"]:
            break
    print(json.dumps(tally, indent=1) if options.json else tally)
    return 1 if tally["wrong"] else 0


def _cut(device: Device, scene: Scene, tally: dict[str, Any], chance: random.Random) -> None:
    ways = _OPTIONS.get(device.system, ("",))
    options = ways[tally["cuts"] % len(ways)]
    device.renew()
    with device.mounted(options):
        # In the middle, or at its very end.
        told = chance.choice((chance.randrange(8), chance.randrange(90), _ALL))
        delay_s = 0.0 if told == _ALL else chance.random() * 0.002
        lines = cut_at_work(device, scene.work, Moment(told, delay_s, "done"), chance)
    device.take_copy()
    with device.mounted():
        wrong = scene.judge(lines)
    tally["cuts"] += 1
    tally["done"] += "done\n" in lines
    tally["ways"][f"{device.how} {options}".strip()] += 1
    if wrong:
        where = {"number": tally["cuts"] - 1, "options": options, "how": device.how}
        tally["wrong"].append({**where, "told": len(lines), "wrong": wrong})


def main() -> int:
    """Read the arguments; go into namespaces of our own and work there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--system", choices=SYSTEMS, default="ext4")
    parser.add_argument("--cuts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bug", default="", choices=["", *BUGS], help="plant a bug; end when it is found"
    )
    parser.add_argument("--json", action="store_true", help="print one document")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return work(options)
    go_inside()
    print("needs root and unshare", file=sys.stderr)
    return CANNOT


if __name__ == "__main__":
    raise SystemExit(main())
