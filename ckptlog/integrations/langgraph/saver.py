"""CkptlogSaver: a checkpointer of LangGraph's on a store.

    with CkptlogSaver.open("threads") as saver:
        graph = builder.compile(checkpointer=saver)

Threads are tasks of the store, and each checkpoint of LangGraph's is one of ours
(specs/langgraph.md): what the command line and the manager can do, they can do with threads.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    CheckpointTuple,
    get_checkpoint_metadata,
)

from ckptlog.errors import ArgumentError
from ckptlog.integrations.langgraph import opening, pruning
from ckptlog.integrations.langgraph.address import address_of, config_of, thread_of
from ckptlog.integrations.langgraph.asynchronous import AsynchronousMethods
from ckptlog.integrations.langgraph.codec import codecs_of, named_in
from ckptlog.integrations.langgraph.name import task_of
from ckptlog.integrations.langgraph.opening import SaverOptions
from ckptlog.integrations.langgraph.reader import (
    Found,
    Question,
    Reader,
    check_limit,
    question_of,
)
from ckptlog.integrations.langgraph.record import Wiring, Write
from ckptlog.integrations.langgraph.threads import Threads
from ckptlog.integrations.langgraph.writer import Rules, Writer
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.preparation import Preparation
from ckptlog.manager.quota import Quota
from ckptlog.model.codec import Codecs
from ckptlog.model.quotation import quoted
from ckptlog.policy.sanitise import sanitiser_of
from ckptlog.repository.store import Store

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        DeltaChannelHistory,
    )

_MEBIBYTE = 1024 * 1024


class CkptlogSaver(AsynchronousMethods, BaseCheckpointSaver[str]):
    """Keeps the checkpoints of LangGraph's graphs in a store.

    One class for both ways of calling: the asynchronous methods run the others in threads.

    Args:
        source: A manager, or an open store; the caller closes it. `open` takes a path.
        options: `SaverOptions`.

    Raises:
        SettingsError: An option is wrong.

    Durability: when `put` or `put_writes` returns, what it stored survives a kill and a power cut
        (or will soon, where the store was opened with durability="interval").
    Threads: safe; many savers and processes may share a store. A forked child opens it anew.
    """

    def __init__(self, source: Store | CheckpointManager, **options: Unpack[SaverOptions]) -> None:
        super().__init__()
        self._options = opening.options_of(options)
        self.manager, self._owns_store = opening.manager_of(source), False
        self._begin_calls(self._options.workers_max)
        self._compose(opening.registry(self._options, self.store.codecs))

    @classmethod
    def open(cls, path: str | Path, **options: Any) -> Self:
        """Open the store at a path, made where it is missing, and return its saver.

        Use it as a context manager (`with`, or `async with`), or close it.

        Args:
            options: `SaverOptions`, and what `ckptlog.open` takes (durability, read_only, ...).

        Raises:
            SettingsError, ArgumentError: An option's value is wrong.
            TypeError: There is no option of that name.
            CheckpointStorageError: The store cannot be opened.
        """
        own = {name: options.pop(name) for name in opening.NAMES & options.keys()}
        store = opening.store_at(path, opening.options_of(own), options)
        try:
            saver = cls(store, **own)
        except BaseException:
            store.close()
            raise
        saver._owns_store = True
        return saver

    def _compose(self, codecs: Codecs) -> None:
        options, manager = self._options, self.manager
        self._codecs = codecs
        sanitiser = sanitiser_of(manager.config) if options.sanitise else None
        wiring = Wiring(codecs, sanitiser, leaves_out_id=self.store.info.event_schema > 1)
        self._reader = Reader(self.store, wiring)
        size_bytes_max = int(options.state_size_mb_max * _MEBIBYTE)
        preparation = Preparation(
            self.store, sanitiser_of(manager.config), size_bytes_max=size_bytes_max
        )
        quota = Quota(self.store, manager.config.max_storage_size_gb)
        rules = Rules(options.accepts_late, options.accepts_second)
        self._writer = Writer(manager, preparation, wiring, quota, rules)
        self._threads = Threads(manager, preparation, wiring, self._reader)

    # --- life -------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store: events, verification, sizes, history."""
        return self.manager.store

    def close(self) -> None:
        """Finish what runs, and close the store, if this saver opened it. Twice is fine."""
        self._end_calls()
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CkptlogSaver {self.store.path}>"

    # --- reading ----------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that a config names, or its thread's newest; None for none.

        Raises:
            AddressError: The config names no thread.
            CheckpointCorruptionError: The stored bytes are damaged.
            UnregisteredTypeError: A stored type is not among `types`.
        """
        address = address_of(config)
        found = self._reader.get(address)
        return None if found is None else _tuple_of(found, address.given)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's signature
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints that match, the greatest id first.

        Nothing is locked between two of them: calling the saver inside the loop is fine.

        Args:
            config: A thread, and perhaps a namespace and a checkpoint; None for all threads.
            filter: Names of metadata and the values that they must have; an index serves scalars.
            before: Only ids below the one of this config.
            limit: Most to yield.

        Raises:
            ArgumentError: At once, not with the first checkpoint.
        """
        question = question_of(config, filter, before)
        most = check_limit(limit)
        given = None if config is None else address_of(config).given
        return self._listed(question, most, given)

    def _listed(
        self, question: Question, limit: int | None, given: object
    ) -> Iterator[CheckpointTuple]:
        for found in self._reader.found(question, limit):
            yield _tuple_of(found, found.thread if given is None else given)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return for each channel the writes since the nearest ancestor that has its value.

        Only these channels are decoded. A channel whose value no ancestor has lacks `seed`.

        Raises:
            AddressError, CheckpointCorruptionError: As `get_tuple`.
        """
        wanted = list(dict.fromkeys(channels))
        address = address_of(config)
        found: dict[str, Any] = {name: {"writes": []} for name in wanted}
        missing = set(wanted)
        for _, values, writes in self._reader.ancestors(address, wanted) if wanted else ():
            for write in reversed(writes):
                if write.channel in missing:
                    found[write.channel]["writes"].append(_pending(write))
            for name in missing & values.keys():
                found[name]["seed"] = values[name]
                missing.discard(name)
            if not missing:
                break
        for entry in found.values():
            entry["writes"].reverse()
        return found

    # --- writing ----------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002 - what did not change is found by its bytes
    ) -> RunnableConfig:
        """Store a checkpoint, durably, and return the config that names it.

        The config's checkpoint_id is its parent. A checkpoint of the same id is replaced and keeps
        its writes.

        Raises:
            CreationRefusedError: What it belongs to was deleted (late_writes="refuse").
            ConflictError: The parent has a child already (second_children="refuse").
            UnstorableError: A value cannot be stored; the message has its path.
            CheckpointStorageError: Nothing was stored, or (commit.outcome_unknown) put it again.
        """
        address = address_of(config)
        _check_checkpoint(checkpoint)
        told = get_checkpoint_metadata(config, metadata)
        self._writer.put(address, checkpoint, told)
        named: Any = config_of(address.given, address.space, checkpoint["id"])
        return named  # type: ignore[no-any-return]

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Add a task's writes to a checkpoint, durably; they may come before it.

        A write that is there (by task and index) is kept, one of a special channel replaced.

        Raises:
            CheckpointNotFoundError: The checkpoint was deleted (late_writes="refuse").
            UnstorableError, CheckpointStorageError: As `put`.
        """
        address = address_of(config)
        for name, value in (("task_id", task_id), ("task_path", task_path)):
            if not isinstance(value, str):
                raise ArgumentError(f"{name} is {quoted(value)}; text is needed.", argument=name)
        listed: dict[int, Write] = {}
        for position, (channel, value) in enumerate(_pairs(writes)):
            index = WRITES_IDX_MAP.get(channel, position)
            # An exception is told by its text, as LangGraph's own savers do.
            told = repr(value) if isinstance(value, BaseException) else value
            named = _text(task_id), index, _text(channel)
            listed[index] = Write(*named, told, _text(task_path))
        self._writer.put_writes(address, list(listed.values()))

    # --- threads ----------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread: all its checkpoints and writes, in all namespaces.

        Late writes to it are refused. Its id, and those of its checkpoints, may be used again.
        """
        self.manager.delete_task(task_of(thread_of(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints, with their writes, whose metadata has one of these run ids.

        What a `DeltaChannel` of a later run needs goes too; `prune` keeps it.
        """
        runs = _listed("run_ids", run_ids)
        for run in runs:
            # None would be the run of everything that has no run id.
            if not isinstance(run, str):
                raise ArgumentError(
                    f"{quoted(run)} is no run id; text is needed.", argument="run_ids"
                )
        for run in runs:
            self._threads.delete_run(run)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread's checkpoints, writes and order into a thread that is empty.

        The copies name the same payloads: what is written is one small event each (and a small meta
        where the thread's name does not fit). More than 10,000 are several commits: a kill, or a
        change of the source meanwhile, can leave a part of them.

        Raises:
            CheckpointNotFoundError: The source has no checkpoints.
            ConflictError: The target has some.
        """
        self._threads.copy(thread_of(source_thread_id), thread_of(target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete what threads need no more.

        Args:
            strategy: "keep_latest" keeps the newest checkpoint of each namespace, with its writes
                and those ancestors that its `DeltaChannel`s are made of; "delete" keeps nothing.

        Raises:
            ArgumentError: The strategy is another one.
        """
        keeps = pruning.check_strategy(strategy)
        for given in _listed("thread_ids", thread_ids):
            if keeps:
                self._threads.prune(thread_of(given))
            else:
                self.delete_thread(given)

    # --- the rest ---------------------------------------------------------------------------

    def get_next_version(self, current: str | int | None, channel: None) -> str:  # noqa: ARG002
        """Return the version after `current`: a number that rises, and a random part.

        So versions of two writers that went on from the same one differ.
        """
        number = current if isinstance(current, int) else int((current or "0").split(".")[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311 - nothing secret

    def with_allowlist(self, extra_allowlist: Collection[Any]) -> CkptlogSaver:
        """Return a saver on the same store that also stores the classes a graph's schema names.

        LangGraph calls it where it runs with LANGGRAPH_STRICT_MSGPACK.
        """
        fresh = [kind for kind in named_in(extra_allowlist) if kind not in self._codecs.by_kind]
        storable = [kind for kind in fresh if opening.is_storable(kind)]
        if not storable:
            return self
        clone = type(self).__new__(type(self))
        clone.__dict__.update(self.__dict__)
        clone._owns_store = False  # noqa: SLF001 - its own class
        clone._compose(codecs_of(storable, self._codecs))  # noqa: SLF001
        return clone


def _tuple_of(found: Found, thread: object) -> CheckpointTuple:
    checkpoint: Any = found.checkpoint
    metadata: Any = found.metadata
    config: Any = config_of(thread, found.space, found.identifier)
    parent: Any = config_of(thread, found.space, found.parent) if found.parent else None
    return CheckpointTuple(
        config=config,
        checkpoint=checkpoint,
        metadata=metadata,
        parent_config=parent,
        pending_writes=[_pending(write) for write in found.writes],
    )


def _pending(write: Write) -> tuple[str, str, Any]:
    return write.task, write.channel, write.value


def _check_checkpoint(checkpoint: Any) -> None:
    """Refuse what is no checkpoint; what is in it is LangGraph's.

    Raises:
        ArgumentError: It has no id, or no channel values.
    """
    is_mapping = isinstance(checkpoint, Mapping)
    identifier = checkpoint.get("id") if is_mapping else None
    if not isinstance(identifier, str) or not isinstance(checkpoint.get("channel_values"), Mapping):
        raise ArgumentError(
            f"{quoted(checkpoint)} is no checkpoint: it needs an id and channel_values.",
            argument="checkpoint",
        )


# Exactly a str, whatever the class of the text is (an enum's member, say).
_text = str.__str__


def _pairs(writes: Any) -> list[tuple[str, Any]]:
    """Return writes as they are.

    Raises:
        ArgumentError: One of them is no pair of a channel's name and a value.
    """
    pairs = _listed("writes", writes)
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ArgumentError(
                f"{quoted(pair)} is no write; a channel's name and a value are needed.",
                argument="writes",
            )
    return pairs


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str | bytes):
        raise ArgumentError(
            f"{name} is {quoted(values)}; a list is needed.",
            hint=f"Wrap it: [{values!r}].",
            argument=name,
        )
    return list(values)
