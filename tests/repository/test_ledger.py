"""The ledger beside the plainest fold, in memory and in the view, in every mixture of the two."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import LogCorruptionError
from ckptlog.model.event import CREATED, DELETED, LEASE_RELEASED, TASK_DELETED
from ckptlog.model.lease import apply
from ckptlog.repository import ledger as ledger_module
from ckptlog.repository.ledger import Ledger, Stage, ViewBehindError
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewDamagedError
from tests.views.author import STORE, Author


class House:
    """A log by hand, a view in memory, and a ledger on it."""

    def __init__(self):
        self.author = Author()
        self.view = CurrentView.open(None, STORE)
        self.ledger = self.open()

    def open(self):
        """Make a ledger as a new process does: from what the view has, and nothing else."""
        self.ledger = Ledger(self.view, self.read)
        self.ledger.scan = self.scan
        return self.ledger

    def read(self, container, offset, length, span):
        for commit in self.author.commits:
            for entry in commit.entries:
                if (entry.container, entry.offset) == (container, offset):
                    return entry, {}
        raise LogCorruptionError("Nothing stands there.")

    def scan(self, container, offset, start, position):
        for commit in self.author.commits:
            for entry in commit.entries:
                if entry.position == position:
                    return entry.event
        return None

    def absorb(self):
        self.ledger.absorb(tuple(self.author.commits))

    def apply(self, count):
        """Bring the view on by some commits, as whoever shares it may."""
        rest = [one for one in self.author.commits if one.position_next > self.view.mark.position]
        if rest[:count]:
            assert self.view.apply(rest[:count], lambda entry: None)

    def release(self):
        self.ledger.release(min(self.view.mark.position, self.ledger.position))

    def fold(self, position):
        """Return (newest event's position, whether deleted, origin, task) of each id."""
        found = {}
        for commit in self.author.commits:
            for entry in commit.entries:
                event = entry.event
                if entry.position >= position:
                    return found
                name = event.subject.checkpoint
                if event.type == TASK_DELETED:
                    for other, (_, is_deleted, origin, task) in found.items():
                        if task == event.subject.task and not is_deleted:
                            found[other] = (entry.position, True, origin, task)
                elif name:
                    is_deleted = event.type == DELETED
                    found[name] = (entry.position, is_deleted, entry.origin, event.subject.task)
        return found

    def leases(self, position):
        """Return the lease of each task that has one."""
        found = {}
        for commit in self.author.commits:
            for entry in commit.entries:
                if entry.position < position:
                    apply(found, entry.event)
        return found

    def check(self):
        """Compare every answer with the fold of what the ledger has taken in."""
        ledger = self.ledger
        known, ahead = self.fold(ledger.position), self.fold(self.view.mark.position)
        for name in {*known, *ahead}:
            found = ledger.peek(name)
            told = found and (
                found[0].position,
                found[1],
                found[0].origin,
                found[0].event.subject.task,
            )
            right = [known.get(name)]
            if self.view.mark.position > ledger.position:
                right.append(ahead.get(name))
            assert told in right, (name, told, right)
            assert found is None or found[0].event.subject.checkpoint == name
        assert ledger.peek("nobody") is None
        if self.view.mark.position <= ledger.position:
            self.check_latest(known)
            assert ledger.leases() == self.leases(ledger.position)
        for commit in self.author.commits:
            for entry in commit.entries:
                if entry.position < ledger.position:
                    assert ledger.command(entry.event.id) == entry.event
        assert ledger.command("nobody") is None

    def check_latest(self, known):
        for task in {task for _, _, _, task in known.values()}:
            living = [
                (origin, position)
                for position, is_deleted, origin, own in known.values()
                if own == task and not is_deleted
            ]
            try:
                found = self.ledger.latest(task)
            except ViewBehindError:
                assert self.ledger.pending
                continue
            assert (found and (found.origin, found.position)) == max(living, default=None)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("create", "create", "change", "change", "delete", "end"),
                *("claim", "claim", "release lease", "look at leases"),
                *("absorb", "apply", "release", "open", "find"),
            ]
        ),
        st.integers(0, 30),
    ),
    max_size=40,
)


@given(ACTS)
def test_every_mixture_of_memory_and_view(acts):  # noqa: PLR0912 - a table of acts
    house = House()
    author = house.author
    for act, number in acts:
        names = [name for name, row in author.model.items() if not row.deleted]
        if act == "create":
            author.create(f"t{number % 3}")
        elif act == "change" and names:
            author.change(names[number % len(names)])
        elif act == "delete" and names:
            author.delete(names[number % len(names)])
        elif act == "end":
            author.delete_task(f"t{number % 3}")
        elif act == "claim":
            author.lease(f"t{number % 3}")
        elif act == "release lease":
            author.lease(f"t{number % 3}", LEASE_RELEASED)
        elif act == "look at leases":
            house.ledger.leases()  # whatever it says now, it must be right later
        elif act == "absorb":
            house.absorb()
        elif act == "apply":
            house.apply(number % 5 + 1)
        elif act == "release":
            house.release()
        elif act == "open":
            house.open()
            house.absorb()
        elif act == "find" and author.model:
            # Only the holder of the lock does so, who has followed the log.
            house.absorb()
            house.ledger.find([*author.model][number % len(author.model)])
        house.check()
    house.absorb()
    house.check()


