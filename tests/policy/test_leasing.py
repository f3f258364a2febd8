"""Claims, renewals, releases, and which writes are refused: one table of cases each."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from ckptlog.errors import (
    CheckpointNotFoundError,
    CheckpointUpdateError,
    CommandReusedError,
    ConflictError,
    LeaseHeldError,
    LeaseLostError,
    LeaseRequiredError,
)
from ckptlog.model.event import LEASE_CLAIMED, LEASE_RELEASED, LEASE_RENEWED, Event, Subject
from ckptlog.model.lease import Grant, grant_of, lease_after
from ckptlog.model.state import CheckpointState
from ckptlog.policy.command import (
    Change,
    Claim,
    Delete,
    DeleteTask,
    Moment,
    Pin,
    Record,
    Release,
    Renew,
)
from tests.policy.state_double import NOW, Truth, payloads

TTL_US = 60_000_000


@pytest.fixture
def truth() -> Truth:
    return Truth()


def later(seconds: float) -> Moment:
    return Moment(NOW.us + round(seconds * 1_000_000), NOW.iso)


def claim(truth, task="t", holder="a", moment=NOW, **options):
    options.setdefault("command", truth.new_id())
    command = Claim(actor="me", task=task, holder=holder, ttl_us=TTL_US, **options)
    return truth.do(command, moment)


def renew(truth, token, moment=NOW, ttl_us=None, **options):
    command = Renew(
        actor="me", command=truth.new_id(), task="t", token=token, ttl_us=ttl_us, **options
    )
    return truth.do(command, moment)


def release(truth, token=None, moment=NOW, **options):
    command = Release(actor="me", command=truth.new_id(), task="t", token=token, **options)
    return truth.do(command, moment)


def test_a_claim_says_everything(truth):
    truth.create("other")
    token = claim(truth)
    event = truth.events[-1]
    assert (token, event.type, event.subject.task) == (1, LEASE_CLAIMED, "t")
    assert event.facts == {
        "expires": NOW.us + TTL_US,
        "holder": "a",
        "token": 1,
        "ttl": TTL_US,
    }
    assert list(event.facts) == sorted(event.facts)


def test_a_live_lease_is_not_claimed_by_anybody(truth):
    claim(truth)
    for holder in ("b", "a"):  # a name lends nothing
        with pytest.raises(LeaseHeldError, match="'a' until 2023-11-14T22:14:20Z") as caught:
            claim(truth, holder=holder, moment=later(59.9))
        assert caught.value.context["holder"] == "a"
        assert caught.value.hint
    assert len(truth.events) == 1


def test_an_expired_lease_is_taken_over_and_says_from_whom(truth):
    old = claim(truth)
    new = claim(truth, holder="b", moment=later(60))
    assert new > old
    facts = truth.events[-1].facts
    assert (facts["former_holder"], facts["former_token"]) == ("a", old)


def test_a_live_lease_of_a_dead_process_is_taken_over_and_fenced(truth):
    old = claim(truth, process="p1")
    assert truth.events[-1].facts["process"] == "p1"
    for dead in ("", "p2"):  # nobody was seen dead, or another was
        with pytest.raises(LeaseHeldError):
            claim(truth, holder="b", dead=dead, moment=later(1))
    new = claim(truth, holder="b", process="p2", dead="p1", moment=later(1))
    facts = truth.events[-1].facts
    assert (facts["former_token"], facts["former_dead"], facts["process"]) == (old, 1, "p2")
    assert new > old
    with pytest.raises(LeaseLostError):
        renew(truth, old, later(2))


def test_a_lease_whose_death_proves_nothing_is_not_taken_over(truth):
    token = claim(truth)
    renew(truth, token, later(1), process="p1")
    assert truth.lease("t").process == ""
    with pytest.raises(LeaseHeldError):
        claim(truth, holder="b", dead="p1", moment=later(2))


def test_who_renews_a_lease_has_it(truth):
    token = claim(truth, process="p1")
    renew(truth, token, later(1), process="p2")
    with pytest.raises(LeaseHeldError):
        claim(truth, holder="b", dead="p1", moment=later(2))
    assert claim(truth, holder="b", dead="p2", moment=later(2)) > token


def test_an_operator_ends_the_lease_of_a_dead_process_without_force(truth):
    claim(truth, process="p1")
    own = {"task": "t", "actor": "me"}
    with pytest.raises(LeaseHeldError):
        truth.do(Release(command=truth.new_id(), dead="p2", **own), NOW)
    assert truth.do(Release(command=truth.new_id(), dead="p1", **own), NOW) is True


@pytest.mark.parametrize(
    ("ahead_s", "is_live"), [(59, True), (60, True), (61, False), (1e9, False)]
)
def test_a_lease_of_a_clock_that_was_ahead_binds_nobody(truth, ahead_s, is_live):
    claim(truth, moment=later(ahead_s))
    if is_live:
        with pytest.raises(LeaseHeldError):
            claim(truth, holder="b")
    else:
        assert claim(truth, holder="b") == 1


def test_a_renewal_keeps_the_token(truth):
    token = claim(truth)
    assert renew(truth, token, later(30)) == NOW.us + 30_000_000 + TTL_US
    assert truth.lease("t").token == token
    assert renew(truth, token, later(30), ttl_us=5_000_000) == NOW.us + 35_000_000
    assert truth.lease("t").ttl_us == 5_000_000
    assert truth.events[-1].type == LEASE_RENEWED


def test_an_expired_lease_that_nobody_took_is_renewed(truth):
    token = claim(truth)
    assert renew(truth, token, later(1000)) == NOW.us + 1_000_000_000 + TTL_US


def test_a_lost_lease_is_not_renewed(truth):
    old = claim(truth)
    new = claim(truth, holder="b", moment=later(60))
    with pytest.raises(LeaseLostError, match="'b' has it now"):
        renew(truth, old, later(60))
    release(truth, new)
    with pytest.raises(LeaseLostError, match="nobody holds it now") as lost:
        renew(truth, new, later(60))
    assert "present holder" not in lost.value.hint
    assert "acquires it anew" in lost.value.hint


def test_releases(truth):
    token = claim(truth)
    assert release(truth, token + 1) is False
    assert release(truth, token) is True
    assert truth.events[-1].facts == {"holder": "a", "token": token}
    assert release(truth, token) is False
    assert truth.lease("t") is None
    assert claim(truth, holder="b") == 2


def test_an_operator_ends_an_expired_lease_and_a_live_one_by_force(truth):
    assert release(truth) is False
    claim(truth)
    with pytest.raises(LeaseHeldError, match="--force"):
        release(truth)
    assert release(truth, is_forced=True) is True
    assert truth.events[-1].facts["forced"] == 1
    token = claim(truth)
    assert release(truth, moment=later(60)) is True
    with pytest.raises(LeaseLostError):
        truth.create("t", leases=(("t", token),))


# --- writes ---------------------------------------------------------------------------------------


def writes(truth: Truth, name: str):
    """Yield every command that writes about the task of a checkpoint."""

    def own(**options):
        return {"actor": "me", "command": truth.new_id(), **options}

    yield lambda **o: truth.do(_create(truth, **o))
    for state in (None, CheckpointState.COMPLETED, CheckpointState.FAILED):
        yield lambda state=state, **o: truth.do(
            Change(checkpoint=name, payloads=payloads("c", "d"), state=state, **own(**o))
        )
    yield lambda **o: truth.do(Delete(checkpoint=name, **own(**o)))
    yield lambda **o: truth.do(DeleteTask(task="t", based_on=truth.position, **own(**o)))


def _create(truth, **options):
    from ckptlog.policy.command import Create

    return Create(
        actor="me", command=truth.new_id(), task="t", step=1, payloads=payloads(), **options
    )


@pytest.mark.parametrize("number", range(6))
def test_every_write_is_refused_beside_a_live_lease(truth, number):
    name = truth.create()
    token = claim(truth)
    before = len(truth.events)
    write = list(writes(truth, name))[number]
    with pytest.raises(LeaseRequiredError, match="leased to 'a'"):
        write()
    with pytest.raises(LeaseRequiredError):
        write(leases=(("another", token),))
    with pytest.raises(LeaseLostError):
        write(leases=(("t", token + 1),))
    assert len(truth.events) == before
    write(leases=(("another", 7), ("t", token)))
    assert len(truth.events) == before + 1


@pytest.mark.parametrize("number", range(6))
def test_every_write_under_a_lost_lease_is_refused(truth, number):
    name = truth.create()
    old = claim(truth)
    write = list(writes(truth, name))[number]
    release(truth, claim(truth, holder="b", moment=later(60)))
    with pytest.raises(LeaseLostError):  # also where nobody has one
        write(leases=(("t", old),))
    write()


def test_an_expired_lease_binds_nobody_and_its_token_is_good(truth):
    name = truth.create()
    token = claim(truth)
    change = Change(actor="me", command="x", checkpoint=name, leases=(("t", token),))
    assert truth.do(change, later(3600)) is True
    bare = Change(actor="me", command="y", checkpoint=name)
    assert truth.do(bare, later(3600)) is True


def test_a_lost_lease_is_told_before_a_conflict_and_after_what_is_not_there(truth):
    name = truth.create()
    lost = (("t", 99),)
    with pytest.raises(LeaseLostError):
        truth.change(name, leases=lost, expected=77)
    with pytest.raises(ConflictError):
        truth.change(name, expected=77)
    with pytest.raises(CheckpointNotFoundError):
        truth.change("nothing", leases=lost)


def test_completing_again_under_a_lost_lease_is_refused(truth):
    name = truth.create()
    token = claim(truth)
    own = (("t", token),)
    truth.change(name, CheckpointState.COMPLETED, leases=own)
    assert truth.change(name, CheckpointState.COMPLETED, leases=own) is True
    release(truth, token)
    with pytest.raises(LeaseLostError):
        truth.change(name, CheckpointState.COMPLETED, leases=own)


def test_a_retry_is_answered_whoever_holds_the_lease_now(truth):
    name = truth.create()
    token = claim(truth)
    options = {"command": "mine", "fingerprint": "f", "leases": (("t", token),)}
    assert truth.change(name, **options) is True
    claim(truth, holder="b", moment=later(60))
    count = len(truth.events)
    assert truth.change(name, **options) is True
    assert len(truth.events) == count


def test_a_claim_with_a_command_id_is_answered_again(truth):
    again = {"command": "mine", "fingerprint": "f"}
    token = claim(truth, **again)
    assert claim(truth, **again) == token
    assert len(truth.events) == 1
    with pytest.raises(CommandReusedError):
        claim(truth, command="mine", fingerprint="g")
    name = truth.create("other")
    with pytest.raises(CommandReusedError):
        truth.change(name, **again)


def test_clean_ups_pins_and_records_go_on(truth):
    name, doomed = truth.create(), truth.create()
    claim(truth)
    own = {"actor": "me"}
    entry = truth.living(name)
    pin = Pin(
        command="p", checkpoint=name, based_on=entry.position, is_pinned=True,
        payloads=payloads(None), **own,
    )  # fmt: skip
    assert truth.do(pin) is True
    assert truth.do(Delete(command="d", checkpoint=doomed, cause="cleanup", **own)) is True
    assert truth.do(Record(command="r", type="import.finished", facts={}, task="t", **own)) is True


def test_a_deleted_task_has_no_lease_and_old_tokens_are_worth_nothing(truth):
    truth.create()
    token = claim(truth)
    own = (("t", token),)
    truth.do(DeleteTask(actor="me", command="x", task="t", based_on=truth.position, leases=own))
    assert truth.lease("t") is None
    with pytest.raises(LeaseLostError):
        truth.create(leases=own)
    assert truth.create()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"token": 1, "expires": 2, "ttl": 3},
        {"token": "1", "expires": 2, "ttl": 3, "holder": "a"},
        {"token": 1, "expires": -2, "ttl": 3, "holder": "a"},
        {"token": 1, "expires": 2, "ttl": 3, "holder": 4},
    ],
)
def test_malformed_facts_are_no_lease(facts):
    event = Event(
        actor="me", facts=facts, id="x", schema=2, subject=Subject(task="t"), time="", type=LEASE_CLAIMED
    )  # fmt: skip
    assert grant_of(event) is None
    assert lease_after(event) is None
    assert lease_after(msgspec.structs.replace(event, type=LEASE_RELEASED)) is None


def test_a_grant_survives_pickle_and_json():
    grant = Grant("t", 3, "a", 5, 6)
    assert pickle.loads(pickle.dumps(grant)) == grant
    assert msgspec.json.decode(msgspec.json.encode(grant), type=Grant) == grant


def test_the_errors_are_of_the_branch_that_the_specification_names():
    for kind in (LeaseHeldError, LeaseLostError, LeaseRequiredError):
        assert issubclass(kind, CheckpointUpdateError)
    assert not LeaseLostError.retryable
