"""Any interleaving of holders, expiries and clock jumps: no overtaken holder ever writes."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ckptlog.errors import LeaseHeldError, LeaseLostError, LeaseRequiredError
from ckptlog.policy.command import Change, Claim, Create, DeleteTask, Moment, Release, Renew
from tests.policy.state_double import Truth, payloads

TASKS = st.sampled_from(["t", "u"])
PROCESSES = st.sampled_from(["p1", "p2", "p3"])
TTL = st.integers(1, 100)
START_US = 1_700_000_000_000_000


class Leasing(RuleBasedStateMachine):
    """A log in memory, holders who remember all their tokens, and a clock that nobody can trust.

    The model is the plainest there is: per task the tokens in the order of their claims, and
    whether the last one is over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.truth = Truth()
        self.now_us = START_US
        self.claims: dict[str, list[int]] = {"t": [], "u": []}
        self.is_over: dict[str, bool] = {"t": True, "u": True}
        # What the newest lease may be thought to be: (given at, for how long).
        self.given: dict[str, tuple[int, int]] = {}
        self.names: dict[str, str] = {}
        # The process of the newest lease, and those that have died.
        self.process: dict[str, str] = {"t": "", "u": ""}
        self.dead: set[str] = set()

    @initialize()
    def begin(self):
        for task in self.claims:
            self.names[task] = self.truth.create(task)

    def do(self, command):
        return self.truth.do(command, Moment(self.now_us, f"{self.now_us:030d}"))

    def own(self):
        return {"actor": "me", "command": self.truth.new_id()}

    def is_live(self, task: str) -> bool:
        if self.is_over[task]:
            return False
        at, ttl = self.given[task]
        return 0 < at + ttl - self.now_us <= 2 * ttl

    @rule(microseconds=st.integers(-300, 300))
    def let_time_pass(self, microseconds):
        self.now_us += microseconds

    @rule(process=PROCESSES)
    def die(self, process):
        self.dead.add(process)

    @rule(task=TASKS, ttl=TTL, process=st.just("") | PROCESSES, data=st.data())
    def claim(self, task, ttl, process, data):
        # What the claimer has seen dead, maybe long ago; it may be of another lease.
        dead = data.draw(st.sampled_from(["", *sorted(self.dead)]))
        if process in self.dead:
            process = ""
        was_live = self.is_live(task)
        is_overtaken = was_live and dead != "" and self.process[task] == dead
        own = {**self.own(), "process": process, "dead": dead}
        try:
            token = self.do(Claim(task=task, holder="h", ttl_us=ttl, **own))
        except LeaseHeldError:
            assert was_live
            assert not is_overtaken
            return
        assert not was_live or is_overtaken
        assert self.truth.events[-1].facts.get("former_dead", 0) == is_overtaken
        self.process[task] = process
        assert all(token > old for tokens in self.claims.values() for old in tokens)
        self.claims[task].append(token)
        self.is_over[task] = False
        self.given[task] = (self.now_us, ttl)

    @precondition(lambda self: any(self.claims.values()))
    @rule(data=st.data(), ttl=st.none() | TTL)
    def renew(self, data, ttl):
        task, token, is_good = self.some_token(data)
        process = data.draw(st.just("") | PROCESSES)
        own = {**self.own(), "process": "" if process in self.dead else process}
        try:
            self.do(Renew(task=task, token=token, ttl_us=ttl, **own))
        except LeaseLostError:
            assert not is_good
            return
        assert is_good
        if self.process[task]:  # whose death proves nothing stays so
            self.process[task] = own["process"]
        self.given[task] = (self.now_us, self.given[task][1] if ttl is None else ttl)

    @precondition(lambda self: any(self.claims.values()))
    @rule(data=st.data())
    def release(self, data):
        task, token, is_good = self.some_token(data)
        assert self.do(Release(task=task, token=token, **self.own())) is is_good
        self.is_over[task] |= is_good

    @rule(task=TASKS)
    def release_by_force(self, task):
        was_there = not self.is_over[task]
        assert self.do(Release(task=task, is_forced=True, **self.own())) is was_there
        self.is_over[task] = True

    @precondition(lambda self: any(self.claims.values()))
    @rule(data=st.data())
    def write_with_a_token(self, data):
        task, token, is_good = self.some_token(data)
        before = self.truth.position
        try:
            self.write(data, task, ((task, token),))
        except LeaseLostError:
            assert not is_good
            assert self.truth.position == before
            return
        assert is_good  # the promise: whoever was overtaken does not get here

    @rule(data=st.data(), task=TASKS)
    def write_without_one(self, data, task):
        try:
            self.write(data, task, ())
        except LeaseRequiredError:
            assert self.is_live(task)
            return
        assert not self.is_live(task)

    @precondition(lambda self: any(self.claims.values()))
    @rule(data=st.data())
    def delete_the_task(self, data):
        task, token, is_good = self.some_token(data)
        own = self.own()
        try:
            self.do(
                DeleteTask(task=task, based_on=self.truth.position, leases=((task, token),), **own)
            )
        except LeaseLostError:
            assert not is_good
            return
        assert is_good
        self.is_over[task] = True
        self.names[task] = self.truth.create(task)

    def write(self, data, task, leases):
        if data.draw(st.booleans(), label="create"):
            self.do(Create(task=task, step=1, payloads=payloads(), leases=leases, **self.own()))
        else:
            self.do(Change(checkpoint=self.names[task], leases=leases, **self.own()))

    def some_token(self, data) -> tuple[str, int, bool]:
        """Return a task, a token that somebody got for it, and whether that is its lease."""
        tasks = [task for task, tokens in self.claims.items() if tokens]
        task = data.draw(st.sampled_from(tasks), label="task")
        tokens = self.claims[task]
        token = data.draw(st.sampled_from(tokens), label="token")
        return task, token, token == tokens[-1] and not self.is_over[task]

    @invariant()
    def the_fold_is_the_model(self):
        for task, tokens in self.claims.items():
            grant = self.truth.lease(task)
            assert (grant is None) == self.is_over[task]
            assert grant is None or grant.token == tokens[-1]


TestLeasing = Leasing.TestCase
