"""One suite over every ready component: what it captured is what it restores, exactly."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlog import CheckpointManager
from ckptlog.errors import CheckpointError, ForeignPayloadError
from ckptlog.model.component import STABILITIES, Plan, is_snapshot, traits_of
from tests.capture.parts import PARTS
from tests.capture.planted import System


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        yield manager


@pytest.fixture(params=PARTS, ids=lambda kind: kind.__name__)
def part(request, tmp_path):
    folder = tmp_path / "part"
    folder.mkdir()
    part = request.param(folder)
    yield part
    part.close()


def test_it_says_what_it_is(part):
    traits = traits_of(part.component)
    assert traits.name == part.name
    assert traits.kind != "value"
    assert traits.stability in STABILITIES


def test_what_was_captured_comes_back(part, manager):
    system = System(manager, part.component)
    seen, infos = [], []
    for number in range(4):
        part.change(number)
        seen.append(part.look())
        infos.append(system.capture())
        assert part.look() == seen[-1]  # a capture changes nothing
    for number in (0, 3, 1, 1, 2, 0):
        system.restore(infos[number])
        assert part.look() == seen[number]


def test_a_restored_state_is_captured_alike(part, manager):
    system = System(manager, part.component)
    part.change(1)
    first = system.capture()
    part.change(2)
    other = system.capture()
    assert other.components["part"].root != first.components["part"].root
    system.restore(first)
    assert system.capture().components["part"].root == first.components["part"].root


def test_restored_twice_is_restored_once(part, manager):
    system = System(manager, part.component)
    part.change(1)
    seen = part.look()
    info = system.capture()
    part.change(2)
    for _ in range(2):
        system.restore(info)
    assert part.look() == seen
    part.change(3)
    payload = system.payload(info)
    part.component.restore(payload)
    part.component.restore(payload)
    assert part.look() == seen


def test_another_object_takes_it_over(part, manager, tmp_path):
    system = System(manager, part.component)
    part.change(1)
    seen = part.look()
    info = system.capture()
    folder = tmp_path / "other"
    folder.mkdir()
    other = type(part)(folder)
    try:
        other.component.restore(system.payload(info))
        assert other.look() == seen
    finally:
        other.close()


def test_a_failing_capture_names_the_component(part, manager):
    system = System(manager, part.component)
    part.breaks()
    with pytest.raises(CheckpointError, match=part.name):
        system.capture()
    assert system.capturer.captures() == []


FOREIGN = [None, 7, "text", b"bytes", [], {}, {"form": "other-1"}, {"form": "queue-9"}, {"a": 1}]


@pytest.mark.parametrize("foreign", FOREIGN, ids=repr)
def test_foreign_payloads_are_refused(part, manager, foreign):
    if not part.refuses_foreign or (part.component.kind == "mapping" and type(foreign) is dict):
        return
    system = System(manager, part.component)
    part.change(1)
    seen = part.look()
    other = System(manager, _Stranger(foreign, system.component), "stranger")
    payload = other.payload(other.capture())
    assert part.component.validate(payload)
    with pytest.raises(ForeignPayloadError, match=part.name):
        part.component.restore(payload)
    assert part.look() == seen


class _Stranger:
    def __init__(self, value, component):
        self.name, self.value = component.name, value
        self.reads_parts = traits_of(component).reads_parts

    def capture(self):
        return self.value

    def restore(self, payload):
        raise AssertionError


def test_a_plan_changes_nothing(part, manager):
    if not hasattr(part.component, "plan"):
        return
    system = System(manager, part.component)
    part.change(1)
    info = system.capture()
    stored = system.capturer.stored(info)[part.name]
    assert part.component.plan(stored).changes == ()
    part.change(2)
    seen = part.look()
    plan = part.component.plan(stored)
    assert type(plan) is Plan
    assert plan.changes
    assert plan.summary
    assert part.look() == seen


def test_a_snapshot_is_of_its_moment(part, manager):
    """What is written after the barrier is what was there at the barrier."""
    if traits_of(part.component).stability == "live":
        return
    part.change(1)
    seen = part.look()

    class Late:
        name = part.name
        reads_parts = traits_of(part.component).reads_parts

        def capture(self):
            taken = part.component.capture()
            part.change(2)
            return taken

        restore = part.component.restore

    system = System(manager, Late())
    info = system.capture()
    assert part.look() != seen
    system.restore(info)
    assert part.look() == seen


def test_a_snapshot_that_is_never_written_can_be_closed(part):
    part.change(1)
    taken = part.component.capture()
    if is_snapshot(taken):
        taken.close()
        part.change(2)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.sampled_from(["change", "capture", "restore"]), max_size=14))
@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_any_order_of_acts(kind, acts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("acts")
    part = kind(folder)
    model, kept = part.look(), []
    try:
        with CheckpointManager(folder / "store") as manager:
            system = System(manager, part.component)
            for number, act in enumerate(acts):
                if act == "change":
                    part.change(number)
                    model = part.look()
                elif act == "capture":
                    kept.append((system.capture(), model))
                elif kept:
                    info, model = kept[number % len(kept)]
                    system.restore(info)
                assert part.look() == model
    finally:
        part.close()
