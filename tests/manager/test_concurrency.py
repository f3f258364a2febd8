"""Many threads, two processes, one store: nothing lost, nothing illegal, positions dense."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

import ckptlog
from ckptlog import (
    CheckpointConfiguration,
    CheckpointError,
    CheckpointManager,
    CheckpointState,
    StoreClosedError,
)
from ckptlog.model.state import is_legal
from tests.manager.crowd import THREADS, TURNS


def run_crowd(path, names, processes):
    """Let processes of eight threads each loose on a store at once; return what each was told."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.manager.crowd", str(path), who],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in processes
    ]
    for process in crowd:
        process.stdin.write(json.dumps(names) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        process.stdin.write("go\n")
        process.stdin.flush()
    seen = []
    for process in crowd:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        seen += json.loads(out)
    return seen


def check_histories(store):
    """Positions are dense, each prefix of each history is legal; return the events."""
    states: dict[str, str] = {}
    over = set()
    events = []
    for position, entry in enumerate(store.events()):
        assert entry.position == position
        event = entry.event
        name = event.subject.checkpoint
        assert name not in over
        if event.type == "checkpoint.deleted":
            over.add(name)
        else:
            assert is_legal(states.get(name), event.state), (name, position)
        states[name] = event.state
        events.append(event)
    assert len(events) == store.position
    assert len({event.id for event in events}) == len(events)
    return events


def test_two_processes_of_eight_threads(tmp_path):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        names = {
            "shared": [manager.create_checkpoint("shared", "T", 1) for _ in range(2)],
            "contested": [manager.create_checkpoint("c", "T", 1) for _ in range(TURNS)],
            "agreed": [manager.create_checkpoint("a", "T", 1) for _ in range(TURNS)],
            "doomed": [manager.create_checkpoint("d", "T", 1) for _ in range(TURNS)],
        }
        # One manager is open all the time, and is asked only at the end.
        seen = run_crowd(path, names, "AB")
        members = [f"{who}{number}" for who in "AB" for number in range(THREADS)]

        created = {}
        for member, told in zip(members, seen, strict=True):
            for name, turn in told["created"].items():
                assert name not in created
                created[name] = {"by": member, "turn": turn}
        found = manager.get_task_checkpoints("many")
        assert {one.checkpoint_id: one.data for one in found} == created

        everybody = {f"{name}-{turn}": turn for name in members for turn in range(TURNS)}
        last = dict.fromkeys(members, TURNS - 1)
        for name in names["shared"]:
            shared = manager.get_checkpoint(name)
            assert shared.data == everybody | last
            assert shared.metadata == last

        events = check_histories(manager.store)
        by_name = Counter((event.subject.checkpoint, event.type) for event in events)
        winners = Counter(itertools.chain.from_iterable(told["won"] for told in seen))
        assert winners == Counter(names["contested"])
        codes = Counter(itertools.chain.from_iterable(told["codes"] for told in seen))
        assert codes == {"update.illegal_transition": TURNS * (len(members) - 1)}
        for turn, name in enumerate(names["contested"]):
            kind = "completed" if turn % 2 else "failed"
            assert by_name[name, f"checkpoint.{kind}"] == 1
        for name in names["agreed"]:
            assert by_name[name, "checkpoint.completed"] == 1
            assert manager.get_checkpoint(name).data == {"result": "same"}

        doomed = Counter(map(tuple, itertools.chain.from_iterable(told["doomed"] for told in seen)))
        for name in names["doomed"]:
            assert manager.get_checkpoint(name) is None
            assert doomed["deleted", name] == by_name[name, "checkpoint.deleted"] == 1
            assert doomed["updated", name] == by_name[name, "checkpoint.updated"]
            told = {answer for answer, other in doomed if other == name}
            assert told <= {"updated", "deleted", "was deleted", "checkpoint.not_found"}
        assert manager.validate_checkpoint_integrity() == []


def test_a_writer_beside_readers(tmp_path):
    """Readers of another store object see whole states only, and never an older one again."""
    path = tmp_path / "s"
    turns, readers = 40, 3
    with CheckpointManager(path) as writer, CheckpointManager(path) as other:
        name = writer.create_checkpoint("t", "T", 1, data={"a": 0, "b": 0})
        faults: list = []
        done = threading.Event()

        def read():
            newest = -1
            while not done.is_set():
                found = other.get_checkpoint(name)
                listed = other.get_task_checkpoints("t")
                if found.data["a"] != found.data["b"] or found.position < newest:
                    faults.append(found)
                if listed[0].position < found.position:
                    faults.append((found, listed[0]))
                if [one.data["a"] for one in listed[1:]] != list(range(1, len(listed))):
                    faults.append(listed)
                newest = found.position

        with ThreadPoolExecutor(readers) as pool:
            reading = [pool.submit(read) for _ in range(readers)]
            for turn in range(1, turns):
                with writer.batch() as batch:
                    batch.update_checkpoint(name, data={"a": turn})
                    batch.update_checkpoint(name, data={"b": turn})
                    batch.create_checkpoint("t", "T", 1, data={"a": turn})
                assert other.get_checkpoint(name).data == {"a": turn, "b": turn}
                assert len(other.get_task_checkpoints("t")) == turn + 1
            done.set()
            for one in reading:
                one.result()
        assert faults == []


def test_one_checkpoint_by_many_threads(manager, store):
    """Each update merges into what the one before left, also where each has to be repeated."""
    name = manager.create_checkpoint("t", "T", 1)

    def update(number):
        manager.update_checkpoint(name, data={f"k{number}": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(update, range(80)))
    assert manager.get_checkpoint(name).data == {f"k{number}": number for number in range(80)}
    assert store.position == 81


def test_the_same_command_id_from_many_threads(manager, store):
    """Eight tries of one command: it is carried out once, and all get the same answer."""

    def create(_):
        return manager.create_checkpoint("t", "T", 1, data={"a": 1}, command_id="id")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(8)))) == 1
    assert store.position == 1


