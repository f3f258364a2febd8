"""Who did what, when, to which task: one pass over the log, with what deserves a look.

    log, from position 0 -> detector (all events) -> those that are asked for

Page: specs/audit.md. Nothing is changed, and memory does not grow with the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec

from ckptlog.errors import ArgumentError
from ckptlog.model.checkpoint import time_text
from ckptlog.model.entry import Commit, Entry
from ckptlog.policy.anomaly import LEVELS, Anomaly, Thresholds
from ckptlog.policy.detect import Detector
from ckptlog.policy.selection import Selection, names

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_MILLION: Final = 1_000_000


class AuditOptions(TypedDict, total=False):
    """What `Store.audit` takes; a condition may be one text or several.

    actor, task, checkpoint, worker, namespace, type: Only events with one of these. A type may be
        `completed` for `checkpoint.completed`, or `checkpoint.*`; it must be a known one.
    since, until: Only events of this time: since <= time < until; aware datetimes.
    start, end: Only these positions: start <= position < end.
    anomalies: Whether to look for them (default: True). Without, reading begins at `start`.
    anomaly: Only anomalies of one of these names.
    thresholds: From where on something is one: `{"stuck_after_s": 3600}`, for example; names and
        defaults are those of `ckptlog.policy.anomaly.Thresholds`.
    now: The present, for what is stuck or ahead; aware. The clock's by default.
    """

    actor: str | Iterable[str] | None
    task: str | Iterable[str] | None
    checkpoint: str | Iterable[str] | None
    worker: str | Iterable[str] | None
    namespace: str | Iterable[str] | None
    type: str | Iterable[str] | None
    since: datetime | None
    until: datetime | None
    start: int
    end: int | None
    anomalies: bool
    anomaly: str | Iterable[str] | None
    thresholds: Thresholds | Mapping[str, float] | None
    now: datetime | None


class AuditEvent(msgspec.Struct, frozen=True, gc=False):
    """One event that was asked for. leaf: Its RFC 6962 leaf hash, 32 bytes."""

    entry: Entry
    leaf: bytes

    @property
    def position(self) -> int:
        """Where it stands in the log."""
        return self.entry.position

    def to_dict(self) -> dict[str, Any]:
        """Return the record of specs/audit.md, safe for JSON."""
        event, subject = self.entry.event, self.entry.event.subject
        return {
            "kind": "event",
            "position": self.entry.position,
            "time": event.time,
            "actor": event.actor,
            "action": event.type,
            "task": subject.task or None,
            "namespace": subject.namespace or None,
            "checkpoint": subject.checkpoint or None,
            "worker": subject.worker or None,
            "parent": subject.parent or None,
            "state": event.state or None,
            "step": event.step or None,
            "total": event.total or None,
            "data_bytes": event.data.size if event.data else None,
            "new_bytes": event.new,
            "sanitised": event.sanitised,
            "cause": event.cause or None,
            "command": event.id,
            "facts": dict(event.facts),
            "leaf": self.leaf.hex(),
        }


class Audit:
    """One pass over a log; iterating it yields `AuditEvent` and `Anomaly` as they are met.

    An anomaly follows the event that shows it; what only the end shows comes last.

    Attributes (they grow while it is read):
        events: Number of events that were asked for.
        read: Number of events that were read.
        anomalies: Number of each anomaly that was told, by name.
        forgotten: What the bounds on memory let go, by kind; see specs/audit.md.

    Raises (while it is read):
        LogCorruptionError: A durable event is damaged.

    Threads: one.
    """

    def __init__(
        self,
        commits: Iterable[Commit],
        selection: Selection,
        detector: Detector | None,
        names: frozenset[str] = frozenset(LEVELS),
    ) -> None:
        self._commits = commits
        self._end = selection.end
        self._matches = selection.matcher()
        self._detector = detector
        self._names = names
        self.events = 0
        self.read = 0
        self.anomalies: Counter[str] = Counter()

    @property
    def forgotten(self) -> dict[str, int]:
        """What the bounds on memory let go, by kind."""
        return self._detector.forgotten if self._detector else {}

    def __iter__(self) -> Iterator[AuditEvent | Anomaly]:
        for commit in self._commits:
            yield from self._commit(commit)
            if self._end is not None and commit.position_next >= self._end:
                break
        if self._detector is not None:
            yield from self._told(self._detector.finish())

    def _commit(self, commit: Commit) -> Iterator[AuditEvent | Anomaly]:
        matches, detector, end = self._matches, self._detector, self._end
        leaves: tuple[bytes, ...] = ()
        for index, entry in enumerate(commit.entries):
            if end is not None and entry.position >= end:
                return
            self.read += 1
            if matches(entry.position, entry.event):
                self.events += 1
                leaves = leaves or commit.leaves
                yield AuditEvent(entry, leaves[index])
            if detector is not None and (found := detector.apply(entry)):
                yield from self._told(found)

    def summary(self) -> dict[str, Any]:
        """Return the sums, safe for JSON."""
        return {
            "kind": "summary",
            "events": self.events,
            "read": self.read,
            "anomalies": dict(sorted(self.anomalies.items())),
            "forgotten": self.forgotten,
        }

    def _told(self, found: Iterable[Anomaly]) -> Iterator[Anomaly]:
        for one in found:
            if one.name in self._names and self._matches(one.at.position, one.at):
                self.anomalies[one.name] += 1
                yield one


def audit(store: Store, options: AuditOptions) -> Audit:
    """Return a pass over a store's durable events.

    Raises:
        ArgumentError: A condition cannot be read; at once, not with the first event.
    """
    if unknown := sorted(set(options) - set(AuditOptions.__annotations__)):
        raise ArgumentError(
            f"An audit has no option {unknown[0]!r}.",
            hint=f"It has: {', '.join(AuditOptions.__annotations__)}.",
            argument=unknown[0],
        )
    selection = _selection(options)
    detector = _detector(store, options) if options.get("anomalies", True) else None
    first = 0 if detector else selection.start
    commits = () if first >= store.position else store.log.reader.commits(position=first)
    return Audit(commits, selection, detector, _anomaly_names(options.get("anomaly")))


def _anomaly_names(given: object) -> frozenset[str]:
    asked = names("anomaly", given)
    if unknown := sorted(asked - set(LEVELS)):
        raise ArgumentError(
            f"There is no anomaly {unknown[0]!r}.",
            hint=f"There are: {', '.join(LEVELS)}.",
            argument="anomaly",
        )
    return asked or frozenset(LEVELS)


def _detector(store: Store, options: AuditOptions) -> Detector:
    now = options.get("now")
    if now is None:
        now = datetime.fromtimestamp(store.environment.now_us() / _MILLION, UTC)
    _time("now", now)
    return Detector(now, _thresholds(options.get("thresholds")))


def _thresholds(given: object) -> Thresholds:
    if given is None or isinstance(given, Thresholds):
        return given or Thresholds()
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"thresholds is {given!r}; a dictionary is needed.",
            hint='{"stuck_after_s": 3600}, for example.',
            argument="thresholds",
        )
    names_known = Thresholds.__struct_fields__
    if unknown := [name for name in given if name not in names_known]:
        raise ArgumentError(
            f"There is no threshold {unknown[0]!r}.",
            hint=f"There are: {', '.join(names_known)}.",
            argument="thresholds",
        )
    return Thresholds(**given)


def _selection(options: AuditOptions) -> Selection:
    start, end = options.get("start", 0), options.get("end")
    for name, position in (("start", start), ("end", start if end is None else end)):
        if type(position) is not int or position < 0:
            raise ArgumentError(
                f"{name} is {position!r}; a position is a whole number from 0 on.", argument=name
            )
    return Selection(
        actors=names("actor", options.get("actor")),
        tasks=names("task", options.get("task")),
        checkpoints=names("checkpoint", options.get("checkpoint")),
        workers=names("worker", options.get("worker")),
        namespaces=names("namespace", options.get("namespace")),
        types=names("type", options.get("type")),
        since=_time("since", options.get("since")),
        until=_time("until", options.get("until")),
        start=start,
        end=end,
    )


def _time(name: str, moment: object) -> str | None:
    """Return a time as events hold it, so that times compare as text."""
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ArgumentError(
            f"{name} is {moment!r}; a datetime with a time zone is needed.",
            hint="datetime.now(UTC), for example.",
            argument=name,
        )
    try:
        return time_text(moment)
    except OverflowError:
        raise ArgumentError(
            f"{name} is {moment}, which UTC cannot express.", argument=name
        ) from None
