"""The system calls of a process below one folder, in the order in which they took effect.

strace prints each call with the path of each descriptor, so neither forks nor threads nor copies of
descriptors need to be followed. A call that changes files and is not modelled here ends the run:
a model that overlooks one would prove nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.crash.medium import Cut, Medium, Node, Write

PROJECT: Final = Path(__file__).resolve().parents[2]
# Those that are followed, and those that would have to be.
_FOLLOWED = (
    "openat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,"
    "ftruncate,unlink,unlinkat,rmdir,mkdir,mkdirat,lseek,flock"
)
_UNKNOWN = (
    "open,creat,truncate,fallocate,copy_file_range,sendfile,splice,link,linkat,symlink,symlinkat"
)
_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PATH = re.compile(r"^(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_BYTES_MAX = 16 * 1024 * 1024
_AT_THE_END = -1


@dataclass(frozen=True)
class Call:
    """One call: its name, arguments as strace prints them, and result.

    number: How many calls of this name its thread has begun, this one included: how strace counts.
    """

    name: str
    arguments: str
    result: int
    number: int

    def texts(self) -> list[bytes]:
        """Return every string among the arguments."""
        return [_unhex(found) for found in _TEXT.findall(self.arguments)]

    def descriptor_path(self, at: int = 0) -> Path | None:
        """Return the path of the descriptor that is the n-th argument; None once it was removed."""
        found = _PATH.match(self.arguments.split(", ")[at])
        if found is None or found[2]:
            return None
        return Path(os.fsdecode(_unhex(found[1])))

    def is_below(self, root: Path) -> bool:
        """Say whether it has to do with a file in a folder."""
        path = self.descriptor_path()
        if path is not None and path.is_relative_to(root):
            return True
        return any(Path(os.fsdecode(text)).is_relative_to(root) for text in self.texts()[:1])

    def integer(self, at: int) -> int:
        """Return an argument that is a number."""
        return int(self.arguments.split(", ")[at])


def trace(command: list[str]) -> tuple[list[Call], str]:
    """Run a command under strace; return its calls, and what it said.

    Raises:
        SystemExit: The command failed.
    """
    with tempfile.TemporaryDirectory(prefix="ckptlog-trace-") as folder:
        output = Path(folder) / "calls"
        words = ["strace", "-f", "-y", "-xx", "-s", str(_BYTES_MAX), "-o", str(output)]
        done = subprocess.run(
            [*words, "-e", f"trace={_FOLLOWED},{_UNKNOWN}", *command],
            check=False,
            capture_output=True,
            text=True,
            env=surrounding(),
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        with output.open(encoding="ascii") as lines:
            return list(_calls(lines)), done.stdout


def surrounding() -> dict[str, str]:
    """Return an environment in which a workload's system calls are all its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return {**kept, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}


