"""The fold against the page's definitions, written down a second time without any memory.

Each definition here looks at the whole list of events before the one that it judges.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.policy.anomaly import Thresholds
from ckptlog.policy.detect import Detector
from tests.policy.story import Story

LIMITS = Thresholds(
    clock_tolerance_s=1,
    clock_ahead_s=5,
    stuck_after_s=20,
    failures_min=2,
    restores_min=2,
    deletes_min=3,
    deletes_window_s=10,
    actor_grace_events=3,
    size_ratio=4,
    size_min_bytes=50,
)
KINDS = (
    "created",
    "updated",
    "completed",
    "failed",
    "restored",
    "deleted",
    "task.deleted",
    "storage.pressure",
    "cleanup.finished",
)

events = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "checkpoint": st.sampled_from("abc"),
        "task": st.sampled_from(("t", "u")),
        "actor": st.sampled_from(("ada", "bob")),
        "step": st.integers(1, 4),
        "total": st.integers(0, 3),
        "size": st.sampled_from((None, 2, 30, 100, 200, 500)),
        "sanitised": st.sampled_from((0, 0, 1)),
        "cause": st.sampled_from(("", "", "clean-up")),
        "wait": st.sampled_from((-4, -2, -1.5, 0, 0, 1, 3, 9, 25)),
        "checkpoints": st.integers(0, 3),
    }
)


def told_by_definition(entries, now):
    told = []
    for index, entry in enumerate(entries):
        past = entries[:index]
        for name, rule in RULES.items():
            if rule(past, entry, now, entries):
                told.append((name, entry.position))
    return sorted(told)


def moment(entry):
    return datetime.fromisoformat(entry.event.time)


def seconds(earlier, later):
    return (later - earlier).total_seconds()


def is_change(entry):
    return entry.event.type.startswith("checkpoint.")


def kind_of(entry):
    return entry.event.type.removeprefix("checkpoint.")


def run_of_task(past, entry):
    """Return the events that tell of the task, since it was last deleted."""
    run = []
    for one in past:
        if one.event.subject.task == entry.event.subject.task:
            if kind_of(one) == "task.deleted":
                run = []
            elif is_change(one) and kind_of(one) != "deleted":
                run.append(one)
    return run


def tells(entry):
    return is_change(entry) and kind_of(entry) != "deleted"


def clock_backwards(past, entry, now, entries):
    return past and seconds(moment(entry), moment(past[-1])) > LIMITS.clock_tolerance_s


def is_ahead(entry, now):
    return seconds(now, moment(entry)) > LIMITS.clock_ahead_s


def clock_ahead(past, entry, now, entries):
    return is_ahead(entry, now) and not (past and is_ahead(past[-1], now))


def step_gap(past, entry, now, entries):
    greatest = max((one.event.step for one in run_of_task(past, entry)), default=0)
    return tells(entry) and entry.event.step > greatest + 1


def is_beyond(entry):
    return 0 < entry.event.total < entry.event.step


def step_beyond_total(past, entry, now, entries):
    run = run_of_task(past, entry)
    return tells(entry) and is_beyond(entry) and not (run and is_beyond(run[-1]))


def stuck(state):
    def rule(past, entry, now, entries):
        if not tells(entry) or entry.event.state != state:
            return False
        for later in entries[entry.position + 1 :]:
            if (
                is_change(later)
                and later.event.subject.checkpoint == entry.event.subject.checkpoint
            ):
                return False
            is_of_task = later.event.subject.task == entry.event.subject.task
            if is_of_task and kind_of(later) == "task.deleted":
                return False
        return seconds(moment(entry), now) > LIMITS.stuck_after_s

    return rule


def repeated(kind, least):
    def rule(past, entry, now, entries):
        count = 0
        for one in [*run_of_task(past, entry), entry]:
            count = 0 if kind_of(one) == "completed" else count + (kind_of(one) == kind)
        return kind_of(entry) == kind and count == least

    return rule


def deletes_of(entry, actor):
    if entry.event.actor != actor or entry.event.cause:
        return 0
    if kind_of(entry) == "task.deleted":
        return entry.event.facts["checkpoints"]
    return int(kind_of(entry) == "deleted")


def deletes_in_window(past, entry):
    """Count an actor's deletes before an event, back to the first that lies out of the window."""
    count = 0
    mine = [one for one in past if deletes_of(one, entry.event.actor)]
    kept = []
    for at, one in enumerate([*mine, entry]):
        while kept and seconds(moment(kept[0]), moment(one)) > LIMITS.deletes_window_s:
            kept.pop(0)
        if at < len(mine):
            kept.append(one)
    for one in kept:
        count += deletes_of(one, entry.event.actor)
    return count


