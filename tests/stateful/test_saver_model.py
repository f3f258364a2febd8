"""Random threads on CkptlogSaver, beside LangGraph's InMemorySaver as the model."""

from __future__ import annotations

import copy
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from ckptlog.errors import CheckpointNotFoundError, ConflictError, CreationRefusedError
from ckptlog.integrations.langgraph import CkptlogSaver
from tests.integrations.langgraph.thread import checkpoint, comparable, config

THREADS = ("a", "b\n", "x" * 250)
SPACES = ("", "sub:1")
RUNS = ("r1", "r2")
threads = st.sampled_from(THREADS)
spaces = st.sampled_from(SPACES)
picks = st.integers(0, 1000)
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),  # as far as the model goes
    st.text(max_size=5),
    st.lists(st.booleans(), max_size=3),
    st.builds(HumanMessage, st.text(max_size=5), id=st.just("h")),
    st.builds(AIMessage, st.text(max_size=5)),
    st.dictionaries(st.one_of(st.text(max_size=2), st.integers(0, 3)), st.none(), max_size=2),
)
states = st.fixed_dictionaries({"log": st.lists(values, max_size=4), "n": values})
channels = st.sampled_from(["log", "n", ERROR, INTERRUPT])


class Threads(RuleBasedStateMachine):
    """One store; the model has no deletes of single checkpoints, so they are done on its dict."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.saver = CkptlogSaver.open(self.folder)
        self.model = InMemorySaver()
        self.living: list[tuple[str, str, str]] = []
        self.dead: list[tuple[str, str, str]] = []
        self.serial = 0

    def teardown(self) -> None:
        assert not self.saver.store.verify().problems
        self.saver.store.rebuild_views()
        self.everything_agrees()
        assert self.saver.store.view().check() == []
        self.saver.close()
        shutil.rmtree(self.folder)

    @initialize()
    def start(self) -> None:
        self.put_first("a", "", {"log": [], "n": 0}, "r1")

    # --- what is done to both -------------------------------------------------------------

    def _put(self, thread, space, parent, state, run="r1", identifier=None) -> None:  # noqa: PLR0917
        self.serial += 1
        made = checkpoint(copy.deepcopy(state), identifier, version=f"{self.serial}")
        where = config(thread, space, parent)
        metadata = {"source": "loop", "step": self.serial, "run_id": run, "parents": {}}
        got = self.saver.put(where, made, metadata, made["channel_versions"])
        assert got == self.model.put(where, made, metadata, made["channel_versions"])
        key = (thread, space, made["id"])
        if key not in self.living:
            self.living.append(key)

    @rule(thread=threads, space=spaces, state=states, run=st.sampled_from(RUNS))
    def put_first(self, thread, space, state, run) -> None:
        self._put(thread, space, None, state, run)

    @precondition(lambda self: self.living)
    @rule(pick=picks, state=states, run=st.sampled_from(RUNS))
    def put_child(self, pick, state, run) -> None:
        thread, space, parent = self.living[pick % len(self.living)]
        self._put(thread, space, parent, state, run)

    @precondition(lambda self: self.living)
    @rule(pick=picks, other=picks, state=states)
    def put_again(self, pick, other, state) -> None:
        thread, space, identifier = self.living[pick % len(self.living)]
        peers = [one for one in self.living if one[:2] == (thread, space) and one[2] < identifier]
        parent = peers[other % len(peers)][2] if peers else None
        self._put(thread, space, parent, state, "r1", identifier)

    @precondition(lambda self: self.living)
    @rule(
        pick=picks,
        writes=st.lists(st.tuples(channels, values), max_size=3),
        task=st.sampled_from(["t1", "t2"]),
        path=st.sampled_from(["", "p"]),
    )
    def put_writes(self, pick, writes, task, path) -> None:
        where = config(*self.living[pick % len(self.living)])
        self.saver.put_writes(where, writes, task, path)
        self.model.put_writes(where, writes, task, path)

    @rule(thread=threads)
    def delete_thread(self, thread) -> None:
        self.saver.delete_thread(thread)
        self.model.delete_thread(thread)
        self.dead += [one for one in self.living if one[0] == thread]
        self.living = [one for one in self.living if one[0] != thread]

    def _forget(self, key) -> None:
        thread, space, identifier = key
        del self.model.storage[thread][space][identifier]
        self.model.writes.pop(key, None)
        self.living.remove(key)
        self.dead.append(key)

    @rule(run=st.sampled_from(RUNS))
    def delete_for_runs(self, run) -> None:
        self.saver.delete_for_runs([run])
        for key in list(self.living):
            if self.model.get_tuple(config(*key)).metadata["run_id"] == run:
                self._forget(key)

    @rule(thread=threads)
    def prune(self, thread) -> None:
        self.saver.prune([thread])
        for space in SPACES:
            names = sorted(key[2] for key in self.living if key[:2] == (thread, space))
            for name in names[:-1]:
                self._forget((thread, space, name))

    @rule(source=threads, goal=threads)
    def copy_thread(self, source, goal) -> None:
        keys = [one for one in self.living if one[0] == source]
        try:
            self.saver.copy_thread(source, goal)
        except CheckpointNotFoundError:
            assert not keys
        except ConflictError:
            assert any(one[0] == goal for one in self.living)
        else:
            assert keys
            for _, space, name in keys:
                self._copy_in_model(source, goal, space, name)

    def _copy_in_model(self, source, target, space, name) -> None:
        self.model.storage[target][space][name] = self.model.storage[source][space][name]
        written = self.model.writes.get((source, space, name))
        if written:
            self.model.writes[target, space, name] = dict(written)
        for key, blob in list(self.model.blobs.items()):
            if key[:2] == (source, space):
                self.model.blobs[(target, *key[1:])] = blob
        self.living.append((target, space, name))

    @precondition(lambda self: self.dead)
    @rule(pick=picks)
    def what_is_late_is_refused(self, pick) -> None:
        key = self.dead[pick % len(self.dead)]
        if key in self.living:  # a new life has this id too
            return
        position = self.saver.store.position
        for call in (
            lambda: self.saver.put(config(*key), checkpoint({"n": 1}), {}, {}),
            lambda: self.saver.put_writes(config(*key), [("n", 1)], "late"),
        ):
            try:
                call()
            except (CreationRefusedError, CheckpointNotFoundError):
                continue
            raise AssertionError(key)
        assert self.saver.store.position == position

    @rule()
    def reopen(self) -> None:
        self.saver.close()
        self.saver = CkptlogSaver.open(self.folder)

    # --- what must agree ------------------------------------------------------------------

    @rule(
        thread=st.one_of(st.none(), threads),
        space=st.one_of(st.none(), spaces),
        pick=picks,
        limit=st.one_of(st.none(), st.integers(0, 5)),
        wanted=st.sampled_from(
            [None, {"run_id": "r1"}, {"run_id": "r2", "source": "loop"}, {"step": 3.0}]
        ),
    )
    def lists_agree(self, thread, space, pick, limit, wanted) -> None:
        where = None if thread is None else {"configurable": {"thread_id": thread}}
        if where is not None and space is not None:
            where["configurable"]["checkpoint_ns"] = space
        key = self.living[pick % len(self.living)] if self.living else ("a", "", "x")
        before = config(*key) if pick % 2 else None
        ours = list(self.saver.list(where, filter=wanted, before=before))
        theirs = list(self.model.list(where, filter=wanted, before=before))
        assert sorted(map(self._shown, ours)) == sorted(map(self._shown, theirs))
        ids = [one.checkpoint["id"] for one in ours]
        assert ids == sorted(ids, reverse=True)
        if limit is not None:
            some = list(self.saver.list(where, filter=wanted, before=before, limit=limit))
            assert [self._shown(one) for one in some] == [self._shown(one) for one in ours[:limit]]

    @staticmethod
    def _shown(found) -> str:
        thread = found.config["configurable"]["thread_id"]
        return repr((thread, comparable(found)))

    @invariant()
    def everything_agrees(self) -> None:
        for key in self.living:
            assert comparable(self.saver.get_tuple(config(*key))) == comparable(
                self.model.get_tuple(config(*key))
            )
        for thread in THREADS:
            for space in SPACES:
                where = config(thread, space)
                assert comparable(self.saver.get_tuple(where)) == comparable(
                    self.model.get_tuple(where)
                )


TestThreads = Threads.TestCase
TestThreads.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
