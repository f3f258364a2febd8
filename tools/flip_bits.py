"""Flip single bits in every kind of file of a store: each flip is told, or mended, or harmless.

For each flip a copy of a small closed store is opened and asked everything that a user can learn:
checkpoints, list, events, the history's rows, the files, where a consumer stands; then verified. An
answer may be right or an error of ours. Wrong is what must not be. Page: specs/testing.md.

told       an answer was an error of ours, or verification names a problem
mended     all answers are right, and the file holds other bytes than the damaged ones now
harmless   all answers are right
again      documented: a consumer goes on from an earlier place, and is told events again
lost       documented: the last write of a store whose published end is older (kind `unclean`)

Usage: flip_bits.py [--kind NAME]... [--every N] [--all] [--seed N] [--jobs N] [--json]
By default one bit of every N-th byte (64); --all: each bit of each byte. Exit status 1 where wrong.
"""

from __future__ import annotations

import argparse
import atexit
import fcntl
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ckptlog
from ckptlog import CheckpointError, CheckpointManager
from ckptlog.repository import layout
from ckptlog.repository.file_view import FileView
from ckptlog.repository.keyring import VARIABLE
from ckptlog.views import checksum, current
from ckptlog.views.errors import ViewError
from ckptlog.views.guard import Guard
from tools.crash import workload
from tools.crash.bug import replaced
from tools.crash.diary import Diary
from tools.crash.judge import values_of
from tools.crash.medium import Image, lay_out
from tools.crash.workload import make_small, run
from tools.crash_states import memory

_END = "log/end"
KINDS: dict[str, Callable[[str], bool]] = {
    "segment": lambda name: name.startswith("log/") and name.endswith(".seg"),
    "settled": lambda name: name.startswith("log/") and name.endswith(".set"),
    "end": lambda name: name == _END,
    "pack": lambda name: name.startswith("packs/"),
    "store.json": lambda name: name == "store.json",
    "cursor": lambda name: name.startswith("consumers/") and not name.endswith("lock"),
    "view": lambda name: name.startswith("views/current.sqlite"),
    "index": lambda name: name.startswith("views/chunks/"),
    "leaves": lambda name: name == "views/tree/leaves",
    "seal": lambda name: name == "views/tree/seal",
    "files": lambda name: name.startswith("views/files/"),
    "history": lambda name: name.startswith("views/history"),
    "heads": lambda name: name.startswith("heads/"),
    "rest": lambda name: name in ("lock", "reserve"),
}
UNCLEAN = "unclean"
_HEAD_BYTES = 64
_ACTS = (
    "create update complete batch create delete pack settle "
    "create complete view consume history sign"
)
# So small that each bit of it can be turned: what is cut for a pack, and what is kept in reserve.
_PACK_BYTES, _LOG_BYTES, _RESERVE_BYTES = 3_000, 2_500, 512
# What can be read wrong because of a kind of file, where not all of it is asked (`--all`).
_ASKED = {"cursor": {"consumer"}, "history": {"history"}, "files": {"files"}, "heads": {"head"}}
# What the store says of itself may be told to be wrong; what is disposable has to be right.
_MUST_BE_RIGHT = ("view", "index", "leaves", "seal", "files", "history", "rest")


@dataclass(frozen=True)
class Sample:
    """A small store with a file of each kind, and what it answers.

    Attributes:
        last: Offset of the last write in the newest segment, for the kind `unclean`.
        end: The published end before that write.
    """

    image: Image
    names: tuple[str, ...]
    answers: dict[str, Any]
    before_last: dict[str, Any]
    newest: str
    last: int
    end: bytes


@dataclass(frozen=True)
class Flip:
    """One bit of one file."""

    kind: str
    name: str
    byte: int
    bit: int