def _calls(lines: Iterator[str]) -> Iterator[Call]:
    begun: dict[str, str] = {}
    numbers: Counter[tuple[str, str]] = Counter()
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        if match is None:
            continue
        process, text = match[1], match[2]
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>")
            continue
        resumed = _RESUMED.match(text)
        if resumed is not None:
            text = begun.pop(process, "").rstrip() + resumed[1]
        call = _CALL.match(text)
        if call is not None:
            numbers[process, call[1]] += 1
            yield Call(call[1], call[2].rstrip(), int(call[3]), numbers[process, call[1]])


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Replay:
    """Does traced calls to a model of the medium.

    Attributes:
        told: What the process has said on its standard output so far, by lines.
    """

    medium: Medium

    def __post_init__(self) -> None:
        self.told: list[str] = []
        self._offsets: dict[str, int] = {}

    def steps(self, calls: list[Call]) -> Iterator[str]:
        """Do one call after another; yield the name of each that changed something.

        Raises:
            SystemExit: A call that changes files here is not modelled.
        """
        for call in calls:
            if call.result < 0:
                continue
            act = getattr(self, f"_{call.name}", None)
            if act is None:
                if self._is_ours(call):
                    sys.exit(f"{call.name} is not modelled yet; teach tools/crash/trace.py first.")
                continue
            where = act(call)
            if where is not None:
                yield f"{call.name} {role(where)}"

    def _is_ours(self, call: Call) -> bool:
        return call.is_below(self.medium.root)

    def _inside(self, path: Path | None) -> Path | None:
        return path if path is not None and path.is_relative_to(self.medium.root) else None

    def _named(self, call: Call, at: int = 0, *, folder: int | None = None) -> Path | None:
        """Return the path in an argument, below the descriptor in another, if it is ours."""
        path = Path(os.fsdecode(call.texts()[at]))
        if folder is not None and not path.is_absolute():
            base = call.descriptor_path(folder)
            path = base / path if base else path
        return self._inside(Path(os.path.normpath(path)))

    def _node(self, path: Path) -> Node:
        return self.medium.names[self.medium.name(path)]

    # --- one method for each call; each returns the path that it changed ------------------------

    def _openat(self, call: Call) -> Path | None:
        path = self._named(call, folder=0)
        flags = call.arguments.split(", ")[2]
        if path is None or path == self.medium.root or "O_DIRECTORY" in flags:
            return None
        name = self.medium.name(path)
        self._offsets[f"{call.result}"] = _AT_THE_END if "O_APPEND" in flags else 0
        is_new = "O_CREAT" in flags and name not in self.medium.names
        if is_new:
            self.medium.create(path)
        elif "O_TRUNC" in flags:
            self._node(path).pending.append(Cut(self.medium.tick(), 0))
        else:
            return None
        return path

    def _pwrite64(self, call: Call) -> Path | None:
        offset = int(call.arguments.rpartition(", ")[2])
        return self._put(call, offset)

    def _write(self, call: Call) -> Path | None:
        descriptor = call.arguments.split("<", 1)[0]
        if descriptor == "1":
            self.told += call.texts()[-1].decode(errors="replace").splitlines()
        offset = self._offsets.get(descriptor, 0)
        if offset == _AT_THE_END:
            path = call.descriptor_path()
            offset = len(self._node(path).content()) if self._inside(path) and path else 0
            return self._put(call, offset)
        path = self._put(call, offset)
        if path is not None:
            self._offsets[descriptor] = offset + call.result
        return path

    def _flock(self, call: Call) -> None:
        del call

    def _lseek(self, call: Call) -> None:
        self._offsets[call.arguments.split("<", 1)[0]] = call.result

    def _put(self, call: Call, offset: int) -> Path | None:
        path = self._inside(call.descriptor_path())
        if path is None:
            return None
        data = call.texts()[-1][: call.result]
        self._node(path).pending.append(Write(self.medium.tick(), offset, data))
        return path

    def _ftruncate(self, call: Call) -> Path | None:
        path = self._inside(call.descriptor_path())
        if path is not None:
            self._node(path).pending.append(Cut(self.medium.tick(), call.integer(1)))
        return path

    def _fsync(self, call: Call) -> Path | None:
        path = self._inside(call.descriptor_path())
        if path is None:
            return None
        if path == self.medium.root or self._node(path).is_folder:
            self.medium.sync_folder(path)
        else:
            self._node(path).sync()
        return path

    _fdatasync = _fsync

    def _rename(self, call: Call) -> Path | None:
        old, new = self._named(call, 0), self._named(call, 1)
        if old is not None and new is not None:
            self.medium.rename(old, new)
        return new

    def _unlink(self, call: Call) -> Path | None:
        return self._removed(self._named(call))

    def _unlinkat(self, call: Call) -> Path | None:
        return self._removed(self._named(call, folder=0))

    _rmdir = _unlink

    def _removed(self, path: Path | None) -> Path | None:
        if path is not None:
            self.medium.remove(path)
        return path

    def _mkdir(self, call: Call) -> Path | None:
        return self._made(self._named(call))

    def _mkdirat(self, call: Call) -> Path | None:
        return self._made(self._named(call, folder=0))

    def _made(self, path: Path | None) -> Path | None:
        if path is None or path == self.medium.root:
            return None
        self.medium.create(path, is_folder=True)
        return path


def role(path: Path) -> str:
    """Return what kind of file it is, for counts by kind."""
    name = path.name
    for ending, kind in ((".seg", "segment"), (".set", "settled"), (".pack", "pack"),
                         (".tmp", "temporary"), (".cursor", "cursor"),
                         (".parquet", "history"), (".run", "index")):  # fmt: skip
        if name.endswith(ending):
            return kind
    if ".sqlite" in name:
        return "view"
    if "chunks" in path.parts:
        return "index"
    return name
