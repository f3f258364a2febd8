"""A mapping of arrays: what a restore would change is told bit for bit, and nothing else."""

from __future__ import annotations

import numpy
import pytest

from ckptlog import ArraysComponent, Capturer, CheckpointManager, Recovery
from ckptlog.errors import RecoveryFailedError

LONG = 1024 * 1024 // 8 + 3  # numbers of 8 bytes: more than is compared at once


def first():
    return {
        "numbers": numpy.arange(float(LONG)),
        "nothing": numpy.array([numpy.nan, -0.0, numpy.inf]),
        "fortran": numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
        "empty": numpy.zeros((0, 4)),
        "one": numpy.array(7),
        "text": numpy.array(["a", "bc"]),
        "day": numpy.array(["2026-01-01"], "datetime64[D]"),
        "view": numpy.arange(20)[::2],
    }


@pytest.fixture
def system(tmp_path):
    """The live arrays, the recovery, and a capture of `first`."""
    arrays = first()
    with CheckpointManager(tmp_path / "store") as manager:
        recovery = Recovery(Capturer(manager, "sys", [ArraysComponent("arrays", arrays)]))
        yield arrays, recovery, recovery.capturer.capture()


def planned(recovery, info):
    plan = recovery.recover(info.id, dry_run=True).plans["arrays"]
    return {one.path: (one.kind, one.bytes) for one in plan.changes}, plan


def test_nothing_changed(system):
    arrays, recovery, info = system
    changes, plan = planned(recovery, info)
    assert (changes, plan.summary) == ({}, "nothing to change")
    arrays["view"] = arrays["view"].copy()  # the same numbers, no longer a view
    assert planned(recovery, info)[0] == {}


def _last(arrays):
    arrays["numbers"][-1] = -1


def _zero(arrays):
    arrays["nothing"][1] = 0.0  # equals -0.0, and is another one


def _type(arrays):
    arrays["one"] = numpy.array(7, "<i4")


def _shape(arrays):
    arrays["view"] = arrays["view"].reshape(2, 5)


def _order(arrays):
    arrays["fortran"] = numpy.ascontiguousarray(arrays["fortran"])


def _foreign(arrays):
    arrays["text"] = ["a", "bc"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("numbers", _last),
        ("nothing", _zero),
        ("one", _type),
        ("view", _shape),
        ("fortran", _order),
    ],
)
def test_a_change_is_told_and_a_recovery_is_verified(system, name, change):
    arrays, recovery, info = system
    size = arrays[name].nbytes
    change(arrays)
    assert planned(recovery, info)[0] == {name: ("change", size if name != "one" else 8)}
    done = recovery.recover(info.id)
    assert (done.status, done.unverified) == ("completed", ())
    expected = first()
    for key, array in arrays.items():
        assert array.tobytes("A") == expected[key].tobytes("A")
    assert planned(recovery, info)[0] == {}


def test_what_comes_and_what_goes(system):
    arrays, recovery, info = system
    del arrays["day"]
    arrays["new"] = numpy.ones(2)
    changes, plan = planned(recovery, info)
    assert changes == {"day": ("add", 8), "new": ("remove", 0)}
    assert plan.summary == "1 to add, 1 to remove"


def test_what_is_no_array_is_a_change(system):
    arrays, recovery, info = system
    _foreign(arrays)
    assert planned(recovery, info)[0] == {"text": ("change", 16)}


def test_a_wrong_restore_is_found_and_undone(system, monkeypatch):
    """The check after a recovery fails where the arrays are not the captured ones."""
    arrays, recovery, info = system
    arrays["numbers"][:] = 5
    component = recovery.capturer.components["arrays"]
    restore, wrong = component.restore, [True]

    def restore_wrongly(payload):
        restore(payload)
        if wrong.pop() if wrong else False:
            arrays["numbers"][3] += 1

    monkeypatch.setattr(component, "restore", restore_wrongly)
    with pytest.raises(RecoveryFailedError, match="numbers"):
        recovery.recover(info.id)
    assert (arrays["numbers"] == 5).all()