@dataclass
class Tally:
    """How each kind's flips ended."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[dict[str, Any]] = field(default_factory=list)

    @property
    def flips(self) -> int:
        """How many flips were tried."""
        return sum(counts.total() for counts in self.counts.values())

    def enter(self, flip: Flip, ending: str, why: str) -> None:
        """Count a flip."""
        self.counts.setdefault(flip.kind, Counter())[ending] += 1
        if ending == "wrong":
            self.wrong.append({**vars(flip), "why": why})

    def to_dict(self) -> dict[str, Any]:
        """Return all counts, safe for JSON."""
        kinds = {kind: dict(counts) for kind, counts in self.counts.items()}
        return {"flips": self.flips, "kinds": kinds, "wrong": self.wrong}

    def __str__(self) -> str:
        lines = [f"{self.flips} flips"]
        for kind, counts in self.counts.items():
            words = ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))
            lines.append(f"{kind}: {words}")
        lines += [f"WRONG {json.dumps(one)}" for one in self.wrong[:20]]
        return "\n".join([*lines, f"{len(self.wrong)} flips gave a wrong answer"])


@contextmanager
def _sizes() -> Iterator[None]:
    """Make small stores whose view is believed wherever it is laid out: it is sealed."""
    others: dict[tuple[Any, str], object] = {
        (current, "SEAL_EVENTS_MIN"): 1,
        (layout, "RESERVE_BYTES"): _RESERVE_BYTES,
        (workload, "PACKED"): _PACK_BYTES,
        (workload, "LOG_BYTES"): _LOG_BYTES,
    }
    with replaced(others):
        make_small()
        yield


_PREFIX = "ckptlog-flip-"
_OWNER = "owner"
# What has no owner's file is of a program that was killed while it began, or of an older one.
_OWNERLESS_S = 3600.0


def _memory() -> Path:
    return Path(memory() or tempfile.gettempdir())


@cache
def _place(pid: int) -> Path:
    """Make the one folder that a process works in, and that it owns as long as it lives."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{pid}-", dir=_memory()))
    fd = os.open(folder / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)  # until the process ends; only then has it the owner's name
    (folder / "new").rename(folder / _OWNER)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def sweep() -> None:
    """Remove the folders of processes that are dead."""
    for folder in _memory().glob(f"{_PREFIX}*"):
        if _is_left_over(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left_over(folder: Path) -> bool:
    try:
        fd = os.open(folder / _OWNER, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        with suppress(OSError):
            return time.time() - folder.stat().st_mtime > _OWNERLESS_S
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder in memory, where keys are made and looked for, too: never those of a user."""
    before = os.environ.get(VARIABLE)
    with tempfile.TemporaryDirectory(dir=_place(os.getpid()), ignore_cleanup_errors=True) as folder:
        os.environ[VARIABLE] = str(Path(folder) / "keys")
        try:
            yield Path(folder)
        finally:
            del os.environ[VARIABLE]
            if before is not None:
                os.environ[VARIABLE] = before


def make_sample() -> Sample:
    """Make the store."""
    lines: list[str] = []
    with _sizes(), _folder() as folder:
        root = folder / "store"
        run(root, _ACTS.split(), lines.append)
        names = tuple(Diary.of(lines).possible)
        with ckptlog.open(root) as store:
            FileView(store).refresh()
        before = ask(root, names)
        newest = max(path.name for path in (root / "log").glob("*.seg"))
        last = (root / "log" / newest).stat().st_size
        end = (root / _END).read_bytes()
        run(root, ["create"], lines.append)
        names = tuple(Diary.of(lines).possible)
        answers = ask(root, names)
        image = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.name.endswith("-shm")
        }
        lacking = [kind for kind, is_one in KINDS.items() if not any(map(is_one, image))]
        failed = [answer for answer in answers.values() if isinstance(answer, CheckpointError)]
        if lacking or failed:
            sys.exit(f"The sample is not whole: {lacking} {failed}")
        return Sample(image, names, answers, before, f"log/{newest}", last, end)


@contextmanager
def laid_out(sample: Sample) -> Iterator[Path]:
    """Give a store that holds a sample's files, for as long as a block runs."""
    with _sizes(), _folder() as folder:
        root = folder / "store"
        root.mkdir()
        lay_out(sample.image, root)
        yield root


def ask(root: Path, names: Iterable[str], only: Container[str] | None = None) -> dict[str, Any]:
    """Return all that a user can learn, by question; an error of ours is an answer too.

    Args:
        only: Ask these questions alone.
    """
    answers: dict[str, Any] = {}
    try:
        with ckptlog.open(root) as store:
            manager = CheckpointManager(store=store)
            for question, answer in _questions(manager, names):
                if only is not None and question not in only:
                    continue
                try:
                    answers[question] = answer()
                except CheckpointError as error:
                    answers[question] = error
    except CheckpointError as error:
        answers["open"] = error
    return answers


def _questions(
    manager: CheckpointManager, names: Iterable[str]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    store = manager.store
    yield "list", lambda: [one.checkpoint_id for one in manager.iterate()]
    for name in names:
        yield name, partial(lambda name: values_of(manager, [name])[name], name)
    yield "events", lambda: [(one.position, one.event.id) for one in store.events()]
    yield "history", lambda: store.history().to_table(columns=_COLUMNS).to_pylist()
    yield "files", lambda: _files(manager)
    yield "head", lambda: _head(manager)
    yield "consumer", lambda: _consumer(manager)


_COLUMNS = ["position", "type", "checkpoint", "event_id", "data_bytes"]


def _files(manager: CheckpointManager) -> dict[str, bytes]:
    """Let the files show what is there, and read them."""
    view = FileView(manager.store)
    view.refresh(is_thorough=True)
    found = {}
    for path in sorted(view.folder.rglob("*.json")):
        if not any(part.startswith(".") for part in path.relative_to(view.folder).parts):
            found[str(path.relative_to(view.folder))] = path.read_bytes()
    return found


def _head(manager: CheckpointManager) -> str:
    signed = manager.store.notary.latest()
    return signed.note.text if signed else ""


def _consumer(manager: CheckpointManager) -> int:
    with manager.store.watch("reader", follow=False, watcher=False) as events:
        return events.position


def try_flip(sample: Sample, flip: Flip, *, is_brief: bool = False) -> tuple[str, str]:
    """Return how a flip ended, and what is wrong.

    Args:
        is_brief: Of what does not depend on files of this kind, ask nothing.
    """
    damaged = bytearray(sample.image[flip.name])
    damaged[flip.byte] ^= 1 << flip.bit
    image = {**sample.image, flip.name: bytes(damaged)}
    if flip.kind == UNCLEAN:
        image[_END] = sample.end
    try:
        if is_brief and flip.kind == "view" and _is_refused(sample, bytes(damaged), flip.name):
            return "mended", ""
        with laid_out(replace(sample, image=image)) as root:
            only = _ASKED.get(flip.kind) if is_brief else None
            return _judged(sample, flip, root, bytes(damaged), only)
    except Exception as error:  # noqa: BLE001 - whatever it is, this flip shows it
        return "wrong", f"{type(error).__name__}: {error}"


def _is_refused(sample: Sample, damaged: bytes, name: str) -> bool:
    """Say whether a damaged view is not believed: all goes on as without one."""
    with tempfile.TemporaryDirectory(dir=_place(os.getpid())) as folder:
        for one, data in sample.image.items():
            if KINDS["view"](one):
                (Path(folder) / Path(one).name).write_bytes(damaged if one == name else data)
        guard = Guard(Path(folder) / "current.sqlite")
        try:
            checksum.compare(Path(folder) / "current.sqlite", guard)
        except ViewError:
            return True
        finally:
            guard.close()
        return False


def _judged(
    sample: Sample, flip: Flip, root: Path, damaged: bytes, only: Container[str] | None
) -> tuple[str, str]:
    answers = ask(root, sample.names, only)
    errors = [answer for answer in answers.values() if isinstance(answer, CheckpointError)]
    bad = {
        question: answer
        for question, answer in answers.items()
        if not isinstance(answer, CheckpointError) and answer != sample.answers[question]
    }
    if bad and flip.kind == UNCLEAN and flip.byte >= sample.last:
        # Nothing tells it from a commit that was torn: the store is what it was before.
        is_before = all(
            answers.get(question) == answer
            for question, answer in sample.before_last.items()
            if question in ("list", "events")
        )
        return ("lost", "") if is_before else ("wrong", str(bad)[:300])
    if flip.kind == "cursor" and not errors and bad.keys() == {"consumer"}:
        is_earlier = 0 <= bad["consumer"] < sample.answers["consumer"]
        return ("again", "") if is_earlier else ("wrong", str(bad)[:300])
    if bad or (errors and flip.kind in _MUST_BE_RIGHT):
        return "wrong", str(bad or errors[0])[:300]
    if errors:
        return "told", ""
    path = root / flip.name
    if not path.exists() or path.read_bytes() != damaged:
        return "mended", ""
    with ckptlog.open(root) as store:
        is_told = not store.verify().ok
    return ("told" if is_told else "harmless"), ""


def flips(
    sample: Sample, kinds: Iterable[str], *, every: int = 64, seed: int = 0, is_all: bool = False
) -> Iterator[Flip]:
    """Yield the flips of kinds: all, or one bit of every n-th byte of each file.

    The first and last bytes of a file, where headers and trailers are, come always.
    """
    for kind in kinds:
        for name, data in sample.image.items():
            if not (name == sample.newest if kind == UNCLEAN else KINDS[kind](name)):
                continue
            chance = random.Random(f"{seed}/{name}")  # noqa: S311 - the same each time
            if is_all:
                yield from (
                    Flip(kind, name, at, bit) for at in range(len(data)) for bit in range(8)
                )
                continue
            places = {chance.randrange(at, min(at + every, len(data)))
                      for at in range(0, len(data), every)}  # fmt: skip
            places |= {*range(0, min(len(data), _HEAD_BYTES), 5), *range(len(data))[-8::3]}
            yield from (Flip(kind, name, at, chance.randrange(8)) for at in sorted(places))


def explore(
    sample: Sample, wanted: Iterable[Flip], *, jobs: int = 1, is_brief: bool = False
) -> Tally:
    """Try flips; jobs: processes, this one alone with 1; is_brief: see `try_flip`."""
    tally = Tally()
    if jobs == 1:
        for flip in wanted:
            tally.enter(flip, *try_flip(sample, flip, is_brief=is_brief))
        return tally
    with _pool(jobs) as pool, _cancelling(pool):
        iterator = iter(wanted)
        while batch := [flip for _, flip in zip(range(500), iterator, strict=False)]:
            for flip, ending in zip(
                batch,
                pool.map(partial(try_flip, sample, is_brief=is_brief), batch, chunksize=25),
                strict=True,
            ):
                tally.enter(flip, *ending)
    return tally


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Let a worker end when its parent was killed: it would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_await, args=(parent.sentinel,), daemon=True).start()


def _await(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextmanager
def _cancelling(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Let what was not begun be, where a block is interrupted."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _end(signum: int, _: object) -> None:
    raise SystemExit(128 + signum)


def main() -> int:
    """Flip, print counts; 1 where something is wrong."""
    names = [*KINDS, UNCLEAN]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", action="append", choices=names, help="default: all")
    parser.add_argument("--every", type=int, default=64, help="one bit of every n-th byte")
    parser.add_argument("--all", action="store_true", help="every bit of every byte")
    parser.add_argument("--seed", type=int, default=0, help="which bits")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    sweep()
    try:
        sample = make_sample()
        kinds = options.kind or names
        wanted = flips(sample, kinds, every=options.every, seed=options.seed, is_all=options.all)
        tally = explore(sample, wanted, jobs=options.jobs, is_brief=options.all)
    finally:
        sweep()  # those of the processes that it started
    print(json.dumps(tally.to_dict(), indent=1) if options.json else tally)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