def test_absorbing_twice_is_absorbing_once():
    house = House()
    for _ in range(3):
        house.author.create("t")
    house.absorb()
    house.absorb()
    assert (house.ledger.position, house.ledger.pending_events) == (3, 3)
    assert len(house.ledger.pending) == 3
    last = house.author.commits[-1]
    assert house.ledger.leaf == last.leaf
    assert (house.ledger.container, house.ledger.offset) == (last.container, last.offset_end)


def test_memory_is_given_back():
    house = House()
    for number in range(10):
        house.author.create(f"t{number}")
    house.absorb()
    house.apply(4)
    house.release()
    assert (len(house.ledger.pending), house.ledger.pending_events) == (6, 6)
    assert house.ledger.pending_at(3) is None
    assert house.ledger.pending_at(4).position == 4
    assert house.ledger.pending_at(10) is None
    house.apply(100)
    house.release()
    assert house.ledger.pending == []
    house.check()


def test_memory_is_bounded_but_never_forgets_what_the_view_lacks(monkeypatch):
    monkeypatch.setattr(ledger_module, "_REMEMBERED_MAX", 4)
    house = House()
    for number in range(20):
        house.author.create(f"t{number}")
    house.absorb()
    house.apply(100)
    house.release()
    names = [house.author.create(f"t{number}") for number in range(3)]
    house.absorb()
    for name in house.author.model:
        house.ledger.find(name)
    for _ in range(3):
        house.release()
    assert len(house.ledger._remembered) <= 4
    assert len(house.ledger._latest) <= 4 + 3
    for number, name in enumerate(names):
        assert house.ledger.latest(f"t{number}").event.subject.checkpoint == name
    house.check()


def test_a_row_that_does_not_fit_its_event():
    house = House()
    name, other = house.author.create("t"), house.author.create("t")
    house.apply(10)
    row, wrong = house.view.row(name), house.view.row(other)
    assert house.ledger.read_row(row)[0].position == 0
    for change in (
        {"position": 1},
        {"offset": wrong.offset},
        {"offset": 7},
        {"state": "failed"},
        {"task": "u"},
        {"worker": "w"},
        {"parent": "p"},
        {"namespace": "n"},
        {"origin": 1},
        {"id": "else"},
    ):
        with pytest.raises(ViewDamagedError):
            house.ledger.read_row(msgspec.structs.replace(row, **change))


def test_a_command_at_a_wrong_position():
    house = House()
    house.author.create("t")
    house.apply(10)
    house.open()
    (commit,) = house.author.commits
    house.view.command = lambda command: 0
    assert house.ledger.command(commit.entries[0].event.id) is not None
    with pytest.raises(ViewDamagedError, match="does not carry the command 'else'"):
        house.ledger.command("else")


# --- stages ---------------------------------------------------------------------------------------


def events_of(author):
    return tuple(entry.event for commit in author.commits for entry in commit.entries)


def test_a_stage_shows_what_was_decided_and_nothing_to_anybody_else():
    house = House()
    old = house.author.create("t")
    house.absorb()
    stage = Stage(house.ledger)
    later = Author()
    later.create("t")  # position 0 there too; only ids count
    new = later.create("u")
    stage.apply(events_of(later)[1:])
    assert stage.position == 2
    assert stage.living(new).event.type == CREATED
    assert stage.is_taken(new)
    assert stage.living(old) is not None
    assert stage.command(events_of(later)[1].id) == events_of(later)[1]
    assert house.ledger.peek(new) is None
    inner = Stage(stage)
    later.delete_task("t")
    later.delete(new)
    inner.apply(events_of(later)[2:])
    assert inner.living(old) is None
    assert inner.is_taken(old)
    assert inner.living(new) is None
    assert stage.living(old) is not None
    assert stage.living(new) is not None
    stage.merge(inner)
    assert stage.living(old) is None
    assert stage.position == 4
    assert house.ledger.peek(old)[1] is False


def test_what_is_created_after_its_task_ended_lives():
    house = House()
    old = house.author.create("t")
    house.absorb()
    later = Author()
    later.create("t")
    later.delete_task("t")
    new = later.create("t")
    stage = Stage(house.ledger)
    stage.apply(events_of(later)[1:])
    assert stage.living(old) is None
    assert stage.living(new) is not None
    assert stage.id_time_max >= house.ledger.id_time_max
