from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import (
    AddressError,
    ArgumentError,
    CheckpointNotFoundError,
    ConflictError,
    CreationRefusedError,
    SettingsError,
    StoreClosedError,
    UnstorableError,
)
from ckptlog.integrations.langgraph import CkptlogSaver
from ckptlog.integrations.langgraph.reader import Question
from ckptlog.integrations.langgraph.record import Write
from ckptlog.integrations.langgraph.writer import Place
from tests.integrations.langgraph.thread import (
    checkpoint,
    config,
    identifiers,
    put,
    values_of,
)


def test_what_was_put_comes_back_as_it_was(saver):
    first = put(saver, config(), {"a": [1, (2, 3)], "b": b"x"}, step=-1, source="input")
    made = checkpoint({"a": {"k": None}})
    second = saver.put(first, made, {"source": "loop", "step": 0}, {})
    saver.put_writes(second, [("a", 1), ("b", {"x": 2})], "task", "path")
    found = saver.get_tuple(config())
    assert found.config == second
    assert found.parent_config == first
    assert found.checkpoint == made
    assert found.metadata == {"source": "loop", "step": 0}
    assert found.pending_writes == [("task", "a", 1), ("task", "b", {"x": 2})]
    assert values_of(saver, first) == {"a": [1, (2, 3)], "b": b"x"}


def test_nothing_is_shared_with_what_the_caller_has(saver):
    state = {"list": [1]}
    where = put(saver, config(), state)
    state["list"].append(2)
    got = values_of(saver, where)
    assert got == {"list": [1]}
    got["list"].append(3)
    assert values_of(saver, where) == {"list": [1]}


@pytest.mark.parametrize(
    "thread", [7, uuid.UUID(int=5), "", " ", "a/b\n", "ü" * 500, "%:x", "\ud800"]
)
@pytest.mark.parametrize("space", ["", "child:1|" * 60, "\x00"])
def test_threads_and_namespaces_may_be_called_anything(saver, thread, space):
    where = put(saver, config(thread, space), {"n": 1})
    assert where["configurable"]["thread_id"] == thread
    assert values_of(saver, where) == {"n": 1}
    (found,) = saver.list(None)
    assert found.config["configurable"]["thread_id"] == str(thread)
    assert found.config["configurable"]["checkpoint_ns"] == space
    saver.delete_thread(thread)
    assert list(saver.list(None)) == []


def test_a_checkpoint_that_is_put_again_is_replaced_and_keeps_its_writes(saver):
    first = put(saver, config(), {"n": 1}, identifier="a")
    other = put(saver, first, {"n": 2}, identifier="b")
    saver.put_writes(other, [("n", 5)], "task")
    put(saver, config(), {"n": 3}, identifier="b", step=9)
    found = saver.get_tuple(other)
    assert found.checkpoint["channel_values"] == {"n": 3}
    assert found.metadata["step"] == 9
    assert found.parent_config is None
    assert found.pending_writes == [("task", "n", 5)]
    assert identifiers(saver, config()) == ["b", "a"]


def test_writes_may_come_before_their_checkpoint(saver):
    where = config(checkpoint="c")
    saver.put_writes(where, [("n", 5)], "task")
    assert saver.get_tuple(where) is None
    assert saver.get_tuple(config()) is None
    assert list(saver.list(None)) == []
    parent = put(saver, config(), {"n": 0}, identifier="b")
    put(saver, parent, {"n": 1}, identifier="c")
    found = saver.get_tuple(config())
    assert found.checkpoint["channel_values"] == {"n": 1}
    assert found.parent_config == parent
    assert found.pending_writes == [("task", "n", 5)]
    assert identifiers(saver, config()) == ["c", "b"]