def delete_burst(past, entry, now, entries):
    number = deletes_of(entry, entry.event.actor)
    if not number:
        return False
    before = deletes_in_window(past, entry)
    return before < LIMITS.deletes_min <= before + number


def new_actor(past, entry, now, entries):
    return len(past) >= LIMITS.actor_grace_events and entry.event.actor not in {
        one.event.actor for one in past
    }


def secrets_replaced(past, entry, now, entries):
    run = run_of_task(past, entry)
    return tells(entry) and entry.event.sanitised and not any(e.event.sanitised for e in run)


def size(direction):
    def rule(past, entry, now, entries):
        sizes = [one.event.data.size for one in run_of_task(past, entry) if one.event.data]
        if not tells(entry) or entry.event.data is None or not sizes:
            return False
        small, large = sorted((sizes[-1], entry.event.data.size))
        is_larger = entry.event.data.size > sizes[-1]
        is_far = large >= LIMITS.size_ratio * small and large - small >= LIMITS.size_min_bytes
        return is_far and is_larger == (direction == "up")

    return rule


def storage_pressure(past, entry, now, entries):
    return kind_of(entry) == "storage.pressure"


RULES = {
    "clock-backwards": clock_backwards,
    "clock-ahead": clock_ahead,
    "step-gap": step_gap,
    "step-beyond-total": step_beyond_total,
    "stuck-active": stuck("active"),
    "stuck-restored": stuck("restored"),
    "repeated-failures": repeated("failed", LIMITS.failures_min),
    "repeated-restores": repeated("restored", LIMITS.restores_min),
    "delete-burst": delete_burst,
    "new-actor": new_actor,
    "secrets-replaced": secrets_replaced,
    "size-jump": size("up"),
    "size-drop": size("down"),
    "storage-pressure": storage_pressure,
}


def entries_of(told):
    story = Story()
    for one in told:
        fields = dict(one)
        story.wait(fields.pop("wait") - 1)
        number = fields.pop("checkpoints")
        if fields["kind"] == "task.deleted":
            fields["facts"] = {"checkpoints": number}
        story.say(fields.pop("kind"), fields.pop("checkpoint"), **fields)
    return story.entries


@given(st.lists(events, max_size=40), st.integers(-20, 60))
def test_the_fold_tells_what_the_page_defines(told, offset_s):
    entries = entries_of(told)
    last = moment(entries[-1]) if entries else datetime.fromisoformat("2026-01-02T03:00:00Z")
    now = last + timedelta(seconds=offset_s)
    detector = Detector(now, LIMITS)
    found = [one for entry in entries for one in detector.apply(entry)] + detector.finish()
    assert sorted((one.name, one.at.position) for one in found) == told_by_definition(entries, now)
    assert detector.forgotten == {}


@given(st.lists(events, max_size=40), st.integers(1, 3))
def test_little_memory_makes_no_false_alarm(told, most):
    """What a detector tells with little memory it tells with much; but for what was stuck then."""
    import msgspec

    entries = entries_of(told)
    now = (moment(entries[-1]) if entries else datetime.fromisoformat("2026-01-02T03:00:00Z")) + (
        timedelta(seconds=30)
    )
    small = Detector(now, msgspec.structs.replace(LIMITS, tracked_max=most))
    found = set()
    for entry in entries:
        for one in small.apply(entry):
            if one.name.startswith("stuck-"):
                assert seconds(datetime.fromisoformat(one.at.time), moment(entry)) > 20
            else:
                found.add((one.name, one.at.position))
    found |= {(one.name, one.at.position) for one in small.finish()}
    allowed = set(told_by_definition(entries, now))
    lost = {"step-beyond-total", "secrets-replaced", "repeated-failures", "repeated-restores"}
    lost |= {"delete-burst"}
    extra = found - allowed
    if not small.forgotten:
        assert found == allowed
    # A task that comes back is a new one to a small memory: what is told once a run may come again.
    assert {name for name, _ in extra} <= lost
