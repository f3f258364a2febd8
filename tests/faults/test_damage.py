"""Damage to files that nobody writes to: every flip and every cut is told, or changes nothing.

The one case that cannot be told (specs/log.md): damage to the last write of a log whose published
end is older, as a power cut leaves it, looks like a torn tail, which is kept aside and cut.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from ckptlog import CheckpointError, CheckpointManager
from ckptlog.errors import CheckpointCorruptionError, LogCorruptionError
from ckptlog.formats import end, frame, segment
from ckptlog.log.log import Log
from tests.faults.fault_disk import QuietDisk
from tests.faults.medium import Image, lay_out
from tests.log.sample import STORE_ID, append, create_log, fill, group, open_log, published_ids

Damage = Callable[[bytes], bytes]


def flips(size: int, *, is_thorough: bool, most: int) -> Iterator[tuple[int, int]]:
    """Yield (byte, mask): each bit of each byte, or one bit of each of at most so many bytes."""
    chance = random.Random(size)
    if is_thorough:
        yield from ((at, 1 << bit) for at in range(size) for bit in range(8))
    else:
        places = range(size) if size <= most else sorted(chance.sample(range(size), most))
        yield from ((at, 1 << chance.randrange(8)) for at in places)


def flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def image_of(root: Path) -> Image:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


# --- the log ---------------------------------------------------------------------------------

OLDER = "log/00000000000000000000.0.seg"
NEWEST = "log/00000000000000000002.0.seg"
END = "log/end"
IDS = [*"abcde"]


@pytest.fixture(scope="module")
def closed(tmp_path_factory) -> Image:
    """A small closed log: a and b; in the second segment c, then d with e."""
    root = tmp_path_factory.mktemp("closed") / "store"
    log = create_log(root, disk=QuietDisk(), segment_bytes=700)
    fill(log, "abc", record_bytes=60)
    append(log, group("d", "e"))
    log.close()
    image = image_of(root)
    assert set(image) == {OLDER, NEWEST, END, "lock"}
    return image


@pytest.fixture(scope="module")
def unclean(closed, tmp_path_factory) -> Image:
    """The same after a power cut: the published end is the one before the second segment."""
    root = tmp_path_factory.mktemp("unclean") / "store"
    lay_out(closed, root)
    log = open_log(root, disk=QuietDisk(), read_only=True)
    _, last, *_ = log.reader.commits()
    log.close()
    old = end.decode(closed[END], STORE_ID)
    place = {"position": 2, "first": 0, "offset": last.offset_end, "leaf": last.leaf}
    return {**closed, END: end.encode(msgspec.structs.replace(old, **place))}


class Trial:
    """A damaged copy of a log, read by a reader, then opened by a writer."""

    def __init__(self, folder: Path, image: Image) -> None:
        self.root = folder / "trial"
        self.image = image
        lay_out(image, self.root)

    def read(self, **options: bool) -> list[str]:
        log = open_log(self.root, disk=QuietDisk(), read_only=True)
        try:
            return published_ids(log, **options)
        finally:
            log.close()

    def write(self) -> tuple[Log, list[str]]:
        """Take the lock, recover, append one event; return what can be read then."""
        log = open_log(self.root, disk=QuietDisk(), segment_bytes=700)
        try:
            append(log, group("later"))
            return log, published_ids(log)
        finally:
            log.close()

    def is_uncut(self) -> bool:
        """Whether every byte that was there is there still, in segments or aside."""
        return all(
            (self.root / name).exists() and (self.root / name).read_bytes()[: len(data)] == data
            for name, data in self.image.items()
            if name.endswith(".seg")
        )


@pytest.fixture
def is_thorough(request) -> bool:
    return bool(request.config.getoption("--thorough"))


def among_chunks(name: str, data: bytes) -> set[int]:
    """Return the offsets of a segment's bytes that belong to chunks."""
    first, generation = segment.parse_name(name.partition("/")[2])
    frames = frame.walk(segment.seed(STORE_ID, first, generation), 0, data)
    spans = [range(begin, end) for kind, _, begin, end in frames if kind == frame.CHUNK]
    assert spans
    return {at for span in spans for at in span}


@pytest.mark.parametrize("name", [OLDER, NEWEST])
def test_every_flip_in_a_segment_is_told_to_readers(ram, closed, name, is_thorough):
    """Who wants the events steps over a damaged chunk, and over nothing else."""
    chunks = among_chunks(name, closed[name])
    for at, mask in flips(len(closed[name]), is_thorough=is_thorough, most=10_000):
        trial = Trial(ram, {**closed, name: flipped(closed[name], at, mask)})
        with pytest.raises(CheckpointCorruptionError):
            trial.read(steps_over=False)
        if at in chunks:
            assert trial.read() == IDS
            continue
        with pytest.raises(CheckpointCorruptionError):
            trial.read()


