"""Episodes: several simulated processes on one simulated disk, faults, and a judgement at the end.

Clock, randomness, waiting and the machine enter through the store's `Environment`; files, locks
and turns through tools/crash/system.py. All of it follows from the scenario, so an episode that has
gone wrong once goes wrong again.

A killed process is begun anew and goes on with its script. After a power cut, the disk holds what
the model of the medium says it may, and all begin anew. Views are in memory (SQLite writes past the
doors); chunk index, leaves and all that is true are on the disk.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointError, CheckpointManager
from ckptlog.errors import (
    CollectionBusyError,
    ConflictError,
    OutcomeUnknownError,
)
from ckptlog.repository.keeper import Keeper
from ckptlog.storage.environment import Environment
from tools.crash.bug import planted, replaced
from tools.crash.diary import ABSENT, DELETED, data_of
from tools.crash.judge import judge, values_of
from tools.crash.medium import Image, Medium, lay_out
from tools.crash.scenario import Scenario
from tools.crash.scheduler import Process, Scheduler
from tools.crash.system import Stopped, System
from tools.crash.truth import SHARED, Truth, Wrong
from tools.crash.workload import make_small

_EPOCH_US = 1_700_000_000_000_000
# Most values are stored in one size: parts of commits that were torn can fit into others' places.
_SIZES, _PACK_SIZE = ((0,), (0,), (0, 4_500)), 60_000
_IMAGES_AT_THE_END = 3


class SimulatedEnvironment(Environment):
    """Clock, randomness and machine of one simulated process."""

    def __init__(self, scheduler: Scheduler, process: Process | None, boot: int) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._process = process
        self._boot = boot

    def now_us(self) -> int:
        """Return simulated time."""
        return _EPOCH_US + int(self._scheduler.now_s * 1e6)

    def monotonic_s(self) -> float:
        """Return simulated time."""
        return self._scheduler.now_s

    def sleep(self, duration_s: float) -> None:
        """Let the others have their turns."""
        if self._process is not None:
            self._scheduler.sleep(self._process, duration_s)

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that follow from the seed."""
        return self._scheduler.chance.randbytes(count)

    def boot(self) -> bytes:
        """Return 16 bytes that differ after a power cut."""
        return self._boot.to_bytes(16, "big")

    def process(self) -> str:
        """Return nothing: it would be another at each run."""
        return ""

    def mounts(self) -> str:
        """Return nothing: the simulated disk is of no known kind."""
        return ""

    def actor(self) -> str:
        """Return the same for everyone."""
        return "simulation@host"


@dataclass
class Result:
    """What became of an episode.

    Attributes:
        struck: Faults that came, by kind and call.
        turns: Calls that were done.
        stops: Kills and power cuts, the judgements at the end included.
        wrong: What is wrong; "" where nothing is.
    """

    scenario: Scenario
    struck: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    stops: int = 0
    wrong: str = ""


class Slot:
    """A script, the process that works on it now, and what it has to remember in between."""

    def __init__(self, number: int, script: tuple[str, ...], chance: random.Random) -> None:
        self.number = number
        self._chance, self._sizes = chance, chance.choice(_SIZES)
        self.rest = list(script)
        self.serial = 0
        self.living: dict[str, str] = {}
        # What was under way when it was stopped: asked for again with the same id.
        self.doubt: tuple[dict[str, str], Callable[[CheckpointManager], Any]] | None = None

    def value(self, state: str, size: int | None = None) -> str:
        """Return a value that no checkpoint has had."""
        self.serial += 1
        size = self._chance.choice(self._sizes) if size is None else size
        return f"{self.number}{self.serial:05d}/{size}/{state}"


@cache
def _template() -> tuple[tuple[str, bytes], ...]:
    """Return the store that each episode begins with: one shared checkpoint."""
    with tempfile.TemporaryDirectory(prefix="ckptlog-sim-") as folder:
        root = Path(folder) / "store"
        environment = SimulatedEnvironment(_NoScheduler(), None, 0)
        with ckptlog.open(root, create=True, environment=environment) as store:
            CheckpointManager(store=store).create_checkpoint(
                "task", "shared", 1, data=data_of(_counted(0)), checkpoint_id=SHARED
            )
        found = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and "sqlite" not in path.name
        }
        folders = [f"{path.relative_to(root)}/" for path in root.rglob("*") if path.is_dir()]
        return tuple({**dict.fromkeys(folders, b""), **found}.items())


