"""Several processes, tasks and kills on one store: nothing acknowledged is lost, no update either."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from ckptlog.errors import CreationRefusedError
from ckptlog.integrations.langgraph import CkptlogSaver
from tests.integrations.langgraph.thread import config, identifiers, put, values_of

PUTTER = "tests.integrations.langgraph.putter"


def start(*arguments):
    command = [sys.executable, "-m", PUTTER, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.unmeasured
def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path):
    told = []
    for kill_after in (1, 4, 7, 12):
        process = start(tmp_path / "store", "t", 1000)
        for _ in range(kill_after):
            told.append(process.stdout.readline().split())
        process.kill()
        told += [
            line.split() for line in process.stdout.read().splitlines() if line.count(" ") == 2
        ]
        process.wait()
        process.stdout.close()
        process.stdin.close()
        with CkptlogSaver.open(tmp_path / "store") as saver:
            for kind, identifier, number in told:
                found = saver.get_tuple(config("t", "", identifier))
                state = found.checkpoint["channel_values"]
                assert state["n"] == int(number)
                assert [message.id for message in state["messages"]] == [
                    str(one) for one in range(int(number) + 1)
                ]
                if kind == "writes":
                    assert found.pending_writes == [(f"task{number}", "n", int(number))]
            assert not saver.store.verify().problems
    assert len(told) >= 24


@pytest.mark.unmeasured
def test_processes_that_put_on_one_parent_never_both_win(tmp_path):
    with CkptlogSaver.open(tmp_path / "store") as saver:
        put(saver, config("race"), {"n": 0})
        processes = [start(tmp_path / "store", "race", 20, "race") for _ in range(3)]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        lines = [line for process in processes for line in process.communicate()[0].splitlines()]
        assert [process.returncode for process in processes] == [0, 0, 0]
        assert sorted(int(line.split()[1]) for line in lines) == list(range(1, 61))
        assert values_of(saver, config("race")) == {"n": 60}
        assert len(identifiers(saver, config("race"))) == 61


def test_threads_deleted_while_others_write_stay_whole(tmp_path):
    """Each put is refused or belongs to one life; what is listed is one unbroken chain."""
    with CkptlogSaver.open(tmp_path) as saver:
        stop, refused = threading.Event(), []

        def write():
            where = config("t")
            while not stop.is_set():
                try:
                    where = put(saver, where, {"n": 1})
                except CreationRefusedError:
                    refused.append(1)
                    where = config("t")

        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        while len(refused) < 20:
            saver.delete_thread("t")
        stop.set()
        for writer in writers:
            writer.join()
        living = {found.checkpoint["id"]: found for found in saver.list(config("t"))}
        for found in living.values():
            if found.parent_config is not None:
                assert found.parent_config["configurable"]["checkpoint_id"] in living
        assert not saver.store.verify().problems


def test_prunes_and_puts_at_once_break_no_chain(tmp_path):
    with CkptlogSaver.open(tmp_path) as saver:
        stop = threading.Event()

        def prune():
            while not stop.is_set():
                saver.prune(["t"])

        pruner = threading.Thread(target=prune)
        pruner.start()
        where = config("t")
        for number in range(60):
            where = put(saver, where, {"n": number})
        stop.set()
        pruner.join()
        saver.prune(["t"])
        assert values_of(saver, config("t")) == {"n": 59}
        assert len(identifiers(saver, config("t"))) == 1


def test_tasks_of_several_event_loops_share_a_saver(tmp_path):
    with CkptlogSaver.open(tmp_path) as saver:

        async def work(name):
            async def one(number):
                where = config(f"{name}-{number}")
                for step in range(5):
                    where = await saver.aput(where, made(step), {}, {})
                    await saver.aput_writes(where, [("n", step)], "task")

            await asyncio.gather(*(one(number) for number in range(4)))

        def made(step):
            from tests.integrations.langgraph.thread import checkpoint

            return checkpoint({"n": step})

        loops = [
            threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in "abc"
        ]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
        assert len(list(saver.list(None))) == 60
        assert all(found.pending_writes for found in saver.list(None))


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_opens_the_store_anew(tmp_path):
    import os

    with CkptlogSaver.open(tmp_path) as saver:
        put(saver, config("parent"), {"n": 1})
        child = os.fork()
        if child == 0:
            code = 1
            try:
                put(saver, config("child"), {"n": 2})
                code = 0 if values_of(saver, config("parent")) == {"n": 1} else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert values_of(saver, config("child")) == {"n": 2}