@pytest.mark.parametrize("name", [OLDER, NEWEST])
def test_a_writer_never_cuts_what_was_published(ram, closed, name, is_thorough):
    """It need not read it all: but it changes nothing of it, and what it shows is not wrong."""
    chunks = among_chunks(name, closed[name])
    for at, mask in flips(len(closed[name]), is_thorough=is_thorough, most=200):
        trial = Trial(ram, {**closed, name: flipped(closed[name], at, mask)})
        if at in chunks:
            assert trial.write()[1] == [*IDS, "later"]
        else:
            with pytest.raises(CheckpointCorruptionError):
                trial.write()
        assert trial.is_uncut()


def test_every_flip_in_the_end_is_told_to_readers(ram, closed):
    """A writer finds one again that a power cut can have torn: it has the words that all share."""
    for at in range(len(closed[END])):
        for bit in range(8):
            trial = Trial(ram, {**closed, END: flipped(closed[END], at, 1 << bit)})
            with pytest.raises(LogCorruptionError, match="published end"):
                trial.read()
            if at >= len(end.MAGIC + STORE_ID):
                assert trial.write()[1] == [*IDS, "later"]
                continue
            with pytest.raises(LogCorruptionError, match="published end"):
                trial.write()
            assert image_of(trial.root) == trial.image


def test_every_flip_with_an_older_end_is_told_unless_it_is_in_the_last_write(
    ram, unclean, is_thorough
):
    closed = unclean
    last = closed[NEWEST].rindex(b"CK", 0, closed[NEWEST].index(b'"cp-d"'))
    for at, mask in flips(len(closed[NEWEST]), is_thorough=is_thorough, most=10_000):
        image = {**closed, NEWEST: flipped(closed[NEWEST], at, mask)}
        trial = Trial(ram, image)
        try:
            _, seen = trial.write()
        except CheckpointCorruptionError:
            assert at < last
            assert trial.is_uncut()
        else:
            assert at >= last
            assert seen == [*"abc", "later"]
            (aside,) = (trial.root / "log").glob("torn-*")
            assert aside.read_bytes() == image[NEWEST][last:]


@pytest.mark.parametrize("name", [OLDER, NEWEST])
def test_every_cut_of_a_segment_is_told(ram, closed, name):
    for length in range(len(closed[name])):
        trial = Trial(ram, {**closed, name: closed[name][:length]})
        with pytest.raises(CheckpointCorruptionError):
            trial.read()
        with pytest.raises(CheckpointCorruptionError):
            trial.write()


def test_every_cut_with_an_older_end_leaves_whole_commits(ram, unclean):
    """Nothing can tell a cut at a commit's end from a log that ended there."""
    data = unclean[NEWEST]
    counts = set()
    for length in range(len(data)):
        _, seen = Trial(ram, {**unclean, NEWEST: data[:length]}).write()
        assert seen in ([*"ab", "later"], [*"abc", "later"])
        counts.add(len(seen))
    assert counts == {3, 4}


def test_every_cut_of_the_end_is_told(ram, closed):
    for length in range(len(closed[END])):
        trial = Trial(ram, {**closed, END: closed[END][:length]})
        for act in (trial.read, trial.write):
            with pytest.raises(LogCorruptionError, match="published end"):
                act()
        assert image_of(trial.root) == trial.image


@pytest.mark.parametrize("size", [1, 300])
def test_bytes_after_the_end_of_a_segment_are_not_shown(ram, closed, size):
    chance = random.Random(size)
    for name in (OLDER, NEWEST):
        trial = Trial(ram, {**closed, name: closed[name] + chance.randbytes(size)})
        assert trial.read() == IDS
        assert trial.write()[1] == [*IDS, "later"]
        assert bool(list((trial.root / "log").glob("torn-*"))) == (name == NEWEST)


def test_the_lock_holds_nothing_that_could_be_damaged(ram, closed):
    for content in (b"x", random.Random(1).randbytes(5000)):
        trial = Trial(ram, {**closed, "lock": content})
        assert trial.read() == IDS
        assert trial.write()[1] == [*IDS, "later"]


# --- the store -------------------------------------------------------------------------------