def test_writes_are_kept_once_and_special_ones_are_replaced(saver):
    where = put(saver, config())
    saver.put_writes(where, [("a", 1), (ERROR, "first")], "t2", "p")
    position = saver.store.position
    saver.put_writes(where, [("a", 2)], "t2", "p")
    assert saver.store.position == position  # nothing new: no event
    saver.put_writes(where, [(ERROR, ValueError("second")), (INTERRUPT, ("x",))], "t2", "p")
    saver.put_writes(where, [("a", 3)], "t3", "a path before")
    saver.put_writes(where, [("a", 4)], "t1", "p")
    assert saver.get_tuple(where).pending_writes == [
        ("t3", "a", 3),
        ("t1", "a", 4),
        ("t2", INTERRUPT, ("x",)),
        ("t2", ERROR, "ValueError('second')"),
        ("t2", "a", 1),
    ]


def test_the_newest_is_the_greatest_id_whenever_it_was_put(saver):
    for name in ("b", "c", "a", "a.z", "B", "é", "%"):
        put(saver, config(), {"name": name}, identifier=name)
    order = ["é", "c", "b", "a.z", "a", "B", "%"]
    assert identifiers(saver, config()) == order
    assert values_of(saver, config()) == {"name": "é"}
    assert identifiers(saver, config(), before=config(checkpoint="b")) == order[3:]
    assert identifiers(saver, config(), before=config(checkpoint="b"), limit=2) == order[3:5]
    assert identifiers(saver, config(), limit=0) == []
    assert identifiers(saver, config(checkpoint="a.z")) == ["a.z"]


def test_filters_compare_as_python_does(saver):
    put(saver, config("t1"), identifier="1", run_id="r", step=1, flag=True)
    put(saver, config("t2"), identifier="2", run_id="r", step=2, ratio=0.5)
    put(saver, config("t2", "sub"), identifier="3", run_id="s", step=1.0, parents={"": "x"})
    put(saver, config("t3"), identifier="4", long="x" * 1000)

    def matching(**wanted):
        return identifiers(saver, None, filter=wanted)

    assert matching(run_id="r") == ["2", "1"]
    assert matching(step=1) == ["3", "1"]
    assert matching(flag=1) == ["1"]
    assert matching(ratio=0.5, run_id="r") == ["2"]
    assert matching(run_id="r", step=3) == []
    assert matching(parents={"": "x"}) == ["3"]
    assert matching(long="x" * 1000) == ["4"]
    assert matching(long="x" * 999) == []
    assert matching(absent=None, run_id="s") == ["3"]
    assert identifiers(saver, config("t2", "sub"), filter={"step": 1}) == ["3"]
    where = {"configurable": {"thread_id": "t2"}}
    assert identifiers(saver, where) == ["3", "2"]  # no namespace: any


def test_a_list_may_call_the_saver_and_survives_deletes(saver):
    for number in range(30):
        put(saver, config(), {"n": number}, identifier=f"{number:03}")
    seen = []
    for found in saver.list(config()):
        assert saver.get_tuple(found.config) is not None
        seen.append(found.checkpoint["id"])
        if len(seen) == 10:
            saver.delete_thread("t")
    assert seen == [f"{number:03}" for number in range(29, 19, -1)]


def test_what_is_late_for_a_deleted_thread_is_refused(saver):
    first = put(saver, config(), {"n": 1})
    second = put(saver, first, {"n": 2})
    saver.delete_thread("t")
    for where in (first, second):
        with pytest.raises(CreationRefusedError):
            put(saver, where, {"n": 3})
        with pytest.raises(CheckpointNotFoundError):
            saver.put_writes(where, [("n", 3)], "task")
    assert saver.get_tuple(config()) is None


def test_a_put_without_a_parent_begins_a_new_life_that_may_use_the_same_ids(saver):
    for life in range(4):
        first = put(saver, config(), {"life": life}, identifier="a")
        put(saver, first, {"life": life}, identifier="b")
        assert identifiers(saver, config()) == ["b", "a"]
        assert values_of(saver, config()) == {"life": life}
        saver.delete_thread("t")
        assert identifiers(saver, config()) == []
    put(saver, config(), {}, identifier="c")
    for stale in ("a", "b"):
        with pytest.raises(CreationRefusedError):
            put(saver, config(checkpoint=stale), identifier="d")
    saver.put_writes(config(checkpoint="unseen"), [("n", 1)], "task")


