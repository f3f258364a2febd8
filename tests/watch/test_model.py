"""Any interleaving of appends, crashes, acknowledgements and restarts, beside a list.

Each event that the filter lets through is delivered at least once, in order, none skipped; a life
begins at the first event that is not durably acknowledged; and nothing is shown that is not
durable. A crash may come in the middle of writing a cursor, at any byte.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ckptlog.formats import cursor as cursor_format
from ckptlog.storage.environment import Environment
from ckptlog.watch.watcher import Watcher
from tests.log.sample import STORE_ID, append, create_log, group, open_log

MEMORY = Path("/dev/shm")
OPTIONS = {"segment_bytes": 9_000, "is_durable": False}


class ConsumerMachine(RuleBasedStateMachine):
    """One writer, one consumer; either may die at any moment."""

    @initialize(
        wanted=st.sampled_from(["all", "even", "rare"]), interval=st.sampled_from([0.0, 10**6])
    )
    def begin(self, wanted, interval):
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.root = self.folder / "store"
        create_log(self.root, **OPTIONS).close()
        self.log = open_log(self.root, **OPTIONS)
        self.accepts = {
            "all": lambda position: True,
            "even": lambda position: position % 2 == 0,
            "rare": lambda position: position % 7 == 5,
        }[wanted]
        self.is_filtered = wanted != "all"
        self.interval = interval
        self.written = self.durable = 0
        self.delivered: set[int] = set()
        self.events = None
        self.taken: list[int] = []
        self.acked = self.acked_now = self.safe = 0  # ever, in this life, known to be on the medium

    def teardown(self):
        if not hasattr(self, "root"):
            return
        try:
            self.log.flush()
            self.durable = self.written
            if self.events is not None:
                self.stop_cleanly()
            self.start()
            self.take(10**6)
            assert self.delivered == set(filter(self.accepts, range(self.durable)))
            self.stop_cleanly()
        finally:
            self.log.close()
            shutil.rmtree(self.folder)

    # --- the writer ---------------------------------------------------------------------------

    @rule(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), bulk=st.sampled_from([0, 900]))
    def write(self, sizes, bulk):
        groups = []
        for size in sizes:
            names = [f"e{self.written + number}" for number in range(size)]
            self.written += size
            groups.append(group(*names, record_bytes=bulk))
        append(self.log, *groups)
        self.durable = self.log.durable_position  # a new segment syncs the one before

    @rule()
    def flush(self):
        self.log.flush()
        self.durable = self.written

    @rule()
    def writer_dies(self):
        """A kill loses nothing; the next writer finds what was written, syncs and shows it."""
        self.log.abandon()
        self.log = open_log(self.root, **OPTIONS)
        assert self.log.recover_if_free()
        self.durable = self.written

    # --- the consumer -------------------------------------------------------------------------

    @precondition(lambda self: self.events is None)
    @rule()
    def start(self):
        self.watcher = Watcher(self.root, STORE_ID, Environment(), read_only=False)
        options = {"follow": False, "watcher": False, "ack_interval_s": self.interval}
        if self.is_filtered:
            options["where"] = lambda entry: self.accepts(entry.position)
        self.events = self.watcher.open("one", options)
        assert self.safe <= self.events.position
        assert not any(
            self.accepts(position) and position >= self.acked
            for position in range(self.acked, self.events.position)
        ), "nobody has acknowledged these"
        self.taken = []
        self.next = self.acked_now = self.events.position

    @precondition(lambda self: self.events is not None)
    @rule(count=st.integers(1, 12))
    def take(self, count):
        for event in self.events:
            wanted = next(filter(self.accepts, range(self.next, event.position + 1)))
            assert event.position == wanted, "in order, none skipped"
            assert event.position < self.durable
            assert event.event.id == f"e{event.position}"
            self.next = event.position + 1
            self.taken.append(event.position)
            self.delivered.add(event.position)
            if (count := count - 1) == 0:
                return
        rest = filter(self.accepts, range(self.next, self.durable))
        assert next(rest, None) is None, "it ended too early"

    @precondition(lambda self: self.events is not None and self.taken)
    @rule(share=st.floats(0, 1))
    def acknowledge(self, share):
        position = self.taken[int(share * (len(self.taken) - 1))]
        self.events.ack(position)
        self.acked_now = max(self.acked_now, position + 1)
        self.acked = max(self.acked, self.acked_now)
        if self.interval == 0:
            self.safe = max(self.safe, position + 1)

    @precondition(lambda self: self.events is not None)
    @rule()
    def die(self):
        """As a kill does: the lock goes, nothing is written any more."""
        self.events._consumer.close()
        self.events._consumer = None
        self.events.close()
        self.events = None

    @precondition(lambda self: self.events is not None and self.taken and self.interval == 0)
    @rule(at=st.integers(0, cursor_format.BYTES))
    def die_in_the_middle_of_an_ack(self, at):
        path = self.root / "consumers" / "one.cursor"
        before = path.read_bytes()
        self.events.ack()
        self.acked = max(self.acked, self.taken[-1] + 1)
        after = path.read_bytes()
        begin = cursor_format.slot_of(cursor_format.newest(after).serial)
        if after != before:
            path.write_bytes(before[:begin] + after[begin : begin + at] + before[begin + at :])
        self.die()

    @precondition(lambda self: self.events is not None)
    @rule()
    def stop_cleanly(self):
        self.events.close()
        self.safe = max(self.safe, self.acked_now)
        self.events = None

    @invariant()
    def lag_counts_what_is_durable(self):
        if getattr(self, "events", None) is not None:
            assert self.events.lag == self.durable - self.events.position


TestConsumerMachine = ConsumerMachine.TestCase
TestConsumerMachine.settings = settings(stateful_step_count=40)
