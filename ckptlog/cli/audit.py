"""`ckptlog audit`: who did what, when, to which task; and what deserves a look.

Its acts (`ckptlog audit head`, ...) sign and prove the history: `cli.transparency`, `cli.witness`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ckptlog.cli import text, transparency, witness
from ckptlog.cli.command import Commands, Context, add_command
from ckptlog.cli.exit_status import OK, PARTIAL
from ckptlog.cli.moment import moment, natural
from ckptlog.cli.output import Column, Output

if TYPE_CHECKING:
    from ckptlog.model.entry import Entry
    from ckptlog.policy.anomaly import Anomaly, Thresholds
    from ckptlog.repository.audit import Audit, AuditEvent, AuditOptions

    Record = AuditEvent | Anomaly

FORMATS = ("table", "jsonl", "cloudevents")
_PAGE_ROWS: Final = 500
# Of a log full of anomalies the first ones and the sums are what a person can read.
_SHOWN_MAX: Final = 1000
_EVENT_COLUMNS = (
    Column("position", is_number=True),
    Column("time"),
    Column("actor"),
    Column("action"),
    Column("task"),
    Column("checkpoint"),
    Column("step", is_number=True),
    Column("detail", is_prose=True),
)
_ANOMALY_COLUMNS = (
    Column("level"),
    Column("anomaly"),
    Column("position", is_number=True),
    Column("time"),
    Column("actor"),
    Column("task"),
    Column("checkpoint"),
    Column("what", is_prose=True),
)


def add_commands(commands: Commands) -> None:
    """Add `audit`."""
    parser = add_command(
        commands,
        "audit",
        run_audit,
        about="tell who did what, when, to which task, and flag what looks odd",
        epilog="Conditions of one kind are alternatives. Anomalies and thresholds: specs/audit.md.",
    )
    for name in ("actor", "task", "checkpoint", "worker", "namespace", "type"):
        parser.add_argument(
            f"--{name}", action="append", metavar="NAME", help=f"only with this {name}; repeatable"
        )
    parser.add_argument("--since", type=moment, metavar="TIME", help="at or after")
    parser.add_argument("--until", type=moment, metavar="TIME", help="before")
    parser.add_argument(
        "--from", dest="start", type=natural, default=0, metavar="POSITION", help="from here on"
    )
    parser.add_argument("--to", dest="end", type=natural, metavar="POSITION", help="included")
    parser.add_argument(
        "--format", choices=FORMATS, help="table (default), jsonl (as --json), or cloudevents"
    )
    parser.add_argument(
        "--anomalies",
        choices=("all", "none", "only"),
        default="all",
        help="beside the events (default), not at all, or alone",
    )
    parser.add_argument(
        "--anomaly", action="append", metavar="NAME", help="only this anomaly; repeatable"
    )
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="from where on something is an anomaly, stuck_after_s=3600 for example; repeatable",
    )
    parser.add_argument("--now", type=moment, metavar="TIME", help="the present, for what is stuck")
    parser.add_argument(
        "--check",
        nargs="?",
        const="warning",
        choices=("warning", "info"),
        help="end with status 1 if there are anomalies of this level (default: warning) or above",
    )
    acts = parser.add_subparsers(
        title="acts (signed history: specs/transparency.md)", metavar="ACT", dest="act"
    )
    transparency.add_acts(acts)
    witness.add_acts(acts)


def run_audit(context: Context) -> int:
    """Print the events and anomalies that are asked for."""
    arguments, output = context.arguments, context.output
    layout = arguments.format or ("jsonl" if output.is_json else "table")
    options = _options(arguments, layout)
    levels: Counter[str] = Counter()
    with context.store(is_reading=True) as store:
        audit = store.audit(**options)
        records = _counted(audit, levels, arguments.anomalies)
        if layout == "cloudevents":
            _print_cloud_events(output, records, store.id)
        elif layout == "jsonl":
            for record in records:
                output.item(record.to_dict())
            output.item(audit.summary())
        else:
            _print_tables(output, records, audit, arguments.anomalies)
    return _checked(output, levels, arguments.check)


def _options(arguments: argparse.Namespace, layout: str) -> AuditOptions:
    is_told = layout != "cloudevents" and arguments.anomalies != "none"
    return {
        "actor": arguments.actor,
        "task": arguments.task,
        "checkpoint": arguments.checkpoint,
        "worker": arguments.worker,
        "namespace": arguments.namespace,
        "type": arguments.type,
        "since": arguments.since,
        "until": arguments.until,
        "start": arguments.start,
        "end": None if arguments.end is None else arguments.end + 1,
        "anomalies": is_told or arguments.check is not None,
        "anomaly": arguments.anomaly,
        "thresholds": _thresholds(arguments.threshold),
        "now": arguments.now,
    }


def _thresholds(given: list[str]) -> Thresholds:
    import msgspec

    from ckptlog.errors import ArgumentError
    from ckptlog.policy.anomaly import Thresholds

    values: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or name not in Thresholds.__struct_fields__:
            raise ArgumentError(
                f"{one!r} sets no threshold.",
                hint=f"Use NAME=VALUE; names: {', '.join(Thresholds.__struct_fields__)}.",
                argument="threshold",
            )
        values[name] = value
    try:
        return msgspec.convert(values, Thresholds, strict=False)
    except msgspec.ValidationError as error:
        raise ArgumentError(f"A threshold cannot be read: {error}", argument="threshold") from error


def _counted(audit: Audit, levels: Counter[str], shown: str) -> Iterator[Record]:
    """Yield the records to print; count the anomalies by level, printed or not."""
    from ckptlog.policy.anomaly import Anomaly

    for record in audit:
        is_anomaly = isinstance(record, Anomaly)
        if isinstance(record, Anomaly):
            levels[record.level] += 1
        if shown == "all" or is_anomaly == (shown == "only"):
            yield record


def _checked(output: Output, levels: Counter[str], asked: str | None) -> int:
    number = levels["warning"] + (levels["info"] if asked == "info" else 0)
    if asked is None or not number:
        return OK
    output.fault(
        {
            "code": "cli.audit",
            "message": f"The audit found {_anomalies(number)}.",
            "hint": "specs/audit.md defines each; --anomaly and --threshold narrow it down.",
            "context": {"anomalies": number},
        }
    )
    return PARTIAL


def _anomalies(number: int) -> str:
    return text.count(number, "anomaly").replace("anomalys", "anomalies")


# --- CloudEvents ----------------------------------------------------------------------------------


def _print_cloud_events(output: Output, records: Iterable[Record], store_id: str) -> None:
    from ckptlog.formats.cloud_event import cloud_event
    from ckptlog.policy.anomaly import Anomaly

    for record in records:
        if not isinstance(record, Anomaly):
            output.item(cloud_event(record.entry, record.leaf, store_id))


# --- tables ---------------------------------------------------------------------------------------


def _print_tables(output: Output, records: Iterable[Record], audit: Audit, anomalies: str) -> None:
    """Print events in pages, so that memory does not grow; then the anomalies; then the sums."""
    found: list[Anomaly] = []
    rows = _event_rows(records, found.append)
    while page := list(islice(rows, _PAGE_ROWS)):
        output.table(_EVENT_COLUMNS, page)
    if found:
        if anomalies != "only":
            output.line()
        output.table(_ANOMALY_COLUMNS, [_anomaly_row(one) for one in found])
    if audit.events or found:
        output.line()
    output.line(_sums(audit, anomalies))
    more = sum(audit.anomalies.values()) - len(found)
    if more > 0:
        output.note(f"showing {len(found):,} of {_anomalies(len(found) + more)} (--json shows all)")
    if audit.forgotten:
        lost = ", ".join(f"{kind} {count:,}" for kind, count in audit.forgotten.items())
        output.note(f"anomalies may be missing; let go for want of memory: {lost}")


def _event_rows(
    records: Iterable[Record], tell: Callable[[Anomaly], None]
) -> Iterator[tuple[object, ...]]:
    from ckptlog.policy.anomaly import Anomaly

    told = 0
    for record in records:
        if not isinstance(record, Anomaly):
            yield _event_row(record.entry)
        elif told < _SHOWN_MAX:
            told += 1
            tell(record)


def _event_row(entry: Entry) -> tuple[object, ...]:
    event = entry.event
    return (
        entry.position,
        text.instant(event.time),
        event.actor,
        event.type.removeprefix("checkpoint."),
        event.subject.task or "-",
        event.subject.checkpoint or "-",
        text.progress(event.step, event.total) if event.step else "-",
        "; ".join(_details(entry)),
    )


def _details(entry: Entry) -> Iterator[str]:
    from ckptlog.model.event import UPDATED

    event = entry.event
    if event.type == UPDATED:
        yield f"now {event.state}"
    if event.data is not None:
        yield f"{text.size(event.data.size)} (+{text.size(event.new)})"
    if event.sanitised:
        yield f"{text.count(event.sanitised, 'secret')} replaced"
    for name, value in event.facts.items():
        yield f"{name}={value}"
    if event.cause:
        yield f"because of {event.cause}"


def _anomaly_row(one: Anomaly) -> tuple[object, ...]:
    return (
        one.level,
        one.name,
        one.at.position,
        text.instant(one.at.time),
        one.at.actor,
        one.at.subject.task or "-",
        one.at.subject.checkpoint or "-",
        one.message,
    )


def _sums(audit: Audit, anomalies: str) -> str:
    asked: Any = f"{text.count(audit.events, 'event')} of {audit.read:,}"
    if anomalies == "none":
        return f"{asked}."
    names = ", ".join(f"{name} {number:,}" for name, number in sorted(audit.anomalies.items()))
    number = _anomalies(sum(audit.anomalies.values()))
    return f"{asked}; {number}" + (f": {names}." if names else ".")