def test_late_writes_may_be_wanted(tmp_path):
    with CkptlogSaver.open(tmp_path, late_writes="accept") as saver:
        first = put(saver, config(), {"n": 1})
        saver.delete_thread("t")
        second = put(saver, first, {"n": 2})
        saver.put_writes(second, [("n", 3)], "task")
        assert saver.get_tuple(config()).pending_writes == [("task", "n", 3)]
        third = put(saver, second, {"n": 3}, run_id="r")
        saver.delete_for_runs(["r"])
        put(saver, third, {"n": 4})
        saver.put_writes(third, [("n", 3)], "task")
        assert values_of(saver, config()) == {"n": 4}


def test_two_puts_on_one_parent_are_a_fork_or_a_conflict(tmp_path):
    with CkptlogSaver.open(tmp_path / "fork") as saver:
        parent = put(saver, config(), {"n": 100})
        put(saver, parent, {"n": 90})
        put(saver, parent, {"n": 80})
        assert len(list(saver.list(config()))) == 3
    with CkptlogSaver.open(tmp_path / "conflict", second_children="refuse") as saver:
        parent = put(saver, config(), {"n": 100})
        child = put(saver, parent, {"n": 90}, identifier="x")
        put(saver, parent, {"n": 95}, identifier="x")  # the same child again
        for where in (parent, config()):
            with pytest.raises(ConflictError, match="Another writer was first"):
                put(saver, where, {"n": 80})
        saver.store.rebuild_views()
        with pytest.raises(ConflictError):
            put(saver, parent, {"n": 80})
        put(saver, parent, {"n": 70}, source="fork")
        put(saver, config("t", "sub"), {})
        saver.put_writes(config(checkpoint="y"), [("n", 1)], "task")
        with pytest.raises(ConflictError):
            put(saver, parent, {"n": 80}, identifier="y")
        put(saver, child, {"n": 85}, identifier="y")
        saver.delete_for_runs(["none"])
        assert values_of(saver, child) == {"n": 95}


def test_deleting_runs_deletes_in_every_thread(saver):
    for number in range(5):
        for thread in "ab":
            put(saver, config(thread), identifier=f"{number}", run_id=f"r{number % 2}")
    saver.delete_for_runs(["r0", "unknown"])
    assert identifiers(saver, config("a")) == ["3", "1"]
    assert identifiers(saver, config("b")) == ["3", "1"]
    saver.delete_for_runs([])
    with pytest.raises(CreationRefusedError):
        put(saver, config("a"), identifier="0")
    with pytest.raises(ArgumentError):
        saver.delete_for_runs("r1")


def test_a_copy_names_the_same_payloads(saver):
    state = {"messages": [f"{number} " * 50 for number in range(100)]}
    where = config("from", "")
    for number in range(10):
        where = put(saver, where, {**state, "n": number}, identifier=f"{number}", step=number)
    saver.put_writes(where, [("n", 5)], "task")
    put(saver, config("from", "sub"), {"n": 0}, identifier="0")
    before = saver.store.view().totals().new_bytes
    saver.copy_thread("from", "to")
    assert saver.store.view().totals().new_bytes == before
    for space in ("", "sub"):
        ours = list(saver.list(config("to", space)))
        theirs = list(saver.list(config("from", space)))
        assert [one.checkpoint for one in ours] == [one.checkpoint for one in theirs]
        assert [one.metadata for one in ours] == [one.metadata for one in theirs]
        assert [one.pending_writes for one in ours] == [one.pending_writes for one in theirs]
    parent = saver.get_tuple(config("to")).parent_config
    assert parent == config("to", "", "8")
    saver.delete_thread("from")
    assert values_of(saver, config("to"))["n"] == 9
    assert not saver.store.verify().problems


def test_a_copy_goes_from_and_to_names_that_are_cut(saver):
    long, longer = "x" * 300, "y" * 400
    put(saver, config(long, "z" * 300), {"n": 1}, identifier="a")
    saver.copy_thread(long, longer)
    saver.copy_thread(longer, "short")
    assert values_of(saver, config("short", "z" * 300)) == {"n": 1}
    threads = {found.config["configurable"]["thread_id"] for found in saver.list(None)}
    assert threads == {long, longer, "short"}