def test_a_contest_of_eight_threads(manager, store):
    """One outcome of many wins, in every interleaving."""
    for turn in range(5):
        name = manager.create_checkpoint("t", "T", 1)
        barrier = threading.Barrier(8)

        def end(number, name=name, barrier=barrier):
            barrier.wait()
            try:
                if number % 2:
                    return manager.complete_checkpoint(name, {"winner": number})
                return manager.fail_checkpoint(name, {"winner": number})
            except CheckpointError as error:
                return error.code

        with ThreadPoolExecutor(8) as pool:
            answers = Counter(pool.map(end, range(8)))
        assert answers == {True: 1, "update.illegal_transition": 7}
        assert store.position == 2 * (turn + 1)


def test_deletes_of_a_task_beside_creates_in_it(manager, store):
    """Whatever the order: what is alive is what was created after the last deletion."""

    def work(number):
        if number % 4 == 3:
            manager.delete_task("t")
            return None
        return manager.create_checkpoint("t", "T", 1, data={"n": number})

    with ThreadPoolExecutor(8) as pool:
        names = {name for name in pool.map(work, range(48)) if name}
    alive: list[str] = []
    for entry in store.events():
        if entry.event.type == "task.deleted":
            alive.clear()
        else:
            alive.append(entry.event.subject.checkpoint)
    assert [one.checkpoint_id for one in manager.get_task_checkpoints("t")] == alive
    for name in names.difference(alive):
        assert manager.get_checkpoint(name) is None
    latest = manager.get_latest_checkpoint("t")
    assert (latest.checkpoint_id if latest else None) == (alive[-1] if alive else None)
    assert manager.validate_checkpoint_integrity() == []


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_closing_in_the_middle(tmp_path, durability, turn):
    """What was acknowledged is there; everything else says that the store was closed."""
    path = tmp_path / "s"
    config = CheckpointConfiguration(durability=durability, cleanup_interval_hours=0)
    manager = CheckpointManager(path, config=config)
    acknowledged, strange = [], []  # type: list, list
    started = threading.Barrier(7)

    def write(number):
        started.wait()
        try:
            for step in itertools.count(1):
                name = manager.create_checkpoint(f"t{number}", "T", step, data={"n": step})
                acknowledged.append((name, step))
                if manager.get_checkpoint(name).data != {"n": step}:
                    strange.append(name)
                manager.get_task_checkpoints(f"t{number}")
        except StoreClosedError:
            pass
        except BaseException as error:
            strange.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    started.wait()
    while len(acknowledged) < 10 + 20 * turn:
        threading.Event().wait(0.001)
    manager.close()
    for thread in threads:
        thread.join()
    assert strange == []
    with CheckpointManager(path) as again:
        for name, step in acknowledged:
            assert again.get_checkpoint(name).data == {"n": step}
        assert again.validate_checkpoint_integrity() == []


def test_two_processes_make_a_store_at_once(tmp_path):
    """One of them makes it, both use it."""
    code = (
        "import sys; from ckptlog import CheckpointManager\n"
        "sys.stdin.readline()\n"
        "with CheckpointManager(sys.argv[1]) as m: print(m.create_checkpoint('t', 'T', 1))\n"
    )
    for turn in range(2):
        path = tmp_path / str(turn)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        names = {process.communicate(timeout=60)[0].strip() for process in processes}
        assert [process.returncode for process in processes] == [0, 0, 0]
        with ckptlog.open(path) as store:
            assert {entry.event.subject.checkpoint for entry in store.events()} == names
            assert len(names) == 3
            assert store.verify().ok


def test_the_state_machine_holds_for_every_pair_of_commands(manager):
    """Two threads, each with one command, from each state: both orders are legal histories."""
    commands = {
        "update": lambda name: manager.update_checkpoint(name, data={"u": 1}),
        "complete": lambda name: manager.complete_checkpoint(name, {"c": 1}),
        "fail": lambda name: manager.fail_checkpoint(name, {"f": 1}),
        "restore": manager.restore_checkpoint,
        "delete": manager.delete_checkpoint,
    }

    codes = set()

    def attempt(command, name, barrier):
        barrier.wait()
        try:
            command(name)
        except CheckpointError as error:
            codes.add(error.code)

    with ThreadPoolExecutor(2) as pool:
        for first, second in itertools.combinations_with_replacement(commands.values(), 2):
            for state in CheckpointState:
                name = manager.create_checkpoint("t", "T", 1)
                if state is not CheckpointState.CREATED:
                    manager.update_checkpoint(name, state=state)
                barrier = threading.Barrier(2)
                tasks = [pool.submit(attempt, one, name, barrier) for one in (first, second)]
                for task in tasks:
                    task.result()
    assert codes <= {"update.illegal_transition", "checkpoint.not_found"}
    check_histories(manager.store)
