"""The write path: one round of group commit, from waiting intents to durable events.

    lock -> follow the log -> decide each intent on a stage -> append all in one write and sync
    -> absorb -> unlock

A refused intent leaves no trace; the others of the round go on. Nothing that a round decides is
visible to any reader before it is durable: the stage is dropped when the append fails.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from ckptlog.errors import CheckpointError, StoreClosedError
from ckptlog.formats import chunk
from ckptlog.log.batch import Group, Item, Tail, Won
from ckptlog.log.committer import Committer, Job
from ckptlog.log.log import Log
from ckptlog.model.event import SCHEMA, Event
from ckptlog.policy.command import Moment
from ckptlog.policy.decide import Decision, Stale, decide
from ckptlog.repository.intent import Intent, Outcome, Results
from ckptlog.repository.keeper import Keeper
from ckptlog.repository.ledger import Ledger, Stage
from ckptlog.storage.environment import Environment
from ckptlog.views.errors import ViewError


class Writer:
    """Commits intents for all threads of a process.

    Args:
        schema: Of the events that it makes.

    Threads: safe.
    """

    def __init__(
        self,
        log: Log,
        keeper: Keeper,
        environment: Environment,
        *,
        timeout_s: float,
        queue_max: int,
        schema: int = SCHEMA,
    ) -> None:
        self._schema = schema
        self._log = log
        self._keeper = keeper
        self._environment = environment
        self._timeout_s = timeout_s
        self._committer: Committer[Intent] = Committer(
            self._round, queue_max=queue_max, timeout_s=timeout_s
        )
        self._second: int | None = None
        self._second_text = ""
        # While set, a round holds the lock and has followed the log: readers need not.
        self.is_appending = False
        self._is_closed = False

    def submit(self, intent: Intent) -> Outcome:
        """Commit an intent; return one result for each of its commands, or Stale.

        Raises:
            CheckpointError: A refusal, or the storage failed.

        Durability: as the log's.
        """
        return self._committer.submit(intent)  # type: ignore[return-value]

    def _round(self, jobs: list[Job[Intent]]) -> None:
        view = self._keeper.ledger.view
        try:
            self._attempt(jobs)
        except ViewError as error:
            # Never under the log's lock; nothing was decided for good yet.
            self._keeper.heal(view, error)
            self._attempt(jobs)

    def close(self) -> None:
        """Refuse every round that begins from now on."""
        self._is_closed = True

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise StoreClosedError("The store was closed meanwhile.", hint="Open it again.")

    def _attempt(self, jobs: list[Job[Intent]]) -> None:
        log, keeper = self._log, self._keeper
        self._refuse_closed()
        try:
            tail = log.hold(self._timeout_s)
            self._refuse_closed()
            with keeper.fold_lock:
                keeper.follow()
                if keeper.ledger.position < tail.position:
                    # "interval": an interrupt came between writing a commit and taking it in. Once
                    # it is published it is followed like any other.
                    log.flush(self._timeout_s)
                    keeper.follow()
                    tail = log.hold(self._timeout_s)
                decided = self._decide_all(jobs, keeper.ledger)
                position = keeper.ledger.position
            try:
                self.is_appending = True
                if decided:
                    self._append(decided, position, tail)
            finally:
                self.is_appending = False
        finally:
            try:
                log.release()
            except BaseException:  # an interrupt: nobody else could write any more
                log.release()
                raise
        for one in decided:
            one.job.result = one.results

    def _decide_all(self, jobs: list[Job[Intent]], ledger: Ledger) -> list[_Decided]:
        moment = self._moment()
        stage = Stage(ledger)
        decided = []
        last = jobs[-1]
        earlier: set[bytes] = set()
        for job in jobs:
            job.result = job.error = None
            if not self._has_bases(job.work, earlier):
                job.result = Stale("a chunk that another is a difference from is elsewhere")
                continue
            if any(pack.base < stage.fence for pack in job.work.packs):
                job.result = Stale("a collection began after the chunks were prepared")
                continue
            try:
                outcome = _decide_intent(stage, job.work, moment, is_last=job is last)
            except CheckpointError as error:
                job.error = error
                continue
            if isinstance(outcome, Stale):
                job.result = outcome
            else:
                decided.append(_Decided(job, *outcome))
                if job is not last:
                    earlier.update(
                        record[: chunk.DIGEST_BYTES]
                        for step in job.work.steps
                        for record in step.records
                    )
        return decided

    def _append(self, decided: list[_Decided], position: int, tail: Tail) -> None:
        writing = [one for one in decided if one.group]
        if not writing:
            return
        outcome = self._log.append_held([one.group for one in writing], position, tail)
        if not isinstance(outcome, Won):
            if outcome.tail.position != position:  # pragma: no cover - the lock is held
                raise CheckpointError("The log moved under the writer's lock; this is a bug.")
            for one in decided:  # a segment ended; what builds on chunks in it is prepared anew
                one.results = Stale("the segment ended")
            return
        with self._keeper.fold_lock:
            for commit, one in zip(outcome.commits, writing, strict=True):
                self._keeper.index.add(commit, one.job.work.placements)
            self._keeper.ledger.absorb(outcome.commits)

    def _has_bases(self, intent: Intent, earlier: set[bytes]) -> bool:
        """Say whether every chunk is whole, or a difference that may be written now.

        earlier: Digests of chunks that earlier intents of the round bring.

        Its base lies in the present segment, or in this commit, before it; and it was never stored
        before. So the base of every difference was first stored before the difference was: no
        chain comes back to itself, whichever record of a chunk a reader finds.
        """
        index = self._keeper.index
        own: set[bytes] = set()
        for step in intent.steps:
            for record in step.records:
                base, digest = chunk.base_in(record), record[: chunk.DIGEST_BYTES]
                if base:
                    place = index.get(base)
                    if place is None and base not in own:
                        return False
                    if place is not None and place.container != self._log.container:
                        return False
                    if digest in own or digest in earlier or index.get(digest) is not None:
                        return False
                own.add(digest)
        # A damaged run that was met just now is dropped, and what it held is not known any more.
        return index.position >= self._keeper.ledger.position

    def _moment(self) -> Moment:
        now_us = self._environment.now_us()
        second, rest = divmod(now_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return Moment(now_us, f"{self._second_text}.{rest:06d}Z", self._schema)


class _Decided(msgspec.Struct, gc=False):
    """An accepted intent: what to append (nothing for a repetition) and what to answer."""

    job: Job[Intent]
    group: Group
    results: Results | Stale


def _decide_intent(
    stage: Stage, intent: Intent, moment: Moment, *, is_last: bool
) -> tuple[Group, Results] | Stale:
    """Decide the commands of one commit; on success the stage shows their events.

    is_last: Nothing is decided after it in this round, so the stage need not know.
    """
    if len(intent.steps) == 1:
        decision = decide(stage, intent.steps[0].command, moment)
        if isinstance(decision, Stale):
            return decision
        if not is_last:
            stage.apply(decision.events)
        return _group(intent, [decision.events]), (decision.result,)
    if (repeated := _repeated(stage, intent, moment)) is not None:
        return (), repeated
    inner = Stage(stage)
    events, results = [], []
    for step in intent.steps:
        decision = decide(inner, step.command, moment)
        if isinstance(decision, Stale):
            return decision
        inner.apply(decision.events)
        events.append(decision.events)
        results.append(decision.result)
    if not is_last:
        stage.merge(inner)
    return _group(intent, events), tuple(results)


def _repeated(stage: Stage, intent: Intent, moment: Moment) -> Results | None:
    """Return the answers to a commit that was made before; None where it was not.

    It was made whole: a command that left no event then (an end with nothing new) leaves none now.
    """
    commands = [step.command for step in intent.steps]
    known = [bool(one.fingerprint) and stage.command(one.command) is not None for one in commands]
    if not any(known):
        return None
    decisions = [
        decide(stage, command, moment) if is_known else None
        for command, is_known in zip(commands, known, strict=True)
    ]
    return tuple(one.result if isinstance(one, Decision) else True for one in decisions)


def _group(intent: Intent, decided: list[tuple[Event, ...]]) -> Group:
    items: list[Item] = []
    # Chunks of a step that leaves no event are written too: later steps may build on them.
    records: list[bytes] = []
    for step, events in zip(intent.steps, decided, strict=True):
        records += step.records
        for event in events:
            items.append(Item(event, tuple(records)))
            records = []
    if records and items:
        last = items[-1]
        items[-1] = Item(last.event, (*last.records, *records))
    if intent.packs and items:
        last = items[-1]
        event = msgspec.structs.replace(last.event, packs=intent.packs)
        items[-1] = Item(event, last.records)
    return items