class _NoScheduler(Scheduler):
    """A clock that stands, and a seed: for what is made before the first episode."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.chance = random.Random("template")  # noqa: S311 - the same each time


def _counted(number: int) -> str:
    return f"{number}/0/{'active' if number else 'created'}"


class Episode:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self._folder = folder
        self._chance = random.Random(f"images {scenario.seed}")  # noqa: S311
        self._boot = 0
        self.truth = Truth()
        self.result = Result(scenario)
        self._slots = [
            Slot(number, script, random.Random(f"values {scenario.seed} {number}"))  # noqa: S311
            for number, script in enumerate(scenario.scripts)
        ]
        self._system = System(self._laid_out(dict(_template())))
        self._scheduler = Scheduler(
            self._system,
            random.Random(f"turns {scenario.seed}"),  # noqa: S311
            list(scenario.faults),
        )

    @property
    def root(self) -> Path:
        """The store, as it stands since the last power cut."""
        return self._system.medium.root

    def _laid_out(self, image: Image) -> Medium:
        # A folder of its own: what the dead have mapped or opened is not changed under them.
        root = self._folder / f"boot-{self._boot}"
        root.mkdir()
        lay_out(image, root)
        return Medium(root)

    def play(self) -> Result:
        """Run to the end and judge; `wrong` says what was wrong."""
        try:
            with self._system.doors():
                self._play()
            self._judge(self.root, "the end")
            self._judge_images()
        except (Wrong, AssertionError) as error:
            self.result.wrong = str(error)
        finally:
            self._system.tidy()
            self.result.struck = self._scheduler.struck
            self.result.turns = self._scheduler.turns
        return self.result

    def _play(self) -> None:
        working = {self._begin(slot): slot for slot in self._slots}
        while working:
            over = self._scheduler.run()
            for process in over:
                slot = working.pop(process)
                self._settle(process)
                self.result.stops += process.is_dead and not self._scheduler.is_dark
                if slot.rest and not self._scheduler.is_dark:
                    working[self._begin(slot)] = slot
            if self._scheduler.is_dark:
                self._cut_power()
                working = {self._begin(slot): slot for slot in self._slots if slot.rest}

    def _begin(self, slot: Slot) -> Process:
        return self._scheduler.begin(f"slot-{slot.number}", lambda own: self._work(own, slot))

    def _settle(self, process: Process) -> None:
        error = process.error
        if isinstance(error, Wrong):
            raise error
        if error is not None and not isinstance(error, CheckpointError):
            raise Wrong(f"{process.name} ended by {type(error).__name__}: {error}") from error

    def _cut_power(self) -> None:
        self.result.stops += 1
        self._scheduler.is_dark = False
        self._system.reconcile()
        image = self._image()
        self._boot += 1
        self._system.medium = self._laid_out(image)

    def _image(self) -> Image:
        """Draw what a power cut leaves now; pages in any order as often as all else together."""
        medium = self._system.medium
        if self._chance.random() < 0.5:
            return medium.scattered(self._chance)
        states = [image for kind, image in medium.states() if kind != "kill"]
        return self._chance.choice(states or [dict(next(medium.states())[1])])

    # --- what a process does --------------------------------------------------------------------

    def _work(self, process: Process, slot: Slot) -> None:
        store = ckptlog.open(
            self.root, environment=SimulatedEnvironment(self._scheduler, process, self._boot)
        )
        manager = CheckpointManager(store=store)
        self._retry(manager, slot)
        while slot.rest:
            act = slot.rest.pop(0)
            self.result.acts[act] += 1
            if act == "reopen":
                break
            getattr(self, f"_{act}")(manager, slot)
        store.close()

    @contextmanager
    def _asked(
        self, slot: Slot, wanted: dict[str, str], again: Callable[[CheckpointManager], Any]
    ) -> Iterator[None]:
        self.truth.begin(wanted)
        slot.doubt = (wanted, again)
        try:
            yield
        except OutcomeUnknownError:
            self._forget(slot, wanted)
        except CheckpointError:
            self.truth.refused(wanted)
            slot.doubt = None
        else:
            self._done(slot, wanted)

    def _done(self, slot: Slot, wanted: dict[str, str]) -> None:
        self.truth.done(wanted)
        slot.doubt = None
        self._forget(slot, wanted)
        slot.living.update({name: value for name, value in wanted.items() if value != DELETED})

    def _forget(self, slot: Slot, wanted: dict[str, str]) -> None:
        """What is in doubt is not touched any more, so that a later retry is still meant."""
        for name in wanted:
            slot.living.pop(name, None)

    def _retry(self, manager: CheckpointManager, slot: Slot) -> None:
        """Ask for what was in doubt once more, with the same id: it is done once."""
        if slot.doubt is None:
            return
        wanted, again = slot.doubt
        try:
            again(manager)
        except OutcomeUnknownError:
            return
        except CheckpointError as error:
            # A retry is not a conflict; but the store may refuse it as it may refuse anything.
            if error.code.startswith(("storage.", "log.")):
                slot.doubt = None
                return
            raise Wrong(f"a retry of {wanted} was refused: {error.code}: {error}") from error
        self._done(slot, wanted)

    def _ask(
        self,
        manager: CheckpointManager,
        slot: Slot,
        wanted: dict[str, str],
        method: str,
        *args: Any,
        **options: Any,
    ) -> None:
        # As long as that of a step of a batch.
        command = f"id-{slot.number}-{slot.serial:05d}.0"

        def act(manager: CheckpointManager) -> None:
            getattr(manager, method)(*args, **options, command_id=command)

        with self._asked(slot, wanted, act):
            act(manager)

    def _create(self, manager: CheckpointManager, slot: Slot, size: int | None = None) -> None:
        value = slot.value("created", size)
        name = f"c{value.split('/')[0]}"
        self._ask(
            manager, slot, {name: value}, "create_checkpoint", f"task-{slot.number}", "title", 1,
            data=data_of(value), checkpoint_id=name,
        )  # fmt: skip

    def _pack(self, manager: CheckpointManager, slot: Slot) -> None:
        self._create(manager, slot, _PACK_SIZE)

    def _batch(self, manager: CheckpointManager, slot: Slot) -> None:
        values = [slot.value("created") for _ in range(3)]
        wanted = {f"c{value.split('/')[0]}": value for value in values}
        command = f"id-{slot.number}-{slot.serial:05d}"

        def act(manager: CheckpointManager) -> None:
            with manager.batch(command_id=command) as work:
                for name, value in wanted.items():
                    work.create_checkpoint(
                        f"task-{slot.number}", "title", 1, data=data_of(value), checkpoint_id=name
                    )

        with self._asked(slot, wanted, act):
            act(manager)

    def _oldest(self, slot: Slot, *states: str) -> str | None:
        return next((name for name, value in slot.living.items() if value.endswith(states)), None)

    def _update(self, manager: CheckpointManager, slot: Slot) -> None:
        name = self._oldest(slot, "created", "active")
        if name is not None:
            value = slot.value("active")
            self._ask(manager, slot, {name: value}, "update_checkpoint", name, data=data_of(value))

    def _complete(self, manager: CheckpointManager, slot: Slot) -> None:
        name = self._oldest(slot, "created", "active")
        if name is not None:
            value = slot.value("completed")
            self._ask(
                manager, slot, {name: value}, "complete_checkpoint", name, final_data=data_of(value)
            )

    def _delete(self, manager: CheckpointManager, slot: Slot) -> None:
        name = self._oldest(slot, "created", "active", "completed")
        if name is not None:
            slot.serial += 1
            self._ask(manager, slot, {name: DELETED}, "delete_checkpoint", name)

    def _count(self, manager: CheckpointManager, slot: Slot) -> None:
        """Change what all change, if nobody else has since it was read."""
        del slot
        found = _unless_failed(lambda: manager.get_checkpoint(SHARED))
        if found is None:
            return
        number = int(found.data["value"].split("/")[0]) + 1
        self.truth.tried.add(number)
        try:
            manager.update_checkpoint(
                SHARED, data=data_of(_counted(number)), expected=found.position
            )
        except (ConflictError, CheckpointError):
            return
        self.truth.count(number)

    def _read(self, manager: CheckpointManager, slot: Slot) -> None:
        """Read some checkpoint, of this slot or another."""
        del slot
        names = sorted(self.truth.possible)
        if not names:
            return
        name = self._scheduler.chance.choice(names)
        before = self.truth.look(name)
        found = _unless_failed(lambda: values_of(manager, [name]))
        if found is not None:
            self.truth.saw(name, found[name], before)

    def _list(self, manager: CheckpointManager, slot: Slot) -> None:
        del slot
        before = {name: self.truth.look(name) for name in self.truth.possible}
        listed = _unless_failed(lambda: [one.checkpoint_id for one in manager.iterate()])
        for name, (values, count) in before.items() if listed is not None else ():
            is_certain = values and len(self.truth.begun[name]) == count
            if is_certain and not {ABSENT, DELETED} & set(values) and name not in (listed or ()):
                raise Wrong(f"{name} is not listed; {values} was told")

    def _follow(self, manager: CheckpointManager, slot: Slot) -> None:
        del slot
        entries = _unless_failed(lambda: list(manager.store.events()))
        if entries is not None:
            self._saw_log(entries)

    def _saw_log(self, entries: list[Any]) -> None:
        if [entry.position for entry in entries] != list(range(len(entries))):
            raise Wrong("positions have gaps")
        self.truth.saw_events([entry.event.id for entry in entries])

    def _rebuild(self, manager: CheckpointManager, slot: Slot) -> None:
        del slot
        _unless_failed(manager.store.rebuild_views)

    def _compact(self, manager: CheckpointManager, slot: Slot) -> None:
        del slot

        def compact() -> None:
            with suppress(CollectionBusyError):  # another one is at work
                manager.compact_checkpoint_storage()

        _unless_failed(compact)

    # --- judgement ------------------------------------------------------------------------------

    def _judge_images(self) -> None:
        """Whatever a power cut at the very end leaves is right too."""
        self._system.reconcile()
        for _ in range(_IMAGES_AT_THE_END):
            image = self._image()
            self._boot += 1
            self.result.stops += 1
            medium = self._laid_out(image)
            self._judge(medium.root, "power cut at the end")

    def _judge(self, root: Path, what: str) -> None:
        """Compare a store with what was told and shown; a copy, for a judge writes."""
        copy = self._folder / "judged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy)
        try:
            with ckptlog.open(copy) as store:
                self._saw_log(list(store.events()))
                manager = CheckpointManager(store=store)
                found = manager.get_checkpoint(SHARED)
                value = found.data["value"] if found is not None else ABSENT
                changes = sum(entry.event.subject.checkpoint == SHARED for entry in store.events())
            self.truth.check_count(int(value.split("/")[0]), changes - 1)
            faults = judge(copy, self.truth.diary(value))
        except (CheckpointError, ValueError) as error:
            raise Wrong(f"{what}: {type(error).__name__}: {error}") from error
        if faults:
            raise Wrong(f"{what}: {faults}")


def _unless_failed(act: Callable[[], Any]) -> Any:
    """Return an answer; None where a fault of the disk kept it away."""
    try:
        return act()
    except CheckpointError as error:
        if error.code.startswith("storage."):
            return None
        raise Wrong(f"{error.code}: {error}") from error


def simulate(scenario: Scenario, *, bug: str = "") -> Result:
    """Run an episode."""
    make_small()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - made by mkdtemp
    folder = Path(tempfile.mkdtemp(prefix="ckptlog-sim-", dir=memory))
    # SQLite knows no doors.
    views = {(Keeper, "_new_view"): vars(Keeper)["_view_in_memory"]}
    try:
        with replaced(views), planted(bug):
            return Episode(scenario, folder).play()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["Episode", "Result", "Stopped", "simulate"]