def test_a_copy_is_refused_where_it_would_cover_something(saver):
    put(saver, config("a"), {"n": 1})
    put(saver, config("b"), {"n": 2})
    for target in ("a", "b"):
        with pytest.raises(ConflictError):
            saver.copy_thread("a", target)
    with pytest.raises(CheckpointNotFoundError):
        saver.copy_thread("unknown", "c")


def test_prune_keeps_the_newest_of_each_namespace(saver):
    for space in ("", "sub"):
        where = config("t", space)
        for number in range(4):
            where = put(saver, where, {"n": number})
        saver.put_writes(where, [("n", 1)], "task")
    saver.prune(["t", "unknown"])
    for space in ("", "sub"):
        (found,) = saver.list(config("t", space))
        assert found.checkpoint["channel_values"] == {"n": 3}
        assert found.pending_writes == [("task", "n", 1)]
    put(saver, saver.get_tuple(config()).config, {"n": 4})
    saver.prune(["t"], strategy="delete")
    assert list(saver.list(config())) == []
    with pytest.raises(ArgumentError, match="keep_latest, delete"):
        saver.prune(["t"], strategy="keep")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"configurable": {}},
        {"configurable": {"checkpoint_ns": ""}},
        {"configurable": {"thread_id": None}},
        {"configurable": {"thread_id": 1.5}},
        {"configurable": {"thread_id": True}},
        {"configurable": {"thread_id": "t", "checkpoint_ns": 1}},
        {"configurable": {"thread_id": "t", "checkpoint_id": 1}},
        {"configurable": "t"},
        None,
        "t",
    ],
)
def test_a_wrong_config_is_told_as_other_savers_do(saver, wrong):
    for call in (saver.get_tuple, lambda where: put(saver, where)):
        with pytest.raises(AddressError) as caught:
            call(wrong)
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, ValueError)
        assert "'" not in str(caught.value)[:1]  # not quoted, as a KeyError's would be


def test_wrong_arguments_are_refused(saver):
    with pytest.raises(ArgumentError):
        saver.put(config(), {"id": "a"}, {}, {})
    with pytest.raises(ArgumentError):
        saver.put(config(), None, {}, {})
    with pytest.raises(ArgumentError):
        put(saver, config(), identifier="x" * 600)
    with pytest.raises(ArgumentError):
        put(saver, config(), identifier="\ud800")
    with pytest.raises(ArgumentError):
        saver.put_writes(config(), [("a", 1)], "task")
    with pytest.raises(ArgumentError):
        saver.put_writes(config(checkpoint="a"), [("a", 1)], 5)
    for options in ({"limit": "1"}, {"limit": True}, {"filter": "x"}, {"before": {}}):
        with pytest.raises(ValueError):
            saver.list(config(), **options)
    assert saver.store.position == 0


def test_what_cannot_be_stored_is_named_by_its_path(saver):
    with pytest.raises(UnstorableError, match=r"checkpoint\.channel_values\.a\[1\].*types="):
        put(saver, config(), {"a": [0, object()]})
    where = put(saver, config())
    with pytest.raises(UnstorableError, match=r"writes\[0\]\[3\].*types="):
        saver.put_writes(where, [("a", object())], "task")


def test_options_are_checked(tmp_path):
    for options in (
        {"late_writes": "maybe"},
        {"second_children": True},
        {"types": int},
        {"types": [int]},
        {"sanitise": 1},
        {"workers_max": 0},
        {"state_size_mb_max": "1"},
    ):
        with pytest.raises(SettingsError):
            CkptlogSaver.open(tmp_path / "store", **options)
    with pytest.raises(TypeError):
        CkptlogSaver.open(tmp_path / "store", unknown=1)
    with pytest.raises(SettingsError):
        CkptlogSaver(str(tmp_path))
    with pytest.raises(SettingsError):
        CkptlogSaver(5)


def test_a_state_that_is_too_large_is_refused(tmp_path):
    with (
        CkptlogSaver.open(tmp_path, state_size_mb_max=0.01) as saver,
        pytest.raises(ArgumentError),
    ):
        put(saver, config(), {"a": "x" * 20_000})


