"""What is true, as `decide` asks for it, held in dictionaries; it folds the events it is given."""

from __future__ import annotations

from ckptlog.model.entry import Entry
from ckptlog.model.event import DELETED, TASK_DELETED, Event, Reference
from ckptlog.model.identifier import id_time
from ckptlog.model.lease import Grant, apply
from ckptlog.policy.command import Change, Create, Moment, Payloads
from ckptlog.policy.decide import Decision, Stale, decide

NOW = Moment(1_700_000_000_000_000, "2023-11-14T22:13:20.000000Z")


def reference(letter: str) -> Reference:
    """A payload's name that begins with a letter of its own."""
    return Reference("leaf", letter * 64, 2)


def payloads(data: str | None = "a", meta: str | None = "b", **options) -> Payloads:
    return Payloads(
        None if data is None else reference(data),
        None if meta is None else reference(meta),
        **options,
    )


class Truth:
    """A log in memory: `do` decides a command, appends its events, and returns the answer."""

    def __init__(self) -> None:
        self.position = 0
        self.id_time_max = 0
        self.events: list[Event] = []
        self.asked: list[str] = []
        self._newest: dict[str, tuple[Entry, bool]] = {}
        self._serial = 0
        self.leases: dict[str, Grant] = {}

    def living(self, checkpoint: str) -> Entry | None:
        found = self._newest.get(checkpoint)
        return None if found is None or found[1] else found[0]

    def is_taken(self, checkpoint: str) -> bool:
        self.asked.append(checkpoint)
        return checkpoint in self._newest

    def command(self, command: str) -> Event | None:
        return next((event for event in self.events if event.id == command), None)

    def may_have_changed(self, task: str, since: int) -> bool:
        return any(event.subject.task == task for event in self.events[since:])

    def incarnation(self, task: str) -> int:
        return sum(
            event.type == TASK_DELETED and event.subject.task == task for event in self.events
        )

    def has_child(self, parent: str, task: str, namespace: str) -> bool:
        return any(
            (entry.event.subject.parent, entry.event.subject.task, entry.event.subject.namespace)
            == (parent, task, namespace)
            for entry, is_deleted in self._newest.values()
            if not is_deleted and entry.event.meta is not None
        )

    def lease(self, task: str) -> Grant | None:
        return self.leases.get(task)

    def do(self, command, moment: Moment = NOW) -> str | bool | int | Stale:
        decision = decide(self, command, moment)
        if isinstance(decision, Stale):
            return decision
        self.append(decision)
        return decision.result

    def append(self, decision: Decision) -> None:
        for event in decision.events:
            name = event.subject.checkpoint
            entry = Entry(event, self.position, "", 0, 0, 0)
            if name:
                self._newest[name] = (entry, event.type == DELETED)
                self.id_time_max = max(self.id_time_max, id_time(name))
            elif event.type == TASK_DELETED:
                for other, (last, _) in self._newest.items():
                    if last.event.subject.task == event.subject.task:
                        self._newest[other] = (last, True)
            apply(self.leases, event)
            self.events.append(event)
            self.position += 1

    def create(self, task: str = "t", **options) -> str:
        options.setdefault("payloads", payloads())
        options.setdefault("step", 1)
        return str(self.do(Create(actor="me", command=self.new_id(), task=task, **options)))

    def change(self, checkpoint: str, state=None, **options):
        options.setdefault("command", self.new_id())
        return self.do(Change(actor="me", checkpoint=checkpoint, state=state, **options))

    def new_id(self) -> str:
        self._serial += 1
        return f"c{self._serial}"