LARGE = {"rows": [random.Random(n).randbytes(200).hex() for n in range(6500)]}
DISPOSABLE = ("views/", "reserve", "lock")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> tuple[Image, dict[str, object]]:
    """A closed store with a view, a chunk run and a pack; and what its checkpoints hold."""
    root = tmp_path_factory.mktemp("closed") / "store"
    facts: dict[str, object] = {}
    with CheckpointManager(root) as manager:
        for step in range(1, 8):
            data = {"step": step, "text": f"step {step} " * 50, "part": LARGE["rows"][:step]}
            name = manager.create_checkpoint("task", f"title {step}", step, data=data)
            if step % 2:
                manager.complete_checkpoint(name, final_data={"done": step})
            if step == 6:
                manager.delete_checkpoint(name)
        name = manager.create_checkpoint("large", "large", 1, data=LARGE)
        list(manager.iterate())
    with CheckpointManager(root) as manager:
        facts = facts_of(manager)
    assert not [answer for answer in facts.values() if isinstance(answer, CheckpointError)]
    image = image_of(root)
    for kind in ("store.json", "log/", "packs/", "views/current.sqlite", "views/chunks/"):
        assert [name for name in image if name.startswith(kind)], kind
    return image, facts


def facts_of(manager: CheckpointManager) -> dict[str, object]:
    """Return all that a user can learn, by the question; an error of ours is an answer too."""
    answers: dict[str, object] = {}

    def ask(question: str, answer: Callable[[], object]) -> object:
        try:
            answers[question] = found = answer()
        except CheckpointError as error:
            answers[question] = found = error
        return found

    names = ask("list", lambda: [one.checkpoint_id for one in manager.iterate()])
    ask("latest", lambda: repr(manager.get_latest_checkpoint("task")))
    ask("events", lambda: [entry.event.id for entry in manager.store.events()])
    for name in names if isinstance(names, list) else ():
        ask(name, lambda name=name: repr(manager.get_checkpoint(name)))  # type: ignore[misc]
        ask(f"history of {name}", lambda name=name: repr(list(manager.history(name))))  # type: ignore[misc]
    return answers


def check_store(
    folder: Path, image: Image, facts: dict[str, object], *, must_be_right: bool
) -> None:
    """Open a damaged store: each answer is right or an error of ours."""
    root = folder / "trial"
    shutil.rmtree(root, ignore_errors=True)
    lay_out(image, root)
    try:
        with CheckpointManager(root) as manager:
            answers = facts_of(manager)
    except CheckpointError:
        assert not must_be_right
        return
    for question, answer in answers.items():
        is_right = answer == facts[question]
        is_error = isinstance(answer, CheckpointError) and not must_be_right
        assert is_right or is_error, f"{question}: {answer}"


KINDS = ["store.json", "log/end", "log/0", "packs/", "views/current.sqlite", "views/chunks/",
         "lock", "reserve"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_flip_in_a_store_is_told_or_changes_nothing(ram, store, kind, is_thorough):
    image, facts = store
    for name in [name for name in image if name.startswith(kind)]:
        must_be_right = name.startswith(DISPOSABLE)
        most = 2000 if is_thorough else 12
        # Nobody reads what is in these.
        most = 2 if kind in ("lock", "reserve") else most
        for at, mask in flips(len(image[name]), is_thorough=False, most=most):
            damaged = {**image, name: flipped(image[name], at, mask)}
            try:
                check_store(ram, damaged, facts, must_be_right=must_be_right)
            except BaseException as error:
                error.add_note(f"{name}, byte {at}, mask {mask}")
                raise


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_in_a_store_is_told_or_changes_nothing(ram, store, kind, is_thorough):
    image, facts = store
    chance = random.Random(kind)
    for name in [name for name in image if name.startswith(kind)]:
        size = len(image[name])
        lengths = {0, 1, size // 2, size - 1}
        lengths |= {chance.randrange(size) for _ in range(200 * is_thorough) if size}
        for length in sorted(lengths & set(range(size))):
            damaged = {**image, name: image[name][:length]}
            check_store(ram, damaged, facts, must_be_right=name.startswith(DISPOSABLE))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_told_or_changes_nothing(ram, store, kind):
    image, facts = store
    for name in [name for name in image if name.startswith(kind)]:
        damaged = {other: data for other, data in image.items() if other != name}
        check_store(ram, damaged, facts, must_be_right=name.startswith(DISPOSABLE))


def test_verification_finds_every_kind_of_damage_to_what_is_true(ram, store):
    image, _ = store
    for name in [name for name in image if name.startswith(("log/0", "packs/"))]:
        for at in (20, len(image[name]) // 2, len(image[name]) - 3):
            root = ram / "trial"
            shutil.rmtree(root, ignore_errors=True)
            lay_out({**image, name: flipped(image[name], at, 4)}, root)
            try:
                with CheckpointManager(root) as manager:
                    report = manager.store.verify()
            except CheckpointCorruptionError:
                continue
            assert not report.ok, (name, at)
            assert any(os.path.basename(name) in str(one) for one in report.problems)