def test_a_saver_shares_the_store_of_others(tmp_path):
    with ckptlog.open(tmp_path / "store", create=True) as store:
        with CkptlogSaver(store) as saver:
            put(saver, config(), {"n": 1})
        manager = CheckpointManager(store=store)
        manager.create_checkpoint("job", "A job", 1, metadata={"run_id": "r"})
        manager.create_checkpoint("%:odd", "A job", 1, checkpoint_id="x~abcdefghijkl")
        other = CkptlogSaver(manager)
        assert len(list(other.list(None))) == 1
        other.delete_for_runs(["r"])
        assert len(manager.get_task_checkpoints("job")) == 1
        (found,) = manager.get_task_checkpoints("t")
        assert found.data["checkpoint"]["channel_values"] == {"n": 1}
        assert found.step_number == 2
        other.close()
        assert values_of(CkptlogSaver(store), config()) == {"n": 1}


def test_a_closed_saver_says_so(tmp_path):
    saver = CkptlogSaver.open(tmp_path)
    saver.close()
    saver.close()
    with pytest.raises(StoreClosedError):
        put(saver, config())
    assert repr(saver) == f"<CkptlogSaver {tmp_path}>"


def test_secrets_are_a_part_of_the_state_unless_it_is_said_otherwise(tmp_path):
    state = {"password": "hunter2hunter2"}
    for options, stored in (({}, state), ({"sanitise": True}, {"password": "[redacted]"})):
        with CkptlogSaver.open(tmp_path / str(len(options)), **options) as saver:
            where = put(saver, config(), state)
            saver.put_writes(where, [("a", state)], "task")
            found = saver.get_tuple(where)
            assert found.checkpoint["channel_values"] == stored
            assert found.pending_writes == [("task", "a", stored)]


def test_the_next_version_rises(saver):
    version = None
    for _ in range(12):
        following = saver.get_next_version(version, None)
        assert version is None or following > version
        version = following
    assert int(version.split(".")[0]) == 12
    assert saver.get_next_version(7, None).startswith(f"{8:032}.")


def test_everything_can_be_awaited(tmp_path):
    async def main():
        async with CkptlogSaver.open(tmp_path) as saver:
            made = [checkpoint({"n": number}) for number in range(40)]
            heads = await asyncio.gather(
                *(
                    saver.aput(config(f"t{n % 4}"), one, {"run_id": "r"}, {})
                    for n, one in enumerate(made)
                )
            )
            await asyncio.gather(
                *(saver.aput_writes(head, [("n", 1)], f"task{n}") for n, head in enumerate(heads))
            )
            assert (await saver.aget(heads[3])) == made[3]
            assert len([one async for one in saver.alist(config("t1"))]) == 10
            assert len([one async for one in saver.alist(None, limit=3)]) == 3
            await saver.acopy_thread("t1", "copy")
            await saver.aprune(["copy"])
            assert len([one async for one in saver.alist(config("copy"))]) == 1
            await saver.adelete_thread("t1")
            assert await saver.aget_tuple(config("t1")) is None
            assert await saver.aget(config("t1")) is None
            history = await saver.aget_delta_channel_history(config=heads[0], channels=["n"])
            assert history == {"n": {"writes": []}}
            await saver.adelete_for_runs(["r"])
            assert [one async for one in saver.alist(None)] == []
            with pytest.raises(CreationRefusedError):
                await saver.aput(heads[0], checkpoint(), {}, {})

    asyncio.run(main())


def test_a_loop_over_an_asynchronous_list_may_await_the_saver(tmp_path):
    async def main():
        async with CkptlogSaver.open(tmp_path, workers_max=1) as saver:
            for number in range(20):
                await saver.aput(config(), checkpoint({"n": number}), {}, {})
            return [await saver.aget_tuple(one.config) async for one in saver.alist(config())]

    assert len(asyncio.run(main())) == 20


def test_the_metadata_of_the_config_is_kept_as_langgraph_does(saver):
    where = {**config(), "metadata": {"user": "ada", "step": 99, "obj": object()}}
    where["configurable"]["tenant"] = "x\0y"
    saver.put(where, checkpoint(), {"step": 1}, {})
    assert saver.get_tuple(config()).metadata == {"step": 1, "user": "ada", "tenant": "xy"}


def test_an_empty_checkpoint_of_langgraph_is_fine(saver):
    made = empty_checkpoint()
    saver.put(config(), made, {}, {})
    assert saver.get(config()) == made


def test_writes_whose_put_comes_between_two_looks_are_not_taken_for_late(saver):
    where = put(saver, config(), {"n": 1}, identifier="a")
    known = saver.store.read_known
    saver.store.read_known = lambda _: None  # as it was a moment ago
    fresh = saver._writer._wiring.writes([Write("task", 0, "n", 5, "")])
    assert saver._writer._add_early(Place("t", "", 0), "a", fresh) is False
    saver.store.read_known = known
    saver.put_writes(where, [("n", 5)], "task")
    assert saver.get_tuple(where).pending_writes == [("task", "n", 5)]


def test_a_put_that_was_prepared_before_a_delete_begins_the_next_life(saver, monkeypatch):
    put(saver, config(), {"n": 1}, identifier="a")
    known, asked = saver.store.incarnation_known, []

    def stale(task):
        asked.append(known(task))
        if len(asked) == 1:
            saver.delete_thread("t")
        return asked[-1]

    monkeypatch.setattr(saver.store, "incarnation_known", stale)
    put(saver, config(), {"n": 2}, identifier="b")
    assert asked[:2] == [0, 1]
    assert values_of(saver, config()) == {"n": 2}
    assert identifiers(saver, config()) == ["b"]


def test_a_copy_of_what_has_changed_meanwhile_is_made_again(saver):
    where = put(saver, config("from"), {"n": 1}, identifier="a")
    found = list(saver._reader.named(Question("from")))
    saver.put_writes(where, [("n", 2)], "task")
    assert saver._threads._copy("to", found) is False
    assert saver.get_tuple(config("to")) is None
    saver.copy_thread("from", "to")
    assert saver.get_tuple(config("to")).pending_writes == [("task", "n", 2)]


def test_writes_of_many_tasks_at_once_are_all_kept(saver):
    where = put(saver, config(), {"n": 1})
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(saver.put_writes, where, [("n", one)], f"t{one}") for one in range(40)]
    assert [one.result() for one in done] == [None] * 40
    assert {write[2] for write in saver.get_tuple(where).pending_writes} == set(range(40))


def test_writes_are_stored_in_the_order_of_application(saver):
    where = put(saver, config(), {"n": 1})
    for path, task in (("b", "1"), ("a", "2"), ("", "3"), ("a", "0")):
        saver.put_writes(where, [("n", 1), ("m", 2)], task, path)
    (found,) = saver.manager.get_task_checkpoints("t")
    keys = [(path, task, number) for task, number, _, _, path in found.data["writes"]]
    assert keys == sorted(keys)
    assert len(keys) == 8


@pytest.mark.parametrize("run", [None, True, 1])
def test_only_text_is_a_run(saver, run):
    new = put(saver, config("keep"), {"a": 1})
    with pytest.raises(ArgumentError, match="no run id"):
        saver.delete_for_runs(["other", run])
    assert saver.get_tuple(new) is not None


@pytest.mark.parametrize("writes", [[(3, 1)], [1], [("a",)], [("a", 1), ("b", 2, 3)], "ab"])
def test_wrong_writes_are_refused_before_anything_is_stored(saver, writes):
    state = checkpoint({"a": 1})
    early = config("t", checkpoint=state["id"])
    with pytest.raises(ArgumentError):
        saver.put_writes(early, writes, "task")
    new = saver.put(config("t"), state, {"source": "loop", "step": 0}, {})
    assert saver.get_tuple(new).pending_writes == []


def test_a_subclass_of_text_is_text(saver):
    class Name(str):
        __slots__ = ()

    where = put(saver, config(), {"a": 1})
    saver.put_writes(where, [(Name("a"), 1)], Name("task"), Name("path"))
    assert saver.get_tuple(where).pending_writes == [("task", "a", 1)]
